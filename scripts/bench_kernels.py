"""Each operator of the networks by plain torch and by its Triton kernel, on a GPU.

python scripts/bench_kernels.py                # the shapes of SD 1.5 at 512 x 512
python scripts/bench_kernels.py --side 8 --dtypes fp32   # on a CPU: torch alone, a smoke test
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_step import DTYPES
from benchmark import Case, arguments, measure, report
from torch import Tensor

from diffgen.kernels import reference

GROUPS, HEADS = 32, 8


def operators(side: int, dtype: torch.dtype, device: str) -> dict[str, tuple[Case, Case]]:
    """By name: the operator in torch, and by its kernel."""
    torch.manual_seed(0)
    channels = 320

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x = normal(2, channels, side, side).to(memory_format=torch.channels_last)
    weight, bias, shift = normal(channels), normal(channels), normal(2, channels)
    tokens, gated = normal(2, side * side, channels), normal(2, side * side, 8 * channels)
    query = normal(2, HEADS, side * side, channels // HEADS)
    text = normal(2, HEADS, 77, channels // HEADS)

    def group_norm(by: Callable[..., Tensor]) -> Case:
        return lambda: by(x, weight, bias, groups=GROUPS, eps=1e-5, shift=shift)

    def torch_attention(key: Tensor) -> Case:
        return lambda: reference.attention(query, key, key, causal=False)

    def kernel(name: str) -> Callable[..., Tensor]:
        # Late: triton is there where a GPU is.
        from diffgen.kernels.triton import attention, gate, norm

        found: Callable[..., Tensor] = {
            "group_norm_silu": norm.group_norm_silu,
            "layer_norm": norm.layer_norm,
            "gated_gelu": gate.gated_gelu,
            "attention": attention.attention,
        }[name]
        return found

    return {
        "group norm + SiLU + time": (
            group_norm(reference.group_norm_silu),
            lambda: group_norm(kernel("group_norm_silu"))(),
        ),
        "layer norm": (
            lambda: reference.layer_norm(tokens, weight, bias, eps=1e-5),
            lambda: kernel("layer_norm")(tokens, weight, bias, eps=1e-5),
        ),
        "GEGLU": (
            lambda: reference.gated_gelu(gated),
            lambda: kernel("gated_gelu")(gated),
        ),
        "self-attention": (
            torch_attention(query),
            lambda: kernel("attention")(query, query, query),
        ),
        "cross-attention": (torch_attention(text), lambda: kernel("attention")(query, text, text)),
    }


def main() -> None:
    """Measure and print: torch's figure first, then the kernel's."""
    options = arguments(
        __doc__,
        side={"type": int, "default": 64, "help": "side of the feature map"},
        dtypes={"default": "fp16,bf16", "help": "of fp32, bf16, fp16"},
    )
    for name in options.dtypes.split(","):
        for operator, (plain, kernel) in operators(
            options.side, DTYPES[name], options.device
        ).items():
            cases: dict[str, Case] = {f"torch {name}": plain}
            if options.device == "cuda":
                cases[f"Triton {name}"] = kernel
            report(operator, measure(cases, runs=options.runs), options)
            print()


if __name__ == "__main__":
    main()
