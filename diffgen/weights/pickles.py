"""Tensors of `.ckpt`, `.pt` and `.bin` files, read without running any code in them.

Only for conversion: `torch.load(weights_only=True)` builds tensors, numbers, texts and containers,
and refuses everything else in a pickle.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.errors import WeightsError
from diffgen.weights.reading import DTYPES
from diffgen.weights.writing import Part, write_parts

if TYPE_CHECKING:
    from torch import Tensor

MAX_DEPTH = 8  # of nested containers


def write_unpickled(path: Path, target: Path) -> None:
    """Write the tensors of a pickle as a safetensors file.

    Raises WeightsError for a file with other objects, or without tensors.
    """
    tensors = dict(_tensors(_loaded(path)))
    if not tensors:
        raise WeightsError(f"{path} has no tensors")
    write_parts(target, {name: _part(path, name, t) for name, t in tensors.items()}, {}, step=_idle)


def _loaded(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the file's age
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, which could run code, or is damaged, so it is not "
            f"read ({_reason(error)})"
        ) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged bytes can raise anything in torch's reader
        raise WeightsError(
            f"{path} is damaged, or no file of PyTorch's ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _tensors(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested dictionaries, by their joined keys; `state_dict` is skipped in names."""
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix or "tensor", value
    elif isinstance(value, Mapping) and depth < MAX_DEPTH:
        if isinstance(value.get("state_dict"), Mapping):  # other entries: counters, an optimizer
            value = value["state_dict"]
        for name, inner in value.items():
            yield from _tensors(inner, f"{prefix}.{name}" if prefix else str(name), depth + 1)


def _part(path: Path, name: str, tensor: Tensor) -> Part:
    formats = {torch_name: dtype for dtype, (_, torch_name) in DTYPES.items()}
    dtype = formats.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout != _strided():
        raise WeightsError(f"{path}: {name} is of {tensor.dtype}, which safetensors cannot hold")
    return Part(tuple(tensor.shape), dtype, lambda: tensor.detach())


def _strided() -> Any:
    import torch

    return torch.strided


def _idle() -> None:
    pass
