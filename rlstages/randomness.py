"""The global random generators of Python, NumPy and torch: read, set, and kept from being moved."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return where the generators are, as arrays and JSON values."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": {"version": version, "words": np.array(words, dtype=np.int64), "gauss": gauss},
        "numpy": {**numpy_state["state"], "has_gauss": numpy_state["has_gauss"], "gauss": numpy_state["gauss"]},
        "torch": torch.get_rng_state().numpy().copy(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators where `random_state` found them."""
    python, legacy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(("MT19937", legacy["key"], legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
    torch.set_rng_state(torch.as_tensor(np.array(state["torch"])))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the generators back afterwards.

    stable-baselines3 seeds them whenever it makes or loads a model, and an environment may draw from them when it is
    made, which happens once more in a run that is resumed.
    """
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
