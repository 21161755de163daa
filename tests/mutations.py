"""Damage to files, as transfers, programs and attackers do it, drawn from a random generator."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    1000,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**400,
    0.0,
    0.5,
    -0.5,
    1e-30,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "x",
    "x" * 10_000,
    "../../../etc/passwd",
    "\ud800",
    "\x1b[31m\n",
    [],
    {},
    [0],
    [None, None],
    [1, 2, 3, 4],
    [[1, 2], [3, 4]],
    [1] * 1000,
    {"content": 7},
    {"a": {"b": []}},
)
SPELLINGS: tuple[Callable[[str], bytes], ...] = (
    lambda text: b"",
    lambda text: b"null",
    lambda text: b"[" * 10_000,
    lambda text: b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    lambda text: f"[{text}]".encode(),
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.encode("utf-16"),
    lambda text: text.replace("1", "9" * 10_000, 1).encode(),
    lambda text: text.replace("{", '{"_class_name": 1, "_class_name": 2, ', 1).encode(),
    lambda text: text[: len(text) // 2].encode(),
    lambda text: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438\n",
)
METADATA = (
    "lora_adapter_metadata",
    "modelspec.prediction_type",
    "modelspec.architecture",
    "format",
)
TEXTS = (
    "",
    "x",
    "{",
    "[]",
    '{"unet.r": {}}',
    '{"unet.lora_alpha": 1e999}',
    "v",
    "[" * 10_000,
    "\n",
)
FORMATS = ("F16", "BF16", "F32", "F64", "I64", "BOOL", "F8_E4M3", "F4", "", "Q9", 7, None)


def damaged_json(text: str, rng: Random) -> bytes:
    """A JSON file with other values, or spelled as no JSON is."""
    if rng.random() < 0.1:
        return rng.choice(SPELLINGS)(text)
    if rng.random() < 0.1:
        return damaged_bytes(text.encode(), rng)
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = changed(value, rng)
    return json.dumps(value).encode()


def changed(value: Any, rng: Random) -> Any:
    """A copy of a JSON value in which one place holds something else."""
    value = deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return rng.choice(VALUES)
        key = rng.choice(keys)
        if not (isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8):
            break
        place = place[key]
    _change(place, key, keys, rng)
    return value


def _change(place: Any, key: Any, keys: list[Any], rng: Random) -> None:
    action = rng.choice(("other", "other", "other", "number", "drop", "wrap", "swap", "rename"))
    here = place[key]
    if action == "drop":
        del place[key]
    elif action == "wrap":
        place[key] = [here]
    elif action == "swap":
        other = rng.choice(keys)
        place[key], place[other] = place[other], here
    elif action == "rename" and isinstance(place, dict):
        place[f"{key}x"] = place.pop(key)
    elif action == "number" and type(here) in (int, float) and abs(here) < 1e15:
        place[key] = rng.choice((here * 2, here + 1, -here, here // 3, here / 2, here * 10**9))
    else:
        place[key] = deepcopy(rng.choice(VALUES))


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes cut off, added, turned over or written twice."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 100))
    if kind == 2:
        return data[:at] + data[at // 2 :]
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 4, 64))):
        if flipped:
            # Half of the time where headers are.
            end = min(len(flipped), 512) if kind == 3 else len(flipped)
            flipped[rng.randrange(end)] = rng.randrange(256)
    return bytes(flipped)


def damaged_safetensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with other tensors, another header, header length or data."""
    kind = rng.random()
    if kind < 0.2:
        return damaged_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if kind < 0.3:  # numbers that are none
        return data[: 8 + length] + b"\xff" * len(rest)
    if kind < 0.7:
        header, rest = _other_tensors(header, rest, rng)
    else:
        for _ in range(rng.choice((1, 1, 2, 5))):
            header = _changed_header(header, rng)
    text = json.dumps(header).encode()
    if kind > 0.95:
        text = damaged_json(text.decode(), rng)
    length = rng.choice((2**63, 2**64 - 1, 0, length + 7)) if kind > 0.9 else len(text)
    return struct.pack("<Q", length) + text + rest


def _other_tensors(header: Any, data: bytes, rng: Random) -> tuple[Any, bytes]:
    """A sound file of tensors that are not as they were: what programs and people write."""
    metadata = header.pop("__metadata__", {})
    tensors = {
        name: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])])
        for name, e in header.items()
    }
    for _ in range(rng.choice((1, 1, 2, 20))):
        _change_tensor(tensors, rng)
        if not tensors:
            break
    if rng.random() < 0.3:
        metadata[rng.choice(METADATA)] = rng.choice(TEXTS)
    header, laid, end = {"__metadata__": metadata}, [], 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(content)]}
        laid.append(content)
        end += len(content)
    return header, b"".join(laid)


def _change_tensor(tensors: dict[str, Any], rng: Random) -> None:
    """Rename, reshape, empty, convert or remove one of the tensors, or write it twice."""
    name = rng.choice(list(tensors))
    dtype, shape, content = tensors.pop(name)
    kind = rng.randrange(7)
    if kind == 0:  # renamed, at times to what another tensor is called
        other = rng.choice([f"{name}x", name.replace("0", "7"), name.replace("weight", "bias"), ""])
        tensors[other] = dtype, shape, content
    elif kind == 1:  # flat, or with a dimension more
        reshaped = rng.choice(([math.prod(shape)], [1, *shape], shape[::-1]))
        tensors[name] = dtype, reshaped, content
    elif kind == 2:  # empty
        tensors[name] = dtype, [0, *shape[1:]], b""
    elif kind == 3:  # one number
        tensors[name] = "F32", [], struct.pack("<f", rng.choice((0, -1, 1e30, math.nan)))
    elif kind == 4:  # of a format in which it has other numbers
        half = "U8" if rng.random() < 0.5 else "F8_E4M3"
        tensors[name] = half, [len(content)], content
    elif kind == 5:  # twice
        tensors[name] = tensors[f"{name}.1"] = dtype, shape, content


def _changed_header(header: Any, rng: Random) -> Any:
    names = [name for name in header if name != "__metadata__"] if isinstance(header, dict) else []
    entry = header[rng.choice(names)] if names else None
    kind = rng.randrange(5)
    sound = isinstance(entry, dict) and isinstance(entry.get("shape"), list)
    if not sound or kind == 0:
        return changed(header, rng)
    if kind == 1:
        entry["dtype"] = rng.choice(FORMATS)
    elif kind == 2:
        entry["shape"] = rng.choice(([], [0], entry["shape"][::-1], [1, *entry["shape"]]))
    elif kind == 3:
        del header[rng.choice(names)]
    else:
        header[f"{rng.choice(names)}.more"] = deepcopy(entry)
    return header
