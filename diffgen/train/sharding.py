"""Fully sharded data parallelism, FSDP2: for models that do not fit one device (arXiv:2304.11277).

Each process keeps its share of every weight, gradient, average and optimizer state, as DTensors.
Full weights exist block by block while they are computed with. Checkpoints and exports are full
tensors, gathered one at a time, gathered by `gathered` and `whole_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from diffgen.models.clip import EncoderLayer
from diffgen.models.layers import ResnetBlock, TransformerBlock

BLOCKS = (ResnetBlock, TransformerBlock, EncoderLayer)


def shard(module: nn.Module, *, device: torch.device, size: int) -> None:
    """Deal a module's parameters out over all `size` processes, block by block, then the rest.

    It is moved to the device of its process on the way, so it may come from the CPU. Weights stay
    float32; half precision is autocast's business, which makes the numbers those of DDP.
    """
    mesh = init_device_mesh(device.type, (size,))
    blocks = [part for part in module.modules() if isinstance(part, BLOCKS)]
    for part in [*blocks, module]:
        # The root would otherwise keep full weights after validation, and with them the average's.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def full(tensor: Tensor) -> Tensor:
    """A tensor in one piece, on every process; all must call this, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any, *, keep: bool) -> Any:
    """A state dict with whole tensors; where `keep` is false, None in place of what was sharded.

    All processes must call this. Sharded tensors come back on the CPU.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, dict):
        return {name: gathered(entry, keep=keep) for name, entry in value.items()}
    return value


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, if `like` is sharded and has its shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    whole, mesh = tensor.to(like.device), like.device_mesh
    return distribute_tensor(whole, mesh, like.placements, src_data_rank=None)


@contextmanager
def whole_weights(module: nn.Module, *, keep: bool) -> Iterator[None]:
    """Run with full weights on the CPU in place of shares, where `keep` is true.

    All processes must enter. The module is not to be called inside, only read.
    """
    shares = [
        (part, name, parameter)
        for part in module.modules()
        for name, parameter in part.named_parameters(recurse=False)
        if isinstance(parameter, DTensor)
    ]
    try:
        for part, name, parameter in shares:
            whole = full(parameter.detach())
            if keep:
                setattr(part, name, nn.Parameter(whole.cpu(), requires_grad=False))
        yield
    finally:
        for part, name, parameter in shares:
            setattr(part, name, parameter)
