"""Autoencoders in strips give what they give as a whole."""

from dataclasses import replace

import pytest
import torch
from test_vae import CASES, draw

from diffgen import Engine
from diffgen.models.fast.inference import prepare
from diffgen.models.seamless import Axes, Seamless
from diffgen.models.tiling import decode_tiled, encode_tiled
from diffgen.models.vae import Autoencoder

SIZES = pytest.mark.parametrize("size", [(40, 20), (37, 21), (8, 64)])


def make(name: str) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(replace(CASES[name])).eval()


@SIZES
@pytest.mark.parametrize("name", CASES)
def test_decoding_in_strips_is_decoding(name: str, size: tuple[int, int]) -> None:
    vae, latents = make(name), draw(2, CASES[name].latent_channels, *size)
    with torch.no_grad():
        whole, strips = vae.decode(latents), decode_tiled(vae, latents, pixels=1)
    torch.testing.assert_close(strips, whole, atol=1e-4, rtol=1e-4)


@SIZES
@pytest.mark.parametrize("name", CASES)
def test_encoding_in_strips_is_encoding(name: str, size: tuple[int, int]) -> None:
    vae, factor = make(name), CASES[name].factor
    pixels = draw(2, 3, factor * size[0], factor * size[1])
    with torch.no_grad():
        whole, strips = vae.encode(pixels), encode_tiled(vae, pixels, pixels=1)
    for actual, expected in zip(strips, whole, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_the_caller_keeps_what_was_given() -> None:
    """Strips are added up in place: in maps of their own."""
    vae, latents, pixels = make("sd1"), draw(1, 4, 16, 16), draw(1, 3, 64, 64)
    with torch.no_grad():
        for given, run in ((latents, decode_tiled), (pixels, encode_tiled)):
            before = given.clone()
            run(vae, given, pixels=1)
            assert torch.equal(given, before)


def test_packed_networks_in_strips() -> None:
    vae, latents = make("sd1"), draw(1, 4, 40, 20)
    with torch.inference_mode():
        whole = vae.decode(latents)
        prepare(vae)
        strips = decode_tiled(vae, latents, pixels=1)
    torch.testing.assert_close(strips, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_seamless_networks_in_strips(axes: Axes) -> None:
    vae, latents = make("sd1"), draw(1, 4, 40, 20)
    Seamless([vae.decoder], axes)
    with torch.inference_mode():
        whole = vae.decode(latents)
        strips = decode_tiled(vae, latents, pixels=1, wraps="y" in axes)
    torch.testing.assert_close(strips, whole, atol=1e-4, rtol=1e-4)


def test_a_smooth_gradient_stays_smooth() -> None:
    """Where tiles by themselves are off by 27 of 255 levels."""
    engine = Engine.load("storybook", device="cpu", dtype="fp32")
    across = torch.linspace(-0.5, 0.5, 640).expand(1, 3, 256, -1)
    with torch.inference_mode():
        latents = engine.encode_image(across)
        whole, strips = engine.vae.decode(latents), decode_tiled(engine.vae, latents, pixels=1)
    assert (whole - strips).abs().max() * 127.5 < 0.1
