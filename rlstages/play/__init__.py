"""Whoever acts without learning: policies, experts and chance; their episodes, recorded and scored."""
