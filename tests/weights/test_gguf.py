"""GGUF files against the gguf package, which writes them and knows what their numbers are."""

import struct

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize

from diffgen.errors import WeightsError
from diffgen.weights.files import LazyTensors
from diffgen.weights.gguf import is_gguf, read_gguf
from diffgen.weights.quants import BLOCKS, FORMATS, dequantise

SHAPE = (4, 512)
# Bytes of a block where its float16 scales begin: random ones would be infinite now and then.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}


def kind(name):
    return gguf.GGMLQuantizationType[name]


def random_blocks(name, rows=4, per_row=2):
    rng = np.random.default_rng(5)
    size = BLOCKS[name][1]
    data = rng.integers(0, 256, (rows * per_row, size), dtype=np.uint8)
    for start in HALVES[name]:
        scale = rng.normal(size=(len(data), 1)).astype(np.float16)
        data[:, start : start + 2] = scale.view(np.uint8)
    return data.reshape(rows, per_row * size)


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_are_those_of_the_gguf_package(name):
    blocks = random_blocks(name)
    expected = torch.from_numpy(dequantize(blocks, kind(name)))
    found = dequantise(torch.from_numpy(blocks.flatten()), name).reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture
def written(tmp_path):
    """A file with one tensor of each type, some values, and what each should come out as."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "sdxl")
    writer.add_string("general.name", "tiny")
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.texts", ["a", "b"])
    rng = np.random.default_rng(7)
    plain = rng.normal(size=SHAPE).astype(np.float32)
    expected = {}
    for name in FORMATS:
        try:
            data = quantize(plain, kind(name))
        except NotImplementedError:  # the package reads these only
            data = random_blocks(name)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind(name))
        expected[f"{name}.weight"] = torch.from_numpy(dequantize(data, kind(name)))
    writer.add_tensor("half", plain.astype(np.float16))
    writer.add_tensor("full", plain)
    bf16 = quantize(plain, kind("BF16"))
    writer.add_tensor("bf16", bf16, raw_dtype=kind("BF16"))
    conv = plain[:1, :288].reshape(32, 9)
    writer.add_tensor("conv", quantize(conv.reshape(1, 288), kind("Q8_0")), raw_dtype=kind("Q8_0"))
    writer.add_array("comfy.gguf.orig_shape.conv", [4, 8, 3, 3])
    expected |= {
        "half": torch.from_numpy(plain).half(),
        "full": torch.from_numpy(plain),
        "bf16": torch.from_numpy(plain).bfloat16(),
        "conv": torch.from_numpy(
            dequantize(quantize(conv.reshape(1, 288), kind("Q8_0")), kind("Q8_0"))
        ).reshape(4, 8, 3, 3),
    }
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "model.gguf", expected


def test_a_file_reads_as_it_was_written(written):
    path, expected = written
    assert is_gguf(path)
    infos, values = read_gguf(path)
    assert values["general.architecture"] == "sdxl"
    assert values["some.texts"] == "['a', 'b']"
    assert infos.keys() == expected.keys()
    for name, tensor in LazyTensors(infos).read(expected):
        assert infos[name].shape == tuple(tensor.shape) == tuple(expected[name].shape)
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_a_file_that_is_cut_off_says_both_sizes(written):
    path, _ = written
    whole = path.read_bytes()
    for length in (3, 7, 20, 60, 300, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(
            WeightsError, match=rf"cut off: it has {length} of (at least )?\d+ bytes"
        ):
            read_gguf(path)


def header(*, version=3, tensors=0, values=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


ENTRY = struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 32, 0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(version=1), "version 1 GGUF"),
        (header(version=3 << 24), "big-endian"),
        (header(values=1, rest=struct.pack("<Q", 1 << 60)), "text of 1152921504606846976 bytes"),
        (header(values=1 << 60), "cut off"),
        (header(tensors=1, rest=ENTRY[:9] + struct.pack("<I", 99)), "99 dimensions"),
        (
            header(tensors=1, rest=ENTRY[:9] + struct.pack("<IQIQ", 1, 32, 20, 0)),
            "GGUF's type 20, which is not read",
        ),
        (
            header(tensors=1, rest=ENTRY[:9] + struct.pack("<IQIQ", 1, 33, 8, 0)),
            "blocks of 32",
        ),
        (header(tensors=1, rest=ENTRY), r"it has \d+ of \d+ bytes"),
        (header(tensors=2, rest=ENTRY * 2 + bytes(300)), "two tensors"),
        (
            header(values=1, rest=struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77)),
            "value of the kind 77",
        ),
    ],
)
def test_damage_is_named(tmp_path, data, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_gguf(path)
