"""Hashes of the files that a run starts from: they may be moved, but not changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from diffgen.errors import WeightsError
from diffgen.files import expanded
from diffgen.train.recipe.checks import FROM_CAPTIONS
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.targets.networks import open_base, vae_path, vocabulary_path
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.diffusers.folder import weight_files
from diffgen.weights.hashes import sha256
from diffgen.weights.reading import Stamp, opened, settled_stamp

CONFIGS = ("model_index.json", "*/config.json", "scheduler/*.json", "tokenizer*/*")


def hash_sources(recipe: Recipe) -> dict[str, str]:
    """A hash of the content behind each key of the recipe that names files.

    Files that change while they are read are left out. Raises what opening them raises.
    """
    model, lora = recipe.model, recipe.lora.init
    found: dict[str, list[str | None]] = {}
    if model.base:
        found["model.base"] = _base(recipe)
    elif recipe.target != "autoencoder" and model.tokenizer != FROM_CAPTIONS:
        found["model.tokenizer"] = _plain(vocabulary_path(model.tokenizer).glob("*"))
    if model.autoencoder:
        found["model.autoencoder"] = _autoencoder(model.autoencoder)
    if recipe.autoencoder.teacher:
        found["autoencoder.teacher"] = _autoencoder(recipe.autoencoder.teacher)
    if lora:
        found["lora.init"] = [_weights(expanded(lora))]
    return {key: _joined(parts) for key, parts in found.items() if None not in parts}


def changed_sources(saved: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """The keys on both sides whose files differ in content."""
    both = saved.keys() & present.keys()
    return sorted(key for key in both if saved[key] != present[key])


def same_sources(saved: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """The keys on both sides whose files are equal in content, at any path."""
    return sorted(key for key, value in saved.items() if present.get(key) == value)


def _joined(parts: Iterable[str | None]) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _base(recipe: Recipe) -> list[str | None]:
    base = recipe.model.base or ""
    if recipe.target == "autoencoder":
        return _autoencoder(base)
    checkpoint = open_base(recipe).checkpoint
    own_vae = not recipe.model.autoencoder
    return [*_tensors(checkpoint, own_vae=own_vae), *_configs(checkpoint.source)]


def _tensors(checkpoint: Checkpoint, *, own_vae: bool) -> list[str | None]:
    """Hashes of the weights files of all components, or of all but the autoencoder's."""
    stamps: dict[Path, Stamp] = {}
    for component, tensors in sorted(checkpoint.tensors.items()):
        if component != "vae" or own_vae:
            stamps |= {info.file: info.place.stamp for info in tensors.infos.values()}
    return [sha256(path, stamps[path]) for path in sorted(stamps)]


def _configs(source: Path) -> list[str | None]:
    if source.is_file():
        return []
    return _plain(path for pattern in CONFIGS for path in source.glob(pattern))


def _autoencoder(source: str) -> list[str | None]:
    path = vae_path(source)
    if path.is_file():
        return [_weights(path)]
    weights = [_weights(file) for file in weight_files(path, "vae")]
    return [*weights, *_plain([path / "config.json"])]


def _weights(path: Path) -> str | None:
    try:
        with opened(path) as file:
            stamp = settled_stamp(file)
    except WeightsError:
        return None
    return sha256(path, stamp)


def _plain(paths: Iterable[Path]) -> list[str | None]:
    """Names and hashes of small files; of configs and vocabularies the name says what they are."""
    files = sorted(path for path in paths if path.is_file())
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
