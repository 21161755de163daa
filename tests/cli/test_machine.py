"""Plain facts about a machine, against what the system and Python say otherwise."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest

from diffgen import __version__
from diffgen.cli import machine
from diffgen.device import available_memory


def test_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no_such_package"))
    found = machine.versions()
    assert found["diffgen"] == __version__
    assert found["torch"] == version("torch")
    assert found["no_such_package"] is None


def test_a_container_limits_cores_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("cpu.max", "150000 100000\n"),
        ("memory.max", f"{1 << 20}\n"),
        ("memory.current", f"{1 << 18}\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.cores().quota == 1.5
    assert machine.memory().total == 1 << 20
    assert machine.memory().free == (1 << 20) - (1 << 18)


def test_no_limit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.cores().quota is None
    found = machine.memory()
    assert found.total is not None
    assert found.free is not None
    assert found.total > found.free
    if known := available_memory():
        assert found.free == pytest.approx(known, rel=0.2)


def test_links_are_not_counted_twice(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / "a")
    assert machine.folder_size(tmp_path) == 1000
    assert machine.folder_size(tmp_path / "nowhere") is None


def test_room_is_told_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    free = machine.free_disk(tmp_path / "a" / "b")
    assert free == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)


def test_the_environment_is_quoted() -> None:
    said = {"OMP_NUM_THREADS": "3", "HOME": "/root"}
    assert machine.thread_variables(said) == {"OMP_NUM_THREADS": "3"}
