"""The lora target: what learns, what is saved, what is written and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from training import Listener, draw_squares, make_recipe

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.errors import ConfigError
from diffgen.models.lora import Adapter
from diffgen.settings.model import Overrides
from diffgen.settings.training import QuickLora
from diffgen.train import run
from diffgen.train.dist import World
from diffgen.train.loop import Trainer
from diffgen.train.quick import lora_table
from diffgen.train.recipe.read import parse_recipe
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.targets.lora import FILE, lora_target
from diffgen.types import Conditioning, LoraRef
from diffgen.weights.finding import resolve

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to adapt: text to pixels, after a short training."""
    folder = tmp_path_factory.mktemp("base")
    changes = {"run.steps": 30, "optimizer.lr": 1e-2, "run.save_dtype": "fp32"}
    run.train(make_recipe(squares, changes), folder, resume=False, reporter=Listener())
    return folder / "model"


def lora_recipe(data: Path, base: Path, **changes: Any) -> Recipe:
    fixed = {
        "target": "lora",
        "model": {"base": str(base)},
        "lora.rank": 2,
        "run.save_dtype": "fp32",
    }
    return make_recipe(data, fixed | {key.replace("__", "."): v for key, v in changes.items()})


def saved(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)


def test_only_adapters_learn_and_are_saved(squares: Path, base: Path, tmp_path: Path) -> None:
    recipe = lora_recipe(squares, base, lora__text_encoder=True, lora__modules=["all"])
    before = lora_target(recipe, CPU).inputs.networks
    listener = Listener()
    run.train(recipe, tmp_path, resume=False, reporter=listener)
    assert len(listener.losses) == 8
    state = saved(tmp_path, 8)
    names = set(state["module"])
    assert all(name.startswith("adapters.") for name in names)
    assert {name.split(".", 2)[2] for name in names} == {"down.weight", "up.weight"}
    # Every adapter has learned: B began at zero.
    assert all(t.abs().max() > 0 for name, t in state["module"].items() if "up" in name)
    after = lora_target(recipe, CPU).inputs.networks
    for first, second in ((before.unet, after.unet), (before.encoders[0], after.encoders[0])):
        kept = {n: p for n, p in first.named_parameters() if not p.requires_grad}
        assert kept
        assert all(torch.equal(p, second.get_parameter(n)) for n, p in kept.items())


def test_the_file_draws_what_was_trained(squares: Path, base: Path, tmp_path: Path) -> None:
    """The adapters beside the weights, and merged from the file, within rounding."""
    changes = {"lora__modules": ["all"], "lora__alpha": 5.0, "optimizer__lr": 1e-2}
    for layout in ("kohya", "peft"):
        recipe = lora_recipe(squares, base, **changes, lora__layout=layout)
        target = lora_target(recipe, CPU)
        torch.manual_seed(0)
        for named in target.export.adapters.values():
            for adapter in named.values():
                torch.nn.init.normal_(adapter.up.weight, std=0.3)
        target.export(tmp_path, torch.float32)
        engine = Engine.load(base, device="cpu", dtype="fp32", loras=[LoraRef(tmp_path / FILE)])
        x, t = torch.randn(2, 3, 8, 8), torch.tensor([900.0, 20.0])
        cond = Conditioning(torch.randn(2, 16, 16))
        with torch.no_grad():
            expected, actual = target.inputs.networks.unet(x, t, cond), engine.unet(x, t, cond)
            plain = Engine.load(base, device="cpu", dtype="fp32").unet(x, t, cond)
        assert (actual - expected).norm() < 1e-5 * expected.norm()
        assert (plain - expected).norm() > 0.1 * expected.norm()


def test_what_the_file_says_of_itself(squares: Path, base: Path, tmp_path: Path) -> None:
    recipe = lora_recipe(squares, base, lora__alpha=5.0)
    lora_target(recipe, CPU).export(tmp_path, torch.float16)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
        assert {str(file.get_tensor(n).dtype) for n in names if "lora_" in n.split(".")[1]} == {
            "torch.float16"
        }
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_network_alpha"] == "5.0"
    assert metadata["ss_sd_model_name"] == "model"
    assert metadata["ss_max_train_steps"] == "8"
    assert all(name.startswith("lora_unet_") and "_attn" in name for name in names)


def test_a_run_that_died_goes_on_bit_for_bit(squares: Path, base: Path, tmp_path: Path) -> None:
    recipe = lora_recipe(squares, base, lora__text_encoder=True)
    whole = Listener()
    run.train(recipe, tmp_path / "whole", resume=False, reporter=whole)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "died", resume=False, reporter=Listener(fail_at=6))
    again = Listener()
    run.train(recipe, tmp_path / "died", resume=True, reporter=again)
    assert again.losses == whole.losses[4:]
    first, second = (saved(tmp_path / name, 8) for name in ("whole", "died"))
    assert all(torch.equal(t, second["module"][name]) for name, t in first["module"].items())
    made, same = (load_file(tmp_path / name / "model" / FILE) for name in ("whole", "died"))
    assert all(torch.equal(tensor, same[name]) for name, tensor in made.items())


def test_it_learns_a_picture_better_than_its_base(
    squares: Path, base: Path, tmp_path: Path
) -> None:
    """One picture nine times: learned from one copy, measured on eight with other noise."""
    data = tmp_path / "data"
    data.mkdir()
    for index in range(9):
        shutil.copy(squares / "01.png", data / f"{index}.png")
        (data / f"{index}.txt").write_text("a green square")
    changes = {"data__validation": 8, "data__caption_dropout": 0, "optimizer__lr": 1e-2}
    steps = {"run__steps": 150, "run__batch_size": 8, "run__ema": 0.9}
    recipe = lora_recipe(data, base, **changes, **steps, lora__modules=["all"], lora__rank=8)
    target = lora_target(recipe, CPU)
    trainer = Trainer(recipe, target, run.open_data(recipe.data), World(0, 1, CPU), tmp_path)

    def held_out() -> float:
        (batch,) = trainer.data.validation(8, rank=0, world=1)
        with torch.no_grad():
            return trainer._held_out_loss(batch)

    before, batches = held_out(), trainer.batches()
    for _ in range(150):
        trainer.learner.learn(batches)
    # On the same noise and timesteps; it came to 0.74. Most of what is left is noise that a network
    # of 6 thousand weights cannot read off: v at low noise levels.
    assert held_out() < 0.85 * before


def test_previews_are_drawn_with_the_adapter(squares: Path, base: Path, tmp_path: Path) -> None:
    changes = {"samples__prompts": ["a red square"], "optimizer__lr": 0.1, "run__ema": 0.5}
    recipe = lora_recipe(squares, base, **changes)
    run.train(recipe, tmp_path, resume=False, reporter=Listener())
    (preview,) = (tmp_path / "samples").iterdir()
    size = {"width": 8, "height": 8}
    request = GenerateRequest(prompts=["a red square"], seed=7, steps=2, guidance_scale=4.0, **size)
    drawn = []
    for loras in ([LoraRef(tmp_path / "model" / FILE)], []):
        engine = Engine.load(base, device="cpu", loras=loras)
        drawn.append(next(engine.generate(request)).image.tobytes())
    with Image.open(preview) as shown:
        assert [shown.tobytes() == picture for picture in drawn] == [True, False]


def test_a_base_that_is_a_lora_itself_is_refused(squares: Path) -> None:
    recipe = lora_recipe(squares, Path("storybook-turbo"))
    with pytest.raises(
        ConfigError, match=r"model\.base storybook-turbo is a LoRA on another model"
    ):
        lora_target(recipe, CPU)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["atention"], 'matches no layer .* Did you mean "attention"'),
        (["attention", "*.to_x"], r'"\*\.to_x" matches no layer'),
        ([], "is empty; the groups are attention, feed_forward"),
    ],
)
def test_modules_that_name_nothing(
    squares: Path, base: Path, modules: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lora_target(lora_recipe(squares, base, lora__modules=modules), CPU)


def test_modules_may_be_patterns(squares: Path, base: Path) -> None:
    recipe = lora_recipe(squares, base, lora__modules=["mid_block.*.to_q", "conv_out"])
    (names,) = (set(named) for named in lora_target(recipe, CPU).export.adapters.values())
    assert names == {
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_q",
        "conv_out",
    }


def test_a_layer_that_nobody_reads_has_no_adapter(squares: Path, sdxl: Any) -> None:
    """SDXL takes the first encoder's last state but one, so its last layer could not learn."""
    recipe = lora_recipe(squares, sdxl.folder, lora__text_encoder=True)
    adapters = lora_target(recipe, CPU).export.adapters
    layers = [{n.split(".")[3] for n in adapters[f"text_encoder{k}"]} for k in ("", "_2")]
    assert layers == [{"0", "1"}, {"0", "1", "2"}]


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_sdxl_model(squares: Path, sdxl: Any, tmp_path: Path, channels_last: bool) -> None:
    changes = {"data.size": 32, "data.validation": 0, "run.steps": 2}
    recipe = make_recipe(
        squares,
        {
            "target": "lora",
            "model": {"base": str(sdxl.folder)},
            "lora": {"modules": ["all"], "text_encoder": True, "rank": 1},
            "run.channels_last": channels_last,
            "run.gradient_checkpointing": channels_last,
            **changes,
        },
    )
    run.train(recipe, tmp_path, resume=False, reporter=Listener())
    assert all(t.abs().max() > 0 for n, t in saved(tmp_path, 2)["module"].items() if "up" in n)
    Engine.load(sdxl.folder, device="cpu", loras=[LoraRef(tmp_path / "model" / FILE)])
    with safe_open(tmp_path / "model" / FILE, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.base": None, "model.unet": {}, "model.text": {}}, "needs model.base"),
        ({"model.train_text_encoder": True}, "it is lora.text_encoder"),
        ({"lora.rank": 0}, '"lora.rank" must be at least 1'),
        ({"lora.layout": "peff"}, 'Did you mean "peft"'),
        ({"lora.ranks": 2}, 'unknown key "lora.ranks"'),
    ],
)
def test_recipes_that_are_refused(changes: dict[str, Any], message: str) -> None:
    fixed = {"target": "lora", "model": {"base": "storybook"}}
    with pytest.raises(ConfigError, match=message):
        make_recipe(Path("data"), fixed | changes)


@pytest.mark.parametrize(("pictures", "steps"), [(16, 1600), (2, 500), (60, 5000)])
def test_the_recipe_made_up(tmp_path: Path, base: Path, pictures: int, steps: int) -> None:
    """100 steps a picture, but neither too few nor too many."""
    data = draw_squares(tmp_path / "data")
    for index in range(16, pictures):
        shutil.copy(data / "00.png", data / f"{index}.png")
    for index in range(pictures, 16):
        (data / f"{index:02}.png").unlink()
    quick = QuickLora(data=str(data), model=str(base))
    recipe = parse_recipe(lora_table(quick, Overrides(), "mine"), "--lora")
    assert (recipe.target, recipe.name, recipe.model.base) == ("lora", "mine", str(base))
    assert (recipe.run.steps, recipe.data.size, recipe.optimizer.lr) == (steps, 8, 1e-4)
    assert (recipe.lora.rank, recipe.data.buckets) == (16, False)
    captions = [f"a {colour} square" for colour in ("red", "green", "blue", "yellow")]
    assert list(recipe.samples.prompts) == captions[: min(4, pictures)]


def test_what_is_taken_instead_of_the_models_own_is_in_the_recipe(tmp_path: Path) -> None:
    quick = QuickLora(data=str(draw_squares(tmp_path / "data")), model="storybook")
    vae = resolve("storybook").path / "vae"
    own = Overrides(vae=vae, prediction="v", zero_snr=True)
    recipe = parse_recipe(lora_table(quick, own, "mine"), "--lora")
    assert recipe.model.autoencoder == str(vae)
    assert (recipe.model.prediction, recipe.model.zero_snr) == ("v", True)


def test_one_caption_for_all_pictures_is_drawn_as_well(tmp_path: Path, base: Path) -> None:
    data = draw_squares(tmp_path / "data")
    for file in data.glob("*.txt"):
        file.unlink()
    quick = QuickLora(data=str(data), model=str(base), caption="sks dog")
    recipe = parse_recipe(lora_table(quick, Overrides(), "mine"), "--lora")
    assert recipe.data.caption == "sks dog"
    assert list(recipe.samples.prompts) == ["sks dog"]


def test_adapters_are_adapters(squares: Path, base: Path) -> None:
    module = lora_target(lora_recipe(squares, base), CPU).module
    (adapters,) = module.children()
    assert all(isinstance(adapter, Adapter) for adapter in adapters)


def test_one_file_is_a_base_for_a_lora(squares: Path, tmp_path: Path) -> None:
    import single_files  # takes seconds: diffusers

    file = tmp_path / "sd1.safetensors"
    single_files.write_single_file(file, single_files.make_pipeline("sd1"), "sd1")
    recipe = lora_recipe(squares, file, run__steps=2, samples__prompts=[])
    run.train(recipe, tmp_path / "run", resume=False, reporter=Listener())
    lora = LoraRef(tmp_path / "run" / "model" / FILE)
    assert Engine.load(file, device="cpu", loras=[lora]).loras == (lora,)
    changes = {"target": "distill", "distill.as_lora": True, "data.size": 32, "run.steps": 1}
    student = make_recipe(squares, {"model": {"base": str(file)}, **changes})
    run.train(student, tmp_path / "student", resume=False, reporter=Listener())
    assert (tmp_path / "student" / "model" / FILE).is_file()
