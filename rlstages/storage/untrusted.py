"""Readers of untrusted files, with size limits and checks, which never execute anything.

Strict JSON is read by `serialization.loads`; here are the files themselves, and the arrays in them. Whatever is wrong
with a file raises `InputError`, and is noticed before memory or time is spent on it.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np

from rlstages.errors import InputError, require, require_sound, text_of
from rlstages.specs.serialization import loads

MAX_JSON, MAX_HEADER, MAX_TENSORS, MAX_RANK, MAX_SIZE = 2**22, 2**21, 20_000, 16, 2**48
MAX_NPZ, MAX_MEMBERS, MAX_DIRECTORY = 2**32 - 2, 1_000, 2**20
# What may unpack to much more than it is: sparse rewards do, to a few MiB.
MAX_RATIO, ALWAYS_UNPACKED = 250, 64 * 2**20
DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "F16": "f2",
    "U32": "u4",
    "I32": "i4",
    "F32": "f4",
    "U64": "u8",
    "I64": "i8",
    "F64": "f8",
}
_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|](?:b1|[iu][1248]|f[248]))', 'fortran_order': (?:True|False), "
    r"'shape': \((?P<shape>[0-9, ]*)\), \} *\n"
)
_END_OF_ZIP = struct.Struct("<4s4H2LH")


@dataclass(frozen=True)
class Layout:
    """The declared layout of an array, before it is read.

    Attributes:
        dtype: Type of the array.
        shape: Shape of the array.
        begin: Offset of its first byte in the file, if it is stored uncompressed.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


def open_regular(path: Path, most: int) -> IO[bytes]:
    """Open a file for reading; a pipe, a device or a directory would make the reader wait, or never end.

    Args:
        path: Path of the file.
        most: Bytes it may have.

    Raises:
        InputError: If it is larger, or no file.
        OSError: If it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        require_sound(stat.S_ISREG(found.st_mode), f"{path.name} is no regular file.", path)
        require_sound(
            found.st_size <= most, f"{path.name} has {found.st_size:,} bytes, and at most {most:,} are read.", path
        )
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, most: int = MAX_JSON) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        InputError: If it is larger.
        OSError: If it cannot be read.
    """
    with open_regular(path, most) as file:
        content = file.read(most + 1)
    require_sound(len(content) <= most, f"{path} has grown beyond {most:,} bytes.", path)
    return content


def inside(directory: Path, relative: object) -> Path:
    """Return the file in a directory for a relative path of the form `folder/name`.

    Raises:
        InputError: If the path leads out of the directory, by `..`, by a link or as an absolute one.
    """
    parts = PurePosixPath(relative).parts if isinstance(relative, str) and "\0" not in relative else ()
    plain = bool(parts) and not any(part in ("/", "..", "//") for part in parts)
    require_sound(plain, f"{directory}: {relative!r} does not name a file inside of it.", directory)
    path = directory.joinpath(*parts)
    try:
        within = path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):
        within = False
    require_sound(within, f"{directory}: {relative!r} leads out of it.", directory)
    return path


def require_no_links(directory: Path) -> None:
    """Refuse a directory whose entries, or theirs, are links: writing or deleting there would reach somewhere else.

    Raises:
        InputError: Naming the link.
    """
    entries = list(os.scandir(directory))
    for entry in entries:
        links = [entry.path] if entry.is_symlink() else []
        if not links and entry.is_dir() and entry.name not in ("wandb", "tensorboard"):
            links = [inner.path for inner in os.scandir(entry.path) if inner.is_symlink()]
        sentence = (
            f"{''.join(links[:1])} is a link, and a run is written only into its own directory; "
            "put what it leads to in its place."
        )
        require(not links, sentence, "untrusted", directory)


# --- arrays -----------------------------------------------------------------------------------------------------------


class Arrays(Protocol):
    """The arrays of an open file, with their declared layouts."""

    layouts: Mapping[str, Layout]

    def read(self, name: str) -> np.ndarray:
        """Read one array, in this machine's byte order."""


@contextmanager
def open_arrays(path: Path, most: int) -> Iterator[Arrays]:
    """Open a `.safetensors` file, or an `.npz` file if its name says so.

    Args:
        path: Path of the file.
        most: Bytes that the file, and its arrays, may have.

    Raises:
        InputError: If it is too large, or is no such file, at once or when an array is read.
    """
    ending, kind = (".npz", Archive) if path.suffix == ".npz" else (".safetensors", Tensors)
    unreadable = f"{path} is not a readable {ending} file of plain arrays"
    opened = False
    try:
        with open_regular(path, most) as file:
            arrays = kind(file, os.fstat(file.fileno()).st_size)
            total = sum(layout.nbytes for layout in arrays.layouts.values())
            require_sound(total <= most, f"it holds {total:,} bytes of arrays, and at most {most:,} are read.")
            opened = True
            yield arrays
    except Exception as error:
        if opened and isinstance(error, InputError):
            raise
        # Which exceptions a broken file can bring out of zipfile, zlib and NumPy is documented nowhere.
        reason = text_of(error)
        raise InputError(f"{unreadable}: {reason}.", "file-damaged", path) from error


class Tensors:
    """A safetensors file.

    Args:
        file: File object, positioned at its start.
        size: Size of the file, in bytes.

    Raises:
        InputError: If its header is not one, or does not describe a file of this size.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        start = file.read(8)
        length = int.from_bytes(start, "little")
        require_sound(len(start) == 8 and length <= size - 8, "its header is cut short.")
        require_sound(length <= MAX_HEADER, f"its header has {length:,} bytes, and at most {MAX_HEADER:,} are read.")
        header = loads(file.read(length))
        require_sound(isinstance(header, dict), "its header holds no object.")
        notes = header.pop("__metadata__", {})
        texts = isinstance(notes, dict) and all(isinstance(text, str) for text in notes.values())
        require_sound(texts, "its notes are no text.")
        require_sound(
            len(header) <= MAX_TENSORS, f"it holds {len(header):,} arrays, and at most {MAX_TENSORS:,} are read."
        )
        self.layouts: Mapping[str, Layout] = {name: _tensor(name, entry, 8 + length) for name, entry in header.items()}
        end = 8 + length
        for layout in sorted(self.layouts.values(), key=lambda layout: (layout.begin, layout.nbytes)):
            require_sound(layout.begin == end, "its arrays overlap, or leave gaps.")
            end += layout.nbytes
        require_sound(end == size, f"its arrays end at byte {end:,} of {size:,}.")

    def read(self, name: str) -> np.ndarray:
        """Return an array."""
        layout = self.layouts[name]
        self._file.seek(layout.begin)
        content = self._file.read(layout.nbytes)
        array = np.frombuffer(bytearray(content), layout.dtype).reshape(layout.shape)
        return array.astype(layout.dtype.newbyteorder("="), copy=False)


def _tensor(name: str, entry: Any, start: int) -> Layout:
    fields = isinstance(entry, dict) and sorted(entry) == ["data_offsets", "dtype", "shape"]
    require_sound(bool(fields), f"the entry of {name!r} is damaged.", name=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    sentence = f"{name!r} is of the type {dtype!r}, which is not supported."
    require_sound(isinstance(dtype, str) and dtype in DTYPES, sentence, name=name)
    require_sound(_are_sizes(shape) and len(shape) <= MAX_RANK, f"{name!r} has no shape.", name=name)
    require_sound(_are_sizes(offsets) and len(offsets) == 2, f"{name!r} has no place.", name=name)
    layout = Layout(np.dtype(DTYPES[dtype]), tuple(shape), start + offsets[0])
    require_sound(offsets[1] - offsets[0] == layout.nbytes, f"{name!r} does not fit its shape.", name=name)
    return layout


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < MAX_SIZE for value in values)


class Archive:
    """An `.npz` file of plain arrays.

    Args:
        file: File.
        size: Size of the file, in bytes.

    Raises:
        InputError: If it holds anything else, or would unpack to far more than it is.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        file.seek(max(0, size - _END_OF_ZIP.size))
        end = file.read()
        ends = len(end) == _END_OF_ZIP.size and end[:4] == b"PK\x05\x06"
        require_sound(ends, "it is cut short, or no archive.")
        _, _, _, _, members, directory, _, _ = _END_OF_ZIP.unpack(end)
        few = members <= MAX_MEMBERS and directory <= MAX_DIRECTORY and size <= MAX_NPZ
        require_sound(few, "it is too large, or holds too many arrays; write it as .safetensors.")
        self._archive = zipfile.ZipFile(file)
        infos = self._archive.infolist()
        require_sound(len({info.filename for info in infos}) == len(infos), "two of its arrays have the same name.")
        unpacked = sum(info.file_size for info in infos)
        require_sound(
            unpacked <= max(ALWAYS_UNPACKED, MAX_RATIO * size),
            f"its {size:,} bytes would unpack to {unpacked:,}; write it with numpy.savez, without compression.",
        )
        self.layouts: Mapping[str, Layout] = {
            info.filename.removesuffix(".npy"): _member(self._archive, info) for info in infos
        }

    def read(self, name: str) -> np.ndarray:
        """Unpack an array."""
        layout = self.layouts[name]
        with self._archive.open(f"{name}.npy") as member:
            array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        if (array.dtype, array.shape) != (layout.dtype, layout.shape):
            raise ValueError(f"{name!r} is not what it is said to be")
        return array.astype(layout.dtype.newbyteorder("="), copy=False)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Layout:
    name = info.filename.removesuffix(".npy")
    plain = info.filename.endswith(".npy") and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    require_sound(plain and not info.flag_bits & 1, f"its member {info.filename!r} is no plain array.")
    with archive.open(info) as member:
        start = member.read(10)
        require_sound(start[:8] == b"\x93NUMPY\x01\x00", f"{name!r} is no array of the format's version 1.", name=name)
        length = int.from_bytes(start[8:], "little")
        header = member.read(length).decode("latin1")
    # NumPy would evaluate the header as a Python literal; for plain numbers it writes nothing but this.
    found = _NPY_HEADER.fullmatch(header)
    if found is None:
        what = "pickled objects, which can run any code" if "'|O'" in header else "something other than plain numbers"
        raise InputError(f"{name!r} holds {what}.", "file-damaged", name=name)
    sizes = [text.strip() for text in found["shape"].split(",") if text.strip()]
    fit = len(sizes) <= MAX_RANK and all(size.isdigit() and int(size[:18]) < MAX_SIZE for size in sizes)
    require_sound(fit, f"{name!r} has no shape.", name=name)
    layout = Layout(np.dtype(found["descr"]), tuple(int(size) for size in sizes))
    require_sound(info.file_size == 10 + length + layout.nbytes, f"{name!r} does not fit its shape.", name=name)
    return layout
