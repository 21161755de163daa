"""One guided U-Net step, ours and diffusers', with the same random weights.

python scripts/bench_step.py                     # SD 1.5 at 256 x 256
python scripts/bench_step.py --model sdxl --size 512 --runs 3
python scripts/bench_step.py --sizes 512,256,64  # of one network for all, and of one for each
python scripts/bench_step.py --kernels           # ours also by DIFFGEN_KERNELS=triton, on a GPU
python scripts/bench_step.py --compile           # diffusers' also by torch.compile
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from benchmark import Case, arguments, gemm_ceiling, measure, report
from torch import Tensor, nn

from diffgen.kernels import ops
from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.fast import graphs
from diffgen.models.fast.graphs import Step
from diffgen.models.fast.inference import prepare
from diffgen.models.unet import UNet
from diffgen.types import Conditioning
from diffgen.weights.diffusers.layout import unet_json

MODELS = {
    "sd15": UNetConfig(),
    "sdxl": UNetConfig(
        channels=(320, 640, 1280),
        blocks=(2, 2, 2),
        depth=(0, 2, 10),
        mid_depth=10,
        num_heads=(5, 10, 20),
        context_dim=2048,
        linear_projection=True,
        time_ids_dim=256,
        added_dim=2816,
    ),
    "tiny": UNetConfig(
        channels=(32, 64), blocks=(1, 1), depth=(0, 1), num_heads=(1, 2), context_dim=32
    ),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOKENS = 77


def random_state(config: UNetConfig) -> dict[str, Tensor]:
    """Weights of a sensible size; the values do not matter to the time."""
    torch.manual_seed(0)
    shapes = build_empty(UNet, config).state_dict()
    return {name: 0.02 * torch.randn(tensor.shape) for name, tensor in shapes.items()}


def ours(config: UNetConfig, state: dict[str, Tensor], dtype: torch.dtype, device: str) -> UNet:
    """Our network, as the engine prepares it."""
    unet = build_empty(UNet, config)
    unet.load_state_dict({k: v.to(device, dtype) for k, v in state.items()}, assign=True)
    prepare(unet.requires_grad_(False))
    return unet


def theirs(
    config: UNetConfig, state: dict[str, Tensor], dtype: torch.dtype, device: str
) -> nn.Module:
    """diffusers' network of the same configuration."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel.from_config(unet_json(config))
    unet.load_state_dict({k: v.to(device, dtype) for k, v in state.items()}, assign=True)
    return unet.requires_grad_(False)


def inputs(config: UNetConfig, size: int, device: str) -> dict[str, Any]:
    """A guided pair: latents, timestep and text for both, float32."""
    torch.manual_seed(1)
    side = size // 8
    made: dict[str, Any] = {
        "x": torch.randn(2, config.in_channels, side, side, device=device),
        "t": torch.full((2,), 500, device=device),
        "context": torch.randn(2, TOKENS, config.context_dim, device=device),
    }
    if config.added_dim and config.time_ids_dim:
        pooled = config.added_dim - 6 * config.time_ids_dim
        made["pooled"] = torch.randn(2, pooled, device=device)
        made["time_ids"] = torch.tensor([[size, size, 0, 0, size, size]] * 2, device=device).float()
    return made


def our_case(unet: UNet, given: dict[str, Any], dtype: torch.dtype, kernels: str) -> Case:
    """A step as the engine makes it: on a GPU by a CUDA graph."""
    compute: Step = unet.compute
    if graphs.wanted(given["x"].device):
        compute = graphs.Graphs(unet, graphs.CudaCapture()).of(compute)
    extra = {k: given[k].to(dtype) for k in ("pooled", "time_ids") if k in given}
    cond = Conditioning(given["context"].to(dtype), **extra)

    def step() -> Tensor:
        os.environ[ops.VARIABLE] = kernels
        ops.backend.cache_clear()
        return compute(given["x"].to(dtype), given["t"], cond)[0].float()

    return step


def their_case(unet: nn.Module, given: dict[str, Any], dtype: torch.dtype) -> Case:
    """A step as StableDiffusionPipeline makes it."""
    text = given["context"].to(dtype)
    added = None
    if "pooled" in given:
        added = {"text_embeds": given["pooled"].to(dtype), "time_ids": given["time_ids"]}

    def step() -> Tensor:
        out = unet(given["x"].to(dtype), given["t"], text, added_cond_kwargs=added)
        sample: Tensor = out.sample.float()
        return sample

    return step


def size_cases(
    config: UNetConfig, state: dict[str, Tensor], dtype: torch.dtype, sizes: list[int]
) -> dict[str, Case]:
    """Steps of several sizes on the CPU: by a network that sees all, and by one that sees no other."""
    shared = ours(config, state, dtype, "cpu")
    cases: dict[str, Case] = {}
    for size in sizes:
        given, own = inputs(config, size, "cpu"), ours(config, state, dtype, "cpu")
        cases[f"{size} px, its own network"] = our_case(own, given, dtype, "torch")
        cases[f"{size} px, one network for all"] = our_case(shared, given, dtype, "torch")
    return cases


def check(cases: dict[str, Case]) -> None:
    """All cases compute the same network: refuse to time one that does not."""
    with torch.inference_mode():
        outputs = {name: case() for name, case in cases.items()}
    first = next(iter(outputs.values()))
    assert isinstance(first, Tensor)
    for name, output in outputs.items():
        assert isinstance(output, Tensor)
        error = float((output - first).norm() / first.norm())
        if not error < 0.05:
            raise SystemExit(f"{name} is off by {error:.3f} of the output; not timed")


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"choices": list(MODELS), "default": "sd15"},
        size={"type": int, "default": 256, "help": "side of the picture in pixels"},
        dtypes={"default": "fp32,bf16", "help": "of fp32, bf16, fp16"},
        kernels={"action": "store_true", "help": "our Triton kernels as well"},
        compile={"action": "store_true", "help": "diffusers' network compiled as well"},
        ceiling={"type": int, "default": 2048, "help": "side of the product it is compared with"},
        sizes={"help": "sides of pictures that take turns, instead of all else, on the CPU"},
    )
    config = MODELS[options.model]
    state = random_state(config)
    if options.sizes:
        dtype = DTYPES[options.dtypes.split(",")[0]]
        cases = size_cases(config, state, dtype, [int(size) for size in options.sizes.split(",")])
        timings = measure(cases, runs=options.runs)
        report(f"A guided step of {options.model}, sizes by turns", timings, options)
        return
    compare(options, config, state)


def compare(options: argparse.Namespace, config: UNetConfig, state: dict[str, Tensor]) -> None:
    """Ours beside diffusers', one size."""
    given = inputs(config, options.size, options.device)
    cases: dict[str, Case] = {}
    ceilings = {}
    for name in options.dtypes.split(","):
        dtype = DTYPES[name]
        ceiling = gemm_ceiling(options.device, dtype, side=options.ceiling)
        unet = ours(config, state, dtype, options.device)
        their_unet = theirs(config, state, dtype, options.device)
        found = {
            f"diffusers {name}": their_case(their_unet, given, dtype),
            f"diffgen {name}": our_case(unet, given, dtype, "torch"),
        }
        if options.compile:
            compiled = torch.compile(their_unet, mode="max-autotune")
            found[f"diffusers {name}, compiled"] = their_case(compiled, given, dtype)
        if options.kernels:
            found[f"diffgen {name}, Triton"] = our_case(unet, given, dtype, "triton")
        cases |= found
        ceilings |= dict.fromkeys(found, ceiling)
    check(cases)
    timings = measure(cases, runs=options.runs)
    title = f"A guided step of {options.model} at {options.size} x {options.size}"
    report(title, timings, options, ceilings=ceilings)


if __name__ == "__main__":
    main()
