"""Latents on disk: one file for each picture, size and mirroring, named by a hash.

The hash covers the picture's bytes, its size and crop, whether it is mirrored, and the autoencoder.
So a file stays valid when its picture is renamed, gets a new caption, or is in another data set. A
list of the latents that each data set uses lies beside them; unlisted ones are removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from diffgen.errors import ConfigError, OutputError, WeightsError
from diffgen.files import locked, replaced
from diffgen.jsonfile import JsonObject
from diffgen.types import Size
from diffgen.weights.files import open_tensors, read_header, save_tensors

FORM = "centre crop, form 1"  # of pixels and files; another form is another name
KEY = "latent"
# A safetensors file, as ComfyUI's of this suffix; programs that list models pass it by.
SUFFIX = ".latent"
OURS = re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{12}\.part")  # stems: whole files, and interrupted ones
FORMER = re.compile(r"[0-9a-f]{32}/\d{3}-\d{6}\.safetensors")  # one file for 512 pictures


@dataclass(frozen=True, slots=True)
class LatentFiles:
    """The latents in a folder that one autoencoder made; `key` is its hash."""

    folder: Path
    key: str

    def path(self, digest: str, size: Size, *, flip: bool) -> Path:
        """Where the latent of a picture with these bytes is, shown at `size`."""
        made_by = repr((FORM, self.key, digest, size, flip))
        name = hashlib.blake2b(made_by.encode(), digest_size=16).hexdigest()
        return self.folder / "latents" / name[:2] / f"{name}{SUFFIX}"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from filling the folder. Raises OutputError."""
        return locked(self.folder)

    def remembers(self, source: str, names: Collection[str]) -> bool:
        """Whether a data set is known to use exactly these latents."""
        return _used(self._list(source)) == set(names)

    def keep(self, source: str, names: Collection[str]) -> None:
        """Remember what a data set uses, and remove latents that none does.

        Only files of diffgen's own making are removed. Raises OutputError.
        """
        try:
            file = self._list(source)
            file.parent.mkdir(parents=True, exist_ok=True)
            with replaced(file) as part:
                part.write_text(json.dumps({"data": source, "latents": sorted(names)}))
            used = {name for listed in file.parent.glob("*.json") for name in _used(listed)}
            for path in (self.folder / "latents").glob(f"*/*{SUFFIX}"):
                if OURS.fullmatch(path.stem) and path.stem not in used:
                    path.unlink(missing_ok=True)
            _remove_former(self.folder)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be tidied: {error.strerror}") from error

    def _list(self, source: str) -> Path:
        name = hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
        return self.folder / "sets" / f"{name}.json"


def is_whole(path: Path) -> bool:
    """Whether a latent is there, by its header, which fits the length of the file."""
    try:
        info = read_header(path).get(KEY)
    except WeightsError:
        return False
    return info is not None and len(info.shape) == 3


def read_latent(path: Path) -> Tensor | None:
    """The latent, (C, h, w); None if it is missing or damaged."""
    try:
        return open_tensors([path])[KEY] if is_whole(path) else None
    except WeightsError:  # it went, or was cut, just now
        return None


def write_latent(path: Path, latent: Tensor) -> None:
    """Write a latent (C, h, w) atomically. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not synced to the disk one by one: what a power cut damages is made again.
        with replaced(path) as part:
            save_tensors({KEY: latent.contiguous()}, part, {})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {reason}") from error


def _used(file: Path) -> set[str]:
    """The names in a data set's list; none if it cannot be read or the data is gone."""
    try:
        table = JsonObject.read(file).data
        source, names = str(table["data"]), {str(name) for name in table["latents"]}
    except (ConfigError, KeyError, TypeError):
        return set()
    there = not Path(source).is_absolute() or Path(source).exists()
    return names if there else set()


def _remove_former(folder: Path) -> None:
    """Latents that earlier versions of diffgen kept, many in one file."""
    for path in folder.glob("*/*.safetensors"):
        if FORMER.fullmatch(path.relative_to(folder).as_posix()):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # something else is in there
                os.rmdir(path.parent)
