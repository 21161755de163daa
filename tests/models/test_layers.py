"""The shared pieces, where a whole network would not show a mistake."""

import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from diffgen.models.layers import Upsample, attention, sinusoidal_embedding


@pytest.mark.parity
@pytest.mark.parametrize("freq_shift", [0.0, 1.0])
@pytest.mark.parametrize("flip", [True, False])
def test_sinusoids_match_diffusers(flip, freq_shift, assert_close):
    values = torch.tensor([0.0, 0.5, 250.25, 999.0, 4096.0])
    expected = get_timestep_embedding(
        values, 32, flip_sin_to_cos=flip, downscale_freq_shift=freq_shift
    )

    actual = sinusoidal_embedding(values, 32, flip_sin_to_cos=flip, freq_shift=freq_shift)
    # Phases reach 4096, where the last bit of a float32 is 5e-4.
    assert_close(actual, expected, tolerance=5e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
def test_sinusoids_are_float32_whatever_the_values_are(dtype):
    values = torch.tensor([999], dtype=dtype)  # exact in all of them
    options = {"flip_sin_to_cos": True, "freq_shift": 0.0}

    actual = sinusoidal_embedding(values, 16, **options)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, sinusoidal_embedding(values.float(), 16, **options))


def test_attention_is_a_softmax_average_per_head(assert_close):
    q, k, v = torch.randn(3, 2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()

    weights = (q[..., :4] @ k[..., :4].transpose(1, 2) / math.sqrt(4)).softmax(-1)
    actual = attention(q, k, v, num_heads=2)
    assert_close(actual[..., :4], weights @ v[..., :4])


def test_upcast_attention_rounds_only_its_result():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 16, 8, generator=generator).bfloat16().unbind()

    exact = attention(q.float(), k.float(), v.float(), num_heads=2).bfloat16()
    assert torch.equal(attention(q, k, v, num_heads=2, upcast=True), exact)


def test_upsample_doubles_unless_told_a_size():
    upsample, x = Upsample(4), torch.zeros(1, 4, 3, 2)

    assert upsample(x).shape == (1, 4, 6, 4)
    assert upsample(x, torch.Size((5, 3))).shape == (1, 4, 5, 3)
