"""diffgen.diffusion.philox: the published algorithm's own numbers."""

import numpy as np
import pytest
import torch

from diffgen.diffusion.noise import StreamNoise
from diffgen.diffusion.philox import PhiloxDraws, philox

# Known answers of Random123 1.09 (kat_vectors, "philox4x32 10"): counter, key -> words.
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        0xFFFFFFFFFFFFFFFF,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# What A1111's rng_philox documents for seed 0, and other programs check their own against.
DOCUMENTED = [
    *(-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564),
    *(-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    found = philox(tuple(np.array([word], dtype=np.uint64) for word in counter), key)
    assert tuple(int(word[0]) for word in found) == words


def test_numbers_of_a1111() -> None:
    drawn = PhiloxDraws(0).randn((3, 4))
    torch.testing.assert_close(drawn, torch.tensor(DOCUMENTED).reshape(3, 4), rtol=0, atol=1e-6)


def reference(seed: int, draw: int, count: int) -> list[float]:
    """stable-diffusion.cpp's way: one element at a time, in Python's whole numbers."""
    found = []
    for index in range(count):
        counter, key = [draw, 0, index, 0], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            p, q = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
            counter = [
                (q >> 32) ^ counter[1] ^ key[0],
                q & 0xFFFFFFFF,
                (p >> 32) ^ counter[3] ^ key[1],
                p & 0xFFFFFFFF,
            ]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        u, v = ((word + 0.5) / 2**32 for word in counter[:2])
        found.append(float(np.sqrt(-2 * np.log(u)) * np.sin(2 * np.pi * v)))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**64 - 1])
def test_each_draw_and_each_seed(seed: int) -> None:
    draws = PhiloxDraws(seed)
    for number in range(3):
        wanted = torch.tensor(reference(seed, number, 32))
        torch.testing.assert_close(draws.randn((32,)), wanted, rtol=1e-5, atol=1e-6)


def test_sources_of_noise() -> None:
    def noise(seeds: list[int], rng: str) -> list[torch.Tensor]:
        source = StreamNoise(seeds, (2, 4), torch.device("cpu"), rng)
        return [source.draw() for _ in range(3)]

    for rng in ("cpu", "a1111-gpu", "comfy"):
        both, alone = noise([3, 8], rng), noise([8], rng)
        for pair, one in zip(both, alone, strict=True):
            assert torch.equal(pair[1:], one)  # whatever is beside it
    philox_draws = PhiloxDraws(8)
    gpu = [philox_draws.randn((1, 2, 4)) for _ in range(3)]
    assert all(map(torch.equal, noise([8], "a1111-gpu"), gpu))
    # ComfyUI begins with the CPU's numbers; on the way a GPU draws, from its own beginning.
    comfy = noise([8], "comfy")
    assert torch.equal(comfy[0], noise([8], "cpu")[0])
    assert all(map(torch.equal, comfy[1:], gpu[:2]))
