"""Names that the U-Net's layers have in the original code of latent diffusion (LDM, SGM).

There a U-Net is three lists: `input_blocks`, `middle_block` and `output_blocks`, each entry a
residual block, an attention and a change of size as far as they are there (arXiv:2112.10752;
https://github.com/Stability-AI/generative-models). Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffgen.models.config import UNetConfig

OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
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
        # Enlarging belongs to the entry before, behind its attention if it has one.
        place = 2 if depth[level] else 1
        yield f"{here}.upsamplers.0.conv", f"output_blocks.{entry - 1}.{place}.conv"


def to_ldm(layer: str, blocks: Mapping[str, str]) -> str:
    """The LDM name of a U-Net's layer, with what `ldm_blocks` gives for the U-Net."""
    parts = layer.split(".")
    for count in range(len(parts), 0, -1):
        block = ".".join(parts[:count])
        if block in blocks:
            inside = parts[count:]
            renamed = [INSIDE_RESNET.get(part, part) for part in inside[:1]] + inside[1:]
            return ".".join([blocks[block], *renamed])
    return layer
