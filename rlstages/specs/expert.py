"""Experts, as frozen data."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rlstages.errors import require, require_choice, require_int
from rlstages.specs.plain import plain, whole
from rlstages.specs.references import reference
from rlstages.specs.serialization import serializable
from rlstages.specs.unknown import refusing_unknown


@serializable
@refusing_unknown()
@dataclass(frozen=True, init=False)
class Expert:
    """An expert that demonstrates the task, and the number of its episodes.

    Args:
        source: Function `expert(env) -> act(obs)`, given itself or as `"module:name"`, which is called for every
            episode
            after its reset; or a run directory, whose final policy is the expert; or the zip file of a trained
            stable-baselines3 model.
        episodes: Number of episodes to record.
        algorithm: Class that saved the zip file, such as `"PPO"`. Only for zip files.
        normalize: File of the `VecNormalize` behind which the model was trained, because the model needs its
            observation statistics. Only for zip files.
    """

    source: str
    kind: Literal["function", "run", "model"] = "function"
    episodes: int = 100
    algorithm: str = "PPO"
    normalize: str | None = None

    def __init__(
        self,
        source: str | os.PathLike[str] | Callable[..., Any],
        *,
        episodes: int = 100,
        algorithm: str = "PPO",
        normalize: str | os.PathLike[str] | None = None,
        kind: str | None = None,
    ) -> None:
        if isinstance(source, os.PathLike):
            source = os.fspath(source)
        if not isinstance(source, str):
            source = reference("Expert", source)
        sentence = "Expert: the source is empty; give a function, a run directory or a model zip."
        require(bool(source.strip()), sentence, "setting-missing", "Expert", "source")
        episodes, algorithm = whole(episodes), plain(algorithm)
        if kind is None:
            is_name = ":" in source and "/" not in source and "\\" not in source
            kind = "model" if source.endswith(".zip") else "function" if is_name else "run"
        require_choice("Expert", "kind", kind, ["function", "run", "model"])
        if kind == "function":
            reference("Expert", source)
        named = isinstance(algorithm, str) and algorithm.isidentifier()
        sentence = f"Expert({source!r}): algorithm is {algorithm!r}; give the name of a class such as 'PPO'."
        require(named, sentence, "name-invalid", f"Expert({source!r})", "algorithm")
        require_int(f"Expert({source!r})", "episodes", episodes)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "episodes", episodes)
        object.__setattr__(self, "algorithm", algorithm)
        if normalize is not None:
            sentence = f"Expert({source!r}): normalize is for the zip file of a model only; leave it out."
            require(kind == "model", sentence, "setting-conflict", f"Expert({source!r})", "normalize")
            path = os.fspath(normalize) if isinstance(normalize, os.PathLike) else normalize
            given = isinstance(path, str) and bool(path.strip())
            sentence = f"Expert({source!r}): normalize is {normalize!r}; give the path of a VecNormalize file."
            require(given, sentence, "setting-type", f"Expert({source!r})", "normalize", normalize)
            normalize = path
        object.__setattr__(self, "normalize", normalize)

    @property
    def name(self) -> str:
        """A short name of the expert."""
        return self.source.rsplit(":", 1)[-1] if self.kind == "function" else self.source

    def __str__(self) -> str:
        return f"{self.episodes} episodes of {self.name}"
