"""Models and parts of models on this machine, by name.

The folders are those of the configuration, those of other programs (their layouts are in LAYOUTS),
diffgen's download folder, and the cache of the Hugging Face hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diffgen.configuration import Folders
from diffgen.places import hub_cache
from diffgen.weights.registry import Kind, ModelEntry, RemoteFile

# Folders inside those of A1111 and Forge, ComfyUI, SD.Next and InvokeAI.
LAYOUTS: Mapping[Kind, tuple[str, ...]] = {
    "model": (
        "models/Stable-diffusion",
        "models/checkpoints",
        "models/diffusion_models",
        "models/unet",
        "models/*/main",
    ),
    "lora": ("models/Lora", "models/LyCORIS", "models/loras", "models/*/lora"),
    "vae": ("models/VAE", "models/vae", "models/*/vae"),
    "embedding": ("embeddings", "models/embeddings", "models/*/embedding"),
    "decoder": ("models/VAE-approx", "models/vae_approx"),
}
INVOKE = "invokeai.yaml"
SUFFIXES = (".safetensors", ".gguf")
# Embeddings are also read from A1111's pickles, as plain data.
OF_EMBEDDINGS = (".safetensors", ".pt", ".bin", ".pth")
INDEX = "model_index.json"  # what makes a folder a model
MAX_DEPTH = 8  # of folders inside folders


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a folder that holds a model: its name and path.

    `kind` is None if the containing folder does not determine it.
    """

    name: str
    path: Path
    kind: Kind | None
    folder: Path

    @property
    def size(self) -> int:
        """Bytes on disk."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        total = 0
        for file in files:
            with suppress(OSError):
                total += file.stat().st_size if file.is_file() else 0
        return total

    def is_called(self, name: str) -> bool:
        """Whether `name` refers to this item: the file's name, or the end of its path."""
        suffix = self.path.suffix.casefold()
        suffix = suffix if suffix in (*SUFFIXES, *OF_EMBEDDINGS) else ""
        wanted = name.replace("\\", "/").casefold().removesuffix(suffix)
        if wanted.rpartition("/")[2] != self.name.casefold():
            return False
        path = self.path.relative_to(self.folder).as_posix().casefold().removesuffix(suffix)
        return wanted in (self.name.casefold(), path) or path.endswith(f"/{wanted}")


def items(folders: Folders, kind: Kind | None = None) -> Iterator[Item]:
    """Everything in the configured folders and the download folder, each file once."""
    seen: set[Path] = set()
    for folder, its_kind in _places(folders):
        if kind in (None, its_kind) or its_kind is None:
            suffixes = OF_EMBEDDINGS if "embedding" in (kind, its_kind) else SUFFIXES
            for path, real in _walk(folder, suffixes, models=its_kind in (None, "model")):
                if real not in seen:
                    seen.add(real)
                    name = path.stem if path.is_file() else path.name
                    yield Item(name, path, its_kind, folder)


def find(name: str, folders: Folders, kind: Kind) -> list[Item]:
    """The items with a name among files that are, or may be, of this kind.

    Those written exactly so come before those in another case.
    """
    found = [item for item in items(folders, kind) if item.is_called(name)]
    last = name.replace("\\", "/").rpartition("/")[2]
    exact = [item for item in found if last in (item.name, item.path.name)]
    return exact or found


def place_of(entry: ModelEntry, folders: Folders) -> Path | None:
    """The file of an entry on this machine, or the folder if it has several; None if absent.

    In the user's own folders a file is recognised by its name and size.
    """
    if entry.repository is None:
        return None
    for root in _roots(entry.repository, folders):
        if all(is_whole(root / file.path, file) for file in entry.files):
            return root / entry.files[0].path if len(entry.files) == 1 else root
    if len(entry.files) == 1 and entry.files[0].size is not None:
        (file,) = entry.files
        return next((i.path for i in items(folders, entry.kind) if _is_file(i, file)), None)
    return None


def entry_of(path: Path, entries: Mapping[str, ModelEntry]) -> ModelEntry | None:
    """The entry of a file, by its name and size."""
    for entry in entries.values():
        files = [file for file in entry.files if file.size is not None]
        if len(entry.files) == 1 and any(
            path.name == Path(file.path).name and is_whole(path, file) for file in files
        ):
            return entry
    return None


def downloaded_repository(repository: str, folders: Folders) -> Path | None:
    """A whole model downloaded from a repository: its folder, or its single file."""
    for root in _roots(repository, folders):
        if (root / INDEX).is_file():
            return root
        files = sorted(root.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
    return None


def folder_of(repository: str, folders: Folders) -> Path:
    """The download folder of a repository."""
    return folders.downloads / repository.replace("/", "--")


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file exists and has the expected size, if that is known."""
    with suppress(OSError):
        return path.is_file() and file.size in (None, path.stat().st_size)
    return False


def _roots(repository: str, folders: Folders) -> Iterator[Path]:
    """Folders laid out as the repository: diffgen's download, and the hub cache's revisions."""
    yield folder_of(repository, folders)
    cached = hub_cache() / f"models--{repository.replace('/', '--')}"
    main = cached / "refs" / "main"
    with suppress(OSError):
        yield cached / "snapshots" / main.read_text(encoding="ascii").strip()
    with suppress(OSError):
        yield from sorted((cached / "snapshots").iterdir())


def _is_file(item: Item, file: RemoteFile) -> bool:
    return item.path.name == Path(file.path).name and is_whole(item.path, file)


def _places(folders: Folders) -> Iterator[tuple[Path, Kind | None]]:
    own: Sequence[tuple[Kind, tuple[Path, ...]]] = (
        ("model", folders.models),
        ("lora", folders.loras),
        ("vae", folders.vaes),
        ("embedding", folders.embeddings),
    )
    for kind, paths in own:
        yield from ((path, kind) for path in paths)
    for program in folders.programs:
        for kind, patterns in LAYOUTS.items():
            for pattern in patterns:
                yield from ((path, kind) for path in sorted(program.glob(pattern)))
        if (program / INVOKE).is_file():  # newer versions use one folder per model
            yield program / "models", None
    yield folders.downloads, None


def _walk(folder: Path, suffixes: tuple[str, ...], *, models: bool) -> Iterator[tuple[Path, Path]]:
    """The weights below a folder, links followed; with `models` whole folders that are models."""
    visited: set[Path] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        here = Path(place)
        real, depth = here.resolve(), len(here.relative_to(folder).parts)
        if real in visited or depth > MAX_DEPTH:
            below.clear()
            continue
        visited.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if models and INDEX in names:
            below.clear()
            yield here, real
            continue
        for name in sorted(names):
            if name.lower().endswith(suffixes):
                path = here / name
                yield path, path.resolve() if path.is_symlink() else real / name
