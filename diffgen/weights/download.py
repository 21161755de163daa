"""Fetch files from the hub into the user's folder: resumable, verified, complete or absent.

huggingface_hub's own download deletes partial files when it is interrupted. Here a partial file
stays beside its target, and the next attempt resumes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from diffgen.configuration import Folders
from diffgen.errors import OutputError, WeightsError, in_bytes
from diffgen.files import locked
from diffgen.weights.hashes import sha256
from diffgen.weights.hub import SHA256, Order, endpoint, is_offline, plain_errors
from diffgen.weights.reading import opened, settled_stamp
from diffgen.weights.registry import RemoteFile
from diffgen.weights.shelf import folder_of, is_whole

if TYPE_CHECKING:
    from huggingface_hub.file_download import HfFileMetadata

Report: TypeAlias = Callable[[str, int, int | None], None]  # file, bytes done, bytes in all

SPARE_BYTES = 64 << 20  # kept free on the disk


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded file: its size, SHA-256, and the bytes transferred this time."""

    path: Path
    size: int
    sha256: str
    downloaded: int


def fetch(
    order: Order, folders: Folders, *, report: Report, offline: bool = False
) -> list[Fetched]:
    """Make all files of an order available, verified, in the downloads folder.

    Raises WeightsError for wrong files or a refusal by the hub or the network, OutputError for a
    full disk, UsageError for what the hub does not have.
    """
    root = folder_of(order.repository, folders)
    missing = [file for file in order.files if not is_whole(root / file.path, file)]
    if missing and (offline or is_offline()):
        size = sum(file.size or 0 for file in missing)
        raise WeightsError(
            f"{order.name} is not on this machine, and nothing is fetched offline"
            + (f"; it takes {in_bytes(size)}" if size else "")
        )
    with locked(root):
        _check_space(root, missing)
        return [_fetched(order, file, root / file.path, report) for file in order.files]


def _fetched(order: Order, file: RemoteFile, path: Path, report: Report) -> Fetched:
    """One file in its place; an existing one is verified, and fetched again if wrong."""
    if is_whole(path, file):
        found = _hash(path, report)
        if file.sha256 in (None, found):
            return Fetched(path, path.stat().st_size, found, 0)
    with plain_errors(order.repository):
        return _download(order, file, path, report)


def _download(order: Order, file: RemoteFile, path: Path, report: Report) -> Fetched:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(order.repository, file.path, revision=order.revision, endpoint=endpoint())
    there = get_hf_file_metadata(url, endpoint=endpoint())
    size, digits = _agreed(order, file, there)
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = (digits or there.etag or "")[:12].replace("/", "-")
    part = path.with_name(f".{path.name}.{tag}.part")
    begun = _transfer(url, part, size, path.name, report)
    found = _hash(part, report)
    if digits not in (None, found):
        part.unlink()
        raise WeightsError(
            f"{order.repository}: {file.path} has the sha256 {found}, not {digits} as "
            "it should; it was deleted: try again, or another mirror"
        )
    os.replace(part, path)
    return Fetched(path, path.stat().st_size, found, path.stat().st_size - begun)


def _agreed(order: Order, file: RemoteFile, there: HfFileMetadata) -> tuple[int | None, str | None]:
    """The expected size and hash of a file. Raises WeightsError if the hub's file differs."""
    of_the_hub = there.etag if there.etag and SHA256.fullmatch(there.etag) else None
    for what, ours, theirs in (
        ("bytes", file.size, there.size),
        ("sha256", file.sha256, of_the_hub),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise WeightsError(
                f"{order.repository} has another file under {file.path} than is known: its {what} "
                f"{theirs}, not {ours}; nothing was fetched"
            )
    return file.size or there.size, file.sha256 or of_the_hub


def _transfer(url: str, part: Path, size: int | None, name: str, report: Report) -> int:
    """Fetch what `part` lacks; returns its size before. Raises OutputError for a full disk."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import logging
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # It retries by itself, and would print that on stderr.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if part.is_file() and size is not None and part.stat().st_size > size:
        part.unlink()
    with part.open("ab") as file:
        begun = file.tell()
    with part.open("r+b") as file:
        file.seek(begun)
        reporting = _Reporting(file, part, name, size, report)
        http_get(
            url,
            reporting,  # type: ignore[arg-type]  # of a file it uses these four methods
            resume_size=begun,
            headers=build_hf_headers(),
            expected_size=size,
        )
    return begun


class _Reporting:
    """A file object that reports progress, and names its path when the disk is full."""

    def __init__(
        self, file: IO[bytes], path: Path, name: str, size: int | None, report: Report
    ) -> None:
        self._file, self._path, self._size = file, path, size
        self._label, self._report = f"fetching {name}", report
        self.tell, self.seek, self.truncate = file.tell, file.seek, file.truncate

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path.parent}: {error.strerror}; what is there is kept, the "
                "same command goes on from it"
            ) from error
        self._report(self._label, self._file.tell(), self._size)
        return written


def _hash(path: Path, report: Report) -> str:
    size = path.stat().st_size
    report("checking", size, size)
    with opened(path) as file:
        stamp = settled_stamp(file)
    found = sha256(path, stamp)
    if found is None:
        raise WeightsError(f"{path} changed while it was read; try again")
    return found


def _check_space(root: Path, missing: list[RemoteFile]) -> None:
    """Raise OutputError, before anything is fetched, if the disk lacks space."""
    needed = sum(file.size or 0 for file in missing)
    for part in root.rglob(".*.part"):
        with suppress(OSError):
            needed -= part.stat().st_size
    free = shutil.disk_usage(root).free
    if needed > 0 and needed + SPARE_BYTES > free:
        raise OutputError(
            f"no space for it in {root.parent}: it takes {in_bytes(needed)}, there are "
            f"{in_bytes(free)}; free some, or set another folder as folders.downloads in the "
            "configuration"
        )
