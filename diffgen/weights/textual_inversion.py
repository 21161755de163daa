"""Learned embeddings (textual inversion, Gal et al., arXiv:2208.01618) in files: vectors by name.

A file has one word's vectors (n, D) for each text encoder, under one of many names: A1111's
`emb_params` and `string_to_param`, SDXL's `clip_l` and `clip_g`, diffusers' `<token>` and
`text_encoders_0`. LoRA files may bundle some, under `bundle_emb`.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from diffgen.errors import WeightsError, shown, some
from diffgen.models.config import ModelConfig
from diffgen.types import EmbeddingRef
from diffgen.weights.contents import contents_of
from diffgen.weights.files import (
    PICKLE_SUFFIXES,
    Place,
    TensorInfo,
    open_tensors,
    read_header,
    refuse_pickle,
)
from diffgen.weights.reading import DTYPES, opened, settled_stamp

if TYPE_CHECKING:
    from torch import Tensor


logger = logging.getLogger("diffgen")

BUNDLED = re.compile(
    r"bundle_emb\.(?P<name>.+?)\.(?P<key>string_to_param\.\*|emb_params|clip_[lg])"
)
# The encoder of a key in files for more than one; the first is CLIP-L.
ENCODERS = ({"clip_l", "text_encoders_0"}, {"clip_g", "text_encoders_1"})
SINGLE = ("emb_params", "string_to_param.*", "*")
FIXED = {*SINGLE}.union(*ENCODERS)  # keys that are no names
PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".jxl", ".avif")
MOST = 64 << 20  # bytes of a pickle
MAX_VECTORS = 1024
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "Stable Diffusion XL"}


def read_embeddings(
    refs: Iterable[EmbeddingRef], loras: Iterable[Path], config: ModelConfig
) -> dict[str, Sequence[Tensor]]:
    """The vectors of all files, and of those bundled with LoRAs, by name.

    Raises WeightsError for a file that is no embedding, is damaged or is for another model.
    """
    found: dict[str, Sequence[Tensor]] = {}
    for path in loras:
        bundled = read_bundled(path, config)
        if bundled:
            logger.warning(
                "%s brings embeddings along, which prompts with these words use: %s",
                path,
                some(list(bundled)),
            )
        found |= bundled
    for ref in refs:
        tensors = _tensors(ref.path)
        vectors = _of_encoders(ref.path, tensors, config)
        found |= dict.fromkeys(_names(ref, tensors), vectors)
    return found


def names_of(refs: Iterable[EmbeddingRef], loras: Iterable[Path]) -> set[str]:
    """The names that `read_embeddings` finds, casefolded. Raises WeightsError."""
    found = {
        match["name"]
        for path in loras
        for match in map(BUNDLED.fullmatch, read_header(path))
        if match
    }
    for ref in refs:
        found.update(_names(ref, () if ref.name else _keys(ref.path)))
    return {name.casefold() for name in found}


def _names(ref: EmbeddingRef, keys: Collection[str]) -> tuple[str, ...]:
    """What a file is called: as its ref says, else by its own name and by the token that it holds."""
    if ref.name:
        return (ref.name,)
    return (ref.path.stem, *(key for key in keys if len(keys) == 1 and key not in FIXED))


def _keys(path: Path) -> Collection[str]:
    return _of_pickle(path) if path.suffix.lower() in PICKLE_SUFFIXES else read_header(path)


def read_bundled(path: Path, config: ModelConfig) -> dict[str, Sequence[Tensor]]:
    """The embeddings in a LoRA file. Raises WeightsError."""
    tensors = open_tensors([path])
    bundled: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        if match := BUNDLED.fullmatch(key):
            bundled.setdefault(match["name"], {})[match["key"]] = tensors[key]
    return {name: _of_encoders(path, parts, config) for name, parts in bundled.items()}


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return _of_pickle(path)
    if path.suffix.lower() in PICTURES:
        raise WeightsError(
            f"{path} is a picture; embeddings that A1111 hid in pictures are not read: look for the "
            "same as .safetensors or .pt"
        )
    lazy = open_tensors([path])
    return dict(lazy.read(lazy))


def _of_pickle(path: Path) -> Mapping[str, Tensor]:
    """The tensors of A1111's and diffusers' older files, read as plain data: no code is run."""
    import torch

    try:
        if path.stat().st_size > MOST:
            raise WeightsError(f"{path} is too large for an embedding")
        with warnings.catch_warnings():  # of old pickles
            warnings.simplefilter("ignore")
            data = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} is a pickle with more than plain tensors, or damaged, so it is not read; "
            "look for the embedding as .safetensors"
        ) from error
    return _flattened(data)


def read_pickled(path: Path) -> dict[str, TensorInfo]:
    """What a pickle of an embedding holds, as a header would tell. Raises WeightsError for others."""
    try:
        tensors = _of_pickle(path)
    except WeightsError:
        tensors = {}
    if (
        contents_of({key: tuple(tensor.shape) for key, tensor in tensors.items()}).holds
        != "embedding"
    ):
        refuse_pickle(path)
    with opened(path) as file:
        stamp = settled_stamp(file)
    formats = {name: code for code, (_, name) in DTYPES.items()}
    return {
        key: TensorInfo(path, key, shape, dtype, Place(0, shape, stamp, dtype))
        for key, tensor in tensors.items()
        for shape in [tuple(tensor.shape)]
        for dtype in [formats[str(tensor.dtype).removeprefix("torch.")]]
    }


def _flattened(data: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(data, Mapping):
        return {}
    params = data.get("string_to_param")
    if isinstance(params, Mapping):
        data = {f"string_to_param.{key}": value for key, value in params.items()}
    return {str(k): v.detach() for k, v in data.items() if isinstance(v, torch.Tensor)}


def _of_encoders(
    path: Path, tensors: Mapping[str, Tensor], config: ModelConfig
) -> tuple[Tensor, ...]:
    """One tensor (n, D) float32 for each text encoder. Raises WeightsError."""
    by_encoder = _assigned(path, tensors, config)
    checked = []
    for key, encoder in zip(by_encoder, config.text, strict=True):
        vectors = tensors[key].float()
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        if vectors.ndim != 2 or not 1 <= len(vectors) <= MAX_VECTORS:
            raise WeightsError(f"{path} is no embedding: {key} has shape {tuple(vectors.shape)}")
        if vectors.shape[1] != encoder.width:
            made = WIDTHS.get(vectors.shape[1], "another model")
            raise WeightsError(
                f"{path} is an embedding for {made}: its vectors have {vectors.shape[1]} numbers "
                f"where this model's text encoder has {encoder.width}"
            )
        if not bool(vectors.isfinite().all()):
            raise WeightsError(f"{path}: {shown(key)} has numbers that are not finite")
        checked.append(vectors.contiguous())
    if len({len(vectors) for vectors in checked}) > 1:
        raise WeightsError(f"{path} has different numbers of vectors for the two text encoders")
    return tuple(checked)


def _assigned(path: Path, tensors: Mapping[str, Tensor], config: ModelConfig) -> list[str]:
    """The key of each encoder's vectors."""
    encoders = len(config.text)
    named = [[key for key in tensors if key in keys] for keys in ENCODERS]
    if config.conditioning == "score" and len(named[1]) == 1:  # the refiner's one is the second
        return named[1]
    if encoders > 1 and all(len(keys) == 1 for keys in named):
        return [keys[0] for keys in named]
    if encoders == 1 and not any(named):
        known = [key for key in tensors if key in SINGLE] or list(tensors)
        if len(known) == 1:
            return known
    if encoders == 1 and len(named[0]) == 1 and not named[1]:
        return named[0]
    raise _of_other_encoders(path, tensors, config)


def _of_other_encoders(
    path: Path, tensors: Mapping[str, Tensor], config: ModelConfig
) -> WeightsError:
    """The error for tensors that are not one set of vectors for each encoder."""
    if all(any(key in keys for key in tensors) for keys in ENCODERS):
        return WeightsError(
            f"{path} is an embedding for the two text encoders of Stable Diffusion XL, and this "
            "model has one"
        )
    if len(config.text) > 1 and len(tensors) == 1:
        made = WIDTHS.get(next(iter(tensors.values())).shape[-1:].numel(), "one text encoder")
        return WeightsError(
            f"{path} is an embedding for {made}, and this model needs vectors for two text encoders "
            "(clip_l and clip_g)"
        )
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    contents = contents_of(shapes)
    if contents.holds != "embedding" and contents.called:
        return WeightsError(f"{path} is no embedding but {contents.called}")
    return WeightsError(
        f"{path} is no embedding that is known: "
        + (f"its tensors are {some(list(tensors))}" if tensors else "it has no tensors")
    )
