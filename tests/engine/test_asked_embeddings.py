"""Embeddings that prompts ask for by name, from the user's folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from diffgen import Engine, GenerateRequest
from diffgen.batch.plan import BatchPlan
from diffgen.batch.verifying import Verifier
from diffgen.engine import tags
from diffgen.engine.encoding import encode
from diffgen.engine.tags import Finder
from diffgen.errors import DiffgenError, UsageError, WeightsError
from diffgen.types import EmbeddingRef
from diffgen.weights.finding import find_file

if TYPE_CHECKING:
    from tiny_models import TinyModel

SETTINGS = {"seed": 3, "steps": 2, "sampler": "euler", "prompt_style": "a1111"}


@pytest.fixture(scope="module")
def engine(sd1: TinyModel) -> Engine:
    return Engine.load(sd1.folder, device="cpu", dtype="fp32")


@pytest.fixture
def shelf(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One embedding in each program's folder and in one of the user's own."""
    width = engine.config.text[0].width
    torch.manual_seed(0)
    vectors = [torch.randn(n, width) * 0.1 for n in (3, 2, 1, 2)]
    program = tmp_path / "webui"
    for folder in ("embeddings/sub", "models/embeddings", "models/sd-1/embedding"):
        (program / folder).mkdir(parents=True)
    save_file({"emb_params": vectors[0]}, tmp_path / "EasyNeg.safetensors")
    parameter = torch.nn.Parameter(vectors[1])
    torch.save({"string_to_param": {"*": parameter}}, program / "embeddings/sub/bad-hands-5.pt")
    torch.save({"*": vectors[2]}, tmp_path / "x=y.pt")
    torch.save({"<cat>": vectors[2][0]}, program / "models/sd-1/embedding/cat.bin")
    save_file({"emb_params": vectors[3]}, program / "models/embeddings/v1.5_style.safetensors")
    config = tmp_path / "config.toml"
    config.write_text(
        f'[folders]\nembeddings = ["{tmp_path}"]\nprograms = ["{program}"]\n', encoding="utf-8"
    )
    monkeypatch.setenv("DIFFGEN_CONFIG", str(config))
    return tmp_path


def pictures(engine: Engine, *prompts: str, **settings: object) -> list[bytes]:
    request = GenerateRequest(prompts=prompts, **{**SETTINGS, **settings})
    return [made.image.tobytes() for made in engine.generate(request)]


NAMES = ["EasyNeg", "easyneg", "bad-hands-5", "sub/bad-hands-5.pt", "cat", "v1.5_style"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("style", ["a1111", "comfy", "plain"])
def test_a_name_in_a_prompt_is_as_one_of_the_command_line(
    name: str, style: str, engine: Engine, shelf: Path
) -> None:
    (file,) = [f for f in shelf.rglob("*.*") if Path(name).stem in (f.stem, f.stem.lower())] or [
        shelf / "webui/models/embeddings/v1.5_style.safetensors"
    ]
    (asked,) = pictures(engine, f"a barn embedding:{name}.", prompt_style=style)
    engine.use_embeddings([EmbeddingRef(file, "word")])
    (given,) = pictures(engine, "a barn embedding:word.", prompt_style=style)
    engine.use_embeddings([])
    assert asked == given != pictures(engine, "a barn.", prompt_style=style)[0]


def test_it_counts_behind_embedding_alone(engine: Engine, shelf: Path) -> None:
    both = pictures(engine, "a cat embedding:cat", "a cat", batch_size=2)
    engine.use_embeddings([EmbeddingRef(shelf / "webui/models/sd-1/embedding/cat.bin", "xyz")])
    assert both[0] == pictures(engine, "a cat xyz")[0]
    engine.use_embeddings([])
    assert both[1] == pictures(engine, "a cat")[0]


def test_in_a_negative_prompt_and_between(engine: Engine, shelf: Path) -> None:
    plain = pictures(engine, "a barn", negative="ugly")[0]
    assert pictures(engine, "a barn", negative="ugly (embedding:EasyNeg:1.2)")[0] != plain
    (made,) = engine.generate(
        GenerateRequest(
            prompts=["a barn"],
            negative="embedding:EasyNeg",
            towards="embedding:cat:0.5",
            **SETTINGS,
        )
    )
    told = {each["name"] for each in made.record["prompt_embeddings"]}
    assert told == {"EasyNeg", "cat"}
    assert made.record["embeddings"] == []


def test_one_that_is_nowhere_is_refused_with_near_ones(engine: Engine, shelf: Path) -> None:
    with pytest.raises(UsageError, match=r"embedding:EasyNag: there is no file .*EasyNeg"):
        pictures(engine, "a", "b embedding:EasyNag")
    request = GenerateRequest(
        prompts=["a embedding:missing"], **SETTINGS | {"prompt_style": "plain"}
    )
    assert "prompt_embeddings" not in next(engine.generate(request)).record


def test_one_for_another_model_is_named(engine: Engine, shelf: Path) -> None:
    save_file(
        {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, shelf / "x.safetensors"
    )
    with pytest.raises(WeightsError, match="for the two text encoders of Stable Diffusion XL"):
        pictures(engine, "a embedding:x")


def test_a_plan_finds_them_before_a_model_is_loaded(sd1: TinyModel, shelf: Path) -> None:
    plan = BatchPlan(seed=0)
    given = {"model": str(sd1.folder), "prompt_style": "a1111"}
    assert plan.add(1, {**given, "prompt": "a embedding:EasyNeg"}, {}) is None
    problem = plan.add(2, {**given, "prompt": "a embedding:EasyNag"}, {})
    assert problem is not None
    assert isinstance(problem.error, DiffgenError)
    assert "embedding:EasyNag" in problem.message
    assert plan.unread == {}


def test_names_that_are_known_are_not_looked_for(engine: Engine, shelf: Path) -> None:
    """Of --embedding, and of embeddings that come with a LoRA."""
    save_file({"<two words>": torch.ones(1, 32)}, shelf / "own.safetensors")
    engine.use_embeddings([EmbeddingRef(shelf / "own.safetensors")])
    pictures(engine, "embedding:own")
    engine.use_embeddings([])
    query = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{query}.lora_A.weight": torch.ones(1, 64),
        f"{query}.lora_B.weight": torch.ones(64, 1),
    }
    tensors["bundle_emb.brought.emb_params"] = torch.ones(1, 32)
    save_file(tensors, shelf / "lora.safetensors")
    file = shelf / "lora.safetensors"
    pictures(engine, f"a embedding:brought <lora:{file}:0.5>")


def test_a_picture_is_verified_with_its_words(sd1: TinyModel, shelf: Path) -> None:
    engine = Engine.load(
        sd1.folder,
        device="cpu",
        dtype="fp32",
        embeddings=[
            EmbeddingRef(shelf / "EasyNeg.safetensors"),
            EmbeddingRef(shelf / "x=y.pt", "z"),
        ],
    )
    request = GenerateRequest(prompts=["easyneg z embedding:cat"], **SETTINGS)
    (made,) = engine.generate(request)
    (shelf / "made.png").write_bytes(encode(made.image, made.record, form="png"))
    assert Verifier().verify(shelf / "made.png").difference == 0


def test_a_refiner_knows_them_too(sdxl: TinyModel, shelf: Path) -> None:
    engine = Engine.load(sdxl.folder, device="cpu", dtype="fp32")
    widths = [encoder.width for encoder in engine.config.text]
    vectors = {f"clip_{n}": torch.randn(2, w) for n, w in zip("lg", widths, strict=True)}
    save_file(vectors, shelf / "two.safetensors")
    settings = SETTINGS | {"refiner": str(sdxl.folder), "refiner_start": 0.5}
    drawn = {prompt: pictures(engine, prompt, **settings)[0] for prompt in ("embedding:two", "two")}
    assert len(set(drawn.values())) == 2
    engine.use_embeddings([EmbeddingRef(shelf / "two.safetensors")])
    assert pictures(engine, "two", **settings)[0] == drawn["embedding:two"]


def test_a_name_is_looked_for_once(
    engine: Engine, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders may hold thousands of files, and files of prompts thousands of lines."""
    found = []

    def counted(name: str, *rest: Any, **named: Any) -> Path:
        found.append(name)
        return find_file(name, *rest, **named)

    monkeypatch.setattr(tags, "find_file", counted)
    finder = Finder()
    for number in range(3):
        finder.tags(engine.plan(GenerateRequest(prompts=[f"{number} embedding:cat"], **SETTINGS)))
    assert found == ["cat"]
