"""Folders of trajectories that `imitation.data.serialize.save` wrote, read without their pickled infos.

Such a folder holds Arrow tables. imitation itself unpickles the column `infos` as soon as it clones from them, which
runs any code that is hidden there; here the numbers are read, and that column is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlstages.demonstrations.told import UNKNOWN
from rlstages.errors import InputError, require, require_sound, text_of
from rlstages.specs.serialization import loads
from rlstages.storage.untrusted import MAX_RANK, inside, open_regular, read_bytes

STATE_FILE, INFO = "state.json", "dataset_info.json"
TERMINAL = "terminal"
COLUMNS = {"obs": "observations", "acts": "actions", "rews": "rewards"}
# Earlier versions of pyarrow unpickle data in a file's schema: CVE-2023-47248.
LEAST_PYARROW = (14, 0, 1)


def is_folder_of_trajectories(path: Path) -> bool:
    """Return whether a path looks like a folder of trajectories that imitation saved."""
    return (path / STATE_FILE).is_file() and (path / INFO).is_file()


def read_trajectories(path: Path, most: int) -> dict[str, np.ndarray]:
    """Return the arrays of a folder of trajectories, as `load_demonstrations` describes them.

    Args:
        path: Folder.
        most: Bytes that each of its tables may have.

    Raises:
        InputError: If it is not what imitation writes.
    """
    try:
        return _join([_read_table(inside(path, name), most) for name in _tables(path)])
    except Exception as error:
        # Arrow raises many kinds of exceptions, and few are its own.
        reason = text_of(error)
        raise InputError(
            f"{path} is not a readable folder of imitation's trajectories: {reason}.", "demonstrations-invalid", path
        ) from error


def _tables(path: Path) -> list[str]:
    state = loads(read_bytes(path / STATE_FILE))
    files = state.get("_data_files") if isinstance(state, dict) else None
    listed = isinstance(files, list) and bool(files) and all(isinstance(file, dict) for file in files)
    require_sound(listed, f"{STATE_FILE} names no tables")
    return [file.get("filename") for file in files]  # type: ignore[union-attr]


def _read_table(file: Path, most: int) -> dict[str, np.ndarray]:
    import pyarrow as pa

    release = tuple(int(part) for part in pa.__version__.split(".")[:3])
    sentence = f"pyarrow {pa.__version__} runs code hidden in tables; install a later one"
    require(release >= LEAST_PYARROW, sentence, "unavailable", name="pyarrow")
    with open_regular(file, most) as stream:
        schema = pa.ipc.open_stream(stream).schema
        wanted = [index for index, name in enumerate(schema.names) if name in (*COLUMNS, TERMINAL)]
        names = [schema.names[index] for index in wanted]
        require_sound(len(set(names)) == len(names), "two of its columns have the same name")
        stream.seek(0)
        table = pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(included_fields=wanted)).read_all()
    # Offsets that point out of the table are detected only here.
    table.validate(full=True)
    require_sound({"obs", "acts"} <= set(names), "it has no columns 'obs' and 'acts'")
    columns = {name: _flatten(table.column(name)) for name in names if name in COLUMNS}
    lengths = columns["acts"][1]
    for name, (_, counts) in columns.items():
        fits = np.array_equal(counts, lengths + (name == "obs"))
        require_sound(fits, f"the column {name!r} does not fit the number of actions in each episode", name=name)
    ends = _ends(table.column(TERMINAL), len(lengths)) if TERMINAL in names else {}
    return {COLUMNS[name]: values for name, (values, _) in columns.items()} | {"lengths": lengths} | ends


def _ends(column: Any, episodes: int) -> dict[str, np.ndarray]:
    """Return which episodes were truncated, as far as imitation records it."""
    import pyarrow as pa

    fits = pa.types.is_boolean(column.type) and column.null_count == 0 and len(column) == episodes
    require_sound(fits, f"the column {TERMINAL!r} has not one true or false for each episode", name=TERMINAL)
    whole = column.to_numpy()
    return {"terminated": np.where(whole, UNKNOWN, 0), "truncated": np.where(whole, UNKNOWN, 1)}


def _flatten(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all lists of a column one after the other, and how many each list has."""
    import pyarrow as pa

    def is_list(values: Any) -> bool:
        kind = values.type
        return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

    values = pa.concat_arrays(column.chunks)
    require_sound(is_list(values) and values.null_count == 0, "a column holds no lists")
    counts = values.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = values.flatten()
    shape: list[int] = []
    while is_list(values):
        require_sound(len(shape) < MAX_RANK and values.null_count == 0, "a column is nested too deep, or has gaps")
        sizes = values.value_lengths().unique().to_pylist()
        require_sound(len(sizes) == 1, "the rows of a column differ in shape")
        shape.append(sizes[0])
        values = values.flatten()
    numbers = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)
    require_sound(numbers and values.null_count == 0, "a column holds something other than numbers")
    return values.to_numpy(zero_copy_only=False).reshape(-1, *shape), counts


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    require_sound(len({tuple(sorted(part)) for part in parts}) == 1, "its tables have different columns")
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
