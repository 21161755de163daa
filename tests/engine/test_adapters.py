"""Exchanged LoRAs leave an engine as one that was loaded with them, to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen import Engine, GenerateRequest
from diffgen.engine.adapters import Adapters, steps_of_run
from diffgen.errors import WeightsError
from diffgen.kernels.packed import can_pack
from diffgen.models.build import empty_network
from diffgen.models.lora import LoraDelta
from diffgen.types import Component, LoraRef, place_of
from diffgen.weights.adapters.files import layers_of
from diffgen.weights.adapters.lora import save_lora
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_models import TinyModel

RANK = 2
REQUEST = GenerateRequest(prompts=["a red barn"], seed=3, steps=4, sampler="euler")


def write(path: Path, model: Path, seed: int, endings: tuple[str, ...]) -> Path:
    """A LoRA for all layers whose names end so, of all networks."""
    checkpoint, generator = Checkpoint.open(model), torch.Generator().manual_seed(seed)
    shapes, _ = layers_of(checkpoint)
    deltas: dict[str, dict[str, LoraDelta]] = {}
    for (component, layer), (out, *rest) in shapes.items():
        if rest and layer.endswith(endings):
            up = torch.randn(out, RANK, *[1] * len(rest[1:]), generator=generator)
            down = torch.randn(RANK, *rest, generator=generator)
            deltas.setdefault(component, {})[layer] = LoraDelta(down, up * 0.05, 1.0)
    save_lora(path, deltas, checkpoint.config, layout="peft", dtype=torch.float32, metadata={})
    return path


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Path:
    tiny: TinyModel = request.getfixturevalue(request.param)
    return tiny.folder


@pytest.fixture
def one(model: Path, tmp_path: Path) -> Path:
    """Attention, convolutions, upsampling and text."""
    endings = ("to_q", "to_v", "to_out.0", "conv", "conv1", "proj_in", "fc1")
    return write(tmp_path / "one.safetensors", model, 1, endings)


@pytest.fixture
def other(model: Path, tmp_path: Path) -> Path:
    endings = ("to_k", "to_v", "net.2", "conv2", "time_emb_proj", "q_proj", "conv_in")
    return write(tmp_path / "other.safetensors", model, 2, endings)


def picture(engine: Engine) -> bytes:
    (made,) = engine.generate(REQUEST)
    return made.image.tobytes()


families = pytest.mark.parametrize("model", ["sd1", "sdxl"], indirect=True)


@families
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_exchanged_is_loaded(model: Path, one: Path, other: Path, dtype: str) -> None:
    engine = Engine.load(model, device="cpu", dtype=dtype)
    drawn, loaded = [picture(engine)], []
    for loras in (
        [LoraRef(one)],
        [LoraRef(one, 0.5), LoraRef(other)],
        [LoraRef(other, te=0.0)],
        [],
    ):
        fresh = Engine.load(model, device="cpu", dtype=dtype, loras=loras)
        loaded.append(picture(fresh))
        engine.use_loras(loras)
        drawn.append(picture(engine))
        assert engine.loras == tuple(loras)
    assert drawn[1:] == loaded
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) == len(drawn) - 1  # all others differ


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_these_weights_are_packed(model: Path) -> None:
    engine = Engine.load(model, device="cpu", dtype="fp32")
    kinds = {type(module).__name__ for module in engine.unet.modules()}
    if can_pack(torch.device("cpu"), torch.float32):
        assert {"PackedLinear", "PackedConv2d", "PackedUpsample"} <= kinds


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_networks_that_are_not_packed(
    model: Path, one: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgen.models.fast.inference.can_pack", lambda *_: False)
    engine = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(one)])
    places = {name: parameter.data_ptr() for name, parameter in engine.unet.named_parameters()}
    engine.use_loras([LoraRef(other)])
    fresh = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(other)])
    assert picture(engine) == picture(fresh)
    # In the same memory, which CUDA graphs go on reading.
    assert places == {n: parameter.data_ptr() for n, parameter in engine.unet.named_parameters()}


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_a_lora_that_does_not_fit_changes_nothing(model: Path, one: Path, tmp_path: Path) -> None:
    engine = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(one)])
    before = picture(engine)
    bad = tmp_path / "bad.safetensors"
    save_file({f"unet.nowhere.{k}": v for k, v in load_file(one).items()}, bad)
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        engine.use_loras([LoraRef(bad)])
    assert engine.loras == (LoraRef(one),)
    assert picture(engine) == before


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_a_file_that_has_changed_is_read_again(model: Path, one: Path, other: Path) -> None:
    engine = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(one)])
    one.unlink()
    one.write_bytes(other.read_bytes())
    engine.use_loras([LoraRef(one)])
    fresh = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(other)])
    assert picture(engine) == picture(fresh)


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_strengths_by_network_and_block(model: Path, one: Path, tmp_path: Path) -> None:
    """As a file whose tensors of the rest are zero."""
    tensors = load_file(one)
    for key in tensors:
        if key.startswith("text_encoder") and "lora_B" in key:
            tensors[key] *= 0.25
        if "down_blocks" in key or "conv_in" in key:
            tensors[key].zero_()
    save_file(tensors, tmp_path / "less.safetensors")
    ref = LoraRef(one, te=0.25, blocks=(0.0, 1.0, 1.0))
    made = Engine.load(model, device="cpu", dtype="fp32", loras=[ref])
    less = Engine.load(
        model, device="cpu", dtype="fp32", loras=[LoraRef(tmp_path / "less.safetensors")]
    )
    assert picture(made) == picture(less)


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_exchanged_between_pictures_without_edges(model: Path, one: Path) -> None:
    """Modules that are made anew wrap around as those before."""
    request = replace(REQUEST, seamless="xy")
    engine = Engine.load(model, device="cpu", dtype="fp32")
    pictures = []
    for loras in ([], [LoraRef(one)]):
        engine.use_loras(loras)
        fresh = Engine.load(model, device="cpu", dtype="fp32", loras=loras)
        for each in (engine, fresh):
            (made,) = each.generate(request)
            pictures.append(made.image.tobytes())
    assert pictures[0] == pictures[1] != pictures[2] == pictures[3]


@families
def test_for_a_part_of_the_steps(model: Path, one: Path) -> None:
    """The U-Net of each step is that of an engine with or without the LoRA."""
    ref = LoraRef(one, te=0.0, steps=(0.0, 0.5))
    engine = Engine.load(model, device="cpu", dtype="fp32", loras=[ref])
    plan = engine.plan(REQUEST)
    guides = engine.guides(plan, ["a red barn"])
    with_it = Engine.load(model, device="cpu", dtype="fp32", loras=[LoraRef(one, te=0.0)])
    without = Engine.load(model, device="cpu", dtype="fp32")
    networks = [with_it, with_it, without, without]
    steps = iter(networks)

    def expected(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return next(steps).denoiser(plan, guides)(x, sigma)

    shape = engine.config.latent_shape(plan.width, plan.height)
    with torch.inference_mode():
        latents = plan.sampling.run(expected, [3], shape, engine.device)
    for _ in range(2):  # the second run begins with the LoRA again
        assert torch.equal(engine.sample(plan, [3], guides), latents)


def test_steps_of_a_run() -> None:
    step_at = steps_of_run([8.0, 4.0, 2.0, 1.0, 0.0])
    levels = {9.0: 0, 8.0: 0, 6.0: 0, 4.0: 1, 2.0: 2, 1.5: 2, 1.0: 3, 0.1: 3}
    assert {level: step_at(level) for level in levels} == levels


def test_which_steps_have_a_lora() -> None:
    def active(**given: Any) -> str:
        ref = LoraRef(Path("x"), **given)
        return "".join("01"[ref.active(step, 10)] for step in range(10))

    assert active(steps=(0.3, 0.6)) == "0001110000"
    assert active(start=3, stop=6) == "0001110000"
    assert active(stop=20) == "1" * 10
    assert active(start=20) == active(stop=0) == "0" * 10
    assert not LoraRef(Path("x"), stop=20).always


def merged(model: Path, ref: LoraRef) -> dict[str, torch.Tensor]:
    """The tensors of all networks with a LoRA, by component and name."""
    checkpoint = Checkpoint.open(model)
    networks: dict[Component, torch.nn.Module] = {}
    for part in ("unet", "text_encoder"):
        networks[part] = empty_network(checkpoint.config, part)
        checkpoint.load_into(part, networks[part], dtype=torch.float32)
    Adapters(checkpoint, lambda: None).merge(networks, [ref])
    return {
        f"{part}.{name}": tensor
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_factors_of_blocks_are_those_of_their_layers(
    model: Path, one: Path, tmp_path: Path
) -> None:
    """lbw= is a LoRA whose layers were multiplied by hand."""
    factors = tuple(number / 10 for number in range(26))
    blocks = Checkpoint.open(model).config.unet.blocks
    tensors = load_file(one)
    for name in [name for name in tensors if "lora_B" in name]:
        component, _, layer = name.partition(".")
        place = place_of(layer, blocks) if component == "unet" else 0
        tensors[name] *= 1.0 if place is None else factors[place]
    save_file(tensors, tmp_path / "by-hand.safetensors", {"format": "pt"})
    refs = (LoraRef(one, lbw=factors), LoraRef(tmp_path / "by-hand.safetensors"))
    with_it, by_hand = (merged(model, ref) for ref in refs)
    for name, tensor in with_it.items():
        torch.testing.assert_close(tensor, by_hand[name], atol=1e-6, rtol=1e-5)
