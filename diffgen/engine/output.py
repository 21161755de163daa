"""Where pictures go: names, no overwriting, and no half-written file ever."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.engine.metadata import text_chunks
from diffgen.errors import OutputError, UsageError
from diffgen.files import created, replaced

if TYPE_CHECKING:
    from PIL import Image

# What a name ends in if it is meant for one picture; any other is a folder's, as "v1.2" is.
PICTURES = re.compile(
    r"\.(a?png|jpe?g?|jfif|jp2|jxl|webp|gif|bmp|tiff?|tga|avif|hei[cf]|p[bgp]m|psd|qoi|svg|exr)",
    re.I,
)
LONGEST = 40  # characters of a prompt in a name
LONGEST_BYTES = 120  # file systems take 255, some 143, for the whole name
JOINERS = re.compile("[\u200d\ufe00-\ufe0f]")  # how emoji are joined and drawn


class PictureOutput:
    """Writes PNG files into a folder, to one file, or to stdout ("-").

    A name with the suffix of a picture means a file; any other, one with a trailing slash and that
    of an existing folder mean a folder, in which each picture is named after its prompt and seed.
    All checks that need no picture are made at once, so that nobody waits for a picture that cannot
    be written.
    """

    def __init__(self, target: str | None, *, pictures: int, overwrite: bool = False) -> None:
        """Raises UsageError for a target that cannot hold so many pictures, or that exists, and
        OutputError for one that cannot be written.
        """
        path = Path(os.path.expanduser(target or "."))
        self._overwrite = overwrite
        self._written: set[Path] = set()
        self._stdout = target == "-"
        try:
            is_folder = _means_folder(target or ".", path)
            self._folder = path if is_folder else path.parent
            self._file = None if is_folder else path
            if self._stdout or self._file:
                self._check_single(target or "", pictures)
            self._must_make = not self._stdout and _check_writable(self._folder)
        except OSError as error:  # a name that is too long, above all
            where = target or "into the current folder"
            raise OutputError(f"cannot write {where}: {error.strerror}") from error

    @property
    def to_stdout(self) -> bool:
        return self._stdout

    def save(self, image: Image.Image, record: Mapping[str, Any]) -> Path | None:
        """Write one picture with its record inside; returns its path, None for stdout.

        Raises OutputError; what was begun is removed.
        """
        png = _encoded(image, record)
        if self._stdout:
            sys.stdout.buffer.write(png)
            sys.stdout.buffer.flush()
            return None
        path = self._place(png, record)
        self._written.add(path)
        if self._file and path != self._file:
            raise OutputError(
                f"another program made {self._file} meanwhile, which is left as it is; "
                f"the picture is {path}"
            )
        return path

    def _place(self, png: bytes, record: Mapping[str, Any]) -> Path:
        """Write a picture under the first name that is free, also of other programs' files."""
        path = self._folder
        try:
            # Once only: a folder that goes away later may be a disk that was taken out.
            if self._must_make:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._must_make = False
            put = replaced if self._overwrite else created
            for path in self._names(record):
                try:
                    with put(path) as part:
                        part.write_bytes(png)
                except FileExistsError:
                    continue
                break
        except FileNotFoundError as error:
            raise OutputError(f"cannot write {path}: its folder is gone") from error
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _names(self, record: Mapping[str, Any]) -> Iterator[Path]:
        """Names to try. Even when told to overwrite, a run spares its own pictures."""
        stem = self._file.stem if self._file else f"{_slug(record['prompt'])}-{record['seed']}"
        suffix = self._file.suffix if self._file else ".png"
        for i in count(1):
            path = self._folder / f"{stem}{'' if i == 1 else f'-{i}'}{suffix}"
            if path not in self._written and (self._overwrite or not os.path.lexists(path)):
                yield path

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


def _means_folder(target: str, path: Path) -> bool:
    names_picture = PICTURES.fullmatch(path.suffix) and not target.endswith(("/", os.sep))
    return not names_picture or path.is_dir()


def _slug(prompt: str) -> str:
    """The words of a prompt, or the names of its signs, as the beginning of a file name.

    Only an empty prompt is "unconditional".
    """
    text = JOINERS.sub("", unicodedata.normalize("NFC", prompt)).lower()
    words = _words(text)
    if not words:
        names = (unicodedata.name(sign, f"u{ord(sign):x}") for sign in text if not sign.isspace())
        words = _words(" ".join(names).lower())
    if len(words) > LONGEST:
        words = words[: LONGEST + 1].rpartition("-")[0] or words[:LONGEST]
    return words.encode()[:LONGEST_BYTES].decode(errors="ignore") or "unconditional"


def _words(text: str) -> str:
    """Letters, digits and the marks on letters; "-" for all between."""
    kept = (c if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") else " " for c in text)
    return "-".join("".join(kept).split())


def _check_writable(folder: Path) -> bool:
    """Try to make a file in the folder, or in the nearest parent that exists.

    Returns whether the folder must be made.
    """
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {existing}: {error.strerror}") from error
    return existing != folder


def _encoded(image: Image.Image, record: Mapping[str, Any]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in text_chunks(record).items():
        info.add_text(keyword, text)
    file = BytesIO()
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()
