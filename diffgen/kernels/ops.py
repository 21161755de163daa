"""The operators as the networks call them, on the backend that DIFFGEN_KERNELS names.

`torch` is plain torch. `triton` is the Triton kernels, and an error if they cannot run; with
TRITON_INTERPRET=1 they run on any machine, slowly. `auto`, the default, is the fastest measured
backend of each operator. The Triton kernels have not been timed on a GPU, so that is torch.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from diffgen.errors import DeviceError, UsageError
from diffgen.kernels import reference

VARIABLE = "DIFFGEN_KERNELS"
BACKENDS = ("auto", "torch", "triton")


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    shift: Tensor | None = None,
) -> Tensor:
    """See `reference.group_norm_silu`. The Triton kernel returns channels_last."""
    if _by_triton(x, weight):
        from diffgen.kernels.triton.norm import group_norm_silu as kernel

        return kernel(x, weight, bias, groups=groups, eps=eps, shift=shift)
    return reference.group_norm_silu(x, weight, bias, groups=groups, eps=eps, shift=shift)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """See `reference.layer_norm`."""
    if _by_triton(x, weight):
        from diffgen.kernels.triton.norm import layer_norm as kernel

        return kernel(x, weight, bias, eps=eps)
    return reference.layer_norm(x, weight, bias, eps=eps)


def gated_gelu(x: Tensor) -> Tensor:
    """See `reference.gated_gelu`. x has its bias: cuBLAS adds it while it writes the product."""
    if _by_triton(x):
        from diffgen.kernels.triton.gate import gated_gelu as kernel

        return kernel(x)
    return reference.gated_gelu(x)


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """See `reference.attention`. The Triton kernel has no causal form and leaves that to torch."""
    if not causal and _by_triton(q, k, v):
        from diffgen.kernels.triton.attention import attention as kernel

        return kernel(q, k, v)
    return reference.attention(q, k, v, causal=causal)


def guided(
    outputs: Tensor, x: Tensor, *, scale: float | Tensor, keep: float, gain: float
) -> Tensor:
    """See `reference.guided`. The Triton kernel takes one scale for all."""
    if not isinstance(scale, Tensor) and _by_triton(outputs, x):
        from diffgen.kernels.triton.guidance import guided as kernel

        return kernel(outputs, x, scale=scale, keep=keep, gain=gain)
    return reference.guided(outputs, x, scale=scale, keep=keep, gain=gain)


@cache
def backend() -> str:
    """The backend in DIFFGEN_KERNELS. Raises UsageError for a value that is none of BACKENDS."""
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in BACKENDS:
        raise UsageError(f'{VARIABLE}="{chosen}" is no backend: use {", ".join(BACKENDS)}')
    return chosen


def check_backend(device: torch.device) -> None:
    """Raises UsageError or DeviceError if the chosen backend cannot run on a device."""
    if backend() != "triton":
        return
    if find_spec("triton") is None:
        raise DeviceError(f"{VARIABLE}=triton needs the triton package, which is not installed")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise DeviceError(
            f"{VARIABLE}=triton needs a CUDA device, not {device.type} "
            "(TRITON_INTERPRET=1 runs the kernels in its interpreter)"
        )


def _by_triton(*tensors: Tensor) -> bool:
    if backend() != "triton":
        return False
    check_backend(tensors[0].device)
    # The kernels have no gradients: training uses torch.
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
