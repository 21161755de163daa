"""Files appear whole, once, and with the right mode; locks name their holder."""

import errno
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from diffgen.errors import OutputError, UsageError
from diffgen.files import created, expanded, locked, replaced, replaced_folder

TAKE_NAMES = """
import sys
from pathlib import Path
from diffgen.files import created
for number in range(200):
    try:
        with created(Path(sys.argv[1]) / f"{number}.txt") as part:
            part.write_text(sys.argv[2])
        print(number)
    except FileExistsError:
        pass
"""
HOLD = """
import sys, time
from pathlib import Path
from diffgen.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_home_that_nobody_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a.png") == Path("/home/me/a.png")
    assert expanded("/~nobody-here/a.png") == Path("/~nobody-here/a.png")
    with pytest.raises(
        UsageError, match=r"^~nobody-here/a\.png: there is no user nobody-here; for"
    ):
        expanded("~nobody-here/a.png")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path, durable=True) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_halfway(place, path: Path, error: type[BaseException]) -> None:
    with place(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("place", [replaced, created])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_file_that_failed(place, error, tmp_path: Path) -> None:
    with pytest.raises(error):
        fail_halfway(place, tmp_path / "a.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for name, place in (("a", replaced), ("b", created)):
            with place(tmp_path / name) as part:
                part.write_text("x")
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_created_never_takes_a_name_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    placing = created(path)
    placing.__enter__().write_text("mine")
    path.write_text("somebody else's")
    with pytest.raises(FileExistsError):
        placing.__exit__(None, None, None)
    assert path.read_text() == "somebody else's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.txt"
    with created(path) as part:
        part.write_text("first")
    with pytest.raises(FileExistsError), created(path) as part:
        part.write_text("second")
    assert path.read_text() == "first"


@pytest.mark.parametrize(("number", "fatal"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folders(
    number: int, fatal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    refused = pytest.raises(OSError, match=os.strerror(number))
    with refused if fatal else nullcontext(), created(tmp_path / "a", durable=True):
        pass
    assert (tmp_path / "a").exists()


def test_names_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".png")
    with created(path) as part:
        part.write_text("x")
    assert path.exists()


def test_two_processes_never_take_one_name(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE_NAMES, tmp_path, who], stdout=subprocess.PIPE, text=True
        )
        for who in ("one", "two")
    ]
    for process, who in zip(processes, ("one", "two"), strict=True):
        out, _ = process.communicate(timeout=60)
        assert all((tmp_path / f"{number}.txt").read_text() == who for number in out.split())
    assert len(list(tmp_path.iterdir())) == 200


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with replaced_folder(folder) as new:
        (new / "new").touch()
        assert (folder / "old").exists()
    assert [path.name for path in folder.iterdir()] == ["new"]
    with pytest.raises(ValueError, match="full"), replaced_folder(folder):
        raise ValueError("full")
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_a_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=f"in use by process {holder.pid};"), locked(folder):
        pass
    holder.communicate("", timeout=60)
    with locked(folder):
        pass


def test_a_folder_that_its_last_user_removes_is_made_again(tmp_path, monkeypatch):
    """Its lock is unlinked after filelock has opened it, which filelock takes for one in use."""
    from filelock import FileLock, Timeout

    folder, acquire, calls = tmp_path / "shared", FileLock.acquire, []

    def removed_first(lock, *arguments, **more):
        calls.append(lock)
        if len(calls) == 1:
            folder.rmdir()
            raise Timeout(str(folder / ".lock"))
        return acquire(lock, *arguments, **more)

    monkeypatch.setattr(FileLock, "acquire", removed_first)
    with locked(folder):
        (folder / "mine").touch()
    assert len(calls) == 2


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    from diffgen.files import remove_parts

    kept = [tmp_path / name for name in ("a.png", ".mine.part.png", ".0123456789ab.png")]
    begun = [tmp_path / name for name in (".0123456789ab.part.png", ".0123456789ab.part")]
    for path in (*kept, *begun):
        path.write_bytes(b"")
    remove_parts(tmp_path, idle=60.0)  # others may be writing
    assert sorted(tmp_path.iterdir()) == sorted([*kept, *begun])
    remove_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
