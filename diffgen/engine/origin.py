"""The files that a picture comes from, by path and content hash."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from diffgen.engine.model import Model
from diffgen.errors import WeightsError
from diffgen.types import EmbeddingRef, LoraRef
from diffgen.weights.files import TensorInfo
from diffgen.weights.hashes import sha256
from diffgen.weights.reading import Stamp, opened, settled_stamp


class Origin:
    """The files of a model and of LoRAs, with their state at the time of reading.

    Create it before the LoRAs are read: only then do hashes describe what was read.
    """

    def __init__(
        self,
        model: Model,
        loras: Sequence[LoraRef],
        embeddings: Sequence[EmbeddingRef] = (),
    ) -> None:
        self._model, self._loras, self._embeddings = model, tuple(loras), tuple(embeddings)
        files = [lora.path for lora in (*model.loras, *loras)]
        files += [embedding.path for embedding in embeddings]
        self._stamps = {path: _stamp(path) for path in files}

    @cached_property
    def record(self) -> dict[str, Any]:
        """Paths and SHA-256 as plain values; a file changed since has the hash None.

        `model_path` is None for a model that ships with diffgen. `model_files` and `vae_files` are
        keyed by name inside the model's folder; `data_sha256` is of a LoRA's bytes after its
        header, the hash that A1111 and Civitai use.
        """
        model, checkpoint = self._model, self._model.checkpoint
        own = [
            info
            for part, tensors in checkpoint.tensors.items()
            if part != "vae" or not model.vae
            for info in tensors.infos.values()
        ]
        files = _hashes(checkpoint.source, own)
        files |= {lora.path.name: self._hash(lora.path) for lora in model.loras}
        vae = checkpoint.tensors["vae"].infos.values() if model.vae else ()
        return {
            "model": model.name,
            "model_path": None if model.entry and model.entry.bundled else str(checkpoint.source),
            "model_files": files,
            "vae": str(model.vae) if model.vae else None,
            "vae_files": _hashes(model.vae, vae) if model.vae else None,
            "decoder": str(model.decoder) if model.decoder else None,
            "prediction": checkpoint.config.schedule.prediction,
            "zero_snr": checkpoint.config.schedule.zero_snr,
            "shift": model.shift,
            "base": str(model.base) if model.base else None,
            "loras": [self._lora(lora) for lora in self._loras],
            "embeddings": [self._embedding(each) for each in self._embeddings],
        }

    def _lora(self, lora: LoraRef) -> dict[str, Any]:
        return {
            "file": str(lora.path),
            "weight": lora.weight,
            "settings": lora.settings,
            "sha256": self._hash(lora.path),
            "data_sha256": self._hash(lora.path, data=True),
        }

    def _embedding(self, ref: EmbeddingRef) -> dict[str, Any]:
        name = ref.name or ref.path.stem
        return {"file": str(ref.path), "name": name, "sha256": self._hash(ref.path)}

    def _hash(self, path: Path, *, data: bool = False) -> str | None:
        known = self._stamps[path]
        return sha256(path, known, data_only=data) if known else None


def _stamp(path: Path) -> Stamp | None:
    """A file's identity; None for an unreadable one, which reading will report."""
    try:
        with opened(path) as file:
            return settled_stamp(file)
    except WeightsError:
        return None


def _hashes(source: Path, infos: Iterable[TensorInfo]) -> dict[str, str | None]:
    stamps = {info.file: info.place.stamp for info in infos}
    folder = source.parent if source.is_file() else source
    names = {path: Path(os.path.relpath(path, folder)).as_posix() for path in stamps}
    return {names[path]: sha256(path, stamps[path]) for path in sorted(stamps)}
