"""Hashes of weights files: right, computed once, and never those of another file."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from diffgen.weights import hashes
from diffgen.weights.files import save_tensors
from diffgen.weights.hashes import cache_folder, sha256
from diffgen.weights.reading import Stamp, opened, settled_stamp


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diffgen" / "sha256"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_tensors({"a": torch.arange(9.0)}, tmp_path / "a.safetensors", {"note": "x"})
    return tmp_path / "a.safetensors"


def stamp_of(path: Path) -> Stamp:
    with opened(path) as file:
        return settled_stamp(file)


def unread(*_: object) -> None:
    raise AssertionError("the file was hashed again")


def test_hashes_are_those_of_sha256sum_and_a1111(weights: Path) -> None:
    content = weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    known = stamp_of(weights)
    assert sha256(weights, known) == hashlib.sha256(content).hexdigest()
    assert sha256(weights, known, data_only=True) == hashlib.sha256(content[header:]).hexdigest()


def test_a_file_is_hashed_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = stamp_of(weights)
    first = sha256(weights, known)
    monkeypatch.setattr(hashlib, "file_digest", unread)
    assert sha256(weights, known) == first
    monkeypatch.undo()


def test_a_file_that_changed_is_hashed_again_but_not_as_the_one_that_was_read(
    weights: Path,
) -> None:
    known = stamp_of(weights)
    first = sha256(weights, known)
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1" * 4)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256(weights, known) is None
    second = sha256(weights, stamp_of(weights))
    assert second == hashlib.sha256(weights.read_bytes()).hexdigest() != first
    weights.unlink()
    assert sha256(weights, known) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"stamp": 1}', "same stamp", "\xff"])
def test_a_damaged_cache_is_made_anew(weights: Path, cache: Path, damage: str) -> None:
    known = stamp_of(weights)
    right = sha256(weights, known)
    (entry,) = cache.iterdir()
    kept = json.loads(entry.read_text())
    content = json.dumps(kept | {"sha256": "12"}) if damage == "same stamp" else damage
    entry.write_text(content, encoding="latin-1")
    assert sha256(weights, known) == right
    assert json.loads(entry.read_text()) == kept


def test_a_cache_that_cannot_be_written_is_no_error(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/none")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert (
            sha256(weights, stamp_of(weights)) == hashlib.sha256(weights.read_bytes()).hexdigest()
        )


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    monkeypatch.delenv("XDG_CACHE_HOME")
    for system, place in [("linux", "/home/me/.cache"), ("darwin", "/home/me/Library/Caches")]:
        monkeypatch.setattr(hashes.sys, "platform", system)
        assert cache_folder() == Path(place) / "diffgen"
    monkeypatch.setattr(hashes.sys, "platform", "win32")
    assert cache_folder() == Path("/local/diffgen")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() is None
