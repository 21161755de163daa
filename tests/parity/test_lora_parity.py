"""LoRA files as we write them give diffusers' pictures, in both layouts."""

from pathlib import Path

import pytest
import torch
from pipeline_oracle import Pair, diffusers_pictures, numpy_2_warns, our_pictures, psnr

from diffgen import Engine
from diffgen.models.build import build_empty
from diffgen.models.lora import add_lora
from diffgen.models.unet import UNet
from diffgen.train.targets.lora import GROUPS, matches
from diffgen.types import LoraRef
from diffgen.weights.adapters.lora import Layout, save_lora

pytestmark = [pytest.mark.parity, numpy_2_warns]

RANK, ALPHA = 4, 6.0
STEPS = 3
LEAST_DB = 67.0  # as for the pipelines


@pytest.fixture
def pair(family: str, request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(f"{family}_pair")
    return found


def write_random(path: Path, engine: Engine, layout: Layout, group: str) -> Path:
    """Random adapters for a group of layers of the U-Net and of every text encoder."""
    torch.manual_seed(5)
    # Fresh and not packed: adapters change their network, layer by layer.
    fresh = Engine.load(engine.model, device="cpu", dtype="fp32")
    unet = build_empty(UNet, engine.config.unet)
    engine.model.checkpoint.load_into("unet", unet, dtype=torch.float32)
    networks = {"unet": unet}
    networks |= zip(("text_encoder", "text_encoder_2"), fresh.conditioner.encoders, strict=False)
    deltas = {}
    for component, network in networks.items():
        adapters = add_lora(network, lambda n: matches(n, group), rank=RANK, alpha=ALPHA)
        for adapter in adapters.values():
            torch.nn.init.normal_(adapter.up.weight, std=0.3)
        deltas[component] = {name: adapter.delta() for name, adapter in adapters.items()}
    assert all(deltas.values())
    config = engine.config
    save_lora(path, deltas, config, layout=layout, dtype=torch.float32, metadata={})
    return path


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize("group", ["attention", "all"])
def test_diffusers_draws_the_same(pair: Pair, layout: Layout, group: str, tmp_path: Path) -> None:
    file = write_random(tmp_path / "lora.safetensors", pair.engine, layout, group)
    engine = Engine.load(pair.engine.model, device="cpu", dtype="fp32", loras=[LoraRef(file)])
    (actual,) = our_pictures(engine, steps=STEPS)
    pair.pipeline.load_lora_weights(str(file))
    try:
        (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS)
    finally:
        pair.pipeline.unload_lora_weights()
    (plain,) = our_pictures(pair.engine, steps=STEPS)
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(actual, plain) < 30.0


def test_the_weight_is_diffusers_scale(sd1_pair: Pair, tmp_path: Path) -> None:
    file = write_random(tmp_path / "lora.safetensors", sd1_pair.engine, "kohya", "attention")
    engine = Engine.load(
        sd1_pair.engine.model, device="cpu", dtype="fp32", loras=[LoraRef(file, 0.6)]
    )
    (actual,) = our_pictures(engine, steps=STEPS)
    sd1_pair.pipeline.load_lora_weights(str(file), adapter_name="one")
    try:
        sd1_pair.pipeline.set_adapters("one", 0.6)
        (expected,) = diffusers_pictures(sd1_pair.pipeline, num_inference_steps=STEPS)
    finally:
        sd1_pair.pipeline.unload_lora_weights()
    assert psnr(actual, expected) >= LEAST_DB


def test_every_group_is_part_of_all() -> None:
    assert set(GROUPS["all"]) == {p for name, part in GROUPS.items() for p in part}
