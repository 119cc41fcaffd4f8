"""The stage that clones demonstrations, and how it is checked before step 0."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from rlstages.demonstrations.episodes import Demonstrations, load_demonstrations
from rlstages.demonstrations.fitting import doubtful, place_demonstrations
from rlstages.errors import require
from rlstages.events import DemonstrationsReady, Judged, Warned
from rlstages.learners.exploration import exploration_event, measure_exploration
from rlstages.learners.normalizer import normalizer_of
from rlstages.play.doubts import (
    ABLE,
    doubts_about_clone,
    doubts_about_convergence,
    doubts_about_expert,
    doubts_about_reward,
)
from rlstages.play.examiner import Examiner
from rlstages.play.experts import remedy_for, showing, unused_statistics
from rlstages.play.recording import record
from rlstages.play.smoke_check import try_expert
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Episode, Score, score
from rlstages.specs.serialization import from_data, to_data
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.stages.cloning_data import CloningData
from rlstages.stages.cloning_epochs import NO_EPOCHS, CloningEpochs
from rlstages.stages.context import StageContext
from rlstages.stages.runner import CheckResult, Ending, Result, Setting
from rlstages.storage.checkpoints import sha256

INSTALL_IMITATION = "pip install --no-deps imitation==1.0.1"


class CloningRunner:
    """Runs a `BehaviorCloning` stage: demonstrations, score before, epochs, score after.

    Args:
        context: What to do, with whose policy.
    """

    def __init__(self, context: StageContext) -> None:
        self.stage = stage = cast(BehaviorCloning, context.spec)
        self.learner, self.emit = context.learner, context.emit
        self.stage_steps = 0
        self.result: Result | None = None
        self._context = context
        self._file = context.file("demonstrations", ".safetensors")
        self._examiner = Examiner(stage.environment, context.number, context.learner, context.seed, context.emit)
        self._phase = "demonstrations"
        self._before: Score | None = None
        self._epochs: CloningEpochs | None = None
        self._digest: str | None = None

    @classmethod
    def check(cls, stage: BehaviorCloning, setting: Setting) -> CheckResult:
        """Check what a stage clones: what its file holds, or what its expert plays for a while.

        Raises:
            InputError: If it cannot be cloned.
        """
        sentence = f"Cloning needs the package imitation, which is not installed: {INSTALL_IMITATION}"
        require(importlib.util.find_spec("imitation") is not None, sentence, "unavailable", name="imitation")
        if stage.demonstrations is not None:
            shown = load_demonstrations(Path(stage.demonstrations)).filtered(stage.best, stage.min_return)
            place_demonstrations(stage.source, shown, setting.observation_space, setting.action_space)
        else:
            assert stage.expert is not None
            show = showing(stage.expert, trust_pickle=setting.trust_pickle)
            shown = try_expert(stage.environment, stage.expert, show)
        tried, gate = setting.tried.episodes, setting.gate
        doubts = doubts_about_expert(
            stage.shower, stage.environment, shown.episodes, tried, gate, remedy_for(stage.expert)
        )
        played = [Episode(0, i, e.total_reward, len(e), e.success) for i, e in enumerate(shown.episodes)]
        if not doubts and sum(bool(e.success) for e in played) < max(1.0, ABLE * len(played)):
            doubts += unused_statistics(stage.expert)
        return CheckResult([*doubts, *doubts_about_reward(stage.environment, [*tried, *played])], shown)

    def step(self) -> None:
        """Gather the demonstrations, score the policy, train for one epoch, or judge the clone."""
        work: dict[str, Callable[[], None]] = {
            "demonstrations": self._gather,
            "before": self._score_before,
            "epochs": self._train_epoch,
            "after": self._judge,
        }
        work[self._phase]()

    def state_dict(self) -> dict[str, Any]:
        """Return the phase, the counters, the best weights and the optimiser."""
        return {
            "phase": self._phase,
            "demonstrations": self._digest,
            "before": to_data(self._before),
            **(NO_EPOCHS if self._epochs is None else self._epochs.state_dict()),
            "examiner": self._examiner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the demonstrations are read from the run directory."""
        self._phase = state["phase"]
        self._before = cast("Score | None", from_data(state["before"]))
        self._digest = state["demonstrations"]
        if self._phase != "demonstrations":
            whole = self._file.is_file() and sha256(self._file.read_bytes()) == self._digest
            sentence = f"{self._file} is not the file that the run wrote; train again, with another --out."
            require(whole, sentence, "file-damaged", self._file)
            self._epochs = self._prepare(load_demonstrations(self._file))
            self._epochs.load_state_dict(state)
        self._examiner.load_state_dict(state["examiner"])

    def close(self) -> None:
        """Close the environments of the evaluation."""
        self._examiner.close()

    def _gather(self) -> None:
        stage, context, policy = self.stage, self._context, self.learner.policy
        if stage.expert is not None:
            source = stage.expert.name
            show = showing(stage.expert, trust_pickle=context.trust_pickle)
            shown = record(stage.environment, stage.expert, show, context.seed, context.number)
        else:
            source = Path(str(stage.demonstrations)).name
            shown = load_demonstrations(Path(str(stage.demonstrations)))
        kept = shown.filtered(stage.best, stage.min_return)
        self._epochs = epochs = self._prepare(kept)
        self._digest = kept.save(self._file)
        place = f"{self._file.parent.name}/{self._file.name}"
        held_out = epochs.data.held_out_episodes
        self.emit(DemonstrationsReady(source, place, self._digest, kept.score(), held_out, shown.steps))
        doubts = [
            f"{source}: {sentence}" for sentence in doubtful(kept, policy.observation_space, self.learner.action_space)
        ]
        doubts += doubts_about_expert(
            stage.shower, stage.environment, kept.episodes, gate=stage.until, remedy=remedy_for(stage.expert)
        )
        for sentence in doubts:
            self.emit(Warned(sentence))
        normalizer = normalizer_of(policy)
        if normalizer is not None:
            normalizer.absorb(epochs.data.learned[0])
            constants = normalizer.constants()
            if constants is not None:
                self.emit(Warned(f"{source}: {constants}"))
        self._phase = "before"

    def _score_before(self) -> None:
        self._before = self._examiner.score("before", self._examiner.play(self.stage.evaluation_episodes))
        self._phase = "epochs"

    def _train_epoch(self) -> None:
        assert self._epochs is not None
        self.emit(self._epochs.train())
        if self._epochs.over:
            self._epochs.restore_best()
            # Over the demonstrations' states; fine-tuning measures those that the policy comes to itself.
            self.emit(exploration_event(measure_exploration(self.learner.policy, self._epochs.data.sample[0]), 0))
            self.learner.hand_over()
            self._examiner.begin_attempt()
            self._phase = "after"

    def _judge(self) -> None:
        criterion = self.stage.until
        if criterion is None:
            after = self._examiner.score("after", self._examiner.play(self.stage.evaluation_episodes))
            self._finish("completed", "Cloned; no threshold was asked for.", after, None)
            return
        verdict = self._examiner.judge(criterion)
        self.emit(Judged(1, 0, verdict))
        if verdict.met or verdict.futile:
            outcome: Ending = "reached" if verdict.met else "missed"
            self._finish(outcome, f"The clone: {verdict.reason}.", score(self._examiner.episodes), verdict)

    def _finish(self, outcome: Ending, reason: str, after: Score | None, verdict: Verdict | None) -> None:
        assert self._epochs is not None
        losses = self._epochs.losses if self._epochs.exhausted else []
        if after is not None:
            scored = self._epochs.data.score
            doubts = doubts_about_clone(self._before, after, scored, losses)
            for sentence in doubts or doubts_about_convergence(after, scored, losses):
                self.emit(Warned(sentence))
        self.result = Result(outcome, reason, self._before, after, verdict, self._digest)

    def _prepare(self, kept: Demonstrations) -> CloningEpochs:
        stage, learner, seed = self.stage, self.learner, self._context.seed
        data = CloningData(kept, stage, learner, seed + self._context.number)
        return CloningEpochs(stage, learner, data, seed)
