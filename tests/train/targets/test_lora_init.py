"""lora.init: training goes on from a LoRA file, exactly as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from training import Listener, make_recipe

from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.errors import ConfigError, WeightsError
from diffgen.models.lora import LoraDelta
from diffgen.train import run
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.targets.distill import distill_target
from diffgen.train.targets.lora import FILE, lora_target
from diffgen.types import Conditioning, LoraRef
from diffgen.weights.adapters.files import read_lora
from diffgen.weights.adapters.lora import Layout, save_lora

CPU = torch.device("cpu")
UNET = {  # with ranks and alphas of their own
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (2, 1.0),
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (3, 3.0),
    "mid_block.resnets.0.conv1": (1, 0.7),
}
TEXT = {"text_model.encoder.layers.0.self_attn.q_proj": (2, 5.0)}


def small_recipe(data: Path, base: Path, changes: dict[str, Any]) -> Recipe:
    fixed = {"target": "lora", "model": {"base": str(base)}, "run.save_dtype": "fp32"}
    return make_recipe(data, {**fixed, "data.size": 32, "run.steps": 2, **changes})


def write(path: Path, base: Path, layout: Layout, layers: dict[str, Any]) -> None:
    """A LoRA of random adapters for these layers, in bfloat16."""
    checkpoint = Model.open(base).checkpoint
    torch.manual_seed(0)
    deltas: dict[Any, dict[str, LoraDelta]] = {}
    for component, named in layers.items():
        for layer, (rank, alpha) in named.items():
            out, *into = checkpoint.tensors[component].infos[f"{layer}.weight"].shape
            down, up = torch.randn(rank, *into), torch.randn(out, rank, *[1] * (len(into) - 1))
            delta = LoraDelta(0.1 * down, 0.1 * up, alpha)
            deltas.setdefault(component, {})[layer] = delta
    config = checkpoint.config
    save_lora(path, deltas, config, layout=layout, dtype=torch.bfloat16, metadata={})


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_training_begins_with_what_the_file_holds(sd1, squares, tmp_path, layout) -> None:
    file = tmp_path / "style.safetensors"
    write(file, sd1.folder, layout, {"unet": UNET, "text_encoder": TEXT})
    changes = {"lora.init": str(file), "lora.text_encoder": True, "optimizer.lr": 0.0}
    recipe = small_recipe(squares, sd1.folder, changes)
    target = lora_target(recipe, CPU)
    held = read_lora(file, Model.open(sd1.folder).checkpoint)
    for component, named in target.export.adapters.items():
        assert named.keys() == held[component].keys()
        for layer, adapter in named.items():
            delta = held[component][layer]
            assert (adapter.rank, adapter.alpha) == (delta.rank, delta.alpha)
            assert torch.equal(adapter.delta().weight(), delta.weight())
    engine = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=[LoraRef(file)])
    width = target.export.config.unet.context_dim
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    cond = Conditioning(torch.randn(1, 7, width))
    with torch.no_grad():
        expected, actual = engine.unet(x, t, cond), target.inputs.networks.unet(x, t, cond)
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    # At a rate of 0 the finished file is the one that was begun from.
    run.train(recipe, tmp_path / "run", resume=False, reporter=Listener())
    made = read_lora(tmp_path / "run" / "model" / FILE, Model.open(sd1.folder).checkpoint)
    for component, named in held.items():
        for layer, delta in named.items():
            torch.testing.assert_close(made[component][layer].weight(), delta.weight())
    with safe_open(tmp_path / "run" / "model" / FILE, framework="pt") as written:
        assert written.metadata()["ss_network_dim"] == "Dynamic"


def test_training_goes_on_and_resumes_bit_for_bit(sd1, squares, tmp_path) -> None:
    file = tmp_path / "style.safetensors"
    write(file, sd1.folder, "kohya", {"unet": UNET})
    recipe = small_recipe(squares, sd1.folder, {"lora.init": str(file), "run.steps": 4})
    whole, again = Listener(), Listener()
    run.train(recipe, tmp_path / "whole", resume=False, reporter=whole)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "died", resume=False, reporter=Listener(fail_at=4))
    run.train(recipe, tmp_path / "died", resume=True, reporter=again)
    assert again.losses == whole.losses[2:]
    held = read_lora(file, Model.open(sd1.folder).checkpoint)["unet"]
    made = read_lora(tmp_path / "whole" / "model" / FILE, Model.open(sd1.folder).checkpoint)["unet"]
    assert all(not torch.equal(made[layer].weight(), held[layer].weight()) for layer in held)


def test_a_student_of_adapters_begins_with_them(sd1, squares, tmp_path) -> None:
    file = tmp_path / "style.safetensors"
    write(file, sd1.folder, "kohya", {"unet": UNET})
    changes = {"target": "distill", "distill.as_lora": True, "lora.init": str(file)}
    target = distill_target(small_recipe(squares, sd1.folder, changes), CPU)
    ranks = {layer: adapter.rank for layer, adapter in target.export.adapters["unet"].items()}
    assert ranks == {layer: rank for layer, (rank, _) in UNET.items()}
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    cond = Conditioning(torch.randn(1, 7, target.export.config.unet.context_dim))
    assert target.module.networks.target is not None
    with torch.no_grad():
        live, average = (
            target.module.networks.unet(x, t, cond),
            target.module.networks.target(x, t, cond),
        )
    assert torch.equal(live, average)


@pytest.mark.parametrize(
    ("layers", "changes", "message"),
    [
        ({"unet": UNET, "text_encoder": TEXT}, {}, "text_encoder as well; set lora.text_encoder"),
        ({"unet": UNET}, {"lora.text_encoder": True}, "nothing for the text_encoder; unset lora"),
        ({"text_encoder": TEXT}, {"lora.text_encoder": True}, "nothing for the unet"),
    ],
)
def test_files_of_other_networks_are_refused(
    sd1, squares, tmp_path, layers, changes, message
) -> None:
    file = tmp_path / "style.safetensors"
    write(file, sd1.folder, "kohya", layers)
    recipe = small_recipe(squares, sd1.folder, {"lora.init": str(file), **changes})
    with pytest.raises(ConfigError, match=message) as caught:
        lora_target(recipe, CPU)
    assert str(file) in str(caught.value)


def test_a_file_for_another_model_is_refused(sd1, squares, tmp_path) -> None:
    file = tmp_path / "style.safetensors"
    write(file, sd1.folder, "kohya", {"unet": UNET})
    recipe = small_recipe(squares, Path("storybook"), {"lora.init": str(file)})
    with pytest.raises(WeightsError, match=r"style\.safetensors"):
        lora_target(recipe, CPU)


@pytest.mark.parametrize("key", ["rank", "alpha", "modules"])
def test_what_the_file_brings_is_not_asked_for_as_well(key: str) -> None:
    value = {"rank": 4, "alpha": 2.0, "modules": ["all"]}[key]
    changes = {"lora.init": "style.safetensors", f"lora.{key}": value}
    with pytest.raises(ConfigError, match=f"brings its own {key}; drop lora.{key} or lora.init"):
        small_recipe(Path("data"), Path("storybook"), changes)
