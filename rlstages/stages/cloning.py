"""Behaviour cloning: `imitation` trains the learner's own policy in place, epoch by epoch."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages.demonstrations.episodes import Demonstrations, Observations, load_demonstrations, take
from rlstages.demonstrations.fitting import doubtful, place_demonstrations
from rlstages.errors import require
from rlstages.events import DemonstrationsReady, EpochFinished, Judged, Warned
from rlstages.learners.exploration import exploration_event, measure_exploration
from rlstages.learners.learner import Weights, arrays, tensors
from rlstages.learners.normalizer import normalizer_of
from rlstages.learners.optimizers import load_optimizer_state, optimizer_state
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
from rlstages.stages.context import StageContext
from rlstages.stages.runner import CheckResult, Ending, Result, Setting
from rlstages.storage.checkpoints import sha256

MEASURED_AT_ONCE = 4096
INSTALL_IMITATION = "pip install --no-deps imitation==1.0.1"


class CloningRunner:
    """Runs a `BehaviorCloning` stage: demonstrations, score before, epochs, score after.

    Args:
        context: What to do, with whose policy.
    """

    def __init__(self, context: StageContext) -> None:
        self.stage = stage = cast(BehaviorCloning, context.spec)
        self.index, self.learner, self.run_seed, self.emit = context.number, context.learner, context.seed, context.emit
        self.stage_steps = 0
        self.result: Result | None = None
        self._file, self._trust_pickle = context.file("demonstrations", ".safetensors"), context.trust_pickle
        self._examiner = Examiner(stage.environment, self.index, self.learner, self.run_seed, self.emit)
        self._phase = "demonstrations"
        self._before: Score | None = None
        self._epoch, self._stale = 0, 0
        self._losses: list[float] = []
        self._best: tuple[float, Weights] | None = None
        self._data: _Data | None = None
        self._bc: Any = None
        self._digest: str | None = None

    @classmethod
    def check(cls, stage: BehaviorCloning, setting: Setting) -> CheckResult:
        """Check what a stage clones: what its file holds, or what its expert plays for a while.

        Raises:
            InputError: If it cannot be cloned.
        """
        require(
            importlib.util.find_spec("imitation") is not None,
            f"Cloning needs the package imitation, which is not installed: {INSTALL_IMITATION}",
        )
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
            "epoch": self._epoch,
            "stale": self._stale,
            "losses": list(self._losses),
            "best": None if self._best is None else {"loss": self._best[0], "weights": arrays(self._best[1])},
            "optimizer": None if self._bc is None else optimizer_state(self._bc.optimizer),
            "examiner": self._examiner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the demonstrations are read from the run directory."""
        self._phase = state["phase"]
        self._before = cast("Score | None", from_data(state["before"]))
        self._epoch, self._stale, self._losses = state["epoch"], state["stale"], list(state["losses"])
        if state["best"] is not None:
            self._best = state["best"]["loss"], tensors(state["best"]["weights"])
        self._digest = state["demonstrations"]
        if self._phase != "demonstrations":
            whole = self._file.is_file() and sha256(self._file.read_bytes()) == self._digest
            require(whole, f"{self._file} is not the file that the run wrote; train again, with another --out.")
            self._data = self._prepare(load_demonstrations(self._file))
            self._bc = self._trainer(self._data)
        if state["optimizer"] is not None:
            load_optimizer_state(self._bc.optimizer, state["optimizer"])
        self._examiner.load_state_dict(state["examiner"])

    def close(self) -> None:
        """Close the environments of the evaluation."""
        self._examiner.close()

    def _gather(self) -> None:
        stage = self.stage
        if stage.expert is not None:
            source = stage.expert.name
            show = showing(stage.expert, trust_pickle=self._trust_pickle)
            shown = record(stage.environment, stage.expert, show, self.run_seed, self.index)
        else:
            source = Path(str(stage.demonstrations)).name
            shown = load_demonstrations(Path(str(stage.demonstrations)))
        kept = shown.filtered(stage.best, stage.min_return)
        self._data = self._prepare(kept)
        self._digest = kept.save(self._file)
        place = f"{self._file.parent.name}/{self._file.name}"
        held_out = self._data.held_out_episodes
        self.emit(DemonstrationsReady(source, place, self._digest, kept.score(), held_out, shown.steps))
        doubts = [
            f"{source}: {sentence}"
            for sentence in doubtful(kept, self.learner.policy.observation_space, self.learner.action_space)
        ]
        doubts += doubts_about_expert(
            stage.shower, stage.environment, kept.episodes, gate=stage.until, remedy=remedy_for(stage.expert)
        )
        for sentence in doubts:
            self.emit(Warned(sentence))
        normalizer = normalizer_of(self.learner.policy)
        if normalizer is not None:
            normalizer.absorb(self._data.learned[0])
            constants = normalizer.constants()
            if constants is not None:
                self.emit(Warned(f"{source}: {constants}"))
        self._bc = self._trainer(self._data)
        self._phase = "before"

    def _score_before(self) -> None:
        self._before = self._examiner.score("before", self._examiner.play(self.stage.evaluation_episodes))
        self._phase = "epochs"

    def _train_epoch(self) -> None:
        assert self._data is not None
        policy = self.learner.policy
        self._pass_over(self._data.batches)
        if hasattr(policy, "log_std"):
            with torch.no_grad():
                policy.log_std.clamp_(min=self.stage.min_log_std)
        self._epoch += 1
        metrics = {"loss": measure(policy, *self._data.sample)["loss"]}
        if len(self._data.held_out[1]):
            measured = measure(policy, *self._data.held_out)
            metrics |= {"held_out_loss": measured.pop("loss"), **measured}
        judged = metrics.get("held_out_loss", metrics["loss"])
        self._losses.append(judged)
        improved = self._best is None or judged < self._best[0]
        if improved:
            self._best, self._stale = (judged, self.learner.weights()), 0
        else:
            self._stale += 1
        self.emit(EpochFinished(self._epoch, metrics, improved))
        if self._epoch == self.stage.max_epochs or self._stale == self.stage.patience:
            self._keep_best()

    def _pass_over(self, batches: EpochBatches) -> None:
        """Learn from all batches of this epoch: by imitation, or by the algorithm, which may do the same faster."""
        batches.epoch = self._epoch
        shown, weights = (batches.observations, batches.actions), (self.stage.entropy_weight, self.stage.l2_weight)
        if self.learner.algorithm.clone(*shown, batches.rows, self._bc.optimizer, *weights):
            return
        self.learner.policy.set_training_mode(True)
        with warnings.catch_warnings(), _unchecked_distributions():
            # imitation logs the first batch whatever the interval, and turns tensors into numbers as torch dislikes.
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad", UserWarning)
            # It warns of every batch of dictionaries, and then does the right thing.
            warnings.filterwarnings("ignore", "trying to unwrap object of type", UserWarning)
            self._bc.train(n_epochs=1, progress_bar=False, log_interval=1_000_000_000)

    def _keep_best(self) -> None:
        assert self._best is not None and self._data is not None
        self.learner.load_policy(self._best[1])
        # Over the demonstrations' states; fine-tuning measures those that the policy comes to itself.
        self.emit(exploration_event(measure_exploration(self.learner.policy, self._data.sample[0]), 0))
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
        assert self._data is not None
        losses = self._losses if self._epoch == self.stage.max_epochs else []
        if after is not None:
            scored = self._data.score
            doubts = doubts_about_clone(self._before, after, scored, losses)
            for sentence in doubts or doubts_about_convergence(after, scored, losses):
                self.emit(Warned(sentence))
        self.result = Result(outcome, reason, self._before, after, verdict, self._digest)

    def _prepare(self, kept: Demonstrations) -> _Data:
        learner = self.learner
        placed = place_demonstrations(self.stage.source, kept, learner.policy.observation_space, learner.action_space)
        if isinstance(learner.action_space, spaces.MultiBinary):
            # torch's Bernoulli distribution takes no whole numbers.
            placed = Demonstrations(
                tuple(replace(episode, actions=episode.actions.astype(np.float32)) for episode in placed.episodes)
            )
        return _Data(placed, self.stage, self.run_seed + self.index)

    def _trainer(self, data: _Data) -> Any:
        from imitation.algorithms import bc
        from imitation.util.logger import HierarchicalLogger

        policy, stage = self.learner.policy, self.stage
        trainer = bc.BC(
            observation_space=policy.observation_space,
            action_space=policy.action_space,
            rng=np.random.default_rng(self.run_seed),
            policy=policy,
            batch_size=data.batches.batch_size,
            optimizer_kwargs={"lr": stage.learning_rate},
            ent_weight=stage.entropy_weight,
            l2_weight=stage.l2_weight,
            device=policy.device,
            custom_logger=HierarchicalLogger(Logger(None, [])),
        )
        batches: Any = data.batches
        trainer.set_demonstrations(batches)
        return trainer


class EpochBatches:
    """Shuffled batches for `imitation`, in an order that depends on the seed and the epoch alone.

    Args:
        observations: All of them, first axis the transitions.
        actions: Likewise.
        batch_size: Of each batch; a remainder is left out of the epoch.
        seed: Of the order.
    """

    def __init__(self, observations: Observations, actions: np.ndarray, batch_size: int, seed: int) -> None:
        self.observations, self.actions, self.seed = observations, actions, seed
        self.batch_size = min(batch_size, len(actions))
        self.epoch = 0

    def rows(self) -> list[np.ndarray]:
        """Return the rows of each batch of this epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.actions))
        ends = range(self.batch_size, len(order) + 1, self.batch_size)
        return [order[end - self.batch_size : end] for end in ends]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from imitation.data.types import DictObs

        for rows in self.rows():
            seen = take(self.observations, rows)
            yield {"obs": DictObs(seen) if isinstance(seen, dict) else seen, "acts": self.actions[rows]}


class _Data:
    """Demonstrations as arrays: to learn from, to measure on."""

    def __init__(self, shown: Demonstrations, stage: BehaviorCloning, seed: int) -> None:
        self.score = shown.score()
        learned, held_out = shown.split(stage.held_out, seed)
        self.learned = learned.transitions()
        self.held_out_episodes = len(held_out)
        self.held_out: tuple[Observations, np.ndarray] = (
            held_out.transitions() if len(held_out) else (np.empty(0), np.empty(0))
        )
        self.batches = EpochBatches(*self.learned, stage.batch_size, seed)
        rows = np.random.default_rng(seed).permutation(len(self.learned[1]))[:MEASURED_AT_ONCE]
        self.sample = take(self.learned[0], rows), self.learned[1][rows]


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """Leave out torch's checks of each batch: all actions have been checked, and the loss is measured with them."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def measure(policy: ActorCriticPolicy, observations: Observations, actions: np.ndarray) -> dict[str, float]:
    """Return how well a policy predicts actions.

    Args:
        policy: Measured, not changed.
        observations: First axis the transitions.
        actions: Likewise, as `place_demonstrations` returns them.

    Returns:
        `loss`, the mean negative log likelihood in nats, and `accuracy` (share of actions that are the likeliest one)
        for discrete actions or `error` (root mean square, as a share of half the range) for continuous ones.
    """
    policy.set_training_mode(False)
    losses, hits = [], []
    for start in range(0, len(actions), MEASURED_AT_ONCE):
        rows = np.arange(start, min(start + MEASURED_AT_ONCE, len(actions)))
        seen, _ = policy.obs_to_tensor(take(observations, rows))
        done = torch.as_tensor(actions[rows], device=policy.device)
        with torch.no_grad():
            distribution = policy.get_distribution(seen)
            losses.append(-distribution.log_prob(done).cpu().numpy())
            off = (distribution.mode() - done).reshape(len(rows), -1).cpu().numpy()
        hits.append((off**2).mean(axis=1) if isinstance(policy.action_space, spaces.Box) else (off == 0).all(axis=1))
    loss, hit = float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
    if isinstance(policy.action_space, spaces.Box):
        return {"loss": loss, "error": hit**0.5}
    return {"loss": loss, "accuracy": hit}
