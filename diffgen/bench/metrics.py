"""Distances between two pictures or latents."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

# PSNR of identical pictures would be infinite, which JSON cannot express.
MAX_PSNR = 100.0
WINDOW, WINDOW_SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
PEAK = 255.0


def latent_rmse(a: Tensor, b: Tensor) -> float:
    """Root of the mean squared difference of two tensors of one shape."""
    return float((a.double() - b.double()).square().mean().sqrt())


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures in dB; at most `MAX_PSNR`."""
    error = float((_levels(a) - _levels(b)).square().mean())
    if error == 0.0:
        return MAX_PSNR
    return min(MAX_PSNR, 10.0 * math.log10(PEAK**2 / error))


def ssim(a: Image.Image, b: Image.Image) -> float:
    """Structural similarity of two 8-bit pictures; 1 if they are equal.

    Wang et al. 2004 (IEEE TIP 13:4): Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 =
    0.03, the mean over all positions where the whole window fits, and over the channels. In a
    picture smaller than the window, the window is cut to the largest odd size that fits.
    """
    x, y = _levels(a)[:, None], _levels(b)[:, None]  # (C, 1, H, W)
    window = _window(min(x.shape[-2:]))

    def local(image: Tensor) -> Tensor:
        across = F.conv2d(image, window[None, None, None, :])
        return F.conv2d(across, window[None, None, :, None])

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return float((luminance * structure).mean())


def _levels(image: Image.Image) -> Tensor:
    """(C, H, W) float64, 0 to 255."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    height, width, channels = image.height, image.width, len(image.getbands())
    return data.view(height, width, channels).permute(2, 0, 1).double()


def _window(room: int) -> Tensor:
    """Normalised Gaussian weights along one side."""
    radius = min(WINDOW, room - 1 + room % 2) // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    return weights / weights.sum()
