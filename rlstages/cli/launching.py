"""What the commands that make many runs share."""

from __future__ import annotations

from collections.abc import Sequence

from rlstages.errors import InputError, require, require_seed

MOST_SEEDS = 10_000


def read_seeds(text: str) -> Sequence[int]:
    """Read `0:5` (0 to 4), `3`, or `1,4,7`.

    Raises:
        InputError: If it is none of these, or names seeds that `train` does not take.
    """
    seeds: Sequence[int]
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            seeds = range(start, stop)
            ends = [*seeds[:1], *seeds[-1:]]
        else:
            seeds = ends = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--seeds is {text!r}; give 0:5 for 0 to 4, or 1,4,7.", "option-invalid", name="--seeds", value=text
        ) from None
    sentence = f"--seeds {text!r} names no seed; give 0:5 for 0 to 4."
    require(bool(ends), sentence, "option-invalid", name="--seeds", value=text)
    for seed in ends:
        require_seed(f"--seeds {text!r}: a seed", seed)
    sentence = f"--seeds {text!r} names {len(seeds):,} seeds; give at most {MOST_SEEDS:,}."
    require(len(seeds) <= MOST_SEEDS, sentence, "option-invalid", name="--seeds", value=text)
    return seeds
