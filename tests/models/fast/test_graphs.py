"""Graphs of a U-Net's steps, recorded and replayed on the CPU as CUDA does it."""

import logging
from dataclasses import replace

import pytest
import torch
from recording import record
from test_unet import SD1, SDXL

from diffgen.errors import UsageError
from diffgen.models.config import UNetConfig
from diffgen.models.fast.deep_cache import DeepCache
from diffgen.models.fast.graphs import MOST, Graphs, wanted
from diffgen.models.fast.inference import FusedCrossAttention, prepare
from diffgen.models.unet import UNet
from diffgen.types import Conditioning

LCM = replace(SD1, guidance_dim=16)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def network(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    unet = UNet(config).eval().requires_grad_(False)
    prepare(unet)
    return unet


def prompt(config: UNetConfig, seed: int, batch: int = 2) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(
        torch.randn(batch, 7, config.context_dim, generator=generator),
        pooled=torch.randn(batch, 20, generator=generator) if config.added_dim else None,
        time_ids=torch.full((batch, 6), 64.0 + seed) if config.added_dim else None,
        guidance=torch.full((batch,), 2.0 + seed) if config.guidance_dim else None,
    )


def state(seed: int, batch: int = 2, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(batch, 4, side, side, generator=generator), torch.full((batch,), 9.0 * seed)


@pytest.mark.parametrize("config", [SD1, SDXL, LCM], ids=["sd1", "sdxl", "lcm"])
def test_replays_are_exact_for_every_state_and_prompt(config):
    unet = network(config)
    step = Graphs(unet, record).of(unet.compute)
    prompts = [prompt(config, seed) for seed in range(3)]
    for seed, told in enumerate([0, 0, 0, 1, 1, 0, 2, 2]):
        given = (*state(seed), prompts[told])
        for made, exact in zip(step(*given), unet.compute(*given), strict=True):
            assert torch.equal(made, exact)


def test_python_runs_twice_and_a_prompt_is_read_once():
    unet = network(SD1)
    runs, reads = [], []
    unet.conv_out.register_forward_hook(lambda *_: runs.append(1))
    readers = [m for m in unet.modules() if isinstance(m, FusedCrossAttention)]
    readers[0].to_kv.register_forward_hook(lambda *_: reads.append(1))
    step = Graphs(unet, record).of(unet.compute)
    first, second = prompt(SD1, 0), prompt(SD1, 1)
    for seed, told in enumerate([first, first, first, first, second, second, second]):
        step(*state(seed), told)
    assert len(runs) == 2
    assert len(reads) == 3  # without a graph, for the graph, and for the second prompt


def test_results_stay_what_they_were():
    unet = network(SD1)
    step, told = Graphs(unet, record).of(unet.compute), prompt(SD1, 0)
    made = [step(*state(seed), told)[0] for seed in range(4)]
    for seed, result in enumerate(made):
        assert torch.equal(result, unet(*state(seed), told))


def test_sizes_have_graphs_of_their_own_and_do_not_disturb_each_other():
    unet = network(SD1)
    step = Graphs(unet, record).of(unet.compute)
    pairs, singles = prompt(SD1, 0), prompt(SD1, 1, batch=1)
    for seed in range(4):
        for x, t, told in [
            (*state(seed), pairs),
            (*state(seed, batch=1), singles),
            (*state(seed, side=8), pairs),
        ]:
            assert torch.equal(step(x, t, told)[0], unet(x, t, told))


def test_few_graphs_are_kept():
    unet = network(SD1)
    recorded = []

    def counted(run):
        recorded.append(1)
        return record(run)

    step, told = Graphs(unet, counted).of(unet.compute), prompt(SD1, 0)
    sides = [4 + 2 * i for i in range(MOST + 1)]
    for side in [*sides, *sides]:  # each is forgotten before it comes again
        step(*state(0, side=side), told)
    assert not recorded
    for _ in range(3):
        step(*state(0, side=sides[-1]), told)
    assert len(recorded) == 1


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_deep_cache_reuses(every):
    unet = network(SD1)
    graphs = Graphs(unet, record)
    plain, told = (unet.compute, unet.reuse), [prompt(SD1, seed) for seed in range(2)]
    for picture in range(3):
        graphed = DeepCache(*map(graphs.of, plain), every=every)
        eager = DeepCache(*plain, every=every)
        for seed in range(5):
            given = (*state(seed + picture), told[picture % 2])
            assert torch.equal(graphed(*given), eager(*given))


def test_a_recording_that_fails_is_warned_of_once(caplog):
    def broken(run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    unet = network(SD1)
    step, told = Graphs(unet, broken).of(unet.compute), prompt(SD1, 0)
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            assert torch.equal(step(*state(seed), told)[0], unet(*state(seed), told))
    (warning,) = caplog.messages
    assert "records no CUDA graph (operation not permitted when stream is capturing)" in warning


def test_memory_that_runs_out_is_an_error():
    def full(run):
        raise torch.OutOfMemoryError("CUDA out of memory")

    unet = network(SD1)
    step, told = Graphs(unet, full).of(unet.compute), prompt(SD1, 0)
    step(*state(0), told)
    with pytest.raises(torch.OutOfMemoryError):
        step(*state(1), told)


def test_graphs_are_for_cuda_and_can_be_turned_off(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.delenv("DIFFGEN_GRAPHS", raising=False)
    assert wanted(cuda)
    assert not wanted(cpu)
    monkeypatch.setenv("DIFFGEN_GRAPHS", "off")
    assert not wanted(cuda)
    monkeypatch.setenv("DIFFGEN_GRAPHS", "on")
    with pytest.raises(UsageError, match='DIFFGEN_GRAPHS="on" is no choice: use auto or off'):
        wanted(cpu)
