"""Every kind of adapter that LyCORIS writes changes the weights as LyCORIS merges it.

lycoris-lora 4.1 is the oracle: it makes random adapters for a whole tiny U-Net, writes their tensors
and merges them. Three faults of it are gone round: it cannot read some of its own files again, so
the network that wrote a file merges it; before it is applied it writes full differences less the
weights; and its `merge_to` scales LoHa and LoKr by alpha / rank twice, where its own forward pass,
and the papers, scale once, so their alpha is the rank here and tests/models/test_deltas.py has the
scale.
"""

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from lycoris import LycorisNetwork, create_lycoris
from safetensors.torch import save_file
from torch import nn

from diffgen.weights.adapters.files import read_lora
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_models import TinyModel

RANK = 4
TARGETS = ["Linear", "Conv2d", "GroupNorm", "LayerNorm"]
KINDS = {
    "LoCon": {"algo": "lora"},
    "LoCon with cores": {"algo": "lora", "use_tucker": True},
    "rank-stabilised": {"algo": "lora", "rs_lora": True},
    "DoRA by rows": {"algo": "lora", "dora_wd": True},
    "DoRA by columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "LoHa": {"algo": "loha"},
    "LoHa with cores": {"algo": "loha", "use_tucker": True},
    "LoHa, DoRA": {"algo": "loha", "dora_wd": True, "wd_on_output": False},
    "LoKr": {"algo": "lokr"},
    "LoKr with cores": {"algo": "lokr", "factor": 2, "use_tucker": True},
    "LoKr of two products": {"algo": "lokr", "decompose_both": True},
    "LoKr of whole factors": {"algo": "lokr", "full_matrix": True},
    "LoKr, DoRA": {"algo": "lokr", "dora_wd": True, "factor": 4},
    "full differences": {"algo": "full"},
    "norms": {"algo": "lora", "train_norm": True},
    "GLoRA": {"algo": "glora"},
    "IA3 of outputs": {"algo": "ia3"},
    "IA3 of inputs": {"algo": "ia3", "train_on_input": True},
    "OFT": {"algo": "diag-oft"},
    "OFT with a bound": {"algo": "diag-oft", "constraint": 0.001},
    "OFT, rescaled": {"algo": "diag-oft", "rescaled": True},
    "BOFT": {"algo": "boft"},
    "BOFT with a bound": {"algo": "boft", "constraint": 0.001},
    "BOFT, rescaled": {"algo": "boft", "rescaled": True},
}


def adapters(unet: nn.Module, kind: str) -> LycorisNetwork:
    """Random adapters of a kind beside every layer of a network."""
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    LycorisNetwork.apply_preset(
        {"enable_conv": True, "target_module": TARGETS, "target_name": [], "exclude_name": []}
    )
    alpha = RANK if kind.startswith(("LoHa", "LoKr")) else 1.5
    options = {"linear_alpha": alpha, "conv_dim": RANK, "conv_alpha": alpha * 2}
    if alpha == RANK:
        options["conv_alpha"] = alpha
    torch.manual_seed(0)
    network = create_lycoris(unet, 1.0, RANK, **options, **KINDS[kind])
    for module in network.loras:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    return network


def write(network: LycorisNetwork, path: Path) -> Path:
    tensors = {}
    for module in network.loras:
        state = module.custom_state_dict() or module.state_dict()
        if "diff" in state:
            state = {"diff": module.weight, "diff_b": module.bias}
        tensors |= {
            f"{module.lora_name}.{key}": t.detach().clone()
            for key, t in state.items()
            if t is not None
        }
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_lycoris_merges_the_same(kind: str, sd1: "TinyModel", tmp_path: Path) -> None:
    unet = copy.deepcopy(sd1.pipeline.unet).requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in unet.named_parameters()}
    network = adapters(unet, kind)
    deltas = read_lora(write(network, tmp_path / "x.safetensors"), Checkpoint.open(sd1.folder))
    assert len(network.loras) == len(deltas["unet"]) >= 80
    with torch.no_grad():
        for module in network.loras:
            module.merge_to(1.0)
    after = dict(unet.named_parameters())
    for layer, delta in deltas["unet"].items():
        old = before[f"{layer}.weight"]
        expected, actual = after[f"{layer}.weight"] - old, delta.change(old)
        # A block of one row has nothing to turn.
        assert expected.norm() > 0 or "OFT" in kind
        assert (actual - expected).norm() <= 1e-5 * expected.norm()
        if delta.bias is not None:
            bias = after[f"{layer}.bias"] - before[f"{layer}.bias"]
            assert (delta.bias - bias).norm() <= 1e-5 * bias.norm()
