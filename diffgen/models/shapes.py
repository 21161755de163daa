"""Names and shapes of the networks' tensors, from their configs and without torch.

In the order of the modules' own states.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeAlias

from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import TEXT_ENCODERS, Component

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = Iterator[tuple[str, Shape]]


def expected_shapes(config: ModelConfig, component: Component) -> dict[str, Shape]:
    """Names and shapes of a component's tensors."""
    if component == "unet":
        return dict(_unet(config.unet))
    if component == "vae":
        assert config.vae is not None
        return dict(_vae(config.vae))
    return dict(_text(config.text[TEXT_ENCODERS.index(component)]))


def _layer(name: str, *shape: int, bias: bool = True) -> Tensors:
    """A weight of (out, ...) and a bias of (out,)."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _conv(name: str, into: int, out: int, kernel: int = 3) -> Tensors:
    return _layer(name, out, into, kernel, kernel)


def _linear(name: str, into: int, out: int, *, bias: bool = True) -> Tensors:
    return _layer(name, out, into, bias=bias)


def _unet(config: UNetConfig) -> Tensors:
    channels = config.channels
    time = 4 * channels[0]
    yield from _conv("conv_in", config.in_channels, channels[0])
    yield from _embedding("time_embedding", channels[0], time)
    if config.guidance_dim is not None:
        yield from _linear("time_embedding.cond_proj", config.guidance_dim, channels[0], bias=False)
    if config.added_dim is not None:
        yield from _embedding("add_embedding", config.added_dim, time)
    yield from _way_down(config)
    if config.mid_depth is not None:
        depths = (config.mid_depth,) if config.mid_depth else ()
        widths = [(channels[-1], channels[-1])] * (1 + len(depths))
        yield from _level("mid_block", config, widths, depths, None)
    yield from _way_up(config)
    yield from _layer("conv_norm_out", channels[0])
    yield from _conv("conv_out", channels[0], config.out_channels)


def _way_down(config: UNetConfig) -> Tensors:
    before = config.channels[0]
    for level, channels in enumerate(config.channels):
        widths = list(pairwise([before] + [channels] * config.blocks[level]))
        sampler = "downsamplers" if level < len(config.channels) - 1 else None
        depths = config.down_depths(level)
        yield from _level(f"down_blocks.{level}", config, widths, depths, sampler)
        before = channels


def _way_up(config: UNetConfig) -> Tensors:
    channels = config.channels
    # The widths of the maps that the way down leaves for it.
    skips = [channels[0]]
    for width, blocks in zip(channels, config.blocks, strict=True):
        skips += [width] * (blocks + 1)
    skips.pop()  # the last level is not halved
    below = channels[-1]
    for index, level in enumerate(reversed(range(len(channels)))):
        befores = [below] + [channels[level]] * config.blocks[level]
        widths = [(before + skips.pop(), channels[level]) for before in befores]
        sampler = "upsamplers" if level else None
        yield from _level(f"up_blocks.{index}", config, widths, config.up_depths(level), sampler)
        below = channels[level]


def _embedding(name: str, into: int, out: int) -> Tensors:
    yield from _linear(f"{name}.linear_1", into, out)
    yield from _linear(f"{name}.linear_2", out, out)


def _level(
    name: str,
    config: UNetConfig,
    widths: list[tuple[int, int]],
    depths: tuple[int, ...],
    sampler: str | None,
) -> Tensors:
    """The residual blocks of a resolution, its transformers, and what leads to the next."""
    out = widths[-1][1]
    for index, (before, after) in enumerate(widths):
        yield from _resnet(f"{name}.resnets.{index}", before, after, 4 * config.channels[0])
    for index, depth in enumerate(depths if any(depths) else ()):
        yield from _transformer(f"{name}.attentions.{index}", config, out, depth)
    if sampler:
        yield from _conv(f"{name}.{sampler}.0.conv", out, out)


def _resnet(name: str, into: int, out: int, time: int | None = None) -> Tensors:
    yield from _layer(f"{name}.norm1", into)
    yield from _conv(f"{name}.conv1", into, out)
    if time:
        yield from _linear(f"{name}.time_emb_proj", time, out)
    yield from _layer(f"{name}.norm2", out)
    yield from _conv(f"{name}.conv2", out, out)
    if into != out:
        yield from _conv(f"{name}.conv_shortcut", into, out, 1)


def _transformer(name: str, config: UNetConfig, width: int, depth: int) -> Tensors:
    ones = () if config.linear_projection else (1, 1)
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, *ones)
    for block in (f"{name}.transformer_blocks.{index}" for index in range(depth)):
        yield from _layer(f"{block}.norm1", width)
        yield from _attention(f"{block}.attn1", width, width)
        yield from _layer(f"{block}.norm2", width)
        yield from _attention(f"{block}.attn2", width, config.context_dim)
        yield from _layer(f"{block}.norm3", width)
        yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    yield from _layer(f"{name}.proj_out", width, width, *ones)


def _attention(name: str, width: int, context: int) -> Tensors:
    yield from _linear(f"{name}.to_q", width, width, bias=False)
    yield from _linear(f"{name}.to_k", context, width, bias=False)
    yield from _linear(f"{name}.to_v", context, width, bias=False)
    yield from _linear(f"{name}.to_out.0", width, width)


def _vae(config: VaeConfig) -> Tensors:
    channels, latent = config.channels, config.latent_channels
    steps = list(pairwise((channels[0], *channels)))
    yield from _conv("encoder.conv_in", config.in_channels, channels[0])
    for level, step in enumerate(steps):
        sampler = "downsamplers" if level < len(steps) - 1 else None
        yield from _coder_level(f"encoder.down_blocks.{level}", step, config.blocks, sampler)
    yield from _middle("encoder.mid_block", config)
    yield from _layer("encoder.conv_norm_out", channels[-1])
    yield from _conv("encoder.conv_out", channels[-1], 2 * latent)
    yield from _conv("decoder.conv_in", latent, channels[-1])
    yield from _middle("decoder.mid_block", config)
    for level, step in enumerate(pairwise((channels[-1], *reversed(channels)))):
        sampler = "upsamplers" if level < len(steps) - 1 else None
        yield from _coder_level(f"decoder.up_blocks.{level}", step, config.blocks + 1, sampler)
    yield from _layer("decoder.conv_norm_out", channels[0])
    yield from _conv("decoder.conv_out", channels[0], config.out_channels)
    if config.quant_conv:
        yield from _conv("quant_conv", 2 * latent, 2 * latent, 1)
    if config.post_quant_conv:
        yield from _conv("post_quant_conv", latent, latent, 1)


def _coder_level(name: str, step: tuple[int, int], blocks: int, sampler: str | None) -> Tensors:
    before, after = step
    for index, (into, out) in enumerate(pairwise([before] + [after] * blocks)):
        yield from _resnet(f"{name}.resnets.{index}", into, out)
    if sampler:
        yield from _conv(f"{name}.{sampler}.0.conv", after, after)


def _middle(name: str, config: VaeConfig) -> Tensors:
    width = config.channels[-1]
    for index in range(2):
        yield from _resnet(f"{name}.resnets.{index}", width, width)
    if config.mid_attention:
        yield from _layer(f"{name}.attentions.0.group_norm", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _linear(f"{name}.attentions.0.{part}", width, width)


def _text(config: ClipTextConfig) -> Tensors:
    width = config.width
    embeddings = "text_model.embeddings"
    yield f"{embeddings}.token_embedding.weight", (config.vocab_size, width)
    yield f"{embeddings}.position_embedding.weight", (config.max_tokens, width)
    for layer in (f"text_model.encoder.layers.{index}" for index in range(config.layers)):
        yield from _layer(f"{layer}.layer_norm1", width)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", width, width)
        yield from _layer(f"{layer}.layer_norm2", width)
        yield from _linear(f"{layer}.mlp.fc1", width, config.mlp_width)
        yield from _linear(f"{layer}.mlp.fc2", config.mlp_width, width)
    yield from _layer("text_model.final_layer_norm", width)
    if config.projection is not None:
        yield from _linear("text_projection", width, config.projection, bias=False)
