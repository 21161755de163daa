"""The config of a model in one file, from the names and shapes of its tensors.

The rest (heads, scales, the noise schedule) follows the family, Stable Diffusion 1, 2 or XL, which
the kinds of text encoder determine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

from diffgen.errors import UnsupportedCheckpoint
from diffgen.models.config import ClipTextConfig, Depth, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig, SamplerName
from diffgen.weights.files import Shape

Shapes: TypeAlias = Mapping[str, Shape]
Levels: TypeAlias = list[tuple[int, list[int]]]  # channels, and the depth of each block
SingleFamily: TypeAlias = Literal["sd1", "sd2", "sdxl"]

SD1_HEADS = 8  # at every level; the later ones have as many as give each HEAD_WIDTH channels
HEAD_WIDTH = 64
NAMES: Mapping[SingleFamily, str] = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "Stable Diffusion XL",
}
# Layers in use of the text encoders, by family and width.
SD2_WIDTH = 1024
LAYERS: Mapping[tuple[SingleFamily, int], int] = {
    ("sd1", 768): 12,
    ("sd2", SD2_WIDTH): 23,
    ("sdxl", 768): 12,
    ("sdxl", 1280): 32,
}
VAE_SCALES: Mapping[SingleFamily, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}


@contextmanager
def unusable(reason: str) -> Iterator[None]:
    """Begin the errors about a file's tensors with `reason`, which names the file."""
    try:
        yield
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{reason}: {error}") from error
    except (IndexError, ValueError) as error:  # a vector where all models have a matrix
        raise UnsupportedCheckpoint(
            f"{reason}: its tensors have other shapes than Stable Diffusion's"
        ) from error


def read_unet(shapes: Shapes, family: SingleFamily) -> UNetConfig:
    """The U-Net with these names (without prefix) and shapes.

    Raises UnsupportedCheckpoint, naming what is missing or differs from the known families.
    """
    first = _needed(shapes, "input_blocks.0.0.weight")
    levels = _way_down(shapes)
    depth = tuple(_per_level(depths) for _, depths in levels)
    channels = tuple(width for width, _ in levels)
    up_depth = _up_depth(shapes, [len(depths) for _, depths in levels])
    context = _needed(shapes, _first_of(shapes, r".+\.attn2\.to_k\.weight"))
    projection = _needed(shapes, _first_of(shapes, r".+\.proj_in\.weight"))
    added = shapes.get("label_emb.0.0.weight")
    guidance = shapes.get("time_embed.cond_proj.weight")
    return UNetConfig(
        in_channels=first[1],
        out_channels=_needed(shapes, "out.2.weight")[0],
        channels=channels,
        blocks=tuple(len(depths) for _, depths in levels),
        depth=depth,
        up_depth=None if up_depth == depth else up_depth,
        mid_depth=_mid_depth(shapes, levels),
        num_heads=tuple(SD1_HEADS if family == "sd1" else c // HEAD_WIDTH for c in channels),
        context_dim=context[1],
        linear_projection=len(projection) == 2,
        added_dim=added[1] if added else None,
        guidance_dim=guidance[1] if guidance else None,
    )


def _mid_depth(shapes: Shapes, levels: Levels) -> int | None:
    """The depth of the middle block; None without one, as in BK-SDM's small models."""
    if "middle_block.0.in_layers.0.weight" in shapes:
        return _depth(shapes, "middle_block.1")
    if any(len(depths) > 1 for _, depths in levels):
        raise UnsupportedCheckpoint(
            "it has no middle_block.*, which only models of one block per level (BK-SDM) do without"
        )
    return None


def _way_down(shapes: Shapes) -> Levels:
    """The channels of each level and the depth of each of its blocks."""
    levels: Levels = []
    entry, new = 1, True
    while f"input_blocks.{entry}.0.op.weight" in shapes or (
        f"input_blocks.{entry}.0.out_layers.3.weight" in shapes
    ):
        if f"input_blocks.{entry}.0.op.weight" in shapes:
            new = True
        else:
            width = shapes[f"input_blocks.{entry}.0.out_layers.3.weight"][0]
            if new:
                levels.append((width, []))
            levels[-1][1].append(_depth(shapes, f"input_blocks.{entry}.1"))
            new = False
        entry += 1
    return levels


def _up_depth(shapes: Shapes, blocks: list[int]) -> tuple[Depth, ...]:
    """The depth of each level on the up path, in the order of the down path."""
    depths: list[Depth] = []
    entry = 0
    for count in reversed(blocks):
        here = range(entry, entry + count + 1)
        depths.append(_per_level([_depth(shapes, f"output_blocks.{n}.1") for n in here]))
        entry += count + 1
    return tuple(reversed(depths))


def _depth(shapes: Shapes, block: str) -> int:
    return _count(shapes, rf"{re.escape(block)}\.transformer_blocks\.(\d+)\..+")


def _count(shapes: Shapes, pattern: str) -> int:
    """The number of values that the pattern's group matches."""
    return len({match[1] for key in shapes if (match := re.fullmatch(pattern, key))})


def _per_level(depths: Sequence[int]) -> Depth:
    """One number if all blocks of a level are equally deep, else all of them (SSD-1B)."""
    return depths[0] if len(set(depths)) == 1 else tuple(depths)


def _first_of(shapes: Shapes, pattern: str) -> str:
    return next((key for key in shapes if re.fullmatch(pattern, key)), pattern)


def _needed(shapes: Shapes, name: str) -> Shape:
    if name not in shapes:
        raise UnsupportedCheckpoint(
            f"it has no {name}, which every Stable Diffusion 1, 2 or XL model has"
        )
    return shapes[name]


def read_vae(shapes: Shapes, family: SingleFamily) -> VaeConfig:
    """The autoencoder with these canonical names and shapes. Raises UnsupportedCheckpoint."""
    if "decoder.conv_in.weight" in shapes and not any(k.startswith("encoder.") for k in shapes):
        raise UnsupportedCheckpoint(
            "its autoencoder is a decoder alone, and both halves are needed; give a whole one with "
            "--vae"
        )
    count = _count(shapes, r"encoder\.down_blocks\.(\d+)\..+")
    first = "encoder.down_blocks.{}.resnets.0.conv2.weight"
    return VaeConfig(
        in_channels=_needed(shapes, "encoder.conv_in.weight")[1],
        out_channels=_needed(shapes, "decoder.conv_out.weight")[0],
        latent_channels=_needed(shapes, "decoder.conv_in.weight")[1],
        channels=tuple(_needed(shapes, first.format(level))[0] for level in range(count)),
        blocks=_count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.conv1\.weight"),
        mid_attention=any(key.startswith("encoder.mid_block.attentions.") for key in shapes),
        quant_conv="quant_conv.weight" in shapes,
        post_quant_conv="post_quant_conv.weight" in shapes,
        scaling_factor=VAE_SCALES[family],
        force_upcast=family == "sdxl",
    )


def read_clip(shapes: Shapes, family: SingleFamily, *, second: bool = False) -> ClipTextConfig:
    """An encoder under transformers' names, without the prefix `text_model.`.

    `second` marks the second one of Stable Diffusion XL. Raises UnsupportedCheckpoint.
    """
    open_clips = second or family == "sd2"
    vocabulary, width = _needed(shapes, "embeddings.token_embedding.weight")
    layers = _count(shapes, r"encoder\.layers\.(\d+)\..+")
    if family == "sd2" and _has_spare(shapes, width, layers):
        layers -= 1
    _check_layers(family, width, layers)
    return ClipTextConfig(
        vocab_size=vocabulary,
        width=width,
        layers=layers,
        num_heads=max(1, width // HEAD_WIDTH),
        mlp_width=_needed(shapes, "encoder.layers.0.mlp.fc1.weight")[0],
        max_tokens=_needed(shapes, "embeddings.position_embedding.weight")[0],
        activation="gelu" if open_clips else "quick_gelu",
        hidden="penultimate" if family == "sdxl" else "final",
        projection=_projection(shapes) if second else None,
        pad="!" if open_clips else None,
    )


def read_open_clip(shapes: Shapes, family: SingleFamily) -> ClipTextConfig:
    """An encoder under OpenCLIP's names. Raises UnsupportedCheckpoint."""
    vocabulary, width = _needed(shapes, "token_embedding.weight")
    layers = _count(shapes, r"transformer\.resblocks\.(\d+)\..+")
    sdxl = family == "sdxl"
    if not sdxl and _has_spare(shapes, width, layers):
        layers -= 1
    _check_layers(family, width, layers)
    return ClipTextConfig(
        vocab_size=vocabulary,
        width=width,
        layers=layers,
        num_heads=max(1, width // HEAD_WIDTH),
        mlp_width=_needed(shapes, "transformer.resblocks.0.mlp.c_fc.weight")[0],
        max_tokens=_needed(shapes, "positional_embedding")[0],
        activation="gelu",
        hidden="penultimate" if sdxl else "final",
        projection=_projection(shapes) if sdxl else None,
        pad="!",
    )


def _has_spare(shapes: Shapes, width: int, layers: int) -> bool:
    """Whether the last layer is one that Stable Diffusion 2 does not use.

    Its makers' files contain it, with the projection after it. Files saved by trainers and
    converters have only the layers in use; some kept the projection.
    """
    if width == SD2_WIDTH:
        return layers == LAYERS["sd2", SD2_WIDTH] + 1
    if "embeddings.token_embedding.weight" in shapes:
        return False
    return any(key.startswith(("text_projection", "logit_scale")) for key in shapes)


def _check_layers(family: SingleFamily, width: int, layers: int) -> None:
    expected = LAYERS.get((family, width), layers)
    if layers != expected:
        raise UnsupportedCheckpoint(
            f"its text encoder of width {width} has {layers} layers where that of {NAMES[family]} "
            f"has {expected}, and nothing says which is to be read"
        )


def _projection(shapes: Shapes) -> int:
    if "text_projection.weight" in shapes:  # as a layer has it: (out, in)
        return shapes["text_projection.weight"][0]
    return _needed(shapes, "text_projection")[1]


def schedule_of(family: SingleFamily, *, v: bool, zero_snr: bool, turbo: bool) -> NoiseConfig:
    """The schedule and sampling of a family, as in its makers' model folders."""
    plain: SamplerName = "ddim" if zero_snr or (v and family == "sd2") else "plms"
    return NoiseConfig(
        steps_offset=1,
        final_alpha_one=False,
        sampler="euler" if turbo or family == "sdxl" else plain,
        spacing="trailing" if turbo else "leading",
    )
