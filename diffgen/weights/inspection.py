"""Describe a file, a folder or a named model from headers and JSON files alone, without torch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError
from diffgen.models.shapes import expected_shapes
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.contents import Contents, contents_of
from diffgen.weights.files import PICKLE_SUFFIXES, TensorInfo, open_tensors, read_metadata
from diffgen.weights.finding import locate
from diffgen.weights.hashes import sha256
from diffgen.weights.keymap import SPARE
from diffgen.weights.ldm.single_file import read_any
from diffgen.weights.lora_notes import lora_notes
from diffgen.weights.reading import opened, settled_stamp
from diffgen.weights.registry import ModelEntry
from diffgen.weights.shelf import INDEX
from diffgen.weights.textual_inversion import read_pickled

Infos = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a file: how many tensors and numbers it has, in which formats."""

    name: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a component's tensors differ from those of its network."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    of_another_shape: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings. `settings` are what a model's pictures depend on, `notes` their sources.

    `trouble` is why diffgen cannot use it; None if it can, or for a part that is no model. `sha256`
    is None unless asked for.
    """

    path: Path
    size: int
    holds: str
    family: str | None
    layout: str | None
    components: tuple[Component, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    known_as: str | None = None
    license: str | None = None
    trouble: str | None = None
    sha256: Mapping[str, str] | None = None
    fit: Mapping[str, Fit] | None = None


def inspect(source: str, *, hashes: bool = False, check: bool = False) -> Report:
    """Describe a path or a named model.

    `hashes` reads the files completely; `check` compares a model's tensors with those of its
    networks. Raises UsageError for a missing path, and WeightsError for
    a file that is no weights file, naming its format.
    """
    ref = locate(source)
    path = ref.path
    report = _folder(path) if (path / INDEX).is_file() else _weights(path)
    found = report.finished(ref.name, ref.entry)
    if hashes:
        base = path if path.is_dir() else path.parent
        digits = {each.relative_to(base).as_posix(): _sha256(each) for each in report.files}
        found = replace(found, sha256=digits)
    return replace(found, fit=_fit(report.opened)) if check and report.opened else found


@dataclass(frozen=True, slots=True)
class _Draft:
    """A report still without source and hashes."""

    path: Path
    contents: Contents
    parts: Mapping[str, Infos]
    opened: Checkpoint | None
    notes: tuple[str, ...]
    metadata: Mapping[str, str]
    trouble: str | None

    @property
    def files(self) -> tuple[Path, ...]:
        infos = [info for part in self.parts.values() for info in part.values()]
        return tuple(dict.fromkeys(info.file for info in infos))

    def finished(self, name: str, entry: ModelEntry | None) -> Report:
        everything = {key: info for part in self.parts.values() for key, info in part.items()}
        return Report(
            path=self.path,
            size=sum(file.stat().st_size for file in self.files),
            holds=self.contents.named or self.contents.holds,
            family=self.opened.config.family if self.opened else self.contents.family,
            layout=self.contents.layout,
            components=tuple(_component(part, infos) for part, infos in self.parts.items()),
            settings=_settings(self.opened) if self.opened else {},
            notes=self.notes,
            metadata=self.metadata,
            adapter=lora_notes(everything, self.metadata) if self.contents.holds == "lora" else {},
            known_as=name if entry else None,
            license=entry.license if entry else None,
            trouble=self.trouble,
        )


def _folder(path: Path) -> _Draft:
    with _collected() as notes:
        opened = Checkpoint.open(path)
    parts = {str(part): tensors.infos for part, tensors in opened.tensors.items()}
    contents = Contents("model", opened.config.family, "diffusers folder")
    notes.append(f"prediction is {opened.config.schedule.prediction}, by the folder's scheduler")
    return _Draft(path, contents, parts, opened, tuple(notes), {}, None)


def _weights(path: Path) -> _Draft:
    """A file, or a folder of files that belong together."""
    if path.suffix.lower() in PICKLE_SUFFIXES and path.is_file():
        return _draft(path, read_pickled(path), {})
    return _draft(path, *(read_any(path) if path.is_file() else _of_folder(path)))


def _draft(path: Path, infos: Infos, metadata: Mapping[str, str]) -> _Draft:
    contents = contents_of({key: info.shape for key, info in infos.items()})
    checkpoint, trouble, notes = None, None, []
    if contents.holds == "model" and path.is_file():
        try:
            with _collected() as notes:
                checkpoint = Checkpoint.open(path)
            if not any(note.startswith("prediction is") for note in notes):
                kind = checkpoint.config.schedule.prediction
                notes.append(f"prediction is {kind}: nothing in the file or beside it says more")
        except DiffgenError as error:
            trouble = str(error)
    parts = _parts(infos, checkpoint, contents)
    return _Draft(path, contents, parts, checkpoint, tuple(notes), metadata, trouble)


def _of_folder(path: Path) -> tuple[Infos, dict[str, str]]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{path} has neither a {INDEX} nor a .safetensors file")
    return open_tensors(files).infos, read_metadata(files[0])


def _parts(infos: Infos, checkpoint: Checkpoint | None, contents: Contents) -> dict[str, Infos]:
    """The tensors by component; those of no component under "not read"."""
    if checkpoint is None:
        return {contents.named or contents.holds: infos}
    parts: dict[str, Infos] = {str(n): part.infos for n, part in checkpoint.tensors.items()}
    used = {info.key for part in parts.values() for info in part.values()}
    rest = {key: info for key, info in infos.items() if key not in used}
    return parts | ({"not read": rest} if rest else {})


def _component(name: str, infos: Infos) -> Component:
    return Component(
        name,
        len(infos),
        sum(prod(info.shape) for info in infos.values()),
        dict(Counter(i.place.packed or i.place.dtype for i in infos.values()).most_common()),
    )


def _fit(checkpoint: Checkpoint) -> dict[str, Fit]:
    found = {}
    for part, tensors in checkpoint.tensors.items():
        wanted, infos = expected_shapes(checkpoint.config, part), tensors.infos
        found[str(part)] = Fit(
            tuple(name for name in wanted if name not in infos),
            tuple(name for name in infos if name not in wanted and name not in SPARE),
            tuple(
                f"{name} {infos[name].shape} instead of {shape}"
                for name, shape in wanted.items()
                if name in infos and infos[name].shape != shape
            ),
        )
    return found


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    vae = config.vae
    return {
        "prediction": config.schedule.prediction,
        "zero_snr": config.schedule.zero_snr,
        "native_size": config.native_size,
        "task": config.task,
        "clip_skip": config.text_layer,
        "text_encoders": [f"{text.layers} layers of {text.width}" for text in config.text],
        "latent_channels": config.latent_channels,
        "scaling_factor": vae.scaling_factor if vae else None,
    }


@contextmanager
def _collected() -> Iterator[list[str]]:
    """The loader's log while it opens a model: how it decided what no name or shape tells."""
    notes: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger, handler = logging.getLogger("diffgen"), Collector()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def _sha256(path: Path) -> str:
    with opened(path) as file:
        stamp = settled_stamp(file)
    return sha256(path, stamp) or "changed while it was read"
