"""Tensors to pictures."""

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
