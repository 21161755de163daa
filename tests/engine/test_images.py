"""diffgen.engine.images: values become levels."""

import numpy as np
import pytest
import torch

from diffgen.engine.images import to_images


def test_levels() -> None:
    values = torch.tensor([-5.0, -1.0, 0.0, 1 / 255, 0.5, 1.0, 7.0])
    (image,) = to_images(values.repeat(1, 3, 1, 1))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 128, 128, 191, 255, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_modes_and_layout(channels: int, mode: str) -> None:
    pixels = torch.linspace(-1, 1, 2 * channels * 3 * 5).reshape(2, channels, 3, 5)
    images = to_images(pixels.to(torch.float64))
    assert [(image.mode, image.size) for image in images] == [(mode, (5, 3))] * 2
    levels = ((pixels[1] + 1) / 2 * 255).round().permute(1, 2, 0).numpy()
    got = np.asarray(images[1]).reshape(3, 5, channels)
    assert np.abs(got - levels).max() <= 1
