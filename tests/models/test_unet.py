"""The U-Net against diffusers' UNet2DConditionModel on tiny random models."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel
from real_unets import REAL
from torch import Tensor

from diffgen.errors import UsageError
from diffgen.models.config import Depth, UNetConfig
from diffgen.models.unet import UNet, guidance_embedding
from diffgen.types import Conditioning

SD1 = UNetConfig(
    channels=(32, 64, 64),
    blocks=(2, 2, 2),
    depth=(1, 1, 0),
    num_heads=(4, 4, 4),
    context_dim=24,
    norm_groups=16,
)
SD2 = replace(SD1, linear_projection=True, num_heads=(2, 4, 8), upcast_attention=True)
SDXL = replace(
    SD2,
    depth=(0, 1, 2),
    mid_depth=2,
    upcast_attention=False,
    time_ids_dim=8,
    added_dim=20 + 6 * 8,
)
CASES = {
    "sd1": SD1,
    "sd1-four-levels": replace(
        SD1, channels=(32, 32, 64, 64), blocks=(1,) * 4, depth=(1, 1, 1, 0), num_heads=(4,) * 4
    ),
    "sd2": SD2,
    "sdxl": SDXL,
    "edit-8-channels": replace(SD1, in_channels=8),
    "inpaint-9-channels": replace(SD1, in_channels=9),
    "lcm": replace(SD1, guidance_dim=16),
    "bk-sdm-small": replace(SD1, blocks=(1, 1, 1), mid_depth=None),
    "bk-sdm-tiny": replace(
        SD1, channels=(32, 64), blocks=(1, 1), depth=(1, 1), num_heads=(4, 4), mid_depth=None
    ),
    "mid-without-attention": replace(SD1, mid_depth=0),
    "uneven": replace(SDXL, blocks=(1, 3, 2), up_depth=(0, 3, 1)),
    "ssd-1b": replace(
        SDXL,
        depth=(0, 1, (2, 2)),
        up_depth=(0, (1, 2, 1), (1, 1, 2)),
        mid_depth=0,
    ),
    "ddpm-time-embedding": replace(SD1, flip_sin_to_cos=False, freq_shift=1.0, norm_eps=1e-3),
}


def plain(depths: Iterable[Depth]) -> list[int | list[int]]:
    return [list(depth) if isinstance(depth, tuple) else depth for depth in depths]


def reference_unet(config: UNetConfig) -> UNet2DConditionModel:
    """The diffusers model that a config describes."""
    mid_types = {None: None, 0: "UNetMidBlock2D"}
    options: dict[str, Any] = {}
    if config.added_dim is not None:
        options = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": config.time_ids_dim,
            "projection_class_embeddings_input_dim": config.added_dim,
        }
    # The field has one depth per level, which the mid block shares with the lowest; where ours
    # differ, only the levels with attention matter.
    depth = [*config.depth[:-1], config.mid_depth or config.depth[-1]]
    if config.up_depth is not None:
        options["reverse_transformer_layers_per_block"] = plain(reversed(config.up_depth))
    return UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        transformer_layers_per_block=[d or 1 for d in plain(depth)],
        down_block_types=["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.depth],
        up_block_types=[
            "CrossAttnUpBlock2D" if d else "UpBlock2D"
            for d in reversed(config.up_depth or config.depth)
        ],
        mid_block_type=mid_types.get(config.mid_depth, "UNetMidBlock2DCrossAttn"),
        attention_head_dim=config.num_heads,
        cross_attention_dim=config.context_dim,
        use_linear_projection=config.linear_projection,
        norm_num_groups=config.norm_groups,
        norm_eps=config.norm_eps,
        flip_sin_to_cos=config.flip_sin_to_cos,
        freq_shift=config.freq_shift,
        time_cond_proj_dim=config.guidance_dim,
        upcast_attention=config.upcast_attention,
        **options,
    )


def inputs(config: UNetConfig, *, h: int = 8, w: int = 8) -> tuple[Tensor, Tensor, Conditioning]:
    """x, t and conditioning for a batch of 2."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    extra = config.in_channels - 4
    ids = torch.tensor([[64.0, 96.0, 0.0, 8.0, 64.0, 64.0], [32.0, 32.0, 4.0, 0.0, 48.0, 64.0]])
    cond = Conditioning(
        context=draw(2, 7, config.context_dim),
        pooled=draw(2, 20) if config.added_dim else None,
        time_ids=ids if config.added_dim else None,
        concat=draw(2, extra, h, w) if extra else None,
        guidance=torch.tensor([1.0, 7.5]) if config.guidance_dim else None,
    )
    return draw(2, 4, h, w), torch.tensor([999.0, 3.25]), cond


def reference_guidance(cond: Conditioning, config: UNetConfig) -> Tensor | None:
    """The embedding that diffusers' LCM pipeline gives its U-Net for a guidance scale."""
    if cond.guidance is None:
        return None
    embedding: Tensor = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, cond.guidance - 1, embedding_dim=config.guidance_dim
    )
    return embedding


def run_reference(
    unet: UNet2DConditionModel, config: UNetConfig, x: Tensor, t: Tensor, cond: Conditioning
) -> Tensor:
    result: Tensor = unet(
        x if cond.concat is None else torch.cat([x, cond.concat], dim=1),
        t,
        cond.context,
        timestep_cond=reference_guidance(cond, config),
        added_cond_kwargs={"text_embeds": cond.pooled, "time_ids": cond.time_ids},
    ).sample
    return result


@pytest.mark.parity
@pytest.mark.parametrize("size", [(8, 8), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_matches_diffusers(case, size, copy_random_weights, assert_close):
    config = CASES[case]
    reference = reference_unet(config)
    with torch.device("meta"):
        ours = UNet(config)
    copy_random_weights(reference, ours)
    x, t, cond = inputs(config, h=size[0], w=size[1])

    assert_close(ours(x, t, cond), run_reference(reference, config, x, t, cond))


@pytest.mark.parity
@pytest.mark.parametrize("name", REAL)
def test_real_models_have_the_layout_of_diffusers(name, assert_same_layout):
    with torch.device("meta"):
        assert_same_layout(UNet(REAL[name]), reference_unet(REAL[name]))


@pytest.mark.parity
def test_guidance_embedding_matches_the_lcm_pipeline(assert_close):
    scales = torch.tensor([1.0, 4.0, 8.5])
    expected = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, scales - 1, embedding_dim=256
    )
    # Phases reach 7500, where the last bit of a float32 is 5e-4.
    assert_close(guidance_embedding(scales, 256), expected, tolerance=1e-3)


def test_loading_leaves_nothing_on_meta_and_builds_no_buffers():
    with torch.device("meta"):
        unet = UNet(SDXL)
    unet.load_state_dict(UNet(SDXL).state_dict(), strict=True, assign=True)

    assert not any(parameter.is_meta for parameter in unet.parameters())
    assert not list(unet.buffers())


@pytest.mark.parametrize("case", ["sdxl", "lcm", "bk-sdm-small", "uneven"])
def test_gradients_reach_every_parameter(case, assert_gradients_flow):
    config = CASES[case]
    unet = UNet(config)

    assert_gradients_flow(unet, unet(*inputs(config)))


@torch.no_grad()
def test_one_time_serves_the_whole_batch():
    torch.manual_seed(0)
    unet = UNet(SD1)
    x, _, cond = inputs(SD1)

    # The very same arithmetic on the same numbers.
    assert torch.equal(
        unet(x, torch.tensor(500.0), cond), unet(x, torch.tensor([500.0, 500.0]), cond)
    )


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(dtype, assert_close):
    torch.manual_seed(0)
    x, t, cond = inputs(SDXL)
    unet = UNet(SDXL)
    expected = unet(x, t, cond)

    actual = unet.to(dtype)(x.to(dtype), t, replace(cond, context=cond.context.to(dtype)))

    assert actual.dtype == dtype
    # About ten roundings deep on the residual path; bfloat16 keeps 8 bits.
    assert_close(actual, expected, tolerance=10 * torch.finfo(dtype).eps)


@torch.no_grad()
def test_upcast_attention_acts_in_half_precision_only():
    torch.manual_seed(0)
    upcast, plain = UNet(SD2), UNet(replace(SD2, upcast_attention=False))
    plain.load_state_dict(upcast.state_dict())
    x, t, cond = inputs(SD2)
    assert torch.equal(upcast(x, t, cond), plain(x, t, cond))

    x, cond = x.bfloat16(), replace(cond, context=cond.context.bfloat16())
    assert not torch.equal(upcast.bfloat16()(x, t, cond), plain.bfloat16()(x, t, cond))


@torch.no_grad()
def test_pooled_text_alone_can_be_added():
    config = replace(SD1, added_dim=20)
    x, t, cond = inputs(config)
    unet = UNet(config)

    changed = unet(x, t, replace(cond, pooled=2 * cond.pooled))
    assert not torch.equal(changed, unet(x, t, cond))


@pytest.mark.parametrize(
    ("case", "field"), [("sdxl", "pooled"), ("sdxl", "time_ids"), ("lcm", "guidance")]
)
def test_missing_conditioning_is_named(case, field):
    config = CASES[case]
    x, t, cond = inputs(config)

    with pytest.raises(UsageError, match=rf"Conditioning\.{field}"):
        UNet(config)(x, t, replace(cond, **{field: None}))


def test_missing_channels_are_named():
    config = CASES["inpaint-9-channels"]
    x, t, cond = inputs(config)

    with pytest.raises(UsageError, match=r"takes 9 input channels, got 4.*Conditioning\.concat"):
        UNet(config)(x, t, replace(cond, concat=None))
