"""What a comparison is, and what its directory says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlstages.errors import InputError, require, require_name
from rlstages.experiments.compare.arms import ARMS, last_gate, last_variant, make_arms, staged
from rlstages.specs.criteria.criterion import Measure
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.loading import load_with_parameters
from rlstages.specs.serialization import loads
from rlstages.specs.stages.sequence import refuse_undemonstrated
from rlstages.storage.groups import COMPARISON, found, is_unused
from rlstages.storage.record import digest_from
from rlstages.storage.run_directory import slug
from rlstages.storage.untrusted import read_bytes
from rlstages.tracking import Extra
from rlstages.training.resuming import require_own_run

PLAN_VERSION = 1
PLAN_FILE = COMPARISON


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        curriculum: What the arms are made from.
        arms: Curricula by name; the others are compared with `staged`, or else with the first that is fine-tuned.
        seeds: Every arm is run with each.
        steps: Environment steps that every run may spend, or `None`: as many as `reference` needs, at most.
        episodes: Played for a final score; an eighth as many for a point of a curve.
        track: Where Weights & Biases runs.
        trust_pickle: Whether an expert's model zip may be loaded.
        track_also: What else it is sent.
        parameters: Of the curriculum's function, as they were given, by arm.
    """

    curriculum: Curriculum
    arms: Mapping[str, Curriculum]
    seeds: tuple[int, ...]
    steps: int | None = None
    episodes: int = 200
    track: str = "none"
    trust_pickle: bool = False
    track_also: Sequence[Extra] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the comparison."""
        return self.curriculum.name

    @property
    def reference(self) -> str:
        """The arm that the others are compared with, whose needs set the steps."""
        if "staged" in self.arms:
            return "staged"
        return next(name for name, arm in self.arms.items() if arm.stages[-1].reinforces)

    @property
    def environments(self) -> tuple[Environment, ...]:
        """Where policies are scored: the last variant, then the held-out environments."""
        return (last_variant(self.curriculum).environment, *self.curriculum.held_out)

    @property
    def measure(self) -> Measure:
        """What is compared, as what the last gate asks for: `"success"` or `"return"`."""
        return last_gate(self.curriculum).measure

    @property
    def threshold(self) -> float:
        """What the last gate asks for."""
        return last_gate(self.curriculum).summary([])[1]

    @property
    def rollout_steps(self) -> int:
        """Environment steps between two updates."""
        return self.curriculum.agent.rollout_steps

    def require_comparable(self) -> None:
        """Refuse a plan that would compare nothing.

        Raises:
            InputError: If it has too few arms or seeds, or two that are the same.
        """
        advice = "give more names to --arms"
        if len(make_arms(self.curriculum)) < 2:
            advice = f"{self.name!r} has nothing to leave out, so add one with --arm 'name: parameter=value'"
        require(len(self.arms) >= 2, f"A comparison needs at least two arms; {advice}.")
        require(len(set(self.seeds)) == len(self.seeds) > 0, "A seed is given twice, or none; give each once.")
        trained = any(arm.stages[-1].reinforces for arm in self.arms.values())
        require(trained, "A comparison needs an arm that is fine-tuned; give more names to --arms.")
        slugs = [slug(name) for name in self.arms]
        require(len(set(slugs)) == len(slugs), f"Two arms would share a directory: {', '.join(self.arms)}.")


def make_plan(
    source: str,
    parameters: Mapping[str, str],
    *,
    seeds: Sequence[int],
    arms: Sequence[str] | None = None,
    more: Sequence[str] = (),
    steps: int | None = None,
    episodes: int = 200,
    track: str = "none",
    track_also: Sequence[Extra] = (),
    trust_pickle: bool = False,
) -> Plan:
    """Load a curriculum and make its arms.

    Args:
        source: File or name of the curriculum.
        parameters: Of its function, as text.
        seeds: Every arm is run with each.
        arms: Names of the arms, or `None` for all.
        more: Arms of the user's own: `"name: parameter=value, parameter=value"`.
        steps: What every run may spend, or `None` for as many as the curriculum needs.
        episodes: Played for a final score.
        track: Where Weights & Biases runs.
        track_also: What else it is sent.
        trust_pickle: Whether an expert's model zip may be loaded.

    Raises:
        InputError: If the curriculum or an arm cannot be made.
    """
    curriculum, given = _load(source, parameters)
    made = make_arms(curriculum, arms)
    values = dict.fromkeys(made, given)
    for text in more:
        name, changed = read_arm(text)
        require(name not in ARMS and name not in made, f"--arm {text!r}: there is an arm {name!r} already; rename it.")
        own, values[name] = _own_arm(name, source, {**parameters, **changed})
        same = next((other for other, arm in made.items() if arm == own), None)
        require(same is None, f"--arm {text!r} would be {same!r} again; give it other values, or leave it out.")
        made[name] = own
    return Plan(curriculum, made, tuple(seeds), steps, episodes, track, trust_pickle, track_also, values)


def _own_arm(name: str, source: str, parameters: Mapping[str, str]) -> tuple[Curriculum, dict[str, Any]]:
    try:
        curriculum, given = _load(source, parameters)
        return staged(curriculum), given
    except InputError as error:
        raise InputError(f"Arm {name!r}: {error}", trace=error.trace) from None


def _load(source: str, parameters: Mapping[str, str]) -> tuple[Curriculum, dict[str, Any]]:
    """Load a curriculum and its parameters; what its own stages lack is no arm's doing."""
    curriculum, given = load_with_parameters(source, parameters)
    refuse_undemonstrated(curriculum.stages)
    return curriculum, given


def read_arm(text: str) -> tuple[str, dict[str, str]]:
    """Read the name and the parameters of `"name: parameter=value, parameter=value"`.

    Raises:
        InputError: If it is not of that form.
    """
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.replace(",", " ").split()]
    good = bool(colon) and bool(pairs) and all(equals and key for key, equals, _ in pairs)
    require(good, f"--arm {text!r} is not of the form 'name: parameter=value'.")
    require_name("--arm", name.strip())
    for key, count in Counter(key for key, _, _ in pairs).items():
        require(count == 1, f"--arm {text!r}: {key!r} is given a value twice; give it once.")
    return name.strip(), {key: value for key, _, value in pairs}


def run_path(directory: Path, arm: str, seed: int) -> Path:
    """Return the run directory of an arm and a seed."""
    return directory / f"{slug(arm)}-s{seed}"


def claim_comparison(directory: Path, plan: Plan) -> None:
    """Make the directory of a comparison, or go on with it; seeds and arms may come and go.

    Raises:
        InputError: If the directory holds something else, or cannot be written.
    """
    require_free(directory, plan)
    said = {"version": PLAN_VERSION, "name": plan.name, "episodes": plan.episodes}
    said["digest"] = digest_from(directory / "run", plan.curriculum)
    found(directory, PLAN_FILE, said, f"compare-{slug(plan.name)}")
    # Another process may have been quicker, with a comparison of its own.
    require_free(directory, plan)


def require_free(directory: Path, plan: Plan) -> None:
    """Refuse a directory that holds something else than this comparison; nothing is written.

    Raises:
        InputError: If it does, or cannot be read.
    """
    # In this order: what a comparison's runs write, they write after its file.
    unused = is_unused(directory, PLAN_FILE)
    if (directory / PLAN_FILE).exists():
        _require_same(directory, plan, loads(read_bytes(directory / PLAN_FILE)))
    else:
        require(unused, f"{directory} is there already and is no comparison; give another --out.")


def _require_same(directory: Path, plan: Plan, said: object) -> None:
    now = {"episodes": plan.episodes, "digest": digest_from(directory / "run", plan.curriculum)}
    for key, what in (("episodes", "number of episodes"), ("digest", "curriculum")):
        same = isinstance(said, dict) and said.get("version") == PLAN_VERSION and said.get(key) == now[key]
        require(same, f"{directory} holds a comparison with another {what}; give another --out, or delete it.")
    for arm, curriculum in plan.arms.items():
        for seed in plan.seeds:
            path = run_path(directory, arm, seed)
            if (path / "run.json").is_file():
                require_own_run(path, curriculum)
