from dataclasses import replace

import pytest

from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig

SD1 = ModelConfig(
    family="sd1",
    text=(ClipTextConfig(),),
    unet=UNetConfig(),
    vae=VaeConfig(),
    schedule=NoiseConfig(),
)


@pytest.mark.parametrize(
    ("channels", "task", "extra"),
    [(4, "text", 0), (9, "inpaint", 5), (8, "edit", 4), (7, "other", 3)],
)
def test_the_channels_beside_the_latents_tell_what_a_model_is_for(channels, task, extra):
    config = replace(SD1, unet=UNetConfig(in_channels=channels))
    assert (config.task, config.extra_channels, config.latent_channels) == (task, extra, 4)


def test_in_pixel_space_the_colours_are_what_is_sampled():
    unet = UNetConfig(in_channels=3, out_channels=3)
    config = replace(SD1, vae=None, unet=unet)
    assert (config.latent_channels, config.extra_channels, config.factor) == (3, 0, 1)


@pytest.mark.parametrize(
    ("unet", "kind"),
    [
        (UNetConfig(), "text"),
        (UNetConfig(added_dim=1280 + 6 * 256, time_ids_dim=256), "sizes"),
        (UNetConfig(added_dim=1280 + 5 * 256, time_ids_dim=256), "score"),
        (UNetConfig(added_dim=1280), "pooled"),
    ],
)
def test_the_conditioning_is_known_by_its_width(unet, kind):
    text = (ClipTextConfig(width=1280, projection=1280),)
    assert replace(SD1, unet=unet, text=text).conditioning == kind


def test_guidance_is_the_familys_own():
    assert (SD1.guidance_scale, SD1.embeds_guidance, SD1.is_xl) == (7.5, False, False)
    assert replace(SD1, family="sdxl").guidance_scale == 5.0
    assert replace(SD1, unet=UNetConfig(guidance_dim=256)).embeds_guidance
