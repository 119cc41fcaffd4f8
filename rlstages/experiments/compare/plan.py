"""The plan of a comparison: frozen data, which is passed to the processes of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlstages.errors import InputError, require, require_name, require_seed
from rlstages.experiments.compare.arms import ARMS, last_gate, last_variant, make_arms, staged
from rlstages.specs.criteria.criterion import Measure
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.serialization import serializable
from rlstages.specs.stages.sequence import refuse_undemonstrated
from rlstages.storage.record import plainly
from rlstages.storage.run_directory import slug
from rlstages.tracking import Extra, Track


@serializable
@dataclass(frozen=True)
class Plan:
    """The plan of a comparison.

    Attributes:
        curriculum: What the arms are made from.
        arms: Curricula by name; the others are compared with `staged`, or else with the first that is fine-tuned.
        seeds: Every arm is run with each.
        steps: Environment steps that every run may spend, or `None`: as many as `reference` needs, at most.
        episodes: Played for a final score; an eighth as many for a point of a curve.
        track: Mode of Weights & Biases.
        trust_pickle: Whether an expert's model zip may be loaded.
        track_also: What else it is sent.
        parameters: Parameters of the curriculum's function, as they were given, by arm, as plain data.
    """

    curriculum: Curriculum
    arms: Mapping[str, Curriculum]
    seeds: tuple[int, ...]
    steps: int | None = None
    episodes: int = 200
    track: Track = "none"
    trust_pickle: bool = False
    track_also: tuple[Extra, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the comparison."""
        return self.curriculum.name

    @property
    def reference(self) -> str:
        """The arm with which the others are compared, and which determines the budget."""
        if "staged" in self.arms:
            return "staged"
        return next(name for name, arm in self.arms.items() if arm.stages[-1].reinforces)

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The environments in which policies are scored: the last variant, then the held-out environments."""
        return (last_variant(self.curriculum).environment, *self.curriculum.held_out)

    @property
    def measure(self) -> Measure:
        """The measure of the comparison, that of the last gate: `"success"` or `"return"`."""
        return last_gate(self.curriculum).measure

    @property
    def threshold(self) -> float:
        """The threshold of the last gate."""
        return last_gate(self.curriculum).summary([])[1]

    @property
    def rollout_steps(self) -> int:
        """Number of environment steps between two updates."""
        return self.curriculum.agent.rollout_steps

    def require_comparable(self) -> None:
        """Refuse a plan that would compare nothing.

        Raises:
            InputError: If it has too few arms or seeds, or two that are the same.
        """
        advice = "give more names to --arms"
        if len(make_arms(self.curriculum)) < 2:
            advice = f"{self.name!r} has nothing to leave out, so add one with --arm 'name: parameter=value'"
        require(
            len(self.arms) >= 2, f"A comparison needs at least two arms; {advice}.", "comparison-invalid", name="arms"
        )
        sentence = "A seed is given twice, or none; give each once."
        require(len(set(self.seeds)) == len(self.seeds) > 0, sentence, "comparison-invalid", name="seeds")
        trained = any(arm.stages[-1].reinforces for arm in self.arms.values())
        sentence = "A comparison needs an arm that is fine-tuned; give more names to --arms."
        require(trained, sentence, "comparison-invalid", name="arms")
        slugs = [slug(name) for name in self.arms]
        sentence = f"Two arms would share a directory: {', '.join(self.arms)}."
        require(len(set(slugs)) == len(slugs), sentence, "comparison-invalid", name="arms")


def make_plan(
    curriculum: Curriculum,
    *,
    seeds: Sequence[int],
    arms: Sequence[str] | None = None,
    own_arms: Mapping[str, Curriculum] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    steps: int | None = None,
    episodes: int = 200,
    track: Track = "none",
    track_also: Sequence[Extra] = (),
    trust_pickle: bool = False,
) -> Plan:
    """Make the arms of a comparison.

    Args:
        curriculum: What is compared with what is left of it without its parts.
        seeds: Every arm is run with each.
        arms: Names of the arms, or `None` for all.
        own_arms: Curricula of the user's own, by the names of their arms.
        parameters: Those that each own arm was made with, by its name; those of `curriculum` by `"staged"`.
        steps: What every run may spend, or `None` for as many as the curriculum needs.
        episodes: Played for a final score.
        track: Mode of Weights & Biases.
        track_also: What else it is sent.
        trust_pickle: Whether an expert's model zip may be loaded.

    Raises:
        InputError: If an arm or a seed cannot be.
    """
    for seed in seeds:
        require_seed("A seed of the comparison", seed)
    # What the curriculum's own stages lack is no arm's doing.
    refuse_undemonstrated(curriculum.stages)
    made, given = make_arms(curriculum, arms), parameters or {}
    values = dict.fromkeys(made, given.get("staged", {}))
    for name, own in (own_arms or {}).items():
        require_name("An arm", name)
        sentence = f"There is an arm {name!r} already; rename it."
        require(name not in ARMS and name not in made, sentence, "name-taken", name="arm")
        arm = _own_arm(name, own)
        same = next((other for other, others in made.items() if others == arm), None)
        sentence = f"Arm {name!r} would be {same!r} again; give it other values, or leave it out."
        require(same is None, sentence, "comparison-invalid", f"arm {name!r}")
        made[name], values[name] = arm, given.get(name, {})
    noted = {arm: {name: plainly(value) for name, value in mapping.items()} for arm, mapping in values.items()}
    return Plan(curriculum, made, tuple(seeds), steps, episodes, track, trust_pickle, tuple(track_also), noted)


def _own_arm(name: str, curriculum: Curriculum) -> Curriculum:
    try:
        refuse_undemonstrated(curriculum.stages)
        return staged(curriculum)
    except InputError as error:
        raise error.retold(f"Arm {name!r}: {error}", where=f"arm {name!r}") from None
