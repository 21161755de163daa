"""The journal of a run: JSON lines beside the pictures that record which are finished.

It is only appended to, under a lock, and each addition reaches the disk before the run continues. A
killed run therefore loses only the picture in progress, and several processes may share one
journal: each claims pictures in its own name, and a dead process's claims are free again.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from filelock import FileLock, Timeout

from diffgen import __version__
from diffgen.errors import ConfigError, OutputError, UsageError
from diffgen.jsonfile import parse_json

FORMAT = 1  # of the lines; changes when a key changes its meaning
KEY_BYTES = 12
LINE_AT_MOST = 1 << 20  # bytes; longer ones are invalid

State = Literal["taken", "made", "failed"]


def key_of(settings: Mapping[str, Any]) -> str:
    """A journal's key for these settings (plain values)."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """The latest entry of one picture. `size` is the file's, in bytes."""

    state: State
    by: str
    path: str | None = None
    size: int | None = None
    error: str | None = None


class Journal:
    """One process's handle on a journal; a context manager.

    `request` identifies the command: if the journal already has it, `seed` is the one drawn then,
    so that the run continues with the same pictures.
    """

    def __init__(
        self, path: Path, *, request: str, seed: int, fresh: bool = False, look: bool = False
    ) -> None:
        """With `look` it is only read, and makes nothing.

        Raises UsageError for a file that is no journal, OutputError for an inaccessible one.
        """
        self.path = path
        self.damaged: list[int] = []  # numbers of unreadable lines
        self.seed, self._request = seed, request
        self.is_known = False  # whether the journal already had the request
        self._known, self._begun, self._fresh = False, False, False
        self._entries: dict[str, Entry] = {}
        self._failed_before: set[str] = set()
        self._offset, self._line, self._torn, self._heads = 0, 0, False, 0
        self._me = secrets.token_hex(6)
        self._dead: set[str] = set()
        self._threads = threading.RLock()
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._alive = FileLock(self._sign_of(self._me), thread_local=False)
        try:
            if look:
                self._look()
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._alive.acquire()
            with self._locked():
                self._begin(fresh=fresh)
            self._begun = True
        except OSError as error:
            raise OutputError(f"cannot keep the journal {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release unfinished claims."""
        self._alive.release()
        with suppress(OSError):
            self._sign_of(self._me).unlink(missing_ok=True)

    def entry(self, key: str) -> Entry | None:
        """The latest entry of a picture, without a look at the disk."""
        return self._entries.get(key)

    @property
    def has_pictures(self) -> bool:
        """Whether anything is noted in it."""
        return bool(self._entries)

    def is_made(self, key: str) -> bool:
        """Whether a picture was finished and its file still has its size."""
        entry = self._entries.get(key)
        if entry is None or entry.state != "made" or entry.path is None:
            return False
        try:
            return (self.path.parent / entry.path).stat().st_size == entry.size
        except OSError:
            return False

    def take(self, keys: Sequence[str]) -> list[str]:
        """Claim those of the keys that are neither finished nor claimed, and return them.

        A failed picture is tried again only by the next run.
        """
        if not any(self._is_open(key) for key in keys):
            return []
        with self._locked():
            self._read()
            free = [key for key in keys if self._is_free(key)]
            self._append({"key": key, "state": "taken", "by": self._me} for key in free)
        return free

    def made(self, key: str, path: Path, size: int, **more: Any) -> None:
        """Record that a picture is about to be at `path`; `more` are plain values to store.

        Call it before the file gets its name: an entry without a file is detected, a file without
        an entry would be made a second time.
        """
        name = os.path.relpath(path, self.path.parent)
        self._note({"key": key, "state": "made", "by": self._me, "path": name, "size": size} | more)

    def failed(self, key: str, error: str, **more: Any) -> None:
        """Record why a picture could not be made."""
        self._note({"key": key, "state": "failed", "by": self._me, "error": error} | more)

    def release(self, keys: Iterable[str]) -> None:
        """Release claims, for other processes."""
        self._note(*({"key": key, "state": "taken", "by": ""} for key in keys))

    def forget_the_dead(self) -> None:
        """Remove the signs of processes that were killed."""
        for sign in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.lock"):
            self._lives(sign.name.split(".")[-2])

    def _is_open(self, key: str) -> bool:
        """Whether it may be free by now, since claims can be released."""
        entry = self._entries.get(key)
        return self._is_free(key) or (entry is not None and entry.state == "taken")

    def _is_free(self, key: str) -> bool:
        entry = self._entries.get(key)
        if entry is None or key in self._failed_before:
            return True
        if entry.state == "failed" or self._lives(entry.by):
            return False
        return not self.is_made(key)

    def _lives(self, process: str) -> bool:
        """A living process holds the lock of its sign file; a dead one does not."""
        if not process or process in self._dead:
            return False
        if process == self._me:
            return True
        sign = self._sign_of(process)
        if not sign.exists():
            self._dead.add(process)
            return False
        try:
            with FileLock(sign, timeout=0):
                self._dead.add(process)
        except Timeout:
            return True
        with suppress(OSError):
            sign.unlink(missing_ok=True)
        return False

    def _sign_of(self, process: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{process}.lock")

    def _look(self) -> None:
        self._read()
        if self.damaged and not self._heads and not self._entries:
            raise UsageError(f"{self.path} is there and is no journal of diffgen; move it away")

    def _begin(self, *, fresh: bool) -> None:
        given = self.seed
        self._fresh = fresh
        self._look()
        if fresh and self._heads:
            self._start_over(given)
        failed = (key for key, entry in self._entries.items() if entry.state == "failed")
        self._failed_before = set(failed)
        self.is_known = self._known
        if not self._known:
            head = {"journal": FORMAT, "request": self._request, "seed": self.seed}
            self._append([head | {"version": __version__}])

    def _start_over(self, seed: int) -> None:
        if any(self._lives(each.by) for each in self._entries.values() if each.state == "taken"):
            raise OutputError(
                f"{self.path} is in use by another process; wait for it, or drop --fresh"
            )
        self.path.unlink()
        self.seed, self._known = seed, False
        self._offset, self._line, self._torn, self._heads = 0, 0, False, 0
        self._entries.clear()
        self.damaged.clear()

    def _note(self, *lines: Mapping[str, Any]) -> None:
        with self._locked():
            self._read()
            self._append(lines)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads:
            if self._begun and not self.path.exists():  # the lock would make its folder anew
                raise OutputError(f"{self.path} is gone, or the disk it is on; stopped")
            with self._lock:
                yield

    def _read(self) -> None:
        """Read the additions of all processes."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while raw := file.readline(LINE_AT_MOST):
                    self._torn = not raw.endswith(b"\n")
                    self._line += not self._torn
                    self._offset = file.tell()
                    self._take_in(raw)
        except FileNotFoundError:
            return

    def _take_in(self, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            line = parse_json(raw.decode(), "a line of the journal")
            if "journal" in line:
                self._take_in_head(line)
            elif line["state"] in get_args(State) and isinstance(line["key"], str):
                known = ("path", "size", "error")
                fields = {name: line.get(name) for name in known}
                self._entries[line["key"]] = Entry(line["state"], str(line["by"]), **fields)
                self._failed_before.discard(line["key"])
            else:
                raise ValueError
        except (ConfigError, ValueError, TypeError, KeyError):
            number = self._line + self._torn
            if number not in self.damaged[-1:]:
                self.damaged.append(number)

    def _take_in_head(self, line: Mapping[str, Any]) -> None:
        self._heads += 1
        if line["journal"] != FORMAT and not self._fresh:
            raise UsageError(
                f"{self.path} is of another version of diffgen; finish it with that, or --fresh"
            )
        if line["request"] == self._request and not self._known:
            self.seed, self._known = int(line["seed"]), True

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append whole lines and wait until they are on the disk."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if not text:
            return
        if self._torn:  # a process was killed, or the disk was full, in the middle of a line
            text = "\n" + text
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            view = text.encode("ascii")
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            os.close(handle)
        self._read()
