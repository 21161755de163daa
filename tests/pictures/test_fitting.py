"""Canvases, their masks, and what of a picture stays."""

import numpy as np
import pytest

from diffgen.pictures.fitting import beyond


@pytest.mark.parametrize("side", range(4))
def test_a_canvas_is_white_where_new_and_fades_into_the_picture(side: int) -> None:
    sides = [0, 0, 0, 0]
    sides[side] = 10
    mask = np.asarray(beyond((40, 40), tuple(sides), 8), int)
    from_left = (mask, mask.T, mask[:, ::-1], mask[::-1].T)[side]
    assert from_left.shape == (40, 50)
    assert (from_left[:, :10] == 255).all()
    assert (np.diff(from_left[:, 9:19]) < 0).all()
    assert (from_left[:, 18:] == 0).all()


def test_a_fade_leaves_something_of_a_small_picture() -> None:
    mask = np.asarray(beyond((6, 6), (4, 4, 4, 4), 100), int)
    assert mask[4:10, 4:10].min() == 0
    assert mask[:4].min() == 255
