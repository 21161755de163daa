"""LoRAs that make a model draw in few steps bring their sampling along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file
from test_adapters import write

from diffgen import Engine, GenerateRequest
from diffgen.batch.plan import BatchPlan
from diffgen.engine.model import Model
from diffgen.types import LoraRef
from diffgen.weights.few_steps import lora_names

if TYPE_CHECKING:
    from tiny_models import TinyModel


@pytest.fixture
def plain(sd1: TinyModel, tmp_path: Path) -> Path:
    return write(tmp_path / "plain.safetensors", sd1.folder, 1, ("to_q",))


@pytest.mark.parametrize(
    ("name", "title", "few"),
    [
        ("lcm-lora-sdv1-5", "", True),
        ("Hyper-SD15-8steps-lora", "", True),
        ("sdxl_lightning_4step_lora", "", True),
        ("saved/lcm-lora-sdv1-5/pytorch_lora_weights", "", True),
        ("x", "DMD2 for SD 1.5", True),
        ("lightning_bolts", "", False),
        ("turbo_cars", "", False),
        ("lcm/style", "", False),
        ("plain2", "", False),
    ],
)
def test_names_that_tell(name: str, title: str, few: bool, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(plain), path, {"modelspec.title": title})
    assert bool(lora_names(path)) == few


def test_the_model_is_sampled_so(
    sd1: TinyModel, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = plain.rename(plain.with_name("lcm-lora.safetensors"))
    model = Model.open(sd1.folder)
    assert model.sampled_with([LoraRef(path, 0.0)]) is model
    told = model.sampled_with([LoraRef(path)]).plan(GenerateRequest(prompts=["a"]))
    assert (told.steps, told.sampling.spec.name, told.guidance_scale) == (4, "lcm", 1.0)
    said = (
        "lcm-lora.safetensors is taken for a latent consistency model, by its name: 4 steps of lcm"
    )
    assert caplog.text.count(said) == 1
    asked = GenerateRequest(prompts=["a"], steps=7, sampler="euler", guidance_scale=3.0)
    plan = model.sampled_with([LoraRef(path)]).plan(asked)
    assert (plan.steps, plan.sampling.spec.name, plan.guidance_scale) == (7, "euler", 3.0)
    assert (
        Engine.load(sd1.folder, loras=[LoraRef(path)]).plan(GenerateRequest(prompts=["a"])).steps
        == 4
    )


def test_lines_have_their_own(sd1: TinyModel, plain: Path, tmp_path: Path) -> None:
    few = tmp_path / "lcm.safetensors"
    few.write_bytes(plain.read_bytes())
    plan = BatchPlan(seed=0)
    for lora in (plain, few):
        given = {"model": str(sd1.folder), "prompt": "a", "loras": [LoraRef(lora)]}
        assert plan.add(1, given, {}) is None
    steps = [job.plan.steps for index in range(2) for job in plan.jobs(index)]
    assert steps[1] == 4 != steps[0]


def test_one_that_a_prompt_asks_for_is_told(
    sd1: TinyModel, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = plain.rename(plain.with_name("lcm-lora.safetensors"))
    plan = BatchPlan(seed=0)
    given = {"model": str(sd1.folder), "prompt_style": "a1111"}
    for number in range(2):
        plan.add(1, {**given, "prompt": f"{number} <lora:{path}:1>"}, {})
    said = "but a prompt sets no sampler: give --steps 4 --sampler lcm --guidance-scale 1"
    assert caplog.text.count(said) == 1
