"""Demonstrated episodes: in memory and in files without pickle; filtering and splitting them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.numpy import save as save_tensors

from rlstages.demonstrations.imitation_files import is_folder_of_trajectories, read_trajectories
from rlstages.demonstrations.told import told_as_arrays, told_in
from rlstages.errors import InputError, require
from rlstages.specs.criteria.episodes import Episode, Score, score
from rlstages.storage.checkpoints import replace_durably, sha256
from rlstages.storage.untrusted import Layout, open_arrays

Observations = np.ndarray | dict[str, np.ndarray]
MAX_DEMONSTRATIONS = 8 * 2**30
PICKLED = (".pkl", ".pickle")
MINARI, HDF5 = "metadata.json", (".hdf5", ".h5")
REWRITE = "write its episodes to a .safetensors or .npz file, as docs/demonstrations.md shows."
CONVERT = "if you trust whoever made it, write it anew with imitation.data.serialize.save, whose folders are read here."


@dataclass(frozen=True)
class Demonstration:
    """One demonstrated episode of `T` steps.

    Attributes:
        observations: Observations including the last one, shape `(T + 1, ...)`; for `Dict` spaces, a dictionary of
            them.
        actions: Actions, shape `(T, ...)`.
        rewards: Rewards, shape `(T,)`.
        success: Whether it counts as solved, or `None` if unknown.
        solved_before: Whether the success rule held in an earlier step, if the last step decides. Not in files.
        terminated: Whether the task ended the episode, or `None` if unknown.
        truncated: Whether it was truncated, for example by a time limit, or `None` if unknown.
        seed: Seed with which it was started, or `None` if unknown.
        options: Options with which it was started, or `None` if unknown.
        action_masks: Masks of the allowed actions, shape `(T, actions)`, bool; or `None` without masks.
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    success: bool | None = None
    solved_before: bool = False
    terminated: bool | None = None
    truncated: bool | None = None
    seed: int | None = None
    options: Mapping[str, Any] | None = None
    action_masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """The return."""
        return float(self.rewards.sum())


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrated episodes, in the order in which they were recorded."""

    episodes: tuple[Demonstration, ...]

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return sum(len(episode) for episode in self.episodes)

    def score(self) -> Score:
        """Return the score of the episodes."""
        return score(Episode(0, i, e.total_reward, len(e), e.success) for i, e in enumerate(self.episodes))

    def filtered(self, best: int | None = None, min_return: float | None = None) -> Demonstrations:
        """Return the episodes with at least `min_return`, and of these the `best` by return, in their order."""
        kept = [e for e in self.episodes if min_return is None or e.total_reward >= min_return]
        if best is not None and best < len(kept):
            ranked = sorted(range(len(kept)), key=lambda i: (-kept[i].total_reward, i))[:best]
            kept = [kept[i] for i in sorted(ranked)]
        return Demonstrations(tuple(kept))

    def split(self, held_out: float, seed: int) -> tuple[Demonstrations, Demonstrations]:
        """Split the episodes into training and validation episodes.

        Args:
            held_out: Share of validation episodes; at least one episode if it is above 0 and there are two.
            seed: Seed of the shuffle.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        count = min(max(1, round(held_out * len(self))), len(self) - 1) if held_out else 0
        measured = set(order[:count].tolist())
        return (
            Demonstrations(tuple(e for i, e in enumerate(self.episodes) if i not in measured)),
            Demonstrations(tuple(e for i, e in enumerate(self.episodes) if i in measured)),
        )

    def transitions(self) -> tuple[Observations, np.ndarray]:
        """Return the observations in which actions were taken, and the actions, over all episodes."""
        actions = np.concatenate([e.actions for e in self.episodes])
        first = self.episodes[0].observations
        if isinstance(first, dict):
            parts = [cast("dict[str, np.ndarray]", e.observations) for e in self.episodes]
            return {key: np.concatenate([part[key][:-1] for part in parts]) for key in first}, actions
        return np.concatenate([cast(np.ndarray, e.observations)[:-1] for e in self.episodes]), actions

    def save(self, path: Path | str) -> str:
        """Write a `.safetensors` file in one step and return its SHA-256.

        Raises:
            InputError: If there is no episode, or the file's name ends in `.npz`.
        """
        path = Path(path)
        require(len(self) > 0, f"There is no episode to write to {path}.", "demonstrations-invalid", path)
        sentence = f"{path}: demonstrations are written as .safetensors; give that ending."
        require(path.suffix != ".npz", sentence, "option-invalid", path)
        arrays = {
            "actions": np.concatenate([e.actions for e in self.episodes]),
            "rewards": np.concatenate([e.rewards for e in self.episodes]),
            "lengths": np.array([len(e) for e in self.episodes], dtype=np.int64),
            **told_as_arrays(self.episodes),
        }
        first = self.episodes[0].observations
        if isinstance(first, dict):
            parts = [cast("dict[str, np.ndarray]", e.observations) for e in self.episodes]
            arrays |= {f"observations/{key}": np.concatenate([part[key] for part in parts]) for key in first}
        else:
            arrays["observations"] = np.concatenate([cast(np.ndarray, e.observations) for e in self.episodes])
        # One entry only: safetensors writes several in random order, and the digest would change from file to file.
        metadata = {"format": "rlstages demonstrations 2"}
        content = save_tensors({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, content)
        return sha256(content)


def take(observations: Observations, rows: np.ndarray) -> Observations:
    """Return some rows of observations."""
    if isinstance(observations, dict):
        return {key: value[rows] for key, value in observations.items()}
    taken: np.ndarray = observations[rows]
    return taken


def load_demonstrations(path: Path | str) -> Demonstrations:
    """Read demonstrations from a `.safetensors` file, an `.npz` file with the same arrays, or imitation's folders.

    The arrays, over all episodes one after the other: `observations` (one more per episode than actions; for `Dict`
    spaces `observations/KEY`), `actions`, `rewards`, `lengths` (steps of each episode), and optionally those of
    `rlstages.demonstrations.told`. Files of format 1 have none of these but `success`. Of a folder that
    `imitation.data.serialize.save` wrote, everything but the infos is read. No pickle is read.

    Raises:
        InputError: If the file is missing, too large, or its arrays do not fit together.
    """
    path = Path(path)
    folder = is_folder_of_trajectories(path)
    if path.is_dir() and not folder:
        raise InputError(f"There are no demonstrations at {path}: it is {_other_folder(path)}", "file-missing", path)
    minari = f" If that is a data set of Minari's, {REWRITE}" if re.search(r"-v\d+$", path.name) else ""
    require(folder or path.is_file(), f"There are no demonstrations at {path}.{minari}", "file-missing", path)
    require(path.suffix not in HDF5, f"{path} is an HDF5 file; {REWRITE}", "demonstrations-invalid", path)
    sentence = (
        f"{path} is a model's zip file, and no demonstrations: 'rlstages demos record' writes down what it does, and "
        f"Expert({str(path)!r}) lets it show."
    )
    require(path.suffix != ".zip", sentence, "demonstrations-invalid", path)
    sentence = f"{path} is pickled, which can run any code when it is loaded; {CONVERT}"
    require(path.suffix not in PICKLED, sentence, "untrusted", path)
    if folder:
        arrays = read_trajectories(path, MAX_DEMONSTRATIONS)
        layouts = {name: Layout(array.dtype, array.shape) for name, array in arrays.items()}
        return _assemble(path, layouts, arrays.__getitem__)
    with open_arrays(path, MAX_DEMONSTRATIONS) as file:
        return _assemble(path, file.layouts, file.read)


def _other_folder(path: Path) -> str:
    """Return advice for a folder that does not contain readable demonstrations."""
    if (path / "run.json").is_file():
        return f"a run directory; write Expert({str(path)!r}), which lets its policy show."
    if any((place / MINARI).is_file() for place in (path, path / "data")):
        return f"a data set of Minari's; {REWRITE}"
    return "a folder, and not one that imitation's serialize.save wrote; give a file, as docs/demonstrations.md says."


def _assemble(path: Path, layouts: Mapping[str, Layout], read: Callable[[str], np.ndarray]) -> Demonstrations:
    """Check that the arrays fit together, before all but the lengths are read, and cut them into episodes."""
    watched = sorted(key for key in layouts if key.split("/")[0] == "observations")
    missing = [] if watched else ["observations"]
    missing += [name for name in ("actions", "rewards", "lengths") if name not in layouts]
    names = ", ".join(map(repr, missing))
    which = f"arrays {names} are" if len(missing) > 1 else f"array {names} is"
    sentence = (
        f"{path}: the {which} missing; give observations (of each episode one more than actions), actions, rewards and "
        "lengths (the steps of each episode), as docs/demonstrations.md says."
    )
    require(not missing, sentence, "demonstrations-invalid", path, "".join(missing[:1]))
    for name, layout in layouts.items():
        sentence = f"{path}: {name} is a single value, not a list."
        require(len(layout.shape) > 0, sentence, "demonstrations-invalid", path, name)
    lengths_fit = len(layouts["lengths"].shape) == 1 and layouts["lengths"].dtype.kind in "iu"
    require(lengths_fit, f"{path}: lengths must be a list of whole numbers.", "demonstrations-invalid", path, "lengths")
    lengths: list[int] = read("lengths").tolist()
    require(len(lengths) > 0, f"{path} holds no episode.", "demonstrations-invalid", path, "lengths")
    sentence = f"{path}: every episode must have at least one step."
    require(min(lengths) > 0, sentence, "demonstrations-invalid", path, "lengths")
    rows = {name: layout.shape[0] for name, layout in layouts.items()}
    steps = sum(lengths)
    for name in ("actions", "rewards"):
        sentence = f"{path}: {name} has {rows[name]} rows, but lengths add to {steps}."
        require(rows[name] == steps, sentence, "demonstrations-invalid", path, name)
    numbers = len(layouts["rewards"].shape) == 1 and layouts["rewards"].dtype.kind in "fiub"
    require(numbers, f"{path}: rewards must be a list of numbers.", "demonstrations-invalid", path, "rewards")
    one_kind = "observations" not in watched or len(watched) == 1
    sentence = f"{path} has both 'observations' and 'observations/KEY' arrays; leave out one of the two."
    require(one_kind, sentence, "demonstrations-invalid", path, "observations")
    wanted = steps + len(lengths)
    for key in watched:
        fits = rows[key] == wanted
        sentence = f"{path}: {key} has {rows[key]} rows; with one after each episode's end it needs {wanted}."
        require(fits, sentence, "demonstrations-invalid", path, key)
    told = told_in(path, layouts, read, lengths)
    seen = {key: read(key) for key in watched}
    return Demonstrations(tuple(_cut(seen, read("actions"), read("rewards"), lengths, told)))


def _cut(
    watched: Mapping[str, np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    lengths: Sequence[int],
    told: Sequence[Mapping[str, Any]],
) -> Sequence[Demonstration]:
    episodes = []
    end = 0
    for i, length in enumerate(lengths):
        start, end = end, end + length
        rows = slice(start + i, end + i + 1)
        seen: Observations = (
            watched["observations"][rows]
            if "observations" in watched
            else {key.partition("/")[2]: array[rows] for key, array in watched.items()}
        )
        episodes.append(Demonstration(seen, actions[start:end], rewards[start:end].astype(np.float64), **told[i]))
    return episodes
