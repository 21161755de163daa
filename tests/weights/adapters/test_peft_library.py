"""Adapters as PEFT itself saves them, beside its adapter_config.json, against what PEFT merges."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import pytest
import torch
from torch import nn

from diffgen.weights.adapters.files import read_lora
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_models import TinyModel

# PEFT checks its biases as if they were matrices.
pytestmark = pytest.mark.filterwarnings("ignore:Adapter 'default'")

LAYERS = ["to_q", "to_v", "to_out.0", "conv1", "proj_in"]
CONFIGS = {
    "LoRA": peft.LoraConfig(r=4, lora_alpha=6, target_modules=LAYERS),
    "rank-stabilised, with patterns": peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=LAYERS,
        alpha_pattern={"to_q": 3},
        rank_pattern={"to_v": 2},
    ),
    "DoRA": peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=LAYERS),
    "biases": peft.LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=["to_out.0"]),
    "LoHa": peft.LoHaConfig(r=4, alpha=6, target_modules=LAYERS),
    "LoHa with cores": peft.LoHaConfig(
        r=4, alpha=6, target_modules=LAYERS, use_effective_conv2d=True
    ),
    "LoKr": peft.LoKrConfig(r=2, alpha=6, target_modules=LAYERS),
    "LoKr of two products": peft.LoKrConfig(
        r=2, alpha=6, decompose_both=True, use_effective_conv2d=True, target_modules=LAYERS
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_peft_merges_the_same(kind: str, sd1: "TinyModel", tmp_path: Path) -> None:
    unet = copy.deepcopy(sd1.pipeline.unet).requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in unet.named_parameters()}
    torch.manual_seed(0)
    model = peft.get_peft_model(unet, copy.deepcopy(CONFIGS[kind]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    deltas = read_lora(file, Checkpoint.open(sd1.folder))["unet"]
    after = dict(model.merge_and_unload().named_parameters())
    changed = {n for n in before if n.endswith("weight") and not torch.equal(before[n], after[n])}
    assert {f"{layer}.weight" for layer in deltas} == changed
    for layer, delta in deltas.items():
        expected = after[f"{layer}.weight"] - before[f"{layer}.weight"]
        actual = delta.change(before[f"{layer}.weight"])
        assert (actual - expected).norm() <= 1e-5 * expected.norm()
        if delta.bias is not None:
            bias = after[f"{layer}.bias"] - before[f"{layer}.bias"]
            assert (delta.bias - bias).norm() <= 1e-5 * bias.norm()
