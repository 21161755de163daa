import math

import numpy as np
import pytest
import torch
from PIL import Image

from diffgen.bench.metrics import MAX_PSNR, latent_rmse, psnr, ssim


def picture(seed, size=(20, 17), mode="RGB"):
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(levels)


def noisy(image, amplitude):
    noise = np.random.default_rng(9).normal(0, amplitude, np.asarray(image).shape)
    levels = np.clip(np.asarray(image, dtype=float) + noise, 0, 255)
    return Image.fromarray(levels.round().astype(np.uint8))


def literal_ssim(a, b):
    """Wang et al. 2004, equations 6 and 13, window by window in float64."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    a, b = np.atleast_3d(np.asarray(a, float)), np.atleast_3d(np.asarray(b, float))
    values = []
    for channel in range(a.shape[2]):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                x, y = (image[i : i + 11, j : j + 11, channel] for image in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                covariance = (window * (x - mx) * (y - my)).sum()
                values.append(
                    (2 * mx * my + c1)
                    * (2 * covariance + c2)
                    / ((mx**2 + my**2 + c1) * (vx + vy + c2))
                )
    return float(np.mean(values))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("amplitude", [2, 20, 100])
def test_ssim_is_the_paper_s(mode, amplitude):
    a = picture(1, mode=mode)
    b = noisy(a, amplitude)
    # Variances as differences of float64 sums lose a few of 16 digits.
    assert ssim(a, b) == pytest.approx(literal_ssim(a, b), abs=1e-11)


def test_ssim_of_unrelated_and_inverted_pictures():
    a, b = picture(1), picture(2)
    inverted = Image.fromarray(255 - np.asarray(a))
    assert ssim(a, b) == pytest.approx(literal_ssim(a, b), abs=1e-11)
    assert ssim(a, inverted) < 0
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (1, 1)])
def test_ssim_of_pictures_smaller_than_the_window(size):
    a = picture(1, size)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a, picture(2, size)) < 0.95


def test_psnr():
    a = Image.new("RGB", (4, 4), (100, 100, 100))
    b = Image.new("RGB", (4, 4), (100, 100, 110))
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / (100 / 3)))
    assert psnr(a, a) == MAX_PSNR
    black, white = Image.new("L", (3, 3), 0), Image.new("L", (3, 3), 255)
    assert psnr(black, white) == 0.0


def test_latent_rmse():
    a = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert latent_rmse(a, a + torch.tensor([[2.0, 0.0], [0.0, 0.0]])) == pytest.approx(1.0)
