"""Optional data of demonstrated episodes in files: seeds, options, endings, success and action masks.

Each of them may be missing, for some episodes or for all. There are arrays with one entry for each episode:

- `success`, `terminated`, `truncated`: true, false, or -1 where that is not known;
- `seeds`: -1 where not known;
- `options`: the UTF-8 bytes of a JSON list of dictionaries, with null where not known.

There is one array with a row for each step: `action_masks`. An episode without masks allows all actions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlstages.errors import InputError, require
from rlstages.specs.plain import thaw
from rlstages.specs.serialization import loads

if TYPE_CHECKING:
    from rlstages.demonstrations.episodes import Demonstration
    from rlstages.storage.untrusted import Layout

FLAGS = ("success", "terminated", "truncated")
ENDS = FLAGS[1:]
UNKNOWN = -1
MAX_OPTIONS = 2**26


def told_as_arrays(episodes: Sequence[Demonstration]) -> dict[str, np.ndarray]:
    """Return the optional data of episodes as arrays, without empty ones."""
    arrays: dict[str, np.ndarray] = {}
    for name in FLAGS:
        flags = [getattr(episode, name) for episode in episodes]
        arrays[name] = np.array([UNKNOWN if flag is None else flag for flag in flags], np.int8)
    arrays["seeds"] = np.array([UNKNOWN if e.seed is None else e.seed for e in episodes], np.int64)
    arrays = {name: values for name, values in arrays.items() if (values != UNKNOWN).any()}
    if any(episode.options is not None for episode in episodes):
        options = [None if e.options is None else thaw(e.options) for e in episodes]
        arrays["options"] = np.frombuffer(json.dumps(options, allow_nan=False).encode(), np.uint8)
    width = next((e.action_masks.shape[1] for e in episodes if e.action_masks is not None), None)
    if width is not None:
        masks = [np.ones((len(e), width), bool) if e.action_masks is None else e.action_masks for e in episodes]
        arrays["action_masks"] = np.concatenate(masks)
    return arrays


def told_in(
    path: Path, layouts: Mapping[str, Layout], read: Callable[[str], np.ndarray], lengths: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the optional data of a file for each episode, as fields of `Demonstration`.

    Args:
        path: File, for messages.
        layouts: Layouts of all its arrays.
        read: Reads one.
        lengths: Steps of each episode.

    Raises:
        InputError: If these arrays do not fit the episodes.
    """
    told: list[dict[str, Any]] = [{} for _ in lengths]
    ends, steps = np.cumsum(lengths), sum(lengths)
    for name in (*FLAGS, "seeds"):
        if name not in layouts:
            continue
        layout, kinds = layouts[name], "iu" if name == "seeds" else "biu"
        # A list of every step's flags ends, for each episode, with the one that counts.
        shapes = [(len(lengths),), *([(steps,)] if name in ENDS else [])]
        what = "a whole number" if name == "seeds" else "one true or false"
        fits = layout.shape in shapes and layout.dtype.kind in kinds
        sentence = f"{path}: {name} must have {what} for each of the {len(lengths)} episodes."
        require(fits, sentence, "demonstrations-invalid", path, name)
        values = read(name)
        for episode, value in zip(
            told, (values if len(values) == len(told) else values[ends - 1]).tolist(), strict=True
        ):
            known = value if name == "seeds" else bool(value)
            episode["seed" if name == "seeds" else name] = known if value >= 0 else None
    if "options" in layouts:
        for episode, options in zip(told, _options(path, layouts["options"], read, len(lengths)), strict=True):
            episode["options"] = options
    if "action_masks" in layouts:
        layout = layouts["action_masks"]
        fits = len(layout.shape) == 2 and layout.shape[0] == steps and layout.dtype.kind in "biu"
        sentence = f"{path}: action_masks must have a row of true and false for each of the {steps} steps."
        require(fits, sentence, "demonstrations-invalid", path, "action_masks")
        for episode, masks in zip(told, np.split(read("action_masks").astype(bool), ends[:-1]), strict=True):
            episode["action_masks"] = masks
    return told


def _options(path: Path, layout: Layout, read: Callable[[str], np.ndarray], episodes: int) -> list[Any]:
    what = f"{path}: options must be the bytes of a JSON list with a dictionary or null for each of {episodes} episodes"
    sentence = f"{what}."
    require(
        len(layout.shape) == 1 and layout.dtype == np.uint8 and layout.shape[0] <= MAX_OPTIONS,
        sentence,
        "demonstrations-invalid",
        path,
        "options",
    )
    try:
        options = loads(read("options").tobytes())
    except InputError as error:
        raise InputError(f"{what}: {error}.", "demonstrations-invalid", path, "options") from error
    fits = isinstance(options, list) and len(options) == episodes
    sentence = f"{what}."
    require(
        fits and all(given is None or isinstance(given, dict) for given in options),
        sentence,
        "demonstrations-invalid",
        path,
        "options",
    )
    return list(options)
