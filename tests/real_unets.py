"""The U-Nets of well-known models."""

from diffgen.models.config import UNetConfig

REAL = {
    "sd15": UNetConfig(),
    "sd15-inpainting": UNetConfig(in_channels=9),
    "sd15-lcm": UNetConfig(guidance_dim=256),
    "sd21": UNetConfig(context_dim=1024, num_heads=(5, 10, 20, 20), linear_projection=True),
    "sdxl": UNetConfig(
        channels=(320, 640, 1280),
        blocks=(2, 2, 2),
        depth=(0, 2, 10),
        mid_depth=10,
        num_heads=(5, 10, 20),
        context_dim=2048,
        linear_projection=True,
        time_ids_dim=256,
        added_dim=2816,
    ),
    "sdxl-refiner": UNetConfig(
        channels=(384, 768, 1536, 1536),
        depth=(0, 4, 4, 0),
        mid_depth=4,
        num_heads=(6, 12, 24, 24),
        context_dim=1280,
        linear_projection=True,
        time_ids_dim=256,
        added_dim=2560,
    ),
    "bk-sdm-base": UNetConfig(blocks=(1, 1, 1, 1)),
    "bk-sdm-small": UNetConfig(blocks=(1, 1, 1, 1), mid_depth=None),
    "bk-sdm-tiny": UNetConfig(
        channels=(320, 640, 1280),
        blocks=(1, 1, 1),
        depth=(1, 1, 1),
        mid_depth=None,
        num_heads=(8, 8, 8),
    ),
}
