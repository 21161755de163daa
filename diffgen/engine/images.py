"""Tensors to pictures, and back."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Pixels (B, C, H, W) in [-1, 1], clamped, as one 8-bit picture each."""
    levels = pixels.float().mul(0.5).add(0.5).clamp(0.0, 1.0).mul(255.0).round()
    rows = levels.to(torch.uint8).permute(0, 2, 3, 1).cpu()  # (B, H, W, C)
    size = (rows.shape[2], rows.shape[1])
    mode = MODES[rows.shape[3]]
    return [Image.frombytes(mode, size, row.contiguous().numpy().tobytes()) for row in rows]


def to_pixels(image: Image.Image, *, channels: int) -> Tensor:
    """A picture as pixels (1, C, H, W) in [-1, 1], float32, on the CPU."""
    plain = image.convert(MODES[channels])
    rows = torch.frombuffer(bytearray(plain.tobytes()), dtype=torch.uint8)
    shaped = rows.view(plain.size[1], plain.size[0], channels).permute(2, 0, 1)
    return shaped[None].float() / 127.5 - 1.0
