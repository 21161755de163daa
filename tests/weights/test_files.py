"""diffgen.weights.files: lazy tensors, and every kind of file that is not what it should be."""

import json
import os
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.errors import WeightsError
from diffgen.weights import files
from diffgen.weights.files import (
    LazyTensors,
    TensorOp,
    open_tensors,
    read_header,
    read_metadata,
    save_tensors,
)
from diffgen.weights.reading import DTYPES

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167534\n"


def header_bytes(header: object, *, data: int = 0) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def entry(shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def test_tensors_of_several_files_read_as_one_mapping(tmp_path: Path) -> None:
    first, second = torch.randn(2, 3), torch.arange(4, dtype=torch.float16)
    save_file({"a": first}, tmp_path / "1.safetensors", metadata={"format": "pt"})
    save_file({"b": second}, tmp_path / "2.safetensors")
    tensors = open_tensors([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])

    assert set(tensors) == {"a", "b"}
    assert len(tensors) == 2
    assert torch.equal(tensors["a"], first)
    assert torch.equal(tensors["b"], second)
    assert tensors.files == (tmp_path / "1.safetensors", tmp_path / "2.safetensors")


def test_shapes_and_formats_come_from_the_header_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header_bytes({"a": entry([1], 0, 4), "b": entry([1, 1], 4, 8)}, data=8))
    monkeypatch.setattr(files, "filled", pytest.fail)
    infos = open_tensors([path]).infos
    assert (infos["b"].shape, infos["b"].dtype) == ((1, 1), "F32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_format_reads_as_safetensors_reads_it(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.safetensors"
    like = getattr(torch, DTYPES[dtype][1])
    values = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(like)
    save_file({"a": values, "b": values[:0], "c": values[0, 0].clone()}, path)
    ours, theirs = open_tensors([path]), load_file(path)
    assert {info.dtype for info in ours.infos.values()} == {dtype}
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert ours[name].shape == tensor.shape
        assert ours[name].to(torch.complex128).equal(tensor.to(torch.complex128))


def test_a_number_format_that_torch_lacks(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header_bytes({"a": entry([2], 0, 1) | {"dtype": "F4"}}, data=1))
    with pytest.raises(WeightsError, match="tensors of the number format F4, which is not read"):
        open_tensors([path])["a"]


def test_a_part_of_a_tensor_does_not_keep_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"qkv": torch.arange(12.0).reshape(6, 2)}, path)
    info = read_header(path)["qkv"]
    op = TensorOp(shape=lambda shape: (2, 2), apply=lambda tensor: tensor[2:4])
    part = LazyTensors({"k": replace(info, shape=(2, 2), op=op)})["k"]
    assert part.equal(torch.tensor([[4.0, 5.0], [6.0, 7.0]]))
    assert part.untyped_storage().nbytes() == 16


def test_metadata_is_what_the_file_says_besides(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"note": "x"})
    assert read_metadata(path) == {"note": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (b"\x10\x00", "is cut off after 2 bytes"),
        (header_bytes({"a": entry([8], 0, 32)})[:20], "is cut off: it has 20 of at least"),
        (header_bytes({"a": entry([8], 0, 32)}, data=31), "is cut off: it has .* bytes"),
        (header_bytes({"a": entry([8], 0, 32)}, data=33), "is damaged: it has .* describes"),
        (struct.pack("<Q", 4) + b"{no}", "its header is damaged"),
        (header_bytes(["a"]), "its header is damaged"),
        (header_bytes({"a": {"dtype": "F32"}}), '"a" lacks a sound shape, number format or place'),
        (header_bytes({"a": [1]}), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([8], 0, 32) | {"dtype": None}}, data=32), '"a" lacks a sound'),
        (header_bytes({"a": entry([8], 0, float("inf"))}), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([float("inf")], 0, 4)}), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([-8], 0, 32)}, data=32), '"a" lacks a sound shape'),
        (header_bytes({"a": entry(["8"], 0, 32)}, data=32), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([[8]], 0, 32)}, data=32), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([8], -32, 0)}), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([2**62, 2**62], 0, 4)}, data=4), '"a" has 4 bytes, not those'),
        (header_bytes({"a": entry([8.0], 0, 32)}, data=32), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([10**4000] * 9, 0, 32)}, data=32), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([1] * 100_000, 0, 4)}, data=4), '"a" lacks a sound shape'),
        (header_bytes({"a": entry([7], 0, 32)}, data=32), '"a" has 32 bytes, not those of its'),
        (
            header_bytes({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, data=4),
            '"b" does not begin where the tensor before it ends',
        ),
        (
            header_bytes({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, data=12),
            '"b" does not begin where the tensor before it ends',
        ),
        (header_bytes({"__metadata__": {"note": 7}}), "__metadata__ should map names to texts"),
        (struct.pack("<Q", 3) + b'"\xff"', "its header is damaged .*can't decode byte"),
        (struct.pack("<Q", 20_000) + b"[" * 20_000, "its header is damaged .*nested too deeply"),
        (struct.pack("<Q", 14) + b'{"a":1,"a":2} ', 'the key "a" is repeated'),
        (struct.pack("<Q", 2**64 - 1) + bytes(64), "is not a safetensors file"),
        (header_bytes({"a": entry([8], 0, 32) | {"shape": 8}}), "its header is damaged"),
        (header_bytes({"a": entry([-1], 0, 4)}, data=4), "its header is damaged"),
        (header_bytes({"a": entry([True], 0, 4)}, data=4), "its header is damaged"),
        (header_bytes({"a": entry([2**62, 4], 0, 4)}, data=4), "its header is damaged"),
        (header_bytes({"a": entry([2], 0, 4)}, data=4), "its header is damaged"),
        (header_bytes({"a": entry([1], 4, 8)}, data=8), "its header is damaged"),
        (
            header_bytes({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, data=4),
            "its header is damaged",
        ),
        (header_bytes({"__metadata__": {"a": 1}}), "its header is damaged"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "its header is damaged"),
        (LFS_POINTER, "Git-LFS pointer.*git lfs pull"),
        (b"GGUF\x03\0\0\0" + bytes(90), "a GGUF file, which only a model or an autoencoder may"),
        (
            b"\x1f\x8b\x08\x00" + b"\xff" * 90,
            r"packed archive \(gzip\), not a safetensors file; unpack it",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "is a picture"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b'{"error": "Repository not found"}', "is not a safetensors file: it starts with b'{"),
        (pickle.dumps({"weight": [0.0] * 10}, protocol=2), "is a pickle, which can run any code"),
        (b"PK\x03\x04\x00\x00\x08\x08" + bytes(64), "is a pickle, which can run any code"),
    ],
)
def test_bad_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        open_tensors([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_length_that_looks_like_a_pickle_is_a_length(tmp_path: Path) -> None:
    """Pickles start with bytes 80 02; so does a header of 640 bytes."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"note": ""})
    spare = 640 - struct.unpack("<Q", path.read_bytes()[:8])[0]
    save_file({"a": torch.zeros(1)}, path, metadata={"note": "x" * spare})
    assert path.read_bytes().startswith(b"\x80\x02")
    assert set(read_header(path)) == {"a"}


def test_an_archive_is_a_pickle_if_it_holds_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    advice = r"is a pickle.*call it model\.ckpt and run: diffgen convert model\.ckpt model\.safet"
    with pytest.raises(WeightsError, match=advice):
        read_header(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"")
    with pytest.raises(WeightsError, match="is a zip archive, not a safetensors file; unpack it"):
        read_header(path)


@pytest.mark.parametrize("name", ["model.ckpt", "pytorch_model.bin", "model.pt", "model.pth"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"pickle.*\.safetensors"):
        open_tensors([tmp_path / name])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        open_tensors([tmp_path / "model.safetensors"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="it is a pipe"):
        open_tensors([tmp_path / "model.safetensors"])


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        open_tensors([tmp_path])


def test_saved_weights_can_be_shared(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"note": "x"})
    (tmp_path / "plain").write_text("")
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]
    assert torch.equal(open_tensors([tmp_path / "a.safetensors"])["a"], torch.ones(2))


def test_no_tensor_is_in_two_files(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save_file({"a": torch.zeros(1), name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match=r"2\.safetensors and .*1\.safetensors both have a$"):
        open_tensors([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
