"""Find models by name or path: registered, in the user's folders, or downloaded repositories."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diffgen.configuration import Configuration, Folders
from diffgen.errors import UsageError, WeightsError, did_you_mean, in_bytes, shown, some
from diffgen.files import expanded
from diffgen.weights import shelf
from diffgen.weights.files import read_metadata
from diffgen.weights.hashes import sha256
from diffgen.weights.reading import opened, settled_stamp
from diffgen.weights.registry import PACKAGE, Kind, ModelEntry, known_entries, user_registry_path

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
NAMES_SHOWN = 8
IN_FOLDERS: tuple[Kind, ...] = ("lora", "embedding")
SAVED_AS = (
    *("adapter_model.safetensors", "pytorch_lora_weights.safetensors"),
    "learned_embeds.safetensors",
)
OPTIONS: Mapping[Kind, str] = {
    "lora": "--lora",
    "vae": "--vae",
    "decoder": "--decoder",
    "embedding": "--embedding",
}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model asked for: its name, its path, and its registry entry if it has one."""

    name: str
    path: Path
    entry: ModelEntry | None = None

    @property
    def lora(self) -> Path | None:
        """The LoRA that turns the model at `path` into this one."""
        return PACKAGE / self.entry.lora if self.entry and self.entry.lora else None


def resolve(
    source: str,
    registry: Mapping[str, ModelEntry] | None = None,
    folders: Folders | None = None,
) -> ModelRef:
    """Find a model by name or path, in the user's registries and folders.

    A registered name wins over a path of the same name (`./name` reaches that), and a path over a
    file of that name in the folders. Raises UsageError if there is none, or more than one.
    """
    entries = known_entries() if registry is None else registry
    if source in entries:
        return _known(source, entries[source], folders)
    path = _place(source)
    if path.exists():
        return _at(path, entries)
    if "://" in source:
        raise UsageError(f"{source} is not fetched: download it yourself, then give its path")
    found = _on_the_shelf(source, folders)
    if found:
        return _at(found, entries)
    raise UsageError(_nowhere(source, path, entries, folders))


def find_file(name: str, kind: Kind, *, option: str) -> Path:
    """Find a LoRA, an autoencoder or an embedding by path, registered name or file name.

    `option` names it in errors. Raises UsageError if there is none, or more than one.
    """
    path = _place(name)
    if path.exists():
        return _inside(path, option) if path.is_dir() and kind in IN_FOLDERS else path
    entries, folders = known_entries(), Configuration.read().folders
    if name in entries and entries[name].kind == kind:
        return _known(name, entries[name], folders, kind).path
    found = shelf.find(name, folders, kind) or _by_alias(name, folders, kind)
    if len(found) > 1 and not _all_the_same([item.path for item in found]):
        _refuse_several(name, found)
    if found:
        return found[0].path
    names = [each for each, entry in entries.items() if entry.kind == kind]
    names += [item.name for item in shelf.items(folders, kind)]
    raise UsageError(
        f"{option}: there is no file {path}, nor one of that name in the folders of {kind} files"
        f"{did_you_mean(name, names)}"
    )


def find_embedding(name: str, digits: str) -> tuple[Path | None, bool]:
    """The embedding in the user's folders that has a hash, or at least a name.

    Tells whether it is the one of the hash, whose first digits are enough; one of the name comes
    first. None if there is neither.
    """
    folders = Configuration.read().folders
    called = [item.path for item in shelf.find(name, folders, "embedding")]
    others = [item.path for item in shelf.items(folders) if item.kind == "embedding"]
    if not digits:
        return (called[0], True) if called else (None, False)
    for path in (*called, *(each for each in others if each not in called)):
        if (hash_of(path) or "").startswith(digits):
            return path, True
    return (called[0] if called else None), False


def hash_of(path: Path) -> str | None:
    """The hash of a file as it is now; None for one that cannot be read."""
    with suppress(WeightsError), opened(path) as file:
        return sha256(path, settled_stamp(file))
    return None


def _by_alias(name: str, folders: Folders, kind: Kind) -> list[shelf.Item]:
    """LoRAs whose trainer called them so, the name that A1111 writes into prompts."""
    found = []
    for item in shelf.items(folders, "lora") if kind == "lora" else ():
        with suppress(WeightsError):
            if read_metadata(item.path).get("ss_output_name", "").casefold() == name.casefold():
                found.append(item)
    return found


def _all_the_same(paths: list[Path]) -> bool:
    """Whether files are copies of one, as people have them in the folders of two programs."""
    first, *others = paths
    try:
        return all(filecmp.cmp(first, other, shallow=False) for other in others)
    except OSError:
        return False


def _inside(folder: Path, option: str) -> Path:
    """The file in a folder as PEFT and diffusers save adapters and embeddings."""
    files = sorted(folder.glob("*.safetensors"))
    known = [file for file in files if file.name in SAVED_AS] or files
    if len(known) != 1:
        found = f"it has {some([file.name for file in files])}" if files else "it has none"
        raise UsageError(f"{option}: {folder} is a folder; name a file in it: {found}")
    return known[0]


def locate(source: str) -> ModelRef:
    """The file or folder that a path or a name of any kind refers to. Raises UsageError."""
    path, entries = _place(source), known_entries()
    if source in entries:
        return _known(source, entries[source], None, entries[source].kind)
    if path.exists():
        return _at(path, entries)
    found = [item for item in shelf.items(_folders(None)) if item.is_called(source)]
    _refuse_several(source, found)
    if found:
        return _at(found[0].path, entries)
    return resolve(source, entries)


def _known(name: str, entry: ModelEntry, folders: Folders | None, kind: Kind = "model") -> ModelRef:
    if entry.kind != kind:
        raise UsageError(
            f"{name} is no model: give it with {OPTIONS.get(entry.kind, 'its option')}"
        )
    if entry.bundled is not None:
        return ModelRef(name, PACKAGE / entry.bundled, entry)
    if entry.path is not None:
        return ModelRef(name, user_registry_path().parent / expanded(entry.path), entry)
    path = shelf.place_of(entry, _folders(folders))
    if path is None:
        size = f", {in_bytes(entry.size)}" if entry.size else ""
        raise UsageError(f"{name} is not on this machine; to fetch it{size}: diffgen pull {name}")
    return ModelRef(name, path, entry)


def _at(path: Path, entries: Mapping[str, ModelEntry]) -> ModelRef:
    name = path.stem if path.is_file() else path.resolve().name
    return ModelRef(name, path, shelf.entry_of(path, entries) if path.is_file() else None)


def _on_the_shelf(source: str, folders: Folders | None) -> Path | None:
    if source.startswith((".", "~", "/")):
        return None
    places = _folders(folders)
    if REPOSITORY.fullmatch(source):
        downloaded = shelf.downloaded_repository(source, places)
        if downloaded:
            return downloaded
    found = shelf.find(source, places, "model")
    _refuse_several(source, found)
    return found[0].path if found else None


def _refuse_several(name: str, found: list[shelf.Item]) -> None:
    if len(found) > 1:
        first, second = found[0].path, found[1].path
        raise UsageError(f"{shown(name)} is both {first} and {second}; give the path you mean")


def _nowhere(
    source: str, path: Path, entries: Mapping[str, ModelEntry], folders: Folders | None
) -> str:
    if REPOSITORY.fullmatch(source):
        return (
            f"there is no model at {path}, and nothing is downloaded unasked; to fetch the "
            f"repository from Hugging Face: diffgen pull {source}"
        )
    if "/" in source or source.startswith((".", "~")):
        return f"there is no model at {path}"
    models = [name for name, entry in entries.items() if entry.kind == "model"]
    found = [item.name for item in shelf.items(_folders(folders), "model")]
    hint = did_you_mean(source, [*models, *found])
    known = ", ".join(models[:NAMES_SHOWN]) + (", ..." if len(models) > NAMES_SHOWN else "")
    return (
        f'there is no model named "{source}"{hint or "."} Known: {known} (`diffgen models` lists '
        "all); a path to a model works too"
    )


def _folders(given: Folders | None) -> Folders:
    return Configuration.read().folders if given is None else given


def _place(source: str) -> Path:
    """The path that a user means. Raises UsageError for an impossible one."""
    try:
        path = expanded(source)
        path.exists()
    except OSError as error:
        raise UsageError(f"{shown(source)} cannot be read: {error.strerror}") from error
    return path
