"""A curriculum: one agent and its stages. Loading by name or file, JSON, digest, prose."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, cast

from rlstages.errors import InputError, in_short, nearest, reason_of, require, require_name, require_number
from rlstages.specs.agent import Agent, Environment
from rlstages.specs.plain import items_of, plain
from rlstages.specs.references import load_file, resolve
from rlstages.specs.serialization import digest, from_data, loads, serializable, to_data
from rlstages.specs.stages.fine_tuning import (
    BehaviorCloning,
    FineTuning,
    Stage,
    refuse_rehearsal,
    refuse_return,
    refuse_unfit,
)
from rlstages.specs.unknown import refusing_unknown

ENTRY_POINTS = "rlstages.curricula"


@serializable
@refusing_unknown()
@dataclass(frozen=True)
class Curriculum:
    """What a run does: one agent through an ordered list of stages.

    Args:
        name: Of the curriculum; runs are named after it.
        agent: The one learner that goes through all stages.
        stages: In order.
        held_out: Environments that are never trained in: policies are scored there, and no gate looks at it.
        retention_share: At the end of each stage the policy plays in the environments of all stages and in those held
            out. This takes at most this share of the run's steps so far, and 10,000 steps in short runs; the last
            policy is scored everywhere once all the same (docs/keeping.md). 0 is off.
    """

    name: str
    _: KW_ONLY
    agent: Agent
    stages: tuple[Stage, ...]
    held_out: tuple[Environment, ...] = ()
    retention_share: float = 0.05

    def __init__(
        self,
        name: str,
        *,
        agent: Agent,
        stages: Sequence[Stage],
        held_out: Sequence[Environment] = (),
        retention_share: float = 0.05,
    ) -> None:
        name, retention_share = plain(name), plain(retention_share)
        stages, held_out = items_of(stages), items_of(held_out)
        require_name("Curriculum", name)
        where = f"curriculum {name!r}"
        require(isinstance(agent, Agent), f"{where}: agent is {in_short(agent)}; give an Agent(...).")
        require(isinstance(stages, tuple) and len(stages) > 0, f"{where}: give a list of at least one stage.")
        for number, stage in enumerate(stages, 1):
            known = isinstance(stage, (BehaviorCloning, FineTuning))
            what = f"number {number} in stages is {in_short(stage)}"
            require(known, f"{where}: {what}; each is one BehaviorCloning(...) or FineTuning(...), in one flat list.")
        for before, stage in zip((None, *stages), stages, strict=False):
            refuse_unfit(stage, before, agent)
            refuse_return(stage, before)
        for index in range(len(stages)):
            refuse_rehearsal(stages, index, agent.n_envs)
        names = [stage.name for stage in stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"{where}: two stages are named {', '.join(map(repr, twice))}; give each a name of its own.")
        several = isinstance(held_out, tuple)
        require(several, f"{where}: held_out is {in_short(held_out)}; give a list of environments, be it of one.")
        for environment in held_out:
            what = f"held_out has {in_short(environment)} in it"
            require(isinstance(environment, Environment), f"{where}: {what}; it takes Environment(...) only.")
        require_number(where, "retention_share", retention_share, least=0.0, most=1.0)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "agent", agent)
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "held_out", held_out)
        object.__setattr__(self, "retention_share", float(retention_share))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return digest(self)

    def to_json(self) -> str:
        """Return the curriculum as JSON; `from_json` gives an equal one."""
        return json.dumps(to_data(self), indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Curriculum:
        """Read a curriculum that `to_json` wrote.

        Raises:
            InputError: If the text is not such a curriculum.
        """
        try:
            found = from_data(loads(text))
        except InputError as error:
            raise InputError(f"The curriculum cannot be read: {error}") from error
        require(isinstance(found, Curriculum), "The JSON does not hold a curriculum.")
        return cast(Curriculum, found)

    def __str__(self) -> str:
        agent = self.agent
        layers = "x".join(map(str, agent.network)) or "no hidden layers"
        lines = [f"{self.name}: {agent.algorithm} with {agent.policy} ({layers}), {agent.n_envs} copies"]
        lines += [f"  {number}. {stage.name}: {stage}" for number, stage in enumerate(self.stages, 1)]
        lines += [f"  held out: {environment}" for environment in self.held_out]
        return "\n".join(lines)


Factory = Callable[..., Curriculum]


def named_curricula() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the curricula that installed packages offer, by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def load_factory(source: str) -> Factory:
    """Return the function `curriculum` of a file, or the one with a name.

    Args:
        source: Path of a Python file, or the name of an installed curriculum.

    Raises:
        InputError: If there is no such file or name, or the file does not define `curriculum`.
    """
    path = Path(source)
    if path.suffix == ".py":
        require(path.is_file(), f"There is no curriculum file {source!r}.")
        module = _guarded(path, lambda: load_file(path))
        factory = getattr(module, "curriculum", None)
        require(
            callable(factory), f"{path.name} defines no function 'curriculum'; define one that returns a Curriculum."
        )
        return cast(Factory, factory)
    known = named_curricula()
    names = ", ".join(known)
    require(source in known, f"There is no curriculum {source!r}; known are {names}.{nearest(source, known)}")
    return cast(Factory, resolve(known[source].value))


def load_curriculum(source: str, parameters: Mapping[str, Any] | None = None) -> Curriculum:
    """Load a curriculum by file or name.

    Args:
        source: Path of a Python file, or the name of an installed curriculum.
        parameters: Values for the parameters of its function; text is read according to the annotations.

    Raises:
        InputError: If the file, a parameter or the curriculum itself is wrong.
    """
    return load_with_parameters(source, parameters)[0]


def load_with_parameters(source: str, parameters: Mapping[str, str] | None = None) -> tuple[Curriculum, dict[str, Any]]:
    """Load a curriculum as `load_curriculum` does, and return the given parameters as its function got them.

    Raises:
        InputError: If the file, a parameter or the curriculum itself is wrong.
    """
    factory = load_factory(source)
    arguments = _read_parameters(source, factory, parameters or {})
    curriculum = _guarded(Path(source), lambda: factory(**arguments))
    is_one = isinstance(curriculum, Curriculum)
    require(is_one, f"{source}: the function 'curriculum' returned {type(curriculum).__name__}, not a Curriculum.")
    return cast(Curriculum, curriculum), arguments


def parameters_of(factory: Factory) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a curriculum's function, with their annotations resolved where they can be."""
    try:
        found = inspect.signature(factory, eval_str=True)
    except Exception:
        # An annotation that only a type checker can resolve.
        found = inspect.signature(factory)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in found.parameters.items() if parameter.kind not in variadic}


def _read_parameters(source: str, factory: Factory, given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = parameters_of(factory)
    for name in given:
        takes = ", ".join(parameters) or "none"
        hint = nearest(name, parameters)
        require(name in parameters, f"{source}: there is no parameter {name!r}; it takes {takes}.{hint}")
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in given]
    require(not missing, f"{source}: give a value for {', '.join(missing)}, for example -p {''.join(missing[:1])}=...")
    return {name: _read_parameter(f"{source}: {name}", value, parameters[name]) for name, value in given.items()}


def _read_parameter(where: str, value: Any, parameter: inspect.Parameter) -> Any:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    kind = str if parameter.annotation is inspect.Parameter.empty else parameter.annotation
    wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    try:
        adapter: Any = TypeAdapter(kind)
        return adapter.validate_strings(value) if isinstance(value, str) else adapter.validate_python(plain(value))
    except ValidationError:
        raise InputError(f"{where} is {value!r}, which is not of the type {wanted}.") from None
    except PydanticUserError:
        raise InputError(f"{where} is of the type {wanted}, which cannot be given as text.") from None


def _guarded(path: Path, run: Callable[[], Any]) -> Any:
    """Run a user's code; what goes wrong in it becomes one sentence with file and line."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(sys.exc_info()[2])
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        where = f"{path.name}, line {lines[-1]}" if lines else str(path)
        if isinstance(error, SyntaxError):
            file = Path(error.filename).name if error.filename else path.name
            line = f", line {error.lineno}" if error.lineno else ""
            raise InputError(f"{file}{line}: {error.msg}.") from None
        if isinstance(error, InputError):
            raise InputError(f"{where}: {error}" if lines else str(error)) from None
        raise InputError(f"{where}: {reason_of(error)}") from error
