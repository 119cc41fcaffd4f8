"""Reads the `.wandb` file of an offline run.

The file is a LevelDB log with a header of its own: blocks of 32 KiB, in them pieces of (crc32, length, kind, data), and
a record is one piece (kind 1) or several (2 first, 3 middle, 4 last). Each record is a `Record` of wandb's protocol.
"""

import json
import struct
import zlib

from wandb.proto import wandb_internal_pb2

BLOCK = 32_768
HEADER = 7
FULL, LAST = 1, 4


def records(path):
    data = path.read_bytes()
    assert data[:4] == b":W&B", "not a W&B transaction log"
    found, pieces, at = [], b"", HEADER
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        piece = data[at + HEADER : at + HEADER + length]
        if len(piece) < length:
            break
        assert zlib.crc32(bytes([kind]) + piece) == checksum, f"damaged at byte {at}"
        pieces += piece
        if kind in (FULL, LAST):
            found.append(wandb_internal_pb2.Record.FromString(pieces))
            pieces = b""
        at += HEADER + length
    return found


def items(pairs):
    """Return the keys and values of a history, summary or config message."""
    found = {}
    for pair in pairs:
        *outer, last = pair.nested_key or [pair.key]
        inside = found
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(pair.value_json)
    return found
