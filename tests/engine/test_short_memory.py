"""Pictures that memory does not suffice for as a whole are coded in strips by themselves."""

import numpy as np
import pytest
import torch

from diffgen.engine.coder import Coder
from diffgen.engine.networks import load_vae
from diffgen.errors import OutOfMemory
from diffgen.weights.checkpoint import Checkpoint

CPU = torch.device("cpu")


def make_coder(folder):
    checkpoint = Checkpoint.open(folder)
    return Coder(checkpoint, load_vae(checkpoint, CPU, torch.float32), CPU, torch.float32)


@pytest.fixture
def full(monkeypatch):
    """Let decoding and encoding of more than so many numbers run out of memory, as torch says it."""

    def limit(coder, numbers, error):
        for name in ("decode", "encode"):
            whole = getattr(coder.vae, name)

            def short(given, *, whole=whole):
                if given.numel() > numbers:
                    raise error
                return whole(given)

            monkeypatch.setattr(coder.vae, name, short)

    return limit


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
@torch.inference_mode()
def test_what_does_not_fit_is_coded_again_in_strips(sd1, full, caplog, error):
    torch.manual_seed(1)
    latents, pixels = torch.randn(1, 4, 24, 16), torch.rand(1, 3, 96, 64) * 2 - 1
    exact = make_coder(sd1.folder)
    (whole,), encoded = exact.decode(latents), exact.encode(pixels)
    coder = make_coder(sd1.folder)
    full(coder, 1000, error)
    (made,) = coder.decode(latents)
    levels = np.abs(np.asarray(made, dtype=int) - np.asarray(whole, dtype=int))
    assert levels.max() <= 1
    assert "decoded again in strips, as --tile-vae does from the start" in caplog.text
    assert (coder.encode(pixels) - encoded).abs().max() < 1e-4
    assert not coder.strips
    # The next one of that size goes in strips at once, a smaller one as a whole.
    caplog.clear()
    coder.decode(latents)
    (small,) = coder.decode(latents[:, :, :8, :8])
    assert caplog.text == ""
    assert np.array_equal(np.asarray(small), np.asarray(exact.decode(latents[:, :, :8, :8])[0]))


@torch.inference_mode()
def test_what_does_not_fit_in_strips_either_is_said(sd1, monkeypatch):
    coder = make_coder(sd1.folder)
    full_memory = torch.OutOfMemoryError("CUDA out of memory")

    def fails(*args, **options):
        raise full_memory

    monkeypatch.setattr(coder.vae, "decode", fails)
    monkeypatch.setattr("diffgen.engine.coder.decode_tiled", fails)
    with pytest.raises(OutOfMemory, match="out of memory; try"):
        coder.decode(torch.randn(1, 4, 8, 8))
