"""The autoencoder against diffusers' AutoencoderKL on tiny random models."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from diffgen.models.config import VaeConfig
from diffgen.models.vae import Autoencoder, IdentityAutoencoder

SD1 = VaeConfig(channels=(16, 32, 32), norm_groups=8)
CASES = {
    "sd1": SD1,
    "two-levels": replace(SD1, channels=(16, 32), blocks=1),
    "four-levels": replace(SD1, channels=(16, 16, 32, 32), blocks=1),
    "one-level": replace(SD1, channels=(16,)),
    "sixteen-channels": replace(
        SD1, latent_channels=16, quant_conv=False, post_quant_conv=False, shift_factor=0.1159
    ),
    "without-attention": replace(SD1, mid_attention=False, post_quant_conv=False),
    "statistics": replace(
        SD1,
        scaling_factor=0.5,
        latents_mean=(-1.6574, 1.886, -1.383, 2.5155),
        latents_std=(8.4927, 5.9022, 6.5498, 5.2299),
    ),
}
REAL = {
    "sd1": VaeConfig(),
    "flux": VaeConfig(latent_channels=16, quant_conv=False, post_quant_conv=False),
}


def reference_vae(config: VaeConfig) -> AutoencoderKL:
    """The diffusers model that a config describes."""
    levels = len(config.channels)
    return AutoencoderKL(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        block_out_channels=config.channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=config.blocks,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=config.mid_attention,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.post_quant_conv,
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor,
        latents_mean=config.latents_mean,
        latents_std=config.latents_std,
    )


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_matches_diffusers(case, copy_random_weights, assert_close):
    config = CASES[case]
    reference = reference_vae(config)
    with torch.device("meta"):
        ours = Autoencoder(config)
    copy_random_weights(reference, ours)
    pixels = draw(2, 3, 24, 16)

    mean, logvar = ours.encode(pixels)
    expected = reference.encode(pixels).latent_dist
    assert mean.shape[-2:] == (24 // config.factor, 16 // config.factor)
    assert_close(mean, expected.mean)
    assert_close(logvar, expected.logvar)

    z = draw(2, config.latent_channels, 6, 4)
    assert_close(ours.decode(ours.to_latents(z)), reference.decode(z).sample)


@pytest.mark.parity
@pytest.mark.parametrize("name", REAL)
def test_real_models_have_the_layout_of_diffusers(name, assert_same_layout):
    with torch.device("meta"):
        assert_same_layout(Autoencoder(REAL[name]), reference_vae(REAL[name]))


@pytest.mark.parity
@torch.no_grad()
def test_log_variance_is_clamped_like_diffusers(copy_random_weights):
    reference, ours = reference_vae(SD1), Autoencoder(SD1)
    copy_random_weights(reference, ours)
    ours.quant_conv.weight.mul_(1000.0)  # shared with the reference

    _, logvar = ours.encode(draw(1, 3, 8, 8))
    expected = reference.encode(draw(1, 3, 8, 8)).latent_dist.logvar
    assert (logvar.min(), logvar.max()) == (-30.0, 20.0)
    torch.testing.assert_close(logvar, expected)


def test_latents_are_shifted_then_scaled():
    vae = Autoencoder(replace(SD1, channels=(16,), scaling_factor=0.25, shift_factor=0.5))
    z = torch.full((1, 4, 2, 2), 2.5)

    assert torch.equal(vae.to_latents(z), torch.full_like(z, 0.5))
    assert torch.equal(vae.from_latents(torch.full_like(z, 0.5)), z)


def test_latents_follow_statistics_per_channel():
    config = replace(
        SD1,
        channels=(16,),
        scaling_factor=0.5,
        latents_mean=(0.0, 1.0, 2.0, 3.0),
        latents_std=(1.0, 2.0, 4.0, 8.0),
    )
    vae = Autoencoder(config)
    z = torch.full((2, 4, 3, 5), 9.0)

    latents = vae.to_latents(z)
    assert latents[1, :, 2, 4].tolist() == [4.5, 2.0, 0.875, 0.375]  # (z - mean) * 0.5 / std
    assert torch.equal(vae.from_latents(latents), z)


def test_loading_leaves_nothing_on_meta_and_builds_no_buffers():
    with torch.device("meta"):
        vae = Autoencoder(SD1)
    vae.load_state_dict(Autoencoder(SD1).state_dict(), strict=True, assign=True)

    assert not any(parameter.is_meta for parameter in vae.parameters())
    assert not list(vae.buffers())


@pytest.mark.parametrize("case", ["sd1", "without-attention"])
def test_gradients_reach_every_parameter(case, assert_gradients_flow):
    vae = Autoencoder(CASES[case])
    mean, logvar = vae.encode(draw(1, 3, 8, 8))

    pixels = vae.decode(vae.to_latents(mean + (0.5 * logvar).exp()))
    assert_gradients_flow(vae, pixels)


def test_identity_returns_what_it_is_given():
    vae, pixels = IdentityAutoencoder(), draw(1, 3, 4, 4)
    mean, logvar = vae.encode(pixels)

    for result in (mean, vae.to_latents(pixels), vae.from_latents(pixels), vae.decode(pixels)):
        assert torch.equal(result, pixels)
    assert torch.equal(logvar, torch.full_like(pixels, -30.0))
