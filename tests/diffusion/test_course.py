"""Prompts that change over a run or are composed, against the formula with one call a prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffgen.diffusion.conditioning import joined
from diffgen.diffusion.course import Course, Guide, Joined, constant_guides
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import Guidance
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UsageError
from diffgen.types import Conditioning, NoiseConfig

SD = NoiseSchedule.from_config(NoiseConfig())


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def told(seed: int, tokens: int = 3) -> Conditioning:
    return Conditioning(draw(1, tokens, 5, seed=seed))


class Network:
    """Cross-attention from each pixel to the text: it does not see how often a text is repeated."""

    def __init__(self) -> None:
        self.seen: list[Conditioning] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.seen.append(cond)
        assert len(x) == len(cond.context)
        q = x.mean(dim=1).flatten(1)[:, :, None].expand(-1, -1, 5).contiguous()
        mixed = torch.nn.functional.scaled_dot_product_attention(q, cond.context, cond.context)
        return torch.tanh(x + mixed.sum(-1).view(len(x), 1, *x.shape[2:]))


X = 2.0 * draw(2, 4, 4, 4, seed=1)
A, B, C, D, U = (told(seed) for seed in range(2, 7))


def output(network: Network, x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
    return ModelDenoiser(network, SD, "eps").predict(x, sigma, cond)


def expected(row: int, sigma: float, scale: float, terms, uncond=U) -> Tensor:
    """u + scale * sum of w_i (c_i - u), each output from a call of its own, as x0."""
    x = X[row : row + 1]
    u = output(Network(), x, sigma, uncond)
    parts = [w * (output(Network(), x, sigma, c) - u) for w, c in terms]
    return x - sigma * (u + scale * sum(parts))


def guided(guides, scale: float, **options) -> tuple[GuidedDenoiser, Network]:
    network = Network()
    return GuidedDenoiser(
        ModelDenoiser(network, SD, "eps"), guides, Guidance.constant(scale, **options)
    ), network


def test_and_adds_directions() -> None:
    """arXiv:2206.01714, equation 11; the pictures of a batch are composed each in its own way."""
    u = Course.constant(U)
    guides = [
        Guide((Course.constant(A), Course(((-1.0, B),), 0.5), Course(((-1.0, C),), -0.3)), u),
        Guide((Course.constant(D),), u),
    ]
    denoise, network = guided(guides, 7.0)
    result = denoise(X, 1.7)
    terms = [(1.0, A), (0.5, B), (-0.3, C)]
    torch.testing.assert_close(result[:1], expected(0, 1.7, 7.0, terms), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result[1:], expected(1, 1.7, 7.0, [(1.0, D)]), rtol=1e-4, atol=1e-4)
    assert len(network.seen) == 1
    assert len(network.seen[0].context) == 2 + 4


@pytest.mark.parametrize("options", [{"guidance_scale": 1.0}, {"interval": (5.0, 9.0)}])
def test_and_needs_the_negative_even_where_guidance_is_off(options) -> None:
    guides = [Guide((Course.constant(A), Course(((-1.0, B),), 0.5)), Course.constant(U))] * 2
    scale = options.pop("guidance_scale", 7.0)
    denoise, _ = guided(guides, scale, **options)
    wanted = [expected(row, 1.7, 1.0, [(1.0, A), (0.5, B)]) for row in (0, 1)]
    torch.testing.assert_close(denoise(X, 1.7), torch.cat(wanted), rtol=1e-4, atol=1e-4)


def test_without_a_negative_and_is_a_mean_by_weight() -> None:
    guides = [Guide((Course(((-1.0, A),), 3.0), Course.constant(B)), None)] * 2
    denoise, network = guided(guides, 7.0)
    result = denoise(X, 1.7)
    a, b = (output(Network(), X, 1.7, joined([c, c])) for c in (A, B))
    torch.testing.assert_close(result, X - 1.7 * (0.75 * a + 0.25 * b), rtol=1e-4, atol=1e-4)
    assert len(network.seen) == 1


def test_weights_that_cancel_need_a_negative() -> None:
    with pytest.raises(UsageError, match="come to 0"):
        Joined([Guide((Course.constant(A), Course(((-1.0, B),), -1.0)), None)])


def test_a_course_changes_at_its_floors() -> None:
    changing = Course(((5.0, A), (2.0, B), (-1.0, C)))
    guides = [
        Guide((changing,), Course.constant(U)),
        Guide((Course.constant(D),), Course.constant(U)),
    ]
    denoise, network = guided(guides, 3.0)
    for sigma, text in ((14.0, A), (5.1, A), (5.0, B), (2.5, B), (2.0, C), (0.01, C)):
        result = denoise(X, sigma)
        wanted = torch.cat(
            [expected(0, sigma, 3.0, [(1.0, text)]), expected(1, sigma, 3.0, [(1.0, D)])]
        )
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)
    # A network remembers what it has read by the object: one for each of the three stages.
    assert len({id(cond) for cond in network.seen}) == 3


def test_texts_of_different_length_are_read_in_one_call() -> None:
    """Repeating a text is no change to attention, whose weights are a softmax."""
    long, longer = told(11, tokens=6), told(12, tokens=9)
    guides = [
        Guide((Course.constant(long),), Course.constant(U)),
        Guide((Course.constant(longer),), Course.constant(U)),
    ]
    denoise, network = guided(guides, 4.0)
    wanted = [expected(0, 1.7, 4.0, [(1.0, long)]), expected(1, 1.7, 4.0, [(1.0, longer)])]
    torch.testing.assert_close(denoise(X, 1.7), torch.cat(wanted), rtol=1e-4, atol=1e-4)
    assert [cond.context.shape for cond in network.seen] == [(4, 18, 5)]


def test_lengths_that_come_to_too_much_are_refused() -> None:
    rows = [Conditioning(torch.zeros(1, n * 77, 1)) for n in (17, 19, 23)]
    with pytest.raises(UsageError, match="take --batch-size 1 or a shorter negative prompt"):
        joined(rows)


def test_guides_of_a_batch_that_stays_the_same() -> None:
    both = joined([A, B])
    guides = constant_guides(both, None)
    assert torch.equal(Joined(guides).rows(3.0, uncond=False).context, both.context)
    assert not Joined(guides).guided


def test_a_function_reaches_every_stage() -> None:
    guide = Guide((Course(((5.0, A), (-1.0, B))), Course.constant(C)), Course.constant(U))
    marked = guide.map(lambda cond: replace(cond, concat=torch.ones(1, 1, 4, 4)))
    courses = [*marked.cond, marked.uncond]
    assert all(cond.concat is not None for course in courses for _, cond in course.stages)
