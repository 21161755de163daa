"""diffgen.engine.engine: seeds, batches, warnings and failures."""

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from recording import record
from safetensors.torch import load_file, save_file

from diffgen import DiffgenError, Engine, GenerateRequest
from diffgen.bench.metrics import MAX_PSNR, psnr
from diffgen.engine.plan import FAST_EVERY, FAST_FIRST, FAST_PSNR
from diffgen.types import StepInfo

if TYPE_CHECKING:
    from tiny_models import TinyModel

LONG = "a red barn and a blue house near the old mill " * 4 + "with seven zebras"


def pictures(engine: Engine, **changes: object) -> list[np.ndarray]:
    settings = {"prompts": ["a red barn"], "seed": 3, "steps": 3, "negative": "blue"}
    made = engine.generate(GenerateRequest(**settings | changes))
    return [np.asarray(picture.image, dtype=int) for picture in made]


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_sde", "dpm_adaptive", "restart"])
def test_batches_never_change_a_picture(engine: Engine, sampler: str) -> None:
    """Deterministic, with draws on the way, with Brownian paths, and adaptive."""
    settings = {"prompts": ["a red barn", "snow", ""], "count": 2, "sampler": sampler}
    settings |= {} if sampler != "dpm_adaptive" else {"count": 1}
    alone = pictures(engine, **settings)
    together = pictures(engine, **settings, batch_size=4)
    assert len(alone) == len(together) > 2
    # Another batch size is another order of summation: half a level at most, so one after rounding.
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(alone, together, strict=True))
    assert np.abs(alone[0] - alone[1]).max() > 10


def test_batches_never_change_latents(engine: Engine) -> None:
    request = GenerateRequest(prompts=["a red barn"], sampler="euler_a", steps=4)
    plan = engine.plan(request)

    def latents(seeds: list[int]) -> torch.Tensor:
        return engine.sample(plan, seeds, engine.guides(plan, ["a red barn"] * len(seeds)))

    together = latents([5, 6, 7])
    for row, seed in zip(together, (5, 6, 7), strict=True):
        (alone,) = latents([seed])
        # float32 rounding through 8 network calls; wrong noise would be an error of about 1
        assert (row - alone).norm() / alone.norm() < 1e-4


def test_each_picture_has_the_next_seed(engine: Engine) -> None:
    several = pictures(engine, count=3, sampler="euler_a")
    for k, picture in enumerate(several):
        (alone,) = pictures(engine, seed=3 + k, sampler="euler_a")
        assert np.array_equal(picture, alone)


def test_other_prompts_of_the_run_do_not_matter(engine: Engine) -> None:
    first, second = pictures(engine, prompts=["snow", "a red barn"], sampler="euler_a")
    (alone,) = pictures(engine, sampler="euler_a")
    assert np.array_equal(second, alone)
    assert not np.array_equal(first, alone)


def test_the_record_makes_the_picture_again(engine: Engine) -> None:
    request = GenerateRequest(
        prompts=['a "red" barn, at dawn'],
        negative="blue",
        seed=7,
        sampler="ddim",
        steps=3,
        schedule="karras",
        rho=5.0,
        eta=0.5,
        guidance_scale=3.3,
        guidance_rescale=0.4,
        guidance_interval=(0.5, 9.0),
        width=24,
        height=40,
    )
    (first,) = engine.generate(request)
    record = json.loads(json.dumps(first.record))
    assert record["timings"].keys() == {"text", "sampling", "decode"}
    (again,) = engine.generate(request_of(record))
    assert again.image.tobytes() == first.image.tobytes()
    assert first.image.size == (24, 40)


def test_the_record_keeps_explicit_levels(engine: Engine) -> None:
    request = GenerateRequest(prompts=["x"], sampler="euler", sigmas=[9.7, 2.3, 1.1])
    (first,) = engine.generate(request)
    assert first.record["schedule"] is None
    (again,) = engine.generate(request_of(json.loads(json.dumps(first.record))))
    assert again.image.tobytes() == first.image.tobytes()


def request_of(record: dict[str, object]) -> GenerateRequest:
    same = ("negative", "seed", "width", "height", "sampler", "schedule", "rho")
    guidance = ("guidance_scale", "guidance_rescale")
    settings = {key: record[key] for key in (*same, *guidance)}
    if record["guidance_interval"]:
        settings["guidance_interval"] = tuple(record["guidance_interval"])
    levels = {"sigmas": record["sigmas"]} if record["sigmas"] else {"steps": record["steps"]}
    return GenerateRequest(prompts=[record["prompt"]], **settings, **levels, **record["options"])


def test_pictures_are_handed_over_as_they_are_finished(engine: Engine) -> None:
    seen: list[StepInfo] = []
    request = GenerateRequest(prompts=["a"], count=2, steps=3, sampler="euler")
    made = engine.generate(request, on_step=seen.append)
    next(made)
    assert [(info.index, info.total) for info in seen] == [(0, 3), (1, 3), (2, 3)]
    next(made)
    assert len(seen) == 6


def test_words_that_are_cut_are_logged_once(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    request = GenerateRequest(prompts=[LONG, "short"], steps=1, count=2)
    made = list(engine.generate(request))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    (warning,) = warnings
    assert "ignored from" in warning
    assert "seven zebras" in warning
    assert made[0].record["ignored_words"].endswith("with seven zebras")
    assert made[2].record["ignored_words"] == ""


def test_what_was_settled_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "diffgen")
    pictures(engine, steps=2)
    assert "1 of 32 x 32, plms on leading, 2 steps" in caplog.text


@pytest.fixture
def overflowing(sd1: "TinyModel", tmp_path: Path) -> Path:
    """The tiny SD 1 whose decoder reaches numbers beyond fp16's 65504, and is normalised after."""
    folder = tmp_path / "overflowing"
    shutil.copytree(sd1.folder, folder)
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": False}))
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.weight"] *= 3e4
    save_file(tensors, file)
    return folder


def test_a_decoder_that_overflows_runs_again_in_float32(
    overflowing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine.load(overflowing, device="cpu", dtype="fp16")
    assert engine.precision.vae == torch.float16
    (picture,) = pictures(engine, steps=1)
    assert picture.std() > 5.0
    assert "decoded again in fp32" in caplog.text
    caplog.clear()
    pictures(engine, steps=1)
    assert not caplog.text  # once is enough: the decoder stays in float32


def test_a_decoder_known_to_overflow_is_not_run_in_fp16(sdxl: "TinyModel") -> None:
    engine = Engine.load(sdxl.folder, device="cpu", dtype="fp16")
    assert engine.config.vae.force_upcast
    assert (engine.precision.unet, engine.precision.vae) == (torch.float16, torch.float32)


def test_damaged_networks_give_one_clear_error(sd1: "TinyModel") -> None:
    engine = Engine.load(sd1.folder, device="cpu", dtype="fp32")
    nan = torch.nn.Parameter(torch.full((4,), torch.nan), requires_grad=False)
    unet_bias, engine.unet.conv_out.bias = engine.unet.conv_out.bias, nan
    message = "sampling in fp32 gave numbers that are not finite; try another sampler"
    with pytest.raises(DiffgenError, match=message):
        pictures(engine)
    engine.unet.conv_out.bias = unet_bias
    engine.vae.decoder.conv_out.bias = torch.nn.Parameter(nan[:3], requires_grad=False)
    with pytest.raises(DiffgenError, match=r"decoding in fp32 gave numbers .* try another seed"):
        pictures(engine)


def test_encoding_and_decoding_an_image(engine: Engine) -> None:
    latents = engine.encode_image(torch.zeros(2, 3, 32, 48))
    assert latents.shape == (2, 4, 8, 12)
    assert latents.dtype == torch.float32
    assert [image.size for image in engine.decode(latents)] == [(48, 32)] * 2


def test_turbo_draws_with_its_lora_in_four_steps() -> None:
    settings = {"prompts": ["red barn at sunset"], "seed": 7}
    (turbo,) = Engine.load("storybook-turbo", device="cpu", dtype="fp32").generate(
        GenerateRequest(**settings)
    )
    record = turbo.record
    assert (record["model"], record["loras"]) == ("storybook-turbo", [])
    assert (record["sampler"], record["steps"], record["guidance_scale"]) == ("lcm", 4, 1.0)
    storybook = Engine.load("storybook", device="cpu", dtype="fp32")
    few = {"sampler": "lcm", "steps": 4, "guidance_scale": 1.0}
    exact, plain = (
        next(storybook.generate(GenerateRequest(**settings, **changes))).image
        for changes in ({}, few)
    )
    # Without the LoRA, few steps and no guidance are farther from the whole way.
    assert psnr(turbo.image, exact) > psnr(plain, exact)


def test_fast_pictures_are_near_the_exact_ones_and_say_so() -> None:
    engine = Engine.load("storybook", device="cpu", dtype="fp32")
    settings = {"prompts": ["red barn at sunset"], "seed": 7}
    ((exact,), (fast,)) = (
        list(engine.generate(GenerateRequest(**settings, fast=fast))) for fast in (False, True)
    )
    assert exact.record["fast"] is None
    said = {"first": FAST_FIRST, "every": FAST_EVERY, "psnr_on_storybook": FAST_PSNR}
    assert fast.record["fast"] == said
    assert (exact.record["steps"], fast.record["steps"]) == (10, 7)
    assert FAST_PSNR - 6 < psnr(exact.image, fast.image) < MAX_PSNR


def test_graphs_change_no_picture(sd1, monkeypatch) -> None:
    """The engine as on a GPU, with recordings that the CPU replays."""
    plain = Engine.load(sd1.folder, device="cpu", dtype="fp32")
    recorded = []

    def counted(run):
        recorded.append(1)
        return record(run)

    monkeypatch.setattr("diffgen.models.fast.graphs.wanted", lambda device: True)
    monkeypatch.setattr("diffgen.models.fast.graphs.CudaCapture", lambda: counted)
    graphed = Engine.load(sd1.folder, device="cpu", dtype="fp32")
    wanted = [
        {"prompts": ["a barn", "a cat"], "count": 2, "steps": 5},
        {"prompts": ["a barn", "a cat", "a dog"], "batch_size": 2, "steps": 4},
        {"prompts": ["a cat"], "steps": 8, "guidance_interval": (0.5, 5.0)},
        {"prompts": ["a cat"], "steps": 8, "fast": True},
    ]
    for settings in wanted:
        request = GenerateRequest(**settings)
        for ours, exact in zip(graphed.generate(request), plain.generate(request), strict=True):
            assert ours.image.tobytes() == exact.image.tobytes()
    # Guided pairs, two pairs, one without guidance, and the pair whose lower levels are reused.
    assert len(recorded) == 4
