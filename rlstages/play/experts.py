"""Experts: functions, the policies of other runs, and trained stable-baselines3 models."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, cast

import gymnasium as gym

from rlstages.environments.guard import traceback_of
from rlstages.errors import InputError, reason_of, require
from rlstages.play.recording import Act, Show
from rlstages.play.saved_policies import load_policy
from rlstages.play.vecnormalize import read_statistics
from rlstages.reproducibility import random_state_kept
from rlstages.specs.expert import Expert
from rlstages.specs.references import resolve
from rlstages.specs.serialization import loads
from rlstages.storage.record import read_record

CONTRIB = ("RecurrentPPO", "MaskablePPO", "QRDQN", "TQC", "TRPO", "ARS", "CrossQ")
MOST_ABOUT = 2**24


def showing(expert: Expert, *, trust_pickle: bool = False) -> Show:
    """Return a function that takes an environment and returns the expert's function from observations to actions.

    Args:
        expert: Spec of the expert.
        trust_pickle: Whether a model's zip file may be loaded, although this can run any code.

    Raises:
        InputError: If the expert does not exist or may not be loaded.
    """
    if expert.kind == "function":
        return _scripted(expert)
    if expert.kind == "run":
        path = Path(expert.source)
        sentence = (
            f"There is no run directory {expert.source!r}; of a function write module:{expert.source} or, on the "
            f"command line, FILE.py:{expert.source}."
        )
        require(path.is_dir() or not expert.source.isidentifier(), sentence, "file-missing", expert.source)
        with random_state_kept():
            policy = load_policy(path)
        return _acting(policy, read_record(path).curriculum.agent.action_mode == "deterministic")
    model = _load_model(expert, trust_pickle)
    if expert.normalize is None:
        return _acting(model, True)
    statistics = read_statistics(Path(expert.normalize))
    statistics.require_fit(expert.normalize, model.observation_space)
    return _acting(model, True, statistics.apply)


def remedy_for(expert: Expert | None) -> str:
    """Return a possible cause if an expert cannot do its task, as half a sentence, or an empty string."""
    if expert is None or expert.kind != "model" or expert.normalize is not None:
        return ""
    beside = statistics_beside(Path(expert.source))
    file = "it saves them in a .pkl file" if beside is None else "a file of that kind lies beside it"
    example = str(beside or "vecnormalize.pkl")
    return f"if the model was trained behind VecNormalize ({file}), give Expert(..., normalize={example!r})"


def unused_statistics(expert: Expert | None) -> list[str]:
    """Return a warning if observation statistics lie beside an expert's model and are not used."""
    if expert is None or expert.kind != "model" or expert.normalize is not None:
        return []
    beside = statistics_beside(Path(expert.source))
    try:
        used = beside is None or not read_statistics(beside).moments
    except InputError:
        used = True
    return [] if used else [f"{expert.source} sees observations as they are; {remedy_for(expert)}."]


def statistics_beside(model: Path) -> Path | None:
    """Return the file of a `VecNormalize` beside a model's file, or in a folder there, as RL Zoo saves it.

    If there are several, as beside stable-baselines3's checkpoints, it is the one with the most similar name.
    """
    found = [*sorted(model.parent.glob("*.pkl")), *sorted(model.parent.glob("*/*.pkl"))]
    named = [path for path in found if "norm" in path.name.lower()]
    return max(named, key=lambda path: SequenceMatcher(None, path.stem, model.stem).ratio(), default=None)


def _scripted(expert: Expert) -> Show:
    make = resolve(expert.source)
    sentence = f"The expert {expert.source!r} is a {type(make).__name__}, which cannot be called."
    require(callable(make), sentence, "expert-invalid", expert.source)

    def show(env: gym.Env[Any, Any]) -> Act:
        try:
            act = make(env)
        except Exception as error:
            sentence = f"The expert {expert.source} fails when it is given the environment: {reason_of(error)}."
            raise InputError(sentence, "expert-invalid", expert.source, trace=traceback_of(error)) from error
        sentence = (
            f"The expert {expert.source} returned a {type(act).__name__}; it must take the environment and return a "
            "function from observation to action."
        )
        require(callable(act), sentence, "expert-invalid", expert.source)
        return cast(Act, act)

    return show


def _acting(policy: Any, deterministic: bool, prepare: Callable[[Any], Any] = lambda observation: observation) -> Show:
    def act(observation: Any) -> Any:
        return policy.predict(prepare(observation), deterministic=deterministic)[0]

    return lambda env: act


def _of_contrib(path: Path, algorithm: str) -> str | None:
    """Return the class of sb3-contrib to which a zip file belongs, by the requested algorithm or its policy."""
    if algorithm in CONTRIB:
        return algorithm
    try:
        with zipfile.ZipFile(path) as file:
            about = loads(file.read("data")) if file.getinfo("data").file_size <= MOST_ABOUT else {}
    except (KeyError, OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        # A damaged file is reported when it is loaded.
        return None
    policy = about.get("policy_class") if isinstance(about, dict) else None
    module = policy.get("__module__") if isinstance(policy, dict) else None
    return "sb3-contrib" if str(module).startswith("sb3_contrib") else None


def _load_model(expert: Expert, trust_pickle: bool) -> Any:
    path = Path(expert.source)
    require(path.is_file(), f"There is no model at {path}.", "file-missing", path)
    contrib = _of_contrib(path, expert.algorithm)
    sentence = (
        f"{path} is a model of {contrib}, which is not part of stable-baselines3; write a function expert(env) that "
        "loads it with sb3-contrib and returns what it does: from observation to action."
    )
    require(contrib is None, sentence, "expert-invalid", path)
    sentence = (
        f"{path} is a stable-baselines3 file, and loading one can run any code that is hidden in it; "
        "give --trust-pickle if you trust whoever made it."
    )
    require(trust_pickle, sentence, "untrusted", path)
    import stable_baselines3
    from stable_baselines3.common.base_class import BaseAlgorithm

    algorithm = getattr(stable_baselines3, expert.algorithm, None)
    known = isinstance(algorithm, type) and issubclass(algorithm, BaseAlgorithm)
    sentence = f"stable-baselines3 has no algorithm {expert.algorithm!r}."
    require(known, sentence, "name-unknown", "Expert", "algorithm", expert.algorithm)
    # This is the only place that unpickles, and only with --trust-pickle.
    load: Any = BaseAlgorithm.load  # noqa: TID251
    try:
        with random_state_kept():
            return load.__func__(algorithm, path, device="cpu")
    except Exception as error:
        reason = reason_of(error)
        raise InputError(
            f"{path} cannot be loaded as a {expert.algorithm} model: {reason}.", "expert-invalid", path
        ) from error
