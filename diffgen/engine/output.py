"""Where pictures go: names, no overwriting, and no half-written file ever. Imports no torch."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from diffgen.engine.metadata import text_chunks
from diffgen.errors import OutputError, UsageError

if TYPE_CHECKING:
    from PIL import Image


class PictureOutput:
    """Writes PNG files into a folder, to one file, or to stdout ("-").

    A name without a suffix, with a trailing slash, or of an existing folder means a folder, in
    which each picture is named after its prompt and seed. All checks that need no picture are
    made at once, so that nobody waits for a picture that cannot be written.
    """

    def __init__(self, target: str | None, *, pictures: int, overwrite: bool = False) -> None:
        """Raises UsageError for a target that cannot hold so many pictures, or that exists."""
        path = Path(target or ".").expanduser()
        is_folder = path.is_dir() or not path.suffix or (target or "").endswith(("/", os.sep))
        self._overwrite = overwrite
        self._written: set[Path] = set()
        self._stdout = target == "-"
        self._folder = path if is_folder else None
        self._file = None if is_folder else path
        if self._stdout or self._file:
            self._check_single(target or "", pictures)
        if not self._stdout:
            _check_writable(path if is_folder else path.parent)

    @property
    def to_stdout(self) -> bool:
        return self._stdout

    def save(self, image: Image.Image, record: Mapping[str, Any]) -> Path | None:
        """Write one picture with its record inside; returns its path, None for stdout.

        Raises OutputError; what was begun is removed.
        """
        if self._stdout:
            _write_png(sys.stdout.buffer, image, record)
            sys.stdout.buffer.flush()
            return None
        path = self._file or self._free_name(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, image, record)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._written.add(path)
        return path

    def _check_single(self, target: str, pictures: int) -> None:
        if pictures > 1:
            raise UsageError(f"{pictures} pictures do not fit into {target}; give a folder")
        if self._stdout and sys.stdout.isatty():
            raise UsageError("a PNG is no text for a terminal; pipe it, or give a file name")
        if self._file and self._file.suffix.lower() != ".png":
            raise UsageError(
                f"{target}: pictures are PNG files; end the name in .png, or in / for a folder"
            )
        if self._file and self._file.exists() and not self._overwrite:
            raise UsageError(f"{target} exists; choose another name or add --overwrite")

    def _free_name(self, record: Mapping[str, Any]) -> Path:
        folder = self._folder or Path()
        stem = f"{_slug(record['prompt'])}-{record['seed']}"
        names = (stem if i == 1 else f"{stem}-{i}" for i in count(1))
        paths = (folder / f"{name}.png" for name in names)
        # Even when told to overwrite, a run spares its own pictures.
        return next(
            path
            for path in paths
            if path not in self._written and (self._overwrite or not path.exists())
        )


def _slug(prompt: str, limit: int = 40) -> str:
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-_")
    if len(words) > limit:
        words = words[: limit + 1].rpartition("-")[0] or words[:limit]
    return words or "unconditional"


def _check_writable(folder: Path) -> None:
    """Try to make a file in the folder, or in the nearest parent that exists."""
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {existing}: {error.strerror}") from error


def _write_atomically(path: Path, image: Image.Image, record: Mapping[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            _write_png(file, image, record)
        # mkstemp makes private files; a picture gets what the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_png(file: BinaryIO, image: Image.Image, record: Mapping[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in text_chunks(record).items():
        info.add_text(keyword, text)
    image.save(file, format="PNG", pnginfo=info)
