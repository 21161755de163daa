"""Layer names in the original code of latent diffusion (LDM, SGM) and in OpenCLIP.

There a U-Net is three lists: `input_blocks`, `middle_block` and `output_blocks`, each entry a
residual block, an optional attention and an optional change of size (arXiv:2112.10752;
https://github.com/Stability-AI/generative-models).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from diffgen.models.config import UNetConfig
from diffgen.weights.files import Shape, TensorInfo, TensorOp
from diffgen.weights.keymap import FOLDER_RULES, Rule, attention_rules, to_canonical

OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
INSIDE_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_blocks(config: UNetConfig) -> dict[str, str]:
    """Canonical and LDM names of the blocks, and of the layers outside of any block."""
    return {**OUTSIDE, **dict(_way_down(config)), **dict(_way_up(config))}


def _way_down(config: UNetConfig) -> Iterator[tuple[str, str]]:
    entry = 1  # the first is conv_in
    for level, blocks in enumerate(config.blocks):
        here = f"down_blocks.{level}"
        for block in range(blocks):
            yield f"{here}.resnets.{block}", f"input_blocks.{entry}.0"
            yield f"{here}.attentions.{block}", f"input_blocks.{entry}.1"
            entry += 1
        yield f"{here}.downsamplers.0.conv", f"input_blocks.{entry}.0.op"
        entry += 1


def _way_up(config: UNetConfig) -> Iterator[tuple[str, str]]:
    depth, entry = config.up_depth or config.depth, 0
    for index, level in enumerate(reversed(range(len(config.blocks)))):
        here = f"up_blocks.{index}"
        for block in range(config.blocks[level] + 1):
            yield f"{here}.resnets.{block}", f"output_blocks.{entry}.0"
            yield f"{here}.attentions.{block}", f"output_blocks.{entry}.1"
            entry += 1
        # Upsampling belongs to the entry before, after its attention if it has one.
        place = 2 if depth[level] else 1
        yield f"{here}.upsamplers.0.conv", f"output_blocks.{entry - 1}.{place}.conv"


def to_ldm(layer: str, blocks: Mapping[str, str]) -> str:
    """The LDM name of a U-Net's layer; the blocks are those of `ldm_blocks` for the U-Net."""
    return _renamed(layer, blocks, INSIDE_RESNET)


def unet_rules(config: UNetConfig) -> Sequence[Rule]:
    """From the names in LDM files, without their prefix, to canonical names of the U-Net."""
    blocks = {theirs: ours for ours, theirs in ldm_blocks(config).items()}
    inside = {theirs: ours for ours, theirs in INSIDE_RESNET.items()}
    return [Rule(re.compile(r".+"), lambda match: _renamed(match[0], blocks, inside))]


def _renamed(layer: str, blocks: Mapping[str, str], inside: Mapping[str, str]) -> str:
    """The name with its longest known beginning replaced, and what follows it where known."""
    parts = layer.split(".")
    for count in range(len(parts), 0, -1):
        block = ".".join(parts[:count])
        if block in blocks:
            rest = ".".join(parts[count:])
            for old, new in inside.items():
                if rest == old or rest.startswith(f"{old}."):
                    rest = new + rest[len(old) :]
            return f"{blocks[block]}.{rest}" if rest else blocks[block]
    return layer


VAE_INSIDE = {
    r"\.mid\.block_1": ".mid_block.resnets.0",
    r"\.mid\.block_2": ".mid_block.resnets.1",
    r"\.mid\.attn_1\.(?:group_)?norm": ".mid_block.attentions.0.group_norm",
    r"\.block\.(\d+)": r".resnets.\1",
    r"\.downsample\.conv": ".downsamplers.0.conv",
    r"\.upsample\.conv": ".upsamplers.0.conv",
    r"\.nin_shortcut": ".conv_shortcut",
    r"\.norm_out": ".conv_norm_out",
    r"^encoder\.down\.(\d+)": r"encoder.down_blocks.\1",
}
LDM_ATTENTION = attention_rules(r"(.+)\.mid\.attn_1", r"\1.mid_block.attentions.0")


def vae_rules(levels: int) -> Sequence[Rule]:
    """From the names in LDM files, without their prefix, to canonical names of the autoencoder."""

    def renamed(match: re.Match[str]) -> str:
        name = match[0]
        for old, new in VAE_INSIDE.items():
            name = re.sub(old, new, name)
        # LDM counts the decoder's levels from the highest resolution, diffusers from the lowest.
        return re.sub(
            r"^decoder\.up\.(\d+)",
            lambda level: f"decoder.up_blocks.{levels - 1 - int(level[1])}",
            name,
        )

    attention = "|".join(rule.pattern.pattern for rule in LDM_ATTENTION)
    return [*LDM_ATTENTION, Rule(re.compile(rf"(?!(?:{attention})$).+"), renamed)]


def canonical_vae(infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Rename an autoencoder's tensors, without their prefix, from LDM's or diffusers' names."""
    if any(".mid_block." in key for key in infos):
        return to_canonical(infos, FOLDER_RULES["vae"])
    levels = {m[1] for key in infos if (m := re.match(r"decoder\.up\.(\d+)\.", key))}
    return to_canonical(infos, vae_rules(len(levels)))


OPEN_CLIP = {
    r"token_embedding\.(.+)": r"embeddings.token_embedding.\1",
    r"positional_embedding": "embeddings.position_embedding.weight",
    r"ln_final\.(.+)": r"final_layer_norm.\1",
    r"LAYER\.ln_([12])\.(.+)": r"encoder.layers.\1.layer_norm\2.\3",
    r"LAYER\.mlp\.c_fc\.(.+)": r"encoder.layers.\1.mlp.fc1.\2",
    r"LAYER\.mlp\.c_proj\.(.+)": r"encoder.layers.\1.mlp.fc2.\2",
    r"LAYER\.attn\.out_proj\.(.+)": r"encoder.layers.\1.self_attn.out_proj.\2",
}
LAYER = r"transformer\.resblocks\.(\d+)"


def open_clip_rules(layers: int) -> Sequence[Rule]:
    """From OpenCLIP's names to canonical names of a text encoder of so many layers."""
    names = [
        Rule(_below(layers, pattern), rf"text_model.{name}") for pattern, name in OPEN_CLIP.items()
    ]
    thirds = [
        Rule(
            _below(layers, r"LAYER\.attn\.in_proj_(weight|bias)"),
            rf"text_model.encoder.layers.\1.self_attn.{part}_proj.\2",
            _third(index),
        )
        for index, part in enumerate("qkv")
    ]
    # OpenCLIP's multiplies from the right, which a square shape does not show. Programs that
    # store it as a layer use a layer's name, and the usual orientation.
    projection = Rule(re.compile("text_projection"), "text_projection.weight", TRANSPOSED)
    return [*names, *thirds, projection]


def _below(layers: int, pattern: str) -> re.Pattern[str]:
    numbers = "|".join(map(str, range(layers)))
    return re.compile(pattern.replace("LAYER", rf"transformer\.resblocks\.({numbers})"))


def _third(index: int) -> TensorOp:
    """One third of the rows of a joint matrix for queries, keys and values."""

    def shape(whole: Shape) -> Shape:
        return (whole[0] // 3, *whole[1:])

    return TensorOp(shape, lambda tensor: tensor.chunk(3)[index])


TRANSPOSED = TensorOp(lambda shape: shape[::-1], lambda tensor: tensor.T.contiguous())
