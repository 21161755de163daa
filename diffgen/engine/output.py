"""Write pictures: names, no overwriting, no half-written files."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from diffgen.engine.encoding import USUAL_SUFFIX, encode, format_of
from diffgen.engine.names import NameTemplate
from diffgen.errors import OutputError, UsageError
from diffgen.files import created, expanded, replaced
from diffgen.settings.output import DEFAULT_TEMPLATE
from diffgen.types import PictureFormat

if TYPE_CHECKING:
    from PIL import Image

# Suffixes of a single picture; any other name is a folder's, such as "v1.2".
PICTURES = re.compile(
    r"\.(a?png|jpe?g?|jfif|jp2|jxl|webp|gif|bmp|tiff?|tga|avif|hei[cf]|p[bgp]m|psd|qoi|svg|exr)",
    re.I,
)
Collision: TypeAlias = Literal["number", "skip", "overwrite"]
USUAL_NAMES = NameTemplate.parse(DEFAULT_TEMPLATE)
Noted = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class OutputStyle:
    """How pictures are named and written. `form` None follows the name, else PNG.

    On a taken name, "number" adds one, "overwrite" replaces the file (but never a picture of the
    same run), and "skip" leaves it: see `PictureOutput.existing`.
    """

    template: NameTemplate = USUAL_NAMES
    form: PictureFormat | None = None
    quality: int | None = None
    collision: Collision = "number"
    metadata: bool = True


class PictureOutput:
    """Write pictures into a folder, to one file, or to stdout ("-").

    A name with a picture's suffix means a file. Any other name, one with a trailing slash and an
    existing folder mean a folder, in which the template names each picture. All checks that need no
    picture are made at once, so that no drawn picture is lost to a bad target.
    """

    def __init__(
        self, target: str | None, *, pictures: int, style: OutputStyle | None = None
    ) -> None:
        """Raises UsageError for a target that exists or cannot hold so many pictures, and
        OutputError for one that cannot be written.
        """
        path = expanded(target or ".")
        self._style = style or OutputStyle()
        self._overwrite = self._style.collision == "overwrite"
        self._written: set[Path] = set()
        self._stdout = target == "-"
        try:
            if PICTURES.fullmatch(path.name) and not path.is_dir():  # an empty variable's
                raise UsageError(f"{target} is a suffix without a name")
            is_folder = _means_folder(target or ".", path)
            self._folder = path if is_folder else path.parent
            self._file = None if is_folder else path
            if self._stdout or self._file:
                self._check_single(target or "", pictures)
            self._must_make = not self._stdout and _check_writable(self._folder)
        except OSError as error:  # mostly a name that is too long
            where = target or "into the current folder"
            raise OutputError(f"cannot write {where}: {error.strerror}") from error
        self._form = self._style.form or "png"
        if self._file and not self._stdout:
            self._form = self._form_of_file()
        if self._style.quality is not None and self._form == "png":
            raise UsageError("a PNG loses nothing and has no quality; choose --format jpeg or so")

    @property
    def to_stdout(self) -> bool:
        return self._stdout

    @property
    def is_folder(self) -> bool:
        return self._file is None and not self._stdout

    @staticmethod
    def holds_many(target: str | None) -> bool:
        """Whether a target means a folder."""
        path = expanded(target or ".")
        return target != "-" and _means_folder(target or ".", path)

    @property
    def folder(self) -> Path:
        return self._folder

    def name(self, record: Mapping[str, Any], *, line: int = 1) -> Path:
        """The name a picture gets if it is free; `record` may hold the fields of names only."""
        if self._file:
            return self._file
        stem = self._style.template.stem({**record, "line": line})
        return self._folder / f"{stem}.{USUAL_SUFFIX[self._form]}"

    def existing(self, record: Mapping[str, Any], *, line: int = 1) -> Path | None:
        """The existing file that makes this picture superfluous, under "skip"."""
        path = self.name(record, line=line)
        skips = self._style.collision == "skip" and not self._stdout
        return path if skips and os.path.lexists(path) else None

    def save(
        self,
        image: Image.Image,
        record: Mapping[str, Any],
        *,
        line: int = 1,
        noted: Noted | None = None,
    ) -> Path | None:
        """Write one picture with its record; returns its path, None for stdout.

        `line` is the picture's line in the prompt file, for its name. `noted` gets each path that
        is about to be written, and the file's size; a picture so noted survives a power cut. Raises
        OutputError, after removing what was begun.
        """
        style = self._style
        content = encode(
            image, record, form=self._form, quality=style.quality, metadata=style.metadata
        )
        if self._stdout:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
            return None
        return self._put(content, self.name(record, line=line), noted)

    def _put(self, content: bytes, name: Path, noted: Noted | None) -> Path:
        """Write a picture; a file named by the user is the only acceptable name."""
        path = self._place(content, name, noted)
        self._written.add(path)
        if self._file and path != self._file:
            raise OutputError(
                f"another program made {self._file} meanwhile, which is left as it is; "
                f"the picture is {path}"
            )
        return path

    def _place(self, content: bytes, first: Path, noted: Noted | None) -> Path:
        """Write a picture under the first name that neither this nor another program has taken."""
        path = self._folder
        try:
            # Once only: a folder that vanishes later may be an unmounted disk.
            if self._must_make:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._must_make = False
            put = replaced if self._overwrite else created
            for path in self._names(first):
                try:
                    with put(path, durable=noted is not None) as part:
                        part.write_bytes(content)
                        if noted:
                            noted(path, len(content))
                except FileExistsError:
                    continue
                break
        except FileNotFoundError as error:
            raise OutputError(f"cannot write {path}: its folder is gone") from error
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _names(self, first: Path) -> Iterator[Path]:
        """Names to try. Even with "overwrite", a run spares its own pictures."""
        for i in count(1):
            path = first if i == 1 else first.with_name(f"{first.stem}-{i}{first.suffix}")
            if path not in self._written and (self._overwrite or not os.path.lexists(path)):
                yield path

    def _check_single(self, target: str, pictures: int) -> None:
        if pictures > 1:
            raise UsageError(f"{pictures} pictures do not fit into {target}; give a folder")
        if self._stdout and sys.stdout.isatty():
            raise UsageError(
                "a picture cannot be printed on a terminal; pipe it, or give a file name"
            )
        exists = self._file and self._file.exists()
        if exists and not self._stdout and self._style.collision == "number":
            raise UsageError(f"{target} exists; choose another name or add --overwrite")

    def _form_of_file(self) -> PictureFormat:
        assert self._file is not None
        form = format_of(self._file.suffix)
        if self._style.form not in (None, form):
            raise UsageError(f"{self._file} is no name for a picture in {self._style.form}")
        return form


def _means_folder(target: str, path: Path) -> bool:
    names_picture = PICTURES.fullmatch(path.suffix) and not target.endswith(("/", os.sep))
    return not names_picture or path.is_dir()


def _check_writable(folder: Path) -> bool:
    """Create a test file in the folder, or in the nearest existing parent.

    Returns whether the folder must be made.
    """
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not existing.is_dir():
        raise UsageError(
            f"{existing} is a file, and no folder to write into; a picture's name ends in .png, .jpg, "
            ".webp or .avif, and - is stdout"
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {existing}: {error.strerror}") from error
    return existing != folder
