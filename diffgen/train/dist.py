"""The processes of a run, as torchrun starts them, or a single one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from diffgen.device import pick_device
from diffgen.errors import DeviceError, DiffgenError
from diffgen.launch import process_count
from diffgen.train.sharding import shard
from diffgen.types import DeviceName

# How long a process waits for the others. One of them may fill a cache, draw previews or write a
# checkpoint to a slow disk for hours. A process that dies is noticed at once, by its closed
# connections and by torchrun: only one that hangs makes the others wait this long.
PATIENCE = timedelta(hours=24)
LETTING_GO = 0.2  # seconds
BROKEN = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|[Tt]imed out")


@dataclass(frozen=True, slots=True)
class World:
    """This process among all: `rank` of `size`, on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module, parallel: Literal["ddp", "fsdp"] = "ddp") -> nn.Module:
        """The module with gradients averaged over all processes.

        "ddp" keeps a copy of it on each (arXiv:2006.15704); "fsdp" shards its parameters in place,
        so averages and optimizers must be built afterwards.
        """
        if self.size > 1 and parallel == "fsdp":
            shard(module, device=self.device, size=self.size)
            return module
        module.to(self.device)
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each number averaged over all processes, in double precision."""
        if self.size == 1:
            return dict(values)
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        numbers = torch.tensor(list(values.values()), dtype=kind, device=self.device)
        dist.all_reduce(numbers)
        return dict(zip(values, (numbers / self.size).tolist(), strict=True))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their averages over all processes."""
        for tensor in tensors if self.size > 1 else ():
            dist.all_reduce(tensor)
            tensor /= self.size

    def agree(self, number: int) -> int:
        """The largest of all processes' numbers."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor.item())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def reduction(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Average gradients after the `last` backward pass of a step only, for a wrapped module.

    Between passes each process keeps whole gradients of its own: memory for communication.
    """
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
        yield
    elif isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


@contextmanager
def open_world(device: DeviceName, environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Join the processes that torchrun's environment variables name.

    Raises DeviceError, and DiffgenError where another process ended or does not answer.
    """
    own = pick_device(device)
    size = process_count(environment)
    if size == 1:
        yield World(0, 1, own)
        return
    if own.type == "cuda":
        own = _own_gpu(int(environment.get("LOCAL_RANK", "0")))
    with _lost_processes():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield World(dist.get_rank(), size, own)
            # Together: who goes while another still waits for him makes that one fail or hang.
            dist.barrier()
            # Gloo's threads need Python's lock to let go of the last tensors. DDP's reducer, freed
            # later with the lock held, would wait for those threads for ever (seen: a stack of it).
            time.sleep(LETTING_GO)
        finally:
            dist.destroy_process_group()


def _own_gpu(number: int) -> torch.device:
    count = torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"process {number} of this machine has no GPU of its own, there are {count}; start at "
            f"most {count} with --nproc-per-node"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def _lost_processes() -> Iterator[None]:
    """Turn the errors of torch for a lost or silent process into DiffgenError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not BROKEN.search(str(error)):
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise DiffgenError(
            f"another process of this run ended or stopped to answer ({reason}); if it said why, "
            "mend that; --resume goes on from the last checkpoint"
        ) from error
