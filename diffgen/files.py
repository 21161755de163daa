"""Write files atomically, and lock folders."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diffgen.errors import OutputError, UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

PART = re.compile(r"\.[0-9a-f]{12}\.part(\.\w*)?")
NOBODY = "another process"  # whose number is unknown
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
ATTEMPTS = 5  # to lock a folder that another process removes


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~name` as the homes of users. Raises UsageError for an unknown one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = Path(path).parts[0]
    why = f"there is no user {name[1:]}" if name != "~" else "your home is not known; set HOME"
    raise UsageError(f"{path}: {why}; for a file that is called so, give its whole path")


@contextmanager
def replaced(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it at the end of the block.

    The file's mode follows the user's umask. `durable` waits for the disk, so that the file
    survives a power cut. Raises OSError; a partial file is removed.
    """
    with _part(path) as part:
        yield part
        if durable:
            _sync(part)
        os.replace(part, path)
    if durable:
        _sync_folder(path.parent)


@contextmanager
def created(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """As `replaced`, but never over an existing file.

    Raises FileExistsError at the end of the block if the name is taken by then, even by a race with
    another process.
    """
    with _part(path) as part:
        yield part
        if durable:
            _sync(part)
        _claim(part, path)
    if durable:
        _sync_folder(path.parent)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which replaces `folder` at the end of the block."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Lock `folder`, created if need be, against other processes until the end of the block.

    Raises OutputError naming the process that holds the lock, and for a folder that cannot be
    created; UsageError for a file in its place. A folder that stays empty is removed.
    """
    from filelock import FileLock, Timeout

    path = folder / name
    lock = FileLock(path, timeout=0)
    try:
        _take(lock, folder, path)
        path.write_text(str(os.getpid()), encoding="ascii")
    except Timeout:
        raise OutputError(
            f"{folder} is in use by {_holder(path)}; wait for it or choose another folder"
        ) from None
    except OSError as error:
        no_folder = isinstance(error, NotADirectoryError | FileExistsError)
        kind = UsageError if no_folder else OutputError
        raise kind(f"cannot work in {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        _leave_no_empty(folder, path)
        lock.release()


def _take(lock: BaseFileLock, folder: Path, path: Path) -> None:
    """Create the folder and lock it, again if its last user removes it in between."""
    from filelock import Timeout

    for attempt in range(ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            return
        except Timeout:
            # filelock mistakes a lock that is unlinked while being opened for one in use.
            if path.exists() or attempt == ATTEMPTS - 1:
                raise


def was_locked(folder: Path, name: str = ".lock") -> bool:
    """Whether a process of diffgen has locked this folder before."""
    return _holder(folder / name) != NOBODY


def _leave_no_empty(folder: Path, lock: Path) -> None:
    """Remove a folder that contains only its lock."""
    with suppress(OSError):
        if list(folder.iterdir()) == [lock]:
            lock.unlink()
            folder.rmdir()


def _holder(lock: Path) -> str:
    with suppress(OSError, ValueError):
        return f"process {int(lock.read_text(encoding='ascii'))}"
    return NOBODY


def remove_parts(folder: Path, *, idle: float = 0.0) -> None:
    """Remove partial files of killed processes, unwritten to for `idle` seconds.

    Without such a time it requires the lock of the folder: others may be writing.
    """
    for path in folder.glob(".*.part*"):
        if PART.fullmatch(path.name):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= idle:
                    path.unlink()


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    # A name of bounded length, with the suffix from which writers choose their format.
    part = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix[:32]}")
    # O_EXCL does not follow another user's link.
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _claim(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links (FAT, some shares): claim the name, then fill it
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.replace(part, path)


def _sync_folder(folder: Path) -> None:
    """Wait for a folder's names, where that can be: some shares refuse, some may not be read."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
