"""The device and number formats of a run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffgen.errors import DeviceError, DeviceLost, OutOfMemory
from diffgen.types import DeviceName, DtypeName

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: DeviceName = "auto") -> torch.device:
    """The device asked for, or the best available one. Raises DeviceError for an absent one."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, usable in available.items() if usable))
    if not available[name]:
        usable = ", ".join(kind for kind, there in available.items() if there)
        raise DeviceError(f"device {name} is not available here; use one of: {usable}")
    return torch.device(name)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether this is a CPU with bfloat16 instructions, in a torch that uses them."""
    if device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def send(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Move a CPU tensor to a device and number format without waiting for the device.

    A GPU copies page-locked memory by itself, and converts faster than a CPU does.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device, dtype or tensor.dtype)
    return tensor.pin_memory().to(device, non_blocking=True).to(dtype or tensor.dtype)


def available_memory() -> int:
    """Bytes of main memory available without swapping; 0 if unknown."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return 0


def release_memory() -> None:
    """Free unreferenced objects before something large is allocated."""
    gc.collect()  # networks refer to themselves
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new count for `peak_memory`, if the device keeps one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of tensors since `reset_peak_memory` on a GPU, else of the whole process so far.

    None if unknown (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes elsewhere


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's out-of-memory errors into OutOfMemory with advice, those of its compiler into
    DeviceError, and any error once the GPU has failed into DeviceLost.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _is_short_of_memory(error):
            raise OutOfMemory(
                "out of memory; try a smaller --batch-size, a smaller picture or --dtype fp16 or "
                "bf16"
            ) from error
        first, *_ = str(error).splitlines() or [type(error).__name__]
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise DeviceError(
                f"torch.compile fails on this machine: {first}; do without run.compile"
            ) from error
        if _has_lost_device():
            raise DeviceLost(
                f"the GPU failed and computes no more: {first}; give the same command again"
            ) from error
        raise


def _is_short_of_memory(error: Exception) -> bool:
    said = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "can't allocate memory" in said
        or "CUDA error: out of memory" in said
    )


def _has_lost_device() -> bool:
    """Whether CUDA fails at everything by now, as it does once a kernel has crashed."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:
        return not _is_short_of_memory(error)
    return False


@dataclass(frozen=True, slots=True)
class Precision:
    """The number format of each network. State and guidance arithmetic are always float32."""

    unet: torch.dtype
    text: torch.dtype
    vae: torch.dtype

    @classmethod
    def pick(
        cls, name: DtypeName, device: torch.device, *, vae_overflows: bool = False
    ) -> Precision:
        """`auto` is fp16 on GPUs, bf16 on CPUs with instructions for it and fp32 on others.

        `vae_overflows` marks autoencoders that cannot decode in fp16 (SDXL's original one).
        """
        if name == "auto":
            on_cpu: DtypeName = "bf16" if multiplies_bf16(device) else "fp32"
            name = on_cpu if device.type == "cpu" else "fp16"
        dtype = DTYPES[name]
        vae = torch.float32 if vae_overflows and dtype == torch.float16 else dtype
        return cls(unet=dtype, text=dtype, vae=vae)

    @property
    def name(self) -> str:
        """The U-Net's format, by its name for users."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.unet)


def be_deterministic() -> None:
    """From now on, use only deterministic kernels in this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def take_own_gpu() -> None:
    """Under torchrun, give each process of a machine its own GPU."""
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdigit() and torch.cuda.is_available():
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())
