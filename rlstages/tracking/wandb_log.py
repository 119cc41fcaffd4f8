"""The `.wandb` file of an offline run: whether W&B's service, which says nothing of a full disk, wrote all of it.

It is a LevelDB log behind a header: blocks of 32 KiB, in them pieces of (crc32, length, kind, data). A record is one
piece, or several; it never leaves less than a piece's head at the end of a block.
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER, _BLOCK = 7, 32_768
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST = 1, 2


def is_whole(path: Path) -> bool:
    """Return whether a file ends with the record that a finished run writes last."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, at, record = path.read_bytes(), _HEADER, b""
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD.size:
            at += left
            continue
        if at + _HEAD.size > len(data):
            return False
        _, length, kind = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        piece = data[at - length : at]
        record = piece if kind in (_FULL, _FIRST) else record + piece
    if at > len(data) or not record:
        return False
    return bool(Record.FromString(record).WhichOneof("record_type") == "exit")
