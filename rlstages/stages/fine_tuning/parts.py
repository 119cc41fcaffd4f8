"""The parts of a fine-tuning stage, each with a state of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from rlstages.play.examiner import Examiner
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning.copies import TrainingEnvs
from rlstages.stages.fine_tuning.critic_fit import CriticFit
from rlstages.stages.fine_tuning.exploration_guard import ExplorationGuard
from rlstages.stages.fine_tuning.gate import Gate
from rlstages.stages.fine_tuning.handover_guard import HandoverGuard
from rlstages.stages.fine_tuning.look_back import LookBack, stage_to_look_back_at
from rlstages.stages.fine_tuning.recent import Recent
from rlstages.stages.fine_tuning.updates import Updates


@dataclass
class Parts:
    """The parts of a fine-tuning stage.

    Attributes:
        envs: Training environments.
        recent: Window of the latest episodes.
        gate: Gate that judges training episodes.
        examiner: Examiner that plays episodes that are not trained on.
        critic: Critic fit after a hand-over.
        updates: Updates of the policy from rollouts.
        guard: Guard of the hand-over.
        explorer: Guard of exploration.
        look_back: Look-backs at the stage before, if the run may go back to it.
    """

    envs: TrainingEnvs
    recent: Recent
    gate: Gate
    examiner: Examiner
    critic: CriticFit
    updates: Updates
    guard: HandoverGuard
    explorer: ExplorationGuard
    look_back: LookBack | None

    def stop_looking_back(self) -> None:
        """Make no more look-backs."""
        if self.look_back is not None:
            self.look_back.close()
            self.look_back = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts."""
        return {
            **self.recent.state_dict(),
            **self.updates.state_dict(),
            **self.critic.state_dict(),
            "explorer": self.explorer.state_dict(),
            "examiner": self.examiner.state_dict(),
            "gate": self.gate.state_dict(),
            "guard": self.guard.state_dict(),
            "look_back": None if self.look_back is None else self.look_back.state_dict(),
            "copies": self.envs.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for part in (self.recent, self.updates, self.critic):
            part.load_state_dict(state)
        self.explorer.load_state_dict(state["explorer"])
        self.examiner.load_state_dict(state["examiner"])
        self.gate.load_state_dict(state["gate"])
        self.guard.load_state_dict(state["guard"])
        if state["look_back"] is None:
            self.stop_looking_back()
        elif self.look_back is not None:
            self.look_back.load_state_dict(state["look_back"])
        self.envs.load_state_dict(state["copies"])

    def close(self) -> None:
        """Close all environments."""
        self.examiner.close()
        if self.look_back is not None:
            self.look_back.close()
        self.envs.close()


def make_parts(context: StageContext) -> Parts:
    """Make the parts of a new stage."""
    stage, learner, emit = cast(FineTuning, context.spec), context.learner, context.emit
    place = context.number, learner, context.seed, emit
    before = stage_to_look_back_at(context.stages, context.way)
    earlier = earlier_environments(context.before, stage.environment)
    shown = context.demonstrated() if stage.demonstrations_needed else None
    guard = HandoverGuard(stage, learner, emit)
    explorer = ExplorationGuard(stage, learner, emit, context.seed + context.number)
    return Parts(
        envs=TrainingEnvs(stage, earlier, learner, context.seed, context.number, emit),
        recent=Recent(stage, emit),
        gate=Gate(stage.until),
        examiner=Examiner(stage.environment, *place),
        critic=CriticFit(learner, learner.agent.settings(stage.settings)),
        updates=Updates(stage, learner, emit, guard, explorer, shown),
        guard=guard,
        explorer=explorer,
        look_back=None if before is None else LookBack(before, *place),
    )
