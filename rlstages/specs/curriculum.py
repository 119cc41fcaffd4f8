"""Curricula: one agent and its stages, as frozen data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import cast

from rlstages.errors import InputError, in_short, require, require_name, require_number, require_sound
from rlstages.specs.agent import Agent
from rlstages.specs.environment import Environment
from rlstages.specs.plain import items_of, plain
from rlstages.specs.serialization import digest, from_data, loads, serializable, to_data
from rlstages.specs.stages.base import StageSpec, require_stage
from rlstages.specs.unknown import refusing_unknown


@serializable
@refusing_unknown()
@dataclass(frozen=True)
class Curriculum:
    """A curriculum: one agent that goes through an ordered list of stages.

    Args:
        name: Name of the curriculum, after which runs are named.
        agent: Agent that goes through all stages.
        stages: Stages in order.
        held_out: Environments in which policies are scored but never trained. Gates do not use these scores.
        retention_share: Maximum cost of retention, as a share of the run's steps so far (10,000 steps in short
            runs). At
            the end of each stage the policy plays in the environments of all stages and in the held-out ones. The final
            policy is scored everywhere once in any case (docs/keeping.md). 0 switches retention off.
    """

    name: str
    _: KW_ONLY
    agent: Agent
    stages: tuple[StageSpec, ...]
    held_out: tuple[Environment, ...] = ()
    retention_share: float = 0.05

    def __init__(
        self,
        name: str,
        *,
        agent: Agent,
        stages: Sequence[StageSpec],
        held_out: Sequence[Environment] = (),
        retention_share: float = 0.05,
    ) -> None:
        name, retention_share = plain(name), plain(retention_share)
        stages, held_out = items_of(stages), items_of(held_out)
        require_name("Curriculum", name)
        where = f"curriculum {name!r}"
        sentence = f"{where}: agent is {in_short(agent)}; give an Agent(...)."
        require(isinstance(agent, Agent), sentence, "setting-type", where, "agent", agent)
        sentence = f"{where}: give a list of at least one stage."
        require(isinstance(stages, tuple) and len(stages) > 0, sentence, "setting-missing", where, "stages")
        for number, stage in enumerate(stages, 1):
            require_stage(where, number, stage)
        for index, stage in enumerate(stages):
            stage.check_place(stages[:index], agent)
        names = [stage.name for stage in stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        sentence = f"{where}: two stages are named {', '.join(map(repr, twice))}; give each a name of its own."
        require(not twice, sentence, "name-taken", where, "stages")
        several = isinstance(held_out, tuple)
        sentence = f"{where}: held_out is {in_short(held_out)}; give a list of environments, be it of one."
        require(several, sentence, "setting-type", where, "held_out", held_out)
        for environment in held_out:
            what = f"held_out has {in_short(environment)} in it"
            sentence = f"{where}: {what}; it takes Environment(...) only."
            require(isinstance(environment, Environment), sentence, "setting-type", where, "held_out", environment)
        require_number(where, "retention_share", retention_share, least=0.0, most=1.0)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "agent", agent)
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "held_out", held_out)
        object.__setattr__(self, "retention_share", float(retention_share))

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical JSON."""
        return digest(self)

    def to_json(self) -> str:
        """Return the curriculum as JSON, from which `from_json` makes an equal one."""
        return json.dumps(to_data(self), indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Curriculum:
        """Read a curriculum from the result of `to_json`.

        Raises:
            InputError: If the text is not the JSON of a curriculum.
        """
        try:
            found = from_data(loads(text))
        except InputError as error:
            raise error.retold(f"The curriculum cannot be read: {error}") from error
        require_sound(isinstance(found, Curriculum), "The JSON does not hold a curriculum.")
        return cast(Curriculum, found)

    def __str__(self) -> str:
        agent = self.agent
        layers = "x".join(map(str, agent.network)) or "no hidden layers"
        lines = [f"{self.name}: {agent.algorithm} with {agent.policy} ({layers}), {agent.n_envs} copies"]
        lines += [f"  {number}. {stage.name}: {stage}" for number, stage in enumerate(self.stages, 1)]
        lines += [f"  held out: {environment}" for environment in self.held_out]
        return "\n".join(lines)
