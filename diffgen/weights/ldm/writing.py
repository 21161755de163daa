"""A model's tensors under the names of LDM's and SGM's single files: the inverse of reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from diffgen.models.config import ModelConfig, VaeConfig
from diffgen.types import Component
from diffgen.weights.files import Shape, TensorOp
from diffgen.weights.ldm.detect import NAMES, SingleFamily
from diffgen.weights.ldm.names import TRANSPOSED, ldm_blocks, to_ldm
from diffgen.weights.writing import Part

if TYPE_CHECKING:
    from torch import Tensor

Parts = Mapping[str, Part]

# By family: the prefix of each component's tensors.
FIRST: Final = "first_stage_model."
CLIP: Final = {
    "sd1": "cond_stage_model.transformer.",
    "sdxl": "conditioner.embedders.0.transformer.",
}
OPEN_CLIP: Final = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
REFINER: Final = "conditioner.embedders.0.model."
UNET: Final = "model.diffusion_model."

VAE_BLOCKS: Final = {
    "down_blocks": "down",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "resnets": "block",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP_LAYER: Final = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_OUTSIDE: Final = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
LAYER: Final = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
QUERIES: Final = "self_attn.q_proj"
KEYS_AND_VALUES: Final = ("self_attn.k_proj", "self_attn.v_proj")
AS_CONVOLUTION: Final = TensorOp(
    lambda shape: (*shape, 1, 1), lambda tensor: tensor[..., None, None]
)


def single_file_parts(
    config: ModelConfig, components: Mapping[Component, Parts]
) -> dict[str, Part]:
    """The parts of all components, by canonical names, as in a single file of their family."""
    family = file_family(config)
    found = dict(_unet(config, components["unet"]))
    if config.vae is not None:
        found |= _vae(config.vae, components["vae"])
    first = components["text_encoder"]
    if family == "sdxl" and len(config.text) == 1:
        found |= _open_clip(REFINER, first)
    elif family in CLIP:
        found |= {CLIP[family] + name: part for name, part in first.items()}
    else:
        found |= _open_clip(OPEN_CLIP[family], first)
    if "text_encoder_2" in components:
        found |= _open_clip(OPEN_CLIP[family], components["text_encoder_2"])
    return found


def file_family(config: ModelConfig) -> SingleFamily:
    """The layout family for a model; reading back shows whether that can hold it."""
    if config.family in NAMES:
        return config.family  # type: ignore[return-value]  # one of the three
    if config.is_xl:
        return "sdxl"
    return "sd1" if config.text[0].activation == "quick_gelu" else "sd2"


def _unet(config: ModelConfig, parts: Parts) -> Iterator[tuple[str, Part]]:
    blocks = ldm_blocks(config.unet)
    for name, part in parts.items():
        yield UNET + to_ldm(name, blocks), part


def _vae(config: VaeConfig, parts: Parts) -> dict[str, Part]:
    last = len(config.channels) - 1

    def renamed(name: str) -> str:
        # LDM counts the decoder's levels from the highest resolution, diffusers from the lowest.
        found = re.sub(
            r"^decoder\.up_blocks\.(\d+)", lambda m: f"decoder.up.{last - int(m[1])}", name
        )
        for ours, theirs in VAE_BLOCKS.items():
            found = re.sub(rf"(?<=\.){re.escape(ours)}(?=\.)", theirs, found)
        return found

    attention = re.compile(r".+\.attentions\.0\.to_.+\.weight")
    return {
        FIRST + renamed(name): part.after(AS_CONVOLUTION) if attention.fullmatch(name) else part
        for name, part in parts.items()
    }


def _open_clip(prefix: str, parts: Parts) -> dict[str, Part]:
    found = {}
    for name, part in parts.items():
        if name in OPEN_CLIP_OUTSIDE:
            found[prefix + OPEN_CLIP_OUTSIDE[name]] = part
        elif name == "text_projection.weight":
            found[f"{prefix}text_projection"] = part.after(TRANSPOSED)
        elif match := LAYER.fullmatch(name):
            layer, ours, kind = match.groups()
            there = f"{prefix}transformer.resblocks.{layer}"
            if ours == QUERIES:
                others = (name.replace(QUERIES, each) for each in KEYS_AND_VALUES)
                joined = _joined((part, *(parts[each] for each in others)))
                found[f"{there}.attn.in_proj_{kind}"] = joined
            elif ours in OPEN_CLIP_LAYER:
                found[f"{there}.{OPEN_CLIP_LAYER[ours]}.{kind}"] = part
    return found


def _joined(parts: tuple[Part, ...]) -> Part:
    """Stack parts of one format, as OpenCLIP stores queries, keys and values."""

    def make() -> Tensor:
        import torch

        return torch.cat([part.make() for part in parts])

    first = parts[0]
    shape: Shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    return Part(shape, first.dtype, make)


def marks(config: ModelConfig) -> dict[str, Part]:
    """Empty tensors that tell ComfyUI and others how Stable Diffusion XL was trained."""
    if not config.is_xl or config.schedule.prediction != "v":
        return {}
    names = ("v_pred", "ztsnr") if config.schedule.zero_snr else ("v_pred",)
    return {name: Part((0,), "F32", _nothing) for name in names}


def _nothing() -> Tensor:
    import torch

    return torch.zeros(0)
