"""Acting without learning: policies, experts and random actions; recording and scoring their episodes."""
