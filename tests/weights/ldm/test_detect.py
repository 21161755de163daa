"""Configs found from the names and shapes of real architectures, on the meta device."""

import pytest

from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.weights.ldm import detect
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

XL = {
    "sample_size": 64,
    "channels": (320, 640, 1280),
    "blocks": (2, 2, 2),
    "num_heads": (5, 10, 20),
    "context_dim": 2048,
    "linear_projection": True,
    "added_dim": 2816,
}
SMALL = {"num_heads": (8, 8, 8, 8), "blocks": (1, 1, 1, 1)}
# Depths as ComfyUI's supported_models.py and the makers' config.json list them.
UNETS = {
    "sdxl": ("sdxl", UNetConfig(**XL, depth=(0, 2, 10), mid_depth=10)),
    "ssd-1b": (
        "sdxl",
        UNetConfig(**XL, depth=(0, 2, 4), up_depth=(0, (2, 1, 1), (4, 4, 10)), mid_depth=0),
    ),
    "segmind-vega": (
        "sdxl",
        UNetConfig(**XL, depth=(0, 1, 2), mid_depth=0),
    ),
    "koala-700m": (
        "sdxl",
        UNetConfig(**{**XL, "blocks": (1, 1, 1)}, depth=(0, 2, 5), mid_depth=None),
    ),
    "koala-1b": (
        "sdxl",
        UNetConfig(**{**XL, "blocks": (1, 1, 1)}, depth=(0, 2, 6), mid_depth=6),
    ),
    "bk-sdm-base": ("sd1", UNetConfig(**SMALL)),
    "bk-sdm-small": ("sd1", UNetConfig(**SMALL, mid_depth=None)),
    "bk-sdm-tiny": (
        "sd1",
        UNetConfig(
            channels=(320, 640, 1280),
            blocks=(1, 1, 1),
            depth=(1, 1, 1),
            num_heads=(8, 8, 8),
            mid_depth=None,
        ),
    ),
    "sdxl-refiner": (
        "sdxl",
        UNetConfig(
            sample_size=64,
            channels=(384, 768, 1536, 1536),
            depth=(0, 4, 4, 0),
            mid_depth=4,
            num_heads=(6, 12, 24, 24),
            context_dim=1280,
            linear_projection=True,
            added_dim=2560,
        ),
    ),
    "inpainting": ("sd1", UNetConfig(in_channels=9)),
    "instruct-pix2pix": ("sd1", UNetConfig(in_channels=8)),
}


@pytest.mark.parametrize("name", UNETS)
def test_a_u_net_is_known_by_its_tensors(name):
    family, config = UNETS[name]
    blocks = ldm_blocks(config)
    unet = build_empty(UNet, config)
    shapes = {to_ldm(key, blocks): tuple(t.shape) for key, t in unet.state_dict().items()}
    assert len(shapes) == len(unet.state_dict())
    assert detect.read_unet(shapes, family) == config
