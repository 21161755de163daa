"""The Triton kernels against float64, in Triton's interpreter.

`TRITON_INTERPRET=0 pytest tests/kernels` runs them on a GPU.
"""

import os

import pytest
import torch
from torch import Tensor

from diffgen.kernels import reference
from diffgen.kernels.triton import attention as attention_kernel
from diffgen.kernels.triton import gate, guidance, norm

# The interpreter computes with numpy, which warns where a GPU silently rounds to infinity.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda"
# Relative error by the Frobenius norm. Rounding the result alone costs about 2^-12 in float16 and
# 2^-9 in bfloat16.
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = list(LIMITS)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that is not written stays NaN, which no comparison survives."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        made = empty(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


def normal(*shape: int, dtype=torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).to(DEVICE, dtype)


def assert_close(made: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert made.dtype == dtype
    assert made.shape == exact.shape
    error = (made.double() - exact).norm() / exact.norm()
    assert float(error) < LIMITS[dtype]


def check_group_norm(x: Tensor, groups: int, *, shift: Tensor | None = None) -> None:
    channels = x.shape[1]
    weight, bias = normal(channels, dtype=x.dtype, seed=1), normal(channels, dtype=x.dtype, seed=2)
    made = norm.group_norm_silu(x, weight, bias, groups=groups, eps=1e-5, shift=shift)
    wide = [t if t is None else t.double() for t in (x, weight, bias, shift)]
    exact = reference.group_norm_silu(
        wide[0], wide[1], wide[2], groups=groups, eps=1e-5, shift=wide[3]
    )
    assert_close(made, exact, x.dtype)
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((1, 64, 1, 1), 32), ((2, 60, 5, 7), 6), ((1, 40, 24, 24), 4), ((2, 8, 33, 31), 2)],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm(dtype, shape, groups, layout):
    check_group_norm(normal(*shape, dtype=dtype).to(memory_format=layout), groups)


@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm_adds_the_time_embedding(dtype):
    x, shift = normal(2, 24, 6, 5, dtype=dtype), normal(2, 24, dtype=dtype, seed=3)
    check_group_norm(x, 8, shift=shift)
    wide = normal(2, 48, dtype=dtype, seed=3)
    check_group_norm(x, 8, shift=wide[:, ::2])


def test_group_norm_of_a_piece_of_a_larger_map():
    x = normal(2, 16, 12, 10)
    check_group_norm(x[:, 4:12, 2:9, 1:8], 4)
    check_group_norm(x.permute(0, 1, 3, 2), 4)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1e-3), (0.0, 1e3), (100.0, 1.0), (1e5, 1e3)])
def test_group_norm_of_large_and_tiny_numbers(mean, scale):
    """A sum of squares would cancel: at a mean of 100 spreads, 1e4 of float32's 1.7e7 is left."""
    check_group_norm(mean + normal(1, 16, 20, 20, scale=scale), 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 40), (2, 77, 320), (7, 1280)])
def test_layer_norm(dtype, shape):
    x, weight = normal(*shape, dtype=dtype), normal(shape[-1], dtype=dtype, seed=1)
    bias = normal(shape[-1], dtype=dtype, seed=2)
    made = norm.layer_norm(x, weight, bias, eps=1e-5)
    exact = reference.layer_norm(x.double(), weight.double(), bias.double(), eps=1e-5)
    assert_close(made, exact, dtype)


def test_layer_norm_of_strided_rows():
    x, weight, bias = normal(6, 30), normal(15, seed=1), normal(15, seed=2)
    for rows in (x[:, :15], x[:, ::2], x[::2, 15:]):
        made = norm.layer_norm(rows, weight, bias, eps=1e-5)
        exact = reference.layer_norm(rows.double(), weight.double(), bias.double(), eps=1e-5)
        assert_close(made, exact, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (2, 9, 80), (3, 2562)])
def test_gated_gelu(dtype, shape):
    x = normal(*shape, dtype=dtype)
    assert_close(gate.gated_gelu(x), reference.gated_gelu(x.double()), dtype)


@pytest.mark.parametrize("scale", [1e-4, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_gelu_of_large_and_tiny_numbers(dtype, scale):
    x = normal(3, 200, dtype=dtype, scale=scale)
    assert_close(gate.gated_gelu(x), reference.gated_gelu(x.double()), dtype)


def test_gated_gelu_of_strided_rows():
    x = normal(4, 5, 24)
    for piece in (x[:, :, 4:20], x[:, 1:3], x.transpose(0, 1), x[:, :, ::2]):
        assert_close(gate.gated_gelu(piece), reference.gated_gelu(piece.double()), torch.float32)


def check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    made = attention_kernel.attention(q, k, v)
    exact = reference.attention(q.double(), k.double(), v.double(), causal=False)
    assert_close(made, exact, q.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 40, 64, 80, 160])
def test_attention_by_head_width(dtype, width):
    shape = (2, 3, 37, width)
    check_attention(*(normal(*shape, dtype=dtype, seed=seed) for seed in range(3)))


@pytest.mark.parametrize("keys", [1, 77, 154])
@pytest.mark.parametrize("queries", [1, 16, 150])
def test_attention_to_text(queries, keys):
    q = normal(1, 2, queries, 40)
    check_attention(q, normal(1, 2, keys, 40, seed=1), normal(1, 2, keys, 40, seed=2))


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_attention_of_large_and_tiny_logits(scale):
    """Logits of +- 900 squared leave one key per query; a plain exponential would overflow."""
    check_attention(*(normal(1, 2, 50, 64, seed=seed, scale=scale) for seed in range(3)))


def test_attention_of_heads_cut_from_one_projection():
    packed = normal(2, 33, 3 * 4 * 16)
    q, k, v = (part.view(2, 33, 4, 16).transpose(1, 2) for part in packed.chunk(3, dim=-1))
    check_attention(q, k, v)
    check_attention(q.transpose(2, 3).contiguous().transpose(2, 3), k, v)


def check_guided(outputs: Tensor, x: Tensor, scale: float = 7.5) -> None:
    weights = {"scale": scale, "keep": 0.25, "gain": -3.5}
    exact = reference.guided(outputs.double(), x.double(), **weights)
    assert_close(guidance.guided(outputs, x, **weights), exact, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 16, 24), (3, 8, 13, 17)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_guidance(dtype, shape, layout):
    """Float32 comes out, exact to its rounding, whatever the network's format."""
    outputs = normal(2 * shape[0], *shape[1:], dtype=dtype).to(memory_format=layout)
    check_guided(outputs, normal(*shape, seed=1))


@pytest.mark.parametrize(("scale", "size"), [(0.0, 1.0), (1.0, 1e-4), (30.0, 1e4)])
def test_guidance_of_large_and_tiny_numbers(scale, size):
    check_guided(normal(4, 4, 9, 5, scale=size), normal(2, 4, 9, 5, seed=1, scale=size), scale)


def test_guidance_of_pieces_of_larger_maps():
    wide, state = normal(4, 9, 12, 10), normal(2, 9, 12, 10, seed=1)
    check_guided(wide[:, 1:5, 2:9, 1:8], state[:, 1:5, 2:9, 1:8])
    check_guided(wide.permute(0, 1, 3, 2), state.permute(0, 1, 3, 2))
