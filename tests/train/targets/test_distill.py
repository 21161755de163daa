import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline
from distilling import CPU, distilled, some_inputs
from safetensors.torch import load_file
from training import Listener

from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.request import GenerateRequest
from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.recipe.read import read_recipe
from diffgen.train.targets.distill import distill_target

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def student(squares, sd1, tmp_path_factory):
    """The tiny SD 1 (eps, PNDM, an autoencoder), distilled for four steps at guidance 4."""
    folder = tmp_path_factory.mktemp("distilled")
    changes = {"samples.prompts": ["a red square"], "samples.every": 2, "optimizer.lr": 1e-2}
    recipe = distilled(squares, sd1.folder, **changes)
    run.train(recipe, folder, resume=False, reporter=Listener())
    return folder


@pytest.fixture(scope="module")
def told(squares, sd1, tmp_path_factory):
    """The same with the guidance scale as an input."""
    folder = tmp_path_factory.mktemp("told")
    changes = {"distill.guidance": [2.0, 8.0], "samples.prompts": ["a red square"]}
    recipe = distilled(squares, sd1.folder, **changes, **{"optimizer.lr": 1e-2})
    run.train(recipe, folder, resume=False, reporter=Listener())
    return folder


def unet_of(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_folder_says_how_it_is_sampled(student, sd1):
    model, teacher = (Model.open(folder) for folder in (student / "model", sd1.folder))
    config, before = model.checkpoint.config, teacher.checkpoint.config
    assert config.unet == before.unet
    assert config.schedule == replace(before.schedule, sampler="lcm", spacing="trailing")
    plan = model.plan(GenerateRequest(prompts=["x"]))
    assert (plan.sampling.spec.name, plan.sampling.steps_run) == ("lcm", 4)
    assert plan.guidance_scale == 1.0
    old, new = unet_of(sd1.folder), unet_of(student / "model")
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_a_student_that_is_told_the_guidance(told):
    model = Model.open(told / "model")
    assert model.checkpoint.config.unet.guidance_dim == 256
    assert model.plan(GenerateRequest(prompts=["x"], guidance_scale=3.0)).guidance_scale == 3.0
    assert unet_of(told / "model")["time_embedding.cond_proj.weight"].abs().max() > 0.0


def test_previews_take_the_four_steps(student):
    pictures = sorted((student / "samples").iterdir())
    assert [picture.name for picture in pictures] == ["step-00000002.png", "step-00000004.png"]


def theirs(pipeline, guidance):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a red square",
        num_inference_steps=4,
        guidance_scale=guidance,
        height=32,
        width=32,
        generator=[torch.Generator().manual_seed(3)],
    ).images[0]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "kind", "guidance"),
    [
        ("student", StableDiffusionPipeline, 1.0),
        ("told", StableDiffusionPipeline, 3.0),
        ("told", LatentConsistencyModelPipeline, 3.0),
    ],
)
def test_the_student_draws_the_same_in_diffusers(request, name, kind, guidance):
    folder = request.getfixturevalue(name) / "model"
    asked = GenerateRequest(prompts=["a red square"], seed=3, guidance_scale=guidance)
    (ours,) = Engine.load(folder, device="cpu", dtype="fp32").generate(asked)
    pipeline = kind.from_pretrained(folder)
    assert isinstance(pipeline.scheduler, LCMScheduler)
    picture = theirs(pipeline, guidance)
    difference = [abs(a - b) for a, b in zip(ours.image.tobytes(), picture.tobytes(), strict=True)]
    assert max(difference) <= 1  # rounding to 8 bits
    assert len(set(ours.image.tobytes())) > 10


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("guidance", [4.0, [2.0, 8.0]])
def test_the_student_begins_as_the_teacher(request, squares, family, guidance):
    base = request.getfixturevalue(family).folder
    target = distill_target(distilled(squares, base, **{"distill.guidance": guidance}), CPU)
    inputs = target.inputs(*some_inputs(target, squares))
    told = inputs.cond.guidance
    if guidance == 4.0:
        assert told is None
    else:
        assert told is not None
        assert 2.0 <= float(told.min()) < float(told.max()) < 8.0
    plain = replace(inputs.cond, guidance=None)
    with torch.no_grad():
        teacher = target.inputs.teacher(inputs.far.x, inputs.far.t, plain)
        for unet in (target.module.unet, target.module.target):
            assert torch.equal(unet(inputs.far.x, inputs.far.t, inputs.cond), teacher)
    assert target.inputs.levels[0] == (1.0 if family == "sdxl" else target.inputs.alphas_cumprod[0])


def test_the_near_point_is_a_step_of_our_ddim(squares, sd2):
    """Guided at 3, as `generate` would go from one timestep of the grid to the next."""
    target = distill_target(distilled(squares, sd2.folder, **{"distill.guidance": 3.0}), CPU)
    batch, draws = some_inputs(target, squares)
    inputs = target.inputs(batch, draws)
    engine = Engine.load(sd2.folder, device="cpu", dtype="fp32")
    for k, caption in enumerate(batch.captions):
        t, near_t = (float(point.t[k]) for point in (inputs.far, inputs.near))
        timesteps = (t, near_t) if near_t else (t,)
        plan = engine.plan(
            GenerateRequest(
                prompts=[caption],
                negative="",
                sampler="ddim",
                timesteps=timesteps,
                guidance_scale=3.0,
            )
        )
        denoise = engine.denoiser(plan, engine.guides(plan, [caption]))
        sigma, sigma_near, *_ = plan.sampling.sigmas
        x = inputs.far.x[k : k + 1] * math.hypot(1.0, sigma)
        with torch.no_grad():
            denoised = denoise(x, sigma)
        near = denoised + (sigma_near / sigma) * (x - denoised)
        near = near / math.hypot(1.0, sigma_near)
        torch.testing.assert_close(inputs.near.x[k : k + 1], near, rtol=1e-4, atol=1e-4)


def test_the_target_network_follows_each_step_of_the_student(squares, sd1):
    target = distill_target(distilled(squares, sd1.folder), CPU)
    learner, averaged = target.module, target.module.target
    assert not any(parameter.requires_grad for parameter in averaged.parameters())
    learner.unet.conv_out.bias.data += 1.0
    begin = averaged.conv_out.bias.clone()
    batch, draws = some_inputs(target, squares)
    target.inputs(batch, draws)
    assert torch.equal(averaged.conv_out.bias, begin)
    for gone in (0.05, 1 - 0.95**2):
        target.stepped()
        torch.testing.assert_close(averaged.conv_out.bias, begin + gone)


def test_a_student_that_is_its_own_target_learns_in_half_precision(squares, sd1):
    """Autocast must not hand on weights that it cast while gradients were off."""
    target = distill_target(distilled(squares, sd1.folder, **{"distill.target_decay": 0}), CPU)
    assert target.module.target is None
    with torch.autocast("cpu", torch.bfloat16):
        loss = target.module(target.inputs(*some_inputs(target, squares)))["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in target.module.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"distill.loss": "mse", "run.accumulate": 2, "run.gradient_checkpointing": True},
        {"distill.ddim_steps": 100, "run.precision": "bf16", "run.channels_last": True},
    ],
)
def test_options_run(squares, sd2, tmp_path, changes):
    listener = Listener()
    recipe = distilled(squares, sd2.folder, **{**changes, "run.steps": 2})
    run.train(recipe, tmp_path, resume=False, reporter=listener)
    assert len(listener.losses) == 2


def test_a_run_that_died_goes_on_bit_for_bit(squares, sd1, tmp_path):
    recipe = distilled(squares, sd1.folder, **{"run.accumulate": 2})
    places = tmp_path / "whole", tmp_path / "died"
    run.train(recipe, places[0], resume=False, reporter=Listener())
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, places[1], resume=False, reporter=Listener(fail_at=4))
    run.train(recipe, places[1], resume=True, reporter=Listener())
    whole, died = (
        torch.load(place / "checkpoints" / "step-00000004.pt", weights_only=True)["module"]
        for place in places
    )
    assert any(name.startswith("target.") for name in whole)
    assert all(torch.equal(whole[name], died[name]) for name in whole)


def test_latents_are_cached(squares, sd1, tmp_path):
    listeners = Listener(), Listener()
    for number, listener in enumerate(listeners):
        changes = {"data.cache": str(tmp_path / "cache"), "run.steps": 2}
        recipe = distilled(squares, sd1.folder, **changes)
        run.train(recipe, tmp_path / str(number), resume=False, reporter=listener)
    assert list((tmp_path / "cache").rglob("*.latent"))
    assert listeners[0].losses == listeners[1].losses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {}}, "distill target needs model.base"),
        ({"model.train_text_encoder": True}, "drop model.train_text_encoder"),
        ({"objective.min_snr_gamma": 5.0}, r"\[objective\] is the loss of the diffusion target"),
        ({"distill.guidance": [4.0]}, r"number or \[low, high\]"),
        ({"distill.guidance": [8.0, 2.0]}, "low < high"),
        ({"distill.guidance": 0.5}, "must be at least 1, not 0.5"),
        ({"distill.as_lora": True, "distill.guidance": [2.0, 8.0]}, "needs one number"),
        ({"distill.as_lora": True, "lora.text_encoder": True}, "drop lora.text_encoder"),
        ({"distill.ddim_stepz": 50}, 'Did you mean "ddim_steps"'),
        ({"distill.ddim_steps": 30}, "take 50 or a multiple of it that divides 1000"),
    ],
)
def test_bad_recipes_stop_before_training(squares, sd1, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run.train(
            distilled(squares, sd1.folder, **changes),
            tmp_path / "run",
            resume=False,
            reporter=Listener(),
        )
    assert not (tmp_path / "run").exists()


def test_a_student_is_no_teacher(squares, told, tmp_path):
    with pytest.raises(ConfigError, match="was distilled already"):
        run.train(
            distilled(squares, told / "model"), tmp_path / "run", resume=False, reporter=Listener()
        )


def test_the_shipped_recipe_is_valid():
    recipe = read_recipe(ROOT / "diffgen" / "assets" / "recipes" / "storybook-turbo.toml")
    assert (recipe.target, recipe.model.base) == ("distill", "runs/storybook-8-crowded/model")
    assert recipe.distill.guidance == 4.0
