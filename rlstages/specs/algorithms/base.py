"""The base class of algorithm specs, and their lookup by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.metadata import entry_points
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rlstages.errors import InputError, require
from rlstages.specs.plain import FrozenDict, kinds_of, settle, settled
from rlstages.specs.serialization import serializable
from rlstages.specs.settings import check_setting, check_settings, per_stage

_S = TypeVar("_S", bound="AlgorithmSpec")
GROUP = "rlstages.algorithms"
CLONING, CRITIC_FIT, REFERENCE_KL, DEMONSTRATION_LOSS = "cloning", "critic fit", "reference KL", "demonstration loss"
"""Features that an algorithm may support."""


class AlgorithmSpec:
    """The base class of algorithm specs, which are frozen dataclasses of settings.

    Each field is a setting with a default. Its metadata describes it (`rlstages.specs.settings.about`). All algorithms
    have a discount factor `gamma`.

    Attributes:
        implementation: Live class as `"module:Class"`; see `rlstages.learners.algorithms.base`.
        supports: Supported features, of `"cloning"`, `"critic fit"`, `"reference KL"` and `"demonstration loss"`. A
            stage
            that asks for another feature is refused.
        kl_when_needed: Weight of the KL divergence from the reference policy after evidence that it is needed, in
            stages
            that do not set the weight.
    """

    if TYPE_CHECKING:
        # Only annotated, because a value here would become the default of the subclasses' field.
        @property
        def gamma(self) -> float: ...  # noqa: D102

    implementation: ClassVar[str]
    supports: ClassVar[frozenset[str]] = frozenset()
    kl_when_needed: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        serializable(cls)

    def __post_init__(self) -> None:
        """Refuse settings of the wrong type or out of range."""
        settle(self)
        check_settings(self.name, self)

    @property
    def name(self) -> str:
        """The name of the algorithm, for `Agent(NAME)`."""
        return type(self).__name__

    def steps_between_updates(self, n_envs: int) -> int:
        """Return the number of environment steps between two updates, over all environments."""
        return n_envs

    def check(self, where: str, n_envs: int) -> None:
        """Refuse settings that do not fit each other or the number of environments.

        Args:
            where: Beginning of the error message.
            n_envs: Number of environments.

        Raises:
            InputError: If the settings do not fit.
        """

    def with_settings(self: _S, where: str, settings: Mapping[str, Any]) -> _S:
        """Return a copy with a stage's settings.

        Raises:
            InputError: If there is no such setting, or its value is out of range.
        """
        refuse_foreign(where, type(self), settings)
        for name, value in settings.items():
            check_setting(where, type(self), name, value)
        return replace(self, **settings)  # type: ignore[type-var]

    def __str__(self) -> str:
        return self.name


def refuse_foreign(where: str, cls: type[AlgorithmSpec], settings: Mapping[str, Any]) -> None:
    """Refuse settings that an algorithm would silently ignore."""
    own = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    extra = [name for name in settings if name not in own]
    owners = [name for name, other in built_in().items() if all(e in _names(other) for e in extra)]
    owner = (
        f"belong to {owners[0]}, and the algorithm is {cls.__name__}"
        if owners
        else f"are no settings of {cls.__name__}"
    )
    require(
        not extra, f"{where}: {', '.join(extra)} {owner}; leave them out.", "setting-unknown", where, "".join(extra[:1])
    )


def algorithm_named(name: Any) -> type[AlgorithmSpec]:
    """Return the spec class of an algorithm, from this package or another installed one.

    Raises:
        InputError: If there is no algorithm of this name.
    """
    if isinstance(name, str) and name in built_in():
        return built_in()[name]
    for entry in entry_points(group=GROUP, name=name) if isinstance(name, str) else ():
        try:
            found = entry.load()
        except Exception as error:
            sentence = f"Agent: the algorithm {name!r} cannot be imported from {entry.value}: {error}."
            raise InputError(sentence, "import-failed", "Agent", name) from error
        derived = isinstance(found, type) and issubclass(found, AlgorithmSpec)
        sentence = f"Agent: the algorithm {name!r} at {entry.value} does not derive from AlgorithmSpec."
        require(derived, sentence, "kind-invalid", "Agent", name)
        return found  # type: ignore[no-any-return]
    sentence = f"Agent: algorithm is {name!r}; there are {' and '.join(map(repr, known_algorithms()))}."
    raise InputError(sentence, "name-unknown", "Agent", "algorithm", name)


def known_algorithms() -> list[str]:
    """Return the names of all algorithms: the built-in ones, then those of other installed packages."""
    return [*built_in(), *_added()]


def _added() -> Iterator[str]:
    """Yield the names of algorithms that installed packages add."""
    yield from dict.fromkeys(entry.name for entry in entry_points(group=GROUP) if entry.name not in built_in())


@functools.cache
def built_in() -> dict[str, type[AlgorithmSpec]]:
    """Return the algorithms of this package by name."""
    from rlstages.specs.algorithms.a2c import A2C
    from rlstages.specs.algorithms.ppo import PPO

    return {"PPO": PPO, "A2C": A2C}


def owner_of(name: str, *, stages: bool) -> type[AlgorithmSpec] | None:
    """Return an algorithm that has a setting of this name, or `None`.

    Args:
        name: Name of the setting.
        stages: Whether stages must be allowed to change the setting.
    """
    # The built-in ones first: to look up what packages add takes milliseconds.
    for cls in chain(built_in().values(), map(algorithm_named, _added())):
        if name in (per_stage(cls) if stages else _names(cls)):
            return cls
    return None


def split_settings(cls: type, given: Mapping[str, Any], *, stages: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the arguments of a spec into its own, and settings of an algorithm that were given by name.

    Args:
        cls: Dataclass of the spec.
        given: Arguments by name.
        stages: Whether stages must be allowed to change the settings.

    Returns:
        The spec's own arguments with unknown ones, and the settings, without those that are `None`.
    """
    own = {field.name for field in fields(cls)}
    short = [name for name in given if name not in own and owner_of(name, stages=stages) is not None]
    kept = {name: value for name, value in given.items() if name not in short}
    return kept, {name: given[name] for name in short if given[name] is not None}


def stage_settings(where: str, settings: Any) -> FrozenDict:
    """Return a stage's settings of the algorithm as frozen plain data.

    Raises:
        InputError: If no algorithm has such a setting, or a value is out of range.
    """
    sentence = f"{where}: settings is {settings!r}; give a dictionary, or name=value."
    require(isinstance(settings, Mapping), sentence, "setting-type", where, "settings", settings)
    found = {}
    for name, value in settings.items():
        cls = owner_of(name, stages=True)
        if cls is None:
            sentence = f"{where}: {name!r} is no setting of an algorithm that a stage may change."
            raise InputError(sentence, "setting-unknown", where, name)
        found[name] = settled(value, kinds_of(cls)[name])  # type: ignore[arg-type]
        check_setting(where, cls, name, found[name])
    return FrozenDict(found)


def _names(cls: type[AlgorithmSpec]) -> list[str]:
    return [field.name for field in fields(cls)]  # type: ignore[arg-type]
