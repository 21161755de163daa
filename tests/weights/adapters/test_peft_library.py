"""Adapters as PEFT itself saves them, beside its adapter_config.json, against what PEFT merges."""

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import pytest
import torch
from torch import nn

from diffgen.errors import UnsupportedCheckpoint
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
    "patterns by regular expressions": peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=LAYERS,
        alpha_pattern={r"mid_block.*\.to_q": 3, r".*attn1\.to_v": 2},
        rank_pattern={r"down_blocks\.\d+.*conv1": 2},
    ),
    "OFT": peft.OFTConfig(target_modules=LAYERS, oft_block_size=4),
    "OFT by Cayley": peft.OFTConfig(
        target_modules=LAYERS, oft_block_size=4, use_cayley_neumann=False
    ),
    "OFT of 3 terms": peft.OFTConfig(
        target_modules=LAYERS, oft_block_size=4, num_cayley_neumann_terms=3
    ),
    "OFT of 8 terms": peft.OFTConfig(
        target_modules=LAYERS, oft_block_size=8, num_cayley_neumann_terms=8
    ),
    "OFT, bounded": peft.OFTConfig(target_modules=LAYERS, oft_block_size=4, coft=True, eps=0.1),
    "OFT of equal blocks": peft.OFTConfig(
        target_modules=LAYERS, oft_block_size=4, block_share=True
    ),
    "BOFT": peft.BOFTConfig(target_modules=LAYERS, boft_block_size=4),
    "BOFT of three stages": peft.BOFTConfig(
        target_modules=["to_q", "to_v", "to_out.0"], boft_block_size=4, boft_n_butterfly_factor=3
    ),
    "IA3": peft.IA3Config(
        target_modules=[*LAYERS, "net.2"], feedforward_modules=["net.2", "conv1"]
    ),
    "IA3 by a regular expression": peft.IA3Config(
        target_modules=r".*(to_q|conv1|net\.2)", feedforward_modules=r".*(conv1|net\.2)"
    ),
    "all biases": peft.LoraConfig(
        r=4, lora_alpha=6, bias="all", target_modules=["to_q", "to_out.0"]
    ),
    "all biases and B's": peft.LoraConfig(
        r=4, lora_alpha=6, bias="all", lora_bias=True, target_modules=["to_out.0"]
    ),
    "saved modules": peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q"], modules_to_save=["conv_in", "norm1"]
    ),
}


class OnCpu:
    """What PEFT compiles for CUDA: a diagonal of blocks."""

    def forward(self, blocks: torch.Tensor) -> list[torch.Tensor]:
        return [torch.stack([torch.block_diag(*stage) for stage in blocks])]


@pytest.mark.parametrize("kind", CONFIGS)
def test_peft_merges_the_same(
    kind: str, sd1: "TinyModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = OnCpu() if "stages" in kind else None
    monkeypatch.setattr(peft.tuners.boft.layer, "get_fbd_cuda", lambda: fast)
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
    changed = {n.rpartition(".")[0] for n in before if not torch.equal(before[n], after[n])}
    assert set(deltas) == changed
    for layer, delta in deltas.items():
        expected = after[f"{layer}.weight"] - before[f"{layer}.weight"]
        actual = delta.change(before[f"{layer}.weight"])
        assert (actual - expected).norm() <= 1e-5 * expected.norm()
        if delta.bias is not None:
            bias = after[f"{layer}.bias"] - before[f"{layer}.bias"]
            assert (delta.bias - bias).norm() <= 1e-5 * bias.norm()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (peft.LoraConfig(r=4, lora_alpha=8, target_modules=["to_q"]), "its alpha, taken for its"),
        (
            peft.OFTConfig(target_modules=["to_q"]),
            "how its rotations were made, taken for 5 Neumann",
        ),
        (
            peft.IA3Config(target_modules=["to_q"], feedforward_modules=[]),
            "inputs or outputs, taken",
        ),
    ],
)
def test_what_only_the_config_tells_is_said(
    config: peft.PeftConfig,
    said: str,
    sd1: "TinyModel",
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    peft.get_peft_model(copy.deepcopy(sd1.pipeline.unet), config).save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(sd1.folder)
    file = (tmp_path / "adapter_model.safetensors").rename(tmp_path / "mine.safetensors")
    read_lora(file, checkpoint)
    assert "adapter_config" not in caplog.text  # it is beside the only file there
    (tmp_path / "adapter_config.json").unlink()
    read_lora(file, checkpoint)
    assert f"{file} has no adapter_config.json beside it to say {said}" in re.sub(
        "whether it scales ", "", caplog.text
    )


@pytest.mark.parametrize("way", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_of_changed_weights_is_refused(
    way: str, sd1: "TinyModel", tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, init_lora_weights=way, target_modules=["to_q"])
    peft.get_peft_model(copy.deepcopy(sd1.pipeline.unet), config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match=f'"{way}" adapters belong to a model whose'):
        read_lora(tmp_path / "adapter_model.safetensors", Checkpoint.open(sd1.folder))
