"""A model in another layout or number format: folder or single file, with LoRAs and a VAE merged.

The result is read back and compared with its source before it is moved into place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffgen.errors import OutputError, UsageError
from diffgen.files import created, replaced, replaced_folder
from diffgen.types import LoraRef
from diffgen.weights.casting import Format, cast, format_of
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.contents import contents_of
from diffgen.weights.files import PICKLE_SUFFIXES, LazyTensors, open_tensors
from diffgen.weights.finding import locate
from diffgen.weights.gguf import is_gguf
from diffgen.weights.ldm.noise_tables import ALPHAS, SIGMAS
from diffgen.weights.ldm.single_file import read_any
from diffgen.weights.modelspec import modelspec
from diffgen.weights.pickles import write_unpickled
from diffgen.weights.remaking import Components, averaged, components_of, write_folder
from diffgen.weights.shelf import INDEX
from diffgen.weights.verifying import (
    check_folder,
    check_part,
    check_single_file,
    check_vocabularies,
)
from diffgen.weights.writing import Part, parts_of, write_parts

if TYPE_CHECKING:
    from torch import Tensor

Report: TypeAlias = Callable[[str, int, int | None], None]  # component, tensors done, total
Ema: TypeAlias = Literal["drop", "use", "keep"]
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A conversion to do. `target` is a .safetensors file, or else a folder.

    `dtype` None keeps each tensor's. `ema`: averaged weights beside the U-Net's own are dropped,
    used in their place, or kept beside them, which only a file supports. `base` is a model that
    completes a source of a U-Net alone.
    """

    source: str
    target: Path
    dtype: Format | None = None
    ema: Ema = "drop"
    loras: tuple[LoraRef, ...] = ()
    vae: Path | None = None
    base: Path | None = None
    overwrite: bool = False

    @property
    def to_file(self) -> bool:
        """Whether to write a single file."""
        return self.target.suffix.lower() == SUFFIX


@dataclass(frozen=True, slots=True)
class Converted:
    """The result: the file or folder, its number of tensors and bytes."""

    path: Path
    tensors: int
    size: int


def convert(asked: Conversion, report: Report) -> Converted:
    """Write the conversion, completely or not at all.

    Raises UsageError for contradicting options, WeightsError and ConfigError for a source that
    cannot be read or written in this form, OutputError for an unwritable target.
    """
    source = locate(asked.source)
    _check_target(asked, source.path)
    try:
        asked.target.parent.mkdir(parents=True, exist_ok=True)
        with _as_safetensors(source.path, asked.target.parent) as path:
            whole = (path / INDEX).is_file() or _holds(path) == "model"
            if whole or asked.base:
                _convert_model(asked, path, source.name, report)
            else:
                _convert_part(asked, path, report)
    except OSError as error:
        raise OutputError(f"cannot write {asked.target}: {error.strerror or error}") from error
    files = [asked.target] if asked.to_file else sorted(asked.target.rglob(f"*{SUFFIX}"))
    tensors = sum(len(open_tensors([file])) for file in files)
    return Converted(asked.target, tensors, sum(file.stat().st_size for file in files))


def _check_target(asked: Conversion, source: Path) -> None:
    target = asked.target
    if target.suffix.lower() in (*PICKLE_SUFFIXES, ".gguf"):
        raise UsageError(f"{target.suffix} files are not written: name a {SUFFIX} file or a folder")
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is what is to be converted; give another name")
    if target.exists() and not asked.overwrite:
        raise UsageError(f"{target} is there already; --overwrite replaces it")
    if target.exists() and target.is_dir() == asked.to_file:
        kind = "a folder" if target.is_dir() else "a file"
        raise UsageError(f"{target} is {kind}, which is not what is to be written")
    for lora in asked.loras:
        if not lora.always:
            raise UsageError(
                f"{lora.path}: for a part of the steps it cannot be merged into a model"
            )
    if asked.ema == "keep" and not asked.to_file:
        raise UsageError("--ema keep: a model folder has no place for averaged weights")


@contextmanager
def _as_safetensors(path: Path, beside: Path) -> Iterator[Path]:
    """The source itself, or a temporary safetensors copy of a pickle."""
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield path
        return
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unpickled.") as folder:
        unpickled = Path(folder) / f"{path.stem}{SUFFIX}"
        write_unpickled(path, unpickled)
        yield unpickled


def _holds(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is no model: it has no {INDEX}")
    infos, _ = read_any(path)
    return contents_of({key: info.shape for key, info in infos.items()}).holds


def _convert_model(asked: Conversion, path: Path, name: str, report: Report) -> None:
    checkpoint = Checkpoint.open(path, vae=asked.vae, base=asked.base)
    if asked.ema == "use":
        checkpoint = averaged(checkpoint)
    if asked.to_file:
        check_vocabularies(checkpoint)
    made = components_of(checkpoint, asked.loras, asked.dtype)
    if asked.to_file:
        _to_file(asked, checkpoint, made, modelspec(checkpoint, name, asked.loras), report)
    else:
        _to_folder(asked, checkpoint, made, report)


def _to_file(
    asked: Conversion,
    checkpoint: Checkpoint,
    made: Components,
    metadata: Mapping[str, str],
    report: Report,
) -> None:
    from diffgen.weights.ldm.writing import marks, single_file_parts

    parts = single_file_parts(checkpoint.config, made) | marks(checkpoint.config)
    if checkpoint.source.is_file():
        parts |= _noise_marks(checkpoint)
    if asked.ema == "keep":
        parts |= _averages(checkpoint, asked.dtype)
    with _placed(asked) as file:
        write_parts(file, parts, metadata, step=_counted("writing", len(parts), report))
        check_single_file(file, checkpoint.config, made, _counted("comparing", _all(made), report))


def _to_folder(asked: Conversion, checkpoint: Checkpoint, made: Components, report: Report) -> None:
    with replaced_folder(asked.target) as folder:
        write_folder(folder, checkpoint, made, _counted("writing", _all(made), report))
        check_folder(folder, checkpoint.config, made, _counted("comparing", _all(made), report))


def _noise_marks(checkpoint: Checkpoint) -> dict[str, Part]:
    """The tensors that mark a file's noise schedule as EDM's, or hold a table of its own."""
    infos, _ = read_any(checkpoint.source)
    tables = (ALPHAS, SIGMAS) if checkpoint.config.schedule.betas else ()
    told = {k: i for k, i in infos.items() if k.startswith("edm_") or k in tables}
    return parts_of(LazyTensors(told))


def _averages(checkpoint: Checkpoint, dtype: Format | None) -> dict[str, Part]:
    infos, _ = read_any(checkpoint.source)
    kept = {key: info for key, info in infos.items() if key.startswith("model_ema.")}
    if not kept:
        raise UsageError(f"{checkpoint.source} has no averaged weights to keep (model_ema.*)")
    return _cast_parts(LazyTensors(kept), dtype)


def _convert_part(asked: Conversion, path: Path, report: Report) -> None:
    """Convert a LoRA, an autoencoder or an embedding: the same tensors in another format."""
    if asked.loras or asked.vae or asked.ema != "drop":
        raise UsageError(f"{asked.source} is no whole model; --lora, --vae and --ema are for those")
    if not asked.to_file:
        raise UsageError(f"{asked.source} is no whole model; name a {SUFFIX} file to write")
    infos, metadata = read_any(path)
    kept = {} if is_gguf(path) else metadata  # GGUF's metadata describe its quantisation
    parts = _cast_parts(LazyTensors(infos), asked.dtype)
    with _placed(asked) as file:
        write_parts(file, parts, kept, step=_counted("writing", len(parts), report))
        check_part(file, parts, _counted("comparing", len(parts), report))


def _cast_parts(tensors: LazyTensors, dtype: Format | None) -> dict[str, Part]:
    def maker(name: str, form: str) -> Callable[[], Tensor]:
        return lambda: cast(tensors[name], form, name=f"{tensors.infos[name].file}: {name}")

    found = {}
    for name, info in tensors.infos.items():
        form = format_of(info, dtype, in_8_bits=True)
        found[name] = Part(info.shape, form, maker(name, form))
    return found


def _placed(asked: Conversion) -> AbstractContextManager[Path]:
    writing = replaced if asked.overwrite else created
    return writing(asked.target)


def _counted(label: str, total: int, report: Report) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        report(label, done, total)

    return step


def _all(made: Components) -> int:
    return sum(map(len, made.values()))
