import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from training import VAE, Listener, make_recipe

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.errors import ConfigError, UsageError, WeightsError
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.train import run
from diffgen.train.targets.networks import build_networks
from diffgen.types import NoiseConfig
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.copying import copy_configs
from diffgen.weights.diffusers.layout import write_model_configs

TEXT = ClipTextConfig(
    vocab_size=950, width=256, layers=4, num_heads=4, mlp_width=1024, max_tokens=32
)


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """An autoencoder, and a latent model upon it."""
    folder = tmp_path_factory.mktemp("trained")
    vae = make_recipe(
        squares,
        {"target": "autoencoder", "model": {"vae": VAE}, "run.steps": 4, "samples.every": 2},
    )
    run.train(vae, folder / "vae", resume=False, reporter=Listener())
    changes = {
        "model.autoencoder": str(folder / "vae" / "model"),
        "model.unet.in_channels": 4,
        "model.unet.out_channels": 4,
        "model.schedule": {"prediction": "v", "zero_snr": True, "spacing": "trailing"},
        "run.steps": 4,
        "run.save_dtype": "fp32",
        "samples.prompts": ["a red square", "a blue square"],
        "samples.every": 2,
    }
    run.train(make_recipe(squares, changes), folder / "latent", resume=False, reporter=Listener())
    return folder


@pytest.mark.parity
def test_the_model_draws_the_same_in_diffusers(trained):
    folder = trained / "latent" / "model"
    request = GenerateRequest(prompts=["a red square"], seed=3, steps=4, guidance_scale=3.0)
    (ours,) = Engine.load(folder, device="cpu", dtype="fp32").generate(request)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a red square",
        num_inference_steps=4,
        guidance_scale=3.0,
        height=8,
        width=8,
        generator=[torch.Generator().manual_seed(3)],
    ).images[0]
    difference = [abs(a - b) for a, b in zip(ours.image.tobytes(), theirs.tobytes(), strict=True)]
    assert max(difference) <= 1  # rounding to 8 bits
    assert len(set(ours.image.tobytes())) > 10


@pytest.mark.parity
def test_the_autoencoder_loads_in_diffusers(trained):
    vae = AutoencoderKL.from_pretrained(trained / "vae" / "model" / "vae")
    assert vae.config.scaling_factor != 0.18215  # measured


def test_samples_are_drawn_on_the_way(trained):
    for name, size in (("latent", (16, 8)), ("vae", (24, 16))):
        pictures = sorted((trained / name / "samples").iterdir())
        assert [p.name for p in pictures] == ["step-00000002.png", "step-00000004.png"]
        with Image.open(pictures[0]) as picture:
            assert picture.size == size


def test_the_model_card_says_how_it_was_made(trained):
    card = (trained / "latent" / "model" / "README.md").read_text()
    for part in (
        "license: CC0-1.0",
        "12 pictures, hash ",
        "| seed | 0 |",
        "CPU cores",
        "[run]\nsteps = 4\n",
    ):
        assert part in card
    with Image.open(trained / "latent" / "model" / "loss.png") as curve:
        assert curve.size[0] > 500


def test_the_model_holds_averaged_weights(trained):
    saved = torch.load(trained / "latent" / "checkpoints" / "step-00000004.pt", weights_only=True)
    file = trained / "latent" / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights, average = load_file(file), saved["ema"]["average"]
    assert all(torch.equal(weights[n], average[f"unet.{n}"]) for n in weights)
    assert any(not torch.equal(weights[n], saved["module"][f"unet.{n}"]) for n in weights)


def test_fine_tuning_keeps_the_layout(squares, trained, tmp_path):
    base = trained / "latent" / "model"
    changes = {"model": {"base": str(base)}, "run.steps": 2, "run.save_dtype": "fp32"}
    listener = Listener()
    run.train(make_recipe(squares, changes), tmp_path, resume=False, reporter=listener)
    assert read_model_config(tmp_path / "model") == read_model_config(base)
    name = "diffusion_pytorch_model.safetensors"
    old, new = (load_file(place / "unet" / name) for place in (base, tmp_path / "model"))
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[key], new[key]) for key in old)
    frozen = [
        load_file(p / "text_encoder" / "model.safetensors") for p in (base, tmp_path / "model")
    ]
    assert all(torch.equal(frozen[0][key], frozen[1][key]) for key in frozen[0])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model.unet.context_dim": 8}, ConfigError, "must equal model.text.width 16"),
        ({"model.unet.in_channels": 4}, ConfigError, "in_channels and out_channels must be 3"),
        ({"model.text.vocab_size": 100}, ConfigError, "knows 100 tokens"),
        ({"model.tokenizer": "storybok"}, UsageError, 'Did you mean "storybook"?'),
        ({"model": {"base": "./nothing"}}, UsageError, "there is no model at nothing"),
        ({"model": {"base": "storybook"}, "data.size": 9}, ConfigError, "9, does not divide by"),
        ({"model.schedule.sampler": "restart"}, ConfigError, "has no diffusers scheduler"),
        ({"data.path": "nowhere"}, UsageError, "nowhere"),
    ],
)
def test_bad_recipes_stop_before_training(squares, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run.train(
            make_recipe(squares, changes), tmp_path / "run", resume=False, reporter=Listener()
        )
    assert not (tmp_path / "run").exists()


def test_a_folder_without_an_autoencoder(squares, tmp_path):
    recipe = make_recipe(squares, {"model.autoencoder": str(tmp_path)})
    with pytest.raises((ConfigError, WeightsError), match=r"config\.json is missing"):
        run.train(recipe, tmp_path / "run", resume=False, reporter=Listener())


@pytest.mark.parametrize("mid_depth", [None, 0, 1])
def test_architectures_read_back(tmp_path, mid_depth):
    config = ModelConfig(
        family="custom",
        text=(TEXT,),
        unet=UNetConfig(
            channels=(32, 64),
            blocks=(1, 2),
            depth=(0, 1),
            num_heads=(2, 4),
            context_dim=256,
            mid_depth=mid_depth,
            sample_size=16,
        ),
        vae=VaeConfig(
            channels=(32, 32), scaling_factor=0.5, latents_mean=(0.1,) * 4, latents_std=(2.0,) * 4
        ),
        schedule=NoiseConfig(prediction="v", sampler="euler", spacing="trailing"),
    )
    write_model_configs(tmp_path, config, [(949, 949)])
    back = read_model_config(tmp_path)
    assert (back.unet, back.vae, back.text) == (config.unet, config.vae, config.text)


def test_what_the_layout_cannot_hold_is_refused(tmp_path):
    config = ModelConfig(
        family="custom",
        text=(TEXT,),
        unet=UNetConfig(context_dim=256),
        vae=None,
        schedule=NoiseConfig(spacing="karras"),
    )
    with pytest.raises(ConfigError, match=r"cannot hold this recipe: .*timestep_spacing"):
        write_model_configs(tmp_path, config, [(949, 949)])


@pytest.fixture(scope="module")
def with_extras(sd1, tmp_path_factory):
    """SD 1.5's folder in small: its index names a safety checker and what feeds it."""
    folder = tmp_path_factory.mktemp("extras") / "base"
    shutil.copytree(sd1.folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    for name, file in (
        ("safety_checker", "config.json"),
        ("image_encoder", "config.json"),
        ("feature_extractor", "preprocessor_config.json"),
    ):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / file).write_text("{}")
    return folder


SMALL = {"run.steps": 1, "data.size": 32, "data.validation": 0, "run.save_dtype": "fp32"}


@pytest.mark.parity
@pytest.mark.parametrize("target", ["diffusion", "distill"])
def test_a_base_with_a_safety_checker_opens_in_diffusers(squares, with_extras, tmp_path, target):
    changes = {"target": target, "model": {"base": str(with_extras)}, **SMALL}
    run.train(make_recipe(squares, changes), tmp_path, resume=False, reporter=Listener())
    folder = tmp_path / "model"
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    assert pipeline.safety_checker is None
    promised = json.loads((folder / "model_index.json").read_text())
    assert promised["requires_safety_checker"] is False
    there = {name for name, value in promised.items() if isinstance(value, list) and value[0]}
    assert there == {path.name for path in folder.iterdir() if path.is_dir()}


def test_a_component_that_no_plain_pipeline_has_is_left_out_with_its_class(sd1, tmp_path):
    base, config = tmp_path / "base", read_model_config(sd1.folder)
    shutil.copytree(sd1.folder, base)
    index = json.loads((base / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionControlNetPipeline",
        "controlnet": ["diffusers", "ControlNetModel"],
    }
    (base / "model_index.json").write_text(json.dumps(index))
    (base / "controlnet").mkdir()
    (base / "controlnet" / "config.json").write_text("{}")
    copy_configs(base, tmp_path / "out", config)
    written = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert written["controlnet"] == [None, None]
    assert written["_class_name"] == "StableDiffusionPipeline"
    assert not (tmp_path / "out" / "controlnet").exists()
    assert read_model_config(tmp_path / "out") == config


def test_a_base_is_told_what_it_predicts_and_given_an_autoencoder(squares, sd1, tmp_path):
    """As `generate --prediction v --vae`: for training, the preview and the exported folder."""
    model = {"base": str(sd1.folder), "prediction": "v", "autoencoder": str(tmp_path / "vae")}
    vae = tmp_path / "vae"
    shutil.copytree(sd1.folder / "vae", vae)
    config = json.loads((vae / "config.json").read_text())
    (vae / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    changes = {"samples.prompts": ["a red square"], "target": "lora", "model": model, **SMALL}
    own, told = Listener(), Listener()
    plain = {**changes, "model": {"base": str(sd1.folder)}}
    run.train(make_recipe(squares, plain), tmp_path / "own", resume=False, reporter=own)
    run.train(make_recipe(squares, changes), tmp_path / "told", resume=False, reporter=told)
    assert own.losses != told.losses
    pictures = [tmp_path / name / "samples" / "step-00000001.png" for name in ("own", "told")]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    whole = {**changes, "target": "diffusion", "model": {**model, "zero_snr": True}}
    run.train(make_recipe(squares, whole), tmp_path / "whole", resume=False, reporter=Listener())
    written = read_model_config(tmp_path / "whole" / "model")
    assert (written.schedule.prediction, written.vae.scaling_factor) == ("v", 0.5)
    assert written.schedule.zero_snr
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "whole" / "model")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_a_new_model_has_its_prediction_elsewhere(squares):
    with pytest.raises(ConfigError, match=r"a new one has it in \[model.schedule\]"):
        make_recipe(squares, {"model.prediction": "v"})


@pytest.mark.parametrize("prediction", ["flow", "edm_v"])
def test_other_noise_than_that_of_betas_is_not_trained(squares, sd1, prediction):
    base = {"model": {"base": str(sd1.folder), "prediction": prediction}, **SMALL}
    new = {"model.schedule": {"prediction": prediction}}
    for changes in (base, new):
        with pytest.raises(ConfigError, match=f'predicts "{prediction}" cannot be trained'):
            build_networks(make_recipe(squares, changes))
