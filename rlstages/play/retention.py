"""Retention: after a stage, the policy is scored in every environment of the curriculum.

The training does not depend on it: it has environments and random generators of its own. Its cost is limited in
environment steps instead of seconds, so that a run reports the same scores on every machine and after every kill. The
seconds are reported too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.events import BaselinesMeasured, Emit, Retained, RetentionMeasured, Warned
from rlstages.learners.learner import Learner
from rlstages.play.chance_and_expert import expert_of, measure_baselines
from rlstages.play.play import play_wave
from rlstages.reproducibility import random_state_kept
from rlstages.specs.criteria.baselines import Baselines, normalized, value_of
from rlstages.specs.criteria.episodes import Episode, Score, episodes_of, rows_of, score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.serialization import from_data, to_data
from rlstages.specs.variants import Variant, is_scored_next, variants_of

WAVE, MOST_EPISODES = 8, 48
FREE_STEPS = 10_000
"""Steps that a run may take if its share is smaller, because clones are scored before any training step.

The limit is also at most the share of all steps that the stages may take, in proportion to the stages that have ended.
The first waves of the final policy are played in any case, because the run is made for this policy.
"""


class Retention:
    """Scores the policy after a stage, piece by piece; see `step`.

    Args:
        curriculum: Curriculum, with the environments and the share of the run's steps for retention.
        learner: Learner that owns the policy, which is not changed.
        run_seed: Seed of the run.
        emit: Function that takes events.
        trust_pickle: Whether an expert's model zip may be loaded.

    Attributes:
        steps: Environment steps of all scoring so far, including those of environments that waited for others.
        seconds: Seconds of all scoring so far.
    """

    def __init__(
        self, curriculum: Curriculum, learner: Learner, run_seed: int, emit: Emit, trust_pickle: bool = False
    ) -> None:
        self.steps, self.seconds = 0, 0.0
        self._curriculum, self._learner, self._run_seed, self._emit = curriculum, learner, run_seed, emit
        self._trust_pickle = trust_pickle
        self._variants = variants_of(curriculum)
        planned = sum(stage.step_limit or 0 for stage in curriculum.stages)
        self._free = min(FREE_STEPS, curriculum.retention_share * planned)
        self._baselines: list[Baselines | None] = [None] * len(self._variants)
        self._wave_steps = [0 for _ in self._variants]
        self._stage: int | None = None
        self._own: Score | None = None
        self._played: list[list[Episode]] = []
        self._copies: dict[Variant, VecEnv] = {}

    @property
    def is_due(self) -> bool:
        """Whether a policy is being scored."""
        return self._stage is not None

    def begin(self, stage: int, own: Score | None) -> None:
        """Begin to score the current policy.

        Args:
            stage: Index of the stage that has ended.
            own: Score of the policy in that stage's environment, if it is known.
        """
        if self._curriculum.retention_share > 0.0:
            self._stage, self._own = stage, own
            self._played = [[] for _ in self._variants]
            for variant in filter(self._is_own, self._variants):
                assert own is not None
                self._wave_steps[variant.index] = WAVE * own.steps // own.episodes

    def step(self) -> None:
        """Play one wave of episodes, or measure the baselines in one environment, or emit the scores."""
        started = time.perf_counter()
        with random_state_kept():
            done = not self._work()
        self.seconds += time.perf_counter() - started
        if done:
            self._tell()

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes so far, without the seconds."""
        return {
            "steps": self.steps,
            "baselines": [to_data(one, nan_as_null=True) for one in self._baselines],
            "wave_steps": self._wave_steps,
            "stage": self._stage,
            "own": to_data(self._own, nan_as_null=True),
            "played": [rows_of(played) for played in self._played],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps, self._stage = state["steps"], state["stage"]
        self._wave_steps = list(state["wave_steps"])
        self._baselines = [cast("Baselines | None", from_data(one)) for one in state["baselines"]]
        self._own = cast("Score | None", from_data(state["own"]))
        self._played = [episodes_of(played) for played in state["played"]]

    def close(self) -> None:
        """Close the copies."""
        for env in self._copies.values():
            env.close()
        self._copies.clear()

    def _work(self) -> bool:
        """Do the next piece of work for which there are steps; return whether there was one."""
        assert self._stage is not None
        share = self._curriculum.retention_share * self._learner.global_step
        free = self._free * (self._stage + 1) / len(self._curriculum.stages)
        elsewhere = [variant for variant in self._variants if not self._is_scored(variant)]
        unplayed = [variant for variant in elsewhere if not self._played[variant.index]]
        if unplayed and (self._is_last or self.steps < max(share, free)):
            # Play first waves everywhere before further waves anywhere.
            self._play(min(unplayed, key=lambda variant: self._wave_steps[variant.index] > 0))
            return True
        left = share - self.steps - self._reserve()
        lacking = [variant for variant in self._variants if self._baselines[variant.index] is None]
        expected = [2 * self._wave_steps[variant.index] for variant in lacking]
        # A table is normalised as a whole or not at all, so baselines of only some environments would be useless.
        if lacking and min(expected) > 0 and sum(expected) <= left:
            self._measure(lacking[0])
            return True
        fewest = min(elsewhere, key=lambda variant: len(self._played[variant.index]), default=None)
        if fewest is None or left <= 0 or len(self._played[fewest.index]) >= MOST_EPISODES:
            return False
        self._play(fewest)
        return True

    @property
    def _is_last(self) -> bool:
        return self._stage == len(self._curriculum.stages) - 1

    def _reserve(self) -> int:
        """Return the number of steps to reserve for the final policy's first waves, estimated from earlier waves."""
        known = max(self._wave_steps)
        return 0 if self._is_last else sum(steps or known for steps in self._wave_steps)

    def _is_scored(self, variant: Variant) -> bool:
        """Return whether the policy need not play in a variant, because the last or the next stage scores it there."""
        assert self._stage is not None
        return self._is_own(variant) or is_scored_next(self._curriculum, self._stage, variant.environment)

    def _is_own(self, variant: Variant) -> bool:
        assert self._stage is not None
        return self._own is not None and variant.environment == self._curriculum.stages[self._stage].environment

    def _measure(self, variant: Variant) -> None:
        expert = expert_of(self._curriculum.stages)
        found = measure_baselines(variant.environment, expert, WAVE, variant.index, self._trust_pickle)
        self._baselines[variant.index] = found
        self.steps += found.random.steps + (found.expert.steps if found.expert else 0)
        self._emit(BaselinesMeasured(variant.name, found))

    def _play(self, variant: Variant) -> None:
        if variant not in self._copies:
            copies = min(WAVE, self._learner.agent.n_envs)
            self._copies[variant] = make_vec_env(
                variant.environment,
                copies,
                self._run_seed,
                variant.index,
                Purpose.EVALUATION,
                warn=lambda sentence: self._emit(Warned(sentence)),
            )
        env, played = self._copies[variant], self._played[variant.index]
        seed = episode_seed(self._run_seed, variant.index, Purpose.EVALUATION, 0, len(played) // env.num_envs)
        wave = play_wave(self._learner.algorithm, env, seed, self._learner.agent.action_mode == "deterministic")
        played += wave
        self._wave_steps[variant.index] = env.num_envs * max(episode.length for episode in wave)
        self.steps += self._wave_steps[variant.index]

    def _tell(self) -> None:
        assert self._stage is not None
        cells = [self._cell(variant) for variant in self._variants]
        shown = [cell for cell, variant in zip(cells, self._variants, strict=True) if not variant.held_out]
        unseen = [cell for cell, variant in zip(cells, self._variants, strict=True) if variant.held_out]
        self._emit(RetentionMeasured(tuple(shown), tuple(unseen), self.steps, round(self.seconds, 3)))
        self._stage, self._own, self._played = None, None, []

    def _cell(self, variant: Variant) -> Retained:
        played, baselines = self._played[variant.index], self._baselines[variant.index]
        found = self._own if self._is_own(variant) else score(played) if played else None
        if found is None:
            return Retained(variant.name, variant.measure, None, None)
        measure = variant.measure if found.success is not None else "return"
        ends = baselines.ends(measure) if baselines is not None else None
        scaled = None if ends is None else normalized(value_of(found, measure), ends)
        return Retained(variant.name, measure, found, scaled)
