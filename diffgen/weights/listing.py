"""List the models that a user may name: registered ones, and files in the folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from diffgen.configuration import Configuration, Folders
from diffgen.errors import DiffgenError, UsageError, did_you_mean
from diffgen.files import expanded
from diffgen.jsonfile import JsonObject
from diffgen.weights import shelf
from diffgen.weights.contents import contents_of
from diffgen.weights.files import PICKLE_SUFFIXES
from diffgen.weights.ldm.single_file import read_any
from diffgen.weights.registry import (
    PACKAGE,
    Kind,
    ModelEntry,
    known_entries,
    user_registry_path,
)
from diffgen.weights.shelf import INDEX, Item

FAMILIES = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusionXLImg2ImgPipeline": "sdxl"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One name: what it is, and its path on this machine, if any.

    `known` means that weights.toml describes it; `trouble` is why a file cannot be read.
    """

    name: str
    kind: str | None
    family: str | None
    size: int | None
    license: str | None
    description: str | None
    path: Path | None
    known: bool
    trouble: str | None = None


def parse_kind(text: str | None) -> Kind | None:
    """A kind of weights as typed. Raises UsageError."""
    for kind in get_args(Kind):
        if text in (kind, f"{kind}s"):
            return kind  # type: ignore[no-any-return]  # get_args has no types
    if text is None:
        return None
    kinds = get_args(Kind)
    raise UsageError(f"--kind takes {', '.join(kinds)}, not {text}{did_you_mean(text, kinds)}")


def list_models(kind: Kind | None = None, *, here: bool = False) -> list[Listed]:
    """All models of a kind that are registered or on this machine, registered ones first."""
    folders = Configuration.read().folders
    entries = known_entries()
    known = [_known(name, entry, folders) for name, entry in entries.items()]
    places = {each.path.resolve() for each in known if each.path}
    found = [_found(item) for item in _unknown(folders, places)]
    return [
        each
        for each in (*known, *found)
        if kind in (None, each.kind) and (each.path is not None or not here)
    ]


def _known(name: str, entry: ModelEntry, folders: Folders) -> Listed:
    path = _place(entry, folders)
    return Listed(
        name=name,
        kind=entry.kind,
        family=entry.family,
        size=entry.size if entry.size is not None or path is None else _size(path),
        license=entry.license,
        description=entry.description,
        path=path,
        known=True,
    )


def _place(entry: ModelEntry, folders: Folders) -> Path | None:
    if entry.bundled is not None:
        return PACKAGE / entry.bundled
    if entry.path is not None:
        path = user_registry_path().parent / expanded(entry.path)
        return path if path.exists() else None
    return shelf.place_of(entry, folders)


def _unknown(folders: Folders, known: set[Path]) -> Iterator[Item]:
    """Files in the folders besides those of registered models."""
    for item in shelf.items(folders):
        real = item.path.resolve()
        if real not in known and not known.intersection(real.parents):
            yield item


def _found(item: Item) -> Listed:
    family, kind, trouble = None, item.kind, None
    try:
        if item.path.is_dir():
            kind, family = "model", _family_of_folder(item.path)
        elif kind == "embedding" and item.path.suffix.lower() in PICKLE_SUFFIXES:
            pass  # plain data are read where it is drawn with
        else:
            infos, _ = read_any(item.path)
            contents = contents_of({key: info.shape for key, info in infos.items()})
            family, kind = contents.family, kind or _kind(contents.holds)
    except DiffgenError as error:
        trouble = str(error)
    return Listed(item.name, kind, family, item.size, None, None, item.path, False, trouble)


def _kind(holds: str) -> Kind | None:
    kinds: Mapping[str, Kind] = {
        "model": "model",
        "unet": "model",
        "lora": "lora",
        "vae": "vae",
        "decoder": "decoder",
        "embedding": "embedding",
    }
    return kinds.get(holds)


def _family_of_folder(folder: Path) -> str | None:
    """A folder's family, by the text width of its U-Net's config."""
    from diffgen.weights.contents import CONTEXT

    if FAMILIES.get(JsonObject.read(folder / INDEX).get("_class_name", "")):
        return "sdxl"
    config = folder / "unet" / "config.json"
    width = JsonObject.read(config).optional("cross_attention_dim", int) if config.is_file() else 0
    return CONTEXT.get(width or 0)


def _size(path: Path) -> int:
    return Item(path.name, path, None, path.parent).size
