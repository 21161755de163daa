"""Names and shapes told from configs, against the modules' own states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from real_unets import REAL

from diffgen.models.build import empty_network
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.models.shapes import expected_shapes
from diffgen.types import Component, NoiseConfig

SD1, XL = REAL["sd15"], REAL["sdxl"]
UNETS = {
    "sd1": SD1,
    "sd2": replace(SD1, linear_projection=True, context_dim=1024),
    "sdxl": XL,
    "ssd-1b": replace(XL, depth=(0, 2, (4, 4)), up_depth=(0, (2, 1, 1), (4, 4, 10)), mid_depth=0),
    "bk-sdm-tiny": replace(
        SD1, channels=(320, 640, 1280), blocks=(1, 1, 1), depth=(1, 1, 1), num_heads=(8,) * 3,
        mid_depth=None,
    ),
    "lcm": replace(SD1, guidance_dim=256),
    "inpaint": replace(SD1, in_channels=9),
    "one-level": replace(SD1, channels=(320,), blocks=(3,), depth=(1,), num_heads=(8,)),
    "unlike-blocks": replace(SD1, blocks=(1, 3, 2, 1), depth=(1, 0, 1, 0)),
}  # fmt: skip
VAES = {
    "sd1": VaeConfig(),
    "flux": VaeConfig(latent_channels=16, quant_conv=False, post_quant_conv=False),
    "one-level": VaeConfig(channels=(128,), blocks=1),
    "without-attention": VaeConfig(channels=(128, 256), mid_attention=False),
}
TEXTS = {
    "sd1": ClipTextConfig(),
    "bigG": ClipTextConfig(width=1280, layers=3, mlp_width=5120, projection=1024),
}


def same(component: Component, unet: UNetConfig, vae: VaeConfig, text: ClipTextConfig) -> bool:
    config = ModelConfig(family="custom", text=(text,), unet=unet, vae=vae, schedule=NoiseConfig())
    state = empty_network(config, component).state_dict()
    expected = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    return list(expected_shapes(config, component).items()) == expected


@pytest.mark.parametrize("name", UNETS)
def test_u_nets(name: str) -> None:
    assert same("unet", UNETS[name], VaeConfig(), ClipTextConfig())


@pytest.mark.parametrize("name", VAES)
def test_autoencoders(name: str) -> None:
    assert same("vae", SD1, VAES[name], ClipTextConfig())


@pytest.mark.parametrize("name", TEXTS)
def test_text_encoders(name: str) -> None:
    assert same("text_encoder", SD1, VaeConfig(), TEXTS[name])
