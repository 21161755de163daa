"""unet/config.json -> UNetConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from diffgen.errors import ConfigError, UnsupportedCheckpoint, shown
from diffgen.jsonfile import JsonObject
from diffgen.models.checks import check_unet
from diffgen.models.config import Depth, UNetConfig, spread
from diffgen.weights.diffusers.options import one_of, refuse_other_values, unsupported

T = TypeVar("T")

BLOCK_TYPES = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}

# Fields with other names in the file.
KEYS = {
    "channels": "block_out_channels",
    "blocks": "layers_per_block",
    "depth": "transformer_layers_per_block",
    "up_depth": "reverse_transformer_layers_per_block",
    "mid_depth": "transformer_layers_per_block",
    "context_dim": "cross_attention_dim",
    "norm_groups": "norm_num_groups",
    "time_ids_dim": "addition_time_embed_dim",
    "added_dim": "projection_class_embeddings_input_dim",
    "guidance_dim": "time_cond_proj_dim",
}

# Options that change the network, with the supported values.
ALLOWED: Mapping[str, Sequence[object]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": ("text_time",),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (),
    "encoder_hid_dim_type": (),
    "mid_block_only_cross_attention": (False,),
    "mid_block_scale_factor": (1,),
    "num_class_embeds": (),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_act_fn": (),
    "time_embedding_dim": (),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (),
}


def read_unet_config(config: JsonObject) -> UNetConfig:
    """Read the config of a `UNet2DConditionModel`.

    Raises UnsupportedCheckpoint, naming file and key, for an unsupported network, and ConfigError
    for a malformed file or impossible numbers.
    """
    refuse_other_values(config, ALLOWED)
    channels = config.many_or("block_out_channels", int, (320, 640, 1280, 1280))
    if not channels:
        raise ConfigError(f"{config.named('block_out_channels')} is empty")
    levels = len(channels)
    layers = _depths(config, "transformer_layers_per_block", levels)
    depth = _down_depth(config, layers)
    up_depth = _up_depth(config, layers)
    sdxl = config.get("addition_embed_type", "") == "text_time"
    heads_key = _heads_key(config)
    unet = UNetConfig(
        in_channels=config.get("in_channels", 4),
        out_channels=config.get("out_channels", 4),
        sample_size=min(_numbers(config, "sample_size", ()), default=UNetConfig().sample_size),
        channels=channels,
        blocks=_per_level(config, "layers_per_block", levels, 2),
        depth=depth,
        up_depth=None if up_depth == depth else up_depth,
        mid_depth=_mid_depth(config, spread(layers[-1], 1)[0]),
        num_heads=_per_level(config, heads_key, levels, 8),
        context_dim=_same_everywhere(config, "cross_attention_dim", 1280),
        linear_projection=config.get("use_linear_projection", False),
        norm_groups=config.get("norm_num_groups", 32),
        norm_eps=config.get("norm_eps", 1e-5),
        flip_sin_to_cos=config.get("flip_sin_to_cos", True),
        freq_shift=config.get("freq_shift", 0.0),
        time_ids_dim=_needed(config, KEYS["time_ids_dim"]) if sdxl else None,
        added_dim=_needed(config, KEYS["added_dim"]) if sdxl else None,
        guidance_dim=config.optional("time_cond_proj_dim", int),
        upcast_attention=config.get("upcast_attention", False),
    )
    keys = {**KEYS, "num_heads": heads_key}
    check_unet(unet, lambda name: config.named(keys.get(name, name)))
    return unet


def _per_level(config: JsonObject, key: str, levels: int, default: int) -> tuple[int, ...]:
    """A whole number for each level, from a list or from one number for all."""
    values = _numbers(config, key, (default,))
    if not isinstance(config.data.get(key), list):
        values *= levels
    return _check_length(config, key, values, levels)


def _check_length(
    config: JsonObject, key: str, values: tuple[T, ...], levels: int
) -> tuple[T, ...]:
    if len(values) != levels:
        raise ConfigError(
            f'{config.path}: "{key}" has {len(values)} entries where "block_out_channels" has '
            f"{levels}; they must agree"
        )
    return values


def _same_everywhere(config: JsonObject, key: str, default: int | None = None) -> int:
    """A whole number that may be written as a list of equal ones."""
    values = _numbers(config, key, (default,) if default else ())
    if not values:
        raise ConfigError(f"{config.named(key)} is missing or empty")
    if len(set(values)) > 1:
        raise unsupported(config, key, values[:1])
    return values[0]


def _numbers(config: JsonObject, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """The whole numbers under `key`; a list of lists is valid, but for an unsupported network."""
    value = config.data.get(key)
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        raise UnsupportedCheckpoint(
            f"{config.named(key)} is {shown(value)}; lists in a list are not supported here"
        )
    return config.many_or(key, int, default)


def _needed(config: JsonObject, key: str) -> int:
    value = config.optional(key, int)
    if value is None:
        raise ConfigError(f'{config.named(key)} is missing, which "addition_embed_type" needs')
    return value


def _heads_key(config: JsonObject) -> str:
    # By a historical mistake, "attention_head_dim" is the number of heads in every checkpoint.
    given = config.data.get("num_attention_heads") is not None
    return "num_attention_heads" if given else "attention_head_dim"


def _depths(config: JsonObject, key: str, levels: int) -> tuple[Depth, ...]:
    """As `_per_level`, but a level may have a list: one number for each of its blocks."""
    value = config.data.get(key)
    if not (isinstance(value, list) and any(isinstance(item, list) for item in value)):
        return _per_level(config, key, levels, 1)
    depths: list[Depth] = []
    for item in value:
        numbers = item if isinstance(item, list) else [item]
        if not numbers or any(type(n) is not int for n in numbers):
            raise ConfigError(
                f"{config.named(key)} should be whole numbers, or lists of them, not {shown(value)}"
            )
        depths.append(tuple(numbers) if isinstance(item, list) else item)
    return _check_length(config, key, tuple(depths), levels)


def _down_depth(config: JsonObject, layers: tuple[Depth, ...]) -> tuple[Depth, ...]:
    """Transformer layers per attention block on the down path; 0 for a level without attention."""
    default = ("CrossAttnDownBlock2D",) * (len(layers) - 1) + ("DownBlock2D",)
    attends = _attends(config, "down_block_types", default)
    return tuple(n if yes else 0 for n, yes in zip(layers, attends, strict=True))


def _up_depth(config: JsonObject, layers: tuple[Depth, ...]) -> tuple[Depth, ...]:
    """Transformer layers on the up path, which the JSON lists from the lowest resolution."""
    key = "reverse_transformer_layers_per_block"
    if config.data.get(key) is not None:
        layers = _depths(config, key, len(layers))[::-1]
    elif any(isinstance(depth, tuple) for depth in layers):
        raise ConfigError(
            f"{config.named('transformer_layers_per_block')} has lists in a list, and "
            f'"{key}" is missing, which says the same of the way up'
        )
    default = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(layers) - 1)
    attends = _attends(config, "up_block_types", default)[::-1]
    return tuple(n if yes else 0 for n, yes in zip(layers, attends, strict=True))


def _attends(config: JsonObject, key: str, default: tuple[str, ...]) -> tuple[bool, ...]:
    """Which of the listed blocks have cross-attention."""
    plain, attending = BLOCK_TYPES[key]
    types = _check_length(config, key, config.many_or(key, str, default), len(default))
    if not set(types) <= {plain, attending}:
        raise unsupported(config, key, (plain, attending))
    return tuple(name == attending for name in types)


def _mid_depth(config: JsonObject, layers: int) -> int | None:
    """Transformer layers of the mid block; None if a null removes the block."""
    if "mid_block_type" in config.data and config.data["mid_block_type"] is None:
        return None
    kind = one_of(config, "mid_block_type", ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"))
    return layers if kind == "UNetMidBlock2DCrossAttn" else 0
