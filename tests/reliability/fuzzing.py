"""Ways to change bytes and JSON at random, from a seed."""

import copy
import json

NASTY = [
    *(None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**30, 1e308, -1e-308, 0.5, "", "\0", "../../x", "/etc/passwd"),
    *("evil:anything", "posix:system", "$type", "é" * 100, "1" * 10, [], {}, [[]], {"a": {}}, [0] * 50, "NaN"),
    *(
        {"$type": "Curriculum"},
        {"$type": "Linear", "start": 1, "end": 0},
        {"$tensor": "0:a"},
        {"py/object": "os.system"},
    ),
]


def bytes_changed(draw, content):
    """Flip, insert, drop, repeat, cut or overwrite a few places."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        place = draw.randrange(len(content) + 1)
        kind = draw.randrange(7)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            content[place:place] = draw.randbytes(draw.choice([1, 2, 8]))
        elif kind == 2:
            del content[place : place + draw.choice([1, 2, 8, 64])]
        elif kind == 3:
            content[place:place] = content[max(0, place - draw.randrange(1, 65)) : place]
        elif kind == 4:
            del content[place:]
        elif kind == 5:
            content[place : place + 8] = draw.choice([b"\xff" * 8, bytes(8), b"99999999", b"[[[[[[[[", b'""""""""'])
        else:
            content[place : place + 1] = draw.choice([b"{", b"}", b"[", b"]", b'"', b",", b":", b"-", b"e", b"\\"])
    return bytes(content)


def paths(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from paths(value, (*path, key))


def data_changed(draw, data):
    """Put something else in one to three places of parsed JSON, or take something away."""
    data = copy.deepcopy(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        path = draw.choice(list(paths(data)))
        if not path:
            continue
        owner = data
        for key in path[:-1]:
            owner = owner[key]
        kind = draw.randrange(5)
        if kind == 0:
            del owner[path[-1]]
        elif kind == 1 and isinstance(owner, dict):
            owner[str(draw.randrange(9))] = owner[path[-1]]
        elif kind == 2 and isinstance(owner[path[-1]], (int, float)) and not isinstance(owner[path[-1]], bool):
            owner[path[-1]] = owner[path[-1]] * draw.choice([-1, 0, 2, 10, 1000, 10**9, 0.5])
        else:
            other = data
            for key in draw.choice(list(paths(data))):
                other = other[key]
            owner[path[-1]] = draw.choice([copy.deepcopy(draw.choice(NASTY)), copy.deepcopy(other)])
    return data


def json_changed(draw, content):
    """Change JSON as text or as data."""
    if draw.random() < 0.4:
        return bytes_changed(draw, content)
    return json.dumps(data_changed(draw, json.loads(content))).encode()


def tensors_changed(draw, content):
    """Change a safetensors file as bytes, or its header as data."""
    if draw.random() < 0.5:
        return bytes_changed(draw, content)
    length = int.from_bytes(content[:8], "little")
    header = json_changed(draw, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
