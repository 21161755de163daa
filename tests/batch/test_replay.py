"""diffgen.batch.replay and .verifying: pictures of any program made again, and compared."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffgen.batch.replay import replay
from diffgen.batch.schema import schema
from diffgen.batch.session import Session
from diffgen.batch.verifying import Verifier
from diffgen.engine.encoding import encode
from diffgen.engine.engine import Engine
from diffgen.errors import PictureError, UsageError

A1111 = """a (red:1.2) barn
Negative prompt: night
Steps: 7, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 11, Size: 128x64, \
Model hash: 6ce0161689, Model: v1-5, Denoising strength: 0.4, Tiling: maybe, Version: v1.9.4"""


def put(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format="PNG", pnginfo=info)
    path.write_bytes(file.getvalue())
    return path


def test_a1111s_picture(tmp_path: Path) -> None:
    found = replay(put(tmp_path / "a.png", parameters=A1111))
    assert found.source == "A1111"
    wanted = {
        "prompt": "a (red:1.2) barn",
        "negative": "night",
        "rng": "a1111-gpu",
        "width": 128,
        "height": 64,
        "steps": 7,
        "sampler": "DPM++ 2M",
        "schedule": "karras",
        "guidance_scale": 6.5,
        "seed": 11,
    }
    assert {name: found.settings[name] for name in wanted} == wanted
    said = "\n".join(found.notes)
    assert "the model v1-5 is not here; -m names another" in said
    assert "Denoising strength: 0.4 is not honoured: the picture it began with is not" in said
    assert "Tiling: maybe is not honoured" in said
    assert len(found.notes) == 3


def test_a1111s_embeddings_are_found_by_name_and_by_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "embeddings"
    folder.mkdir()
    monkeypatch.setenv("DIFFGEN_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text(f"[folders]\nembeddings = ['{folder}']\n")
    digits = {}
    for name in ("good", "renamed", "changed"):
        path = folder / f"{name}.safetensors"
        path.write_bytes(name.encode())
        digits[name] = hashlib.sha256(name.encode()).hexdigest()[:12]
    listed = f"good: {digits['good']}, before: {digits['renamed']}, changed: 0a, gone: 12ab"
    text = A1111.replace("Version", f'TI hashes: "{listed}", Version')
    found = replay(put(tmp_path / "a.png", parameters=text))
    paths = {"good": "good", "before": "renamed", "changed": "changed"}
    assert found.settings["embeddings"] == [
        f"{word}={folder / file}.safetensors" for word, file in paths.items()
    ]
    said = "\n".join(found.notes)
    assert "changed.safetensors is not the embedding changed of the picture, which is 0a" in said
    assert "the embedding gone (12ab) is not here, so its name counts as words" in said
    text = A1111.replace("Version", 'Hashes: {"embed:gone": "12AB", "model": "6c"}, Version')
    notes = replay(put(tmp_path / "b.png", parameters=text)).notes
    assert any("the embedding gone (12ab) is not here" in note for note in notes)


@pytest.mark.parametrize(("said", "rng"), [("CPU", "cpu"), ("NV", "a1111-gpu")])
def test_where_a1111_draws_noise(tmp_path: Path, said: str, rng: str) -> None:
    path = put(tmp_path / "a.png", parameters=f"{A1111}, RNG: {said}")
    assert replay(path).settings["rng"] == rng


RNG = {"rng": "a1111-gpu", "eta": None}
LINE = "a barn\nSteps: 7, Sampler: {}, CFG scale: 6, Seed: 11, Size: 64x64"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (
            LINE.format("Euler a") + ", Denoising strength: 0.4, Hires upscale: 2, Hires steps: 5, "
            "Hires upscaler: Latent",
            {"hires": "2x", "hires_strength": 0.4, "hires_steps": 5, "hires_upscaler": "latent"},
        ),
        (LINE.format("Euler"), {"schedule": "normal"}),
        (LINE.format("DPM++ 2M") + ", Schedule type: Automatic", {"schedule": "karras"}),
        (LINE.format("DPM++ 2M"), {"schedule": "normal"}),
        (LINE.format("Euler") + ", Tiling: True", {"seamless": "xy"}),
        (
            LINE.format("Euler") + ", Variation seed: 3, Variation seed strength: 0.2",
            {"variation": "3:0.2"},
        ),
        (LINE.format("euler") + ", Eta: 0.0, RNG: cuda, Version: stable-diffusion.cpp", RNG),
    ],
)
def test_what_a1111s_words_mean(tmp_path: Path, text: str, settings: Any) -> None:
    found = replay(put(tmp_path / "a.png", parameters=text))
    assert {name: found.settings.get(name) for name in settings} == settings
    assert not found.notes


def test_what_no_picture_here_can_have_is_left_out_and_told(tmp_path: Path) -> None:
    text = LINE.format("DPM++ 2M Karras") + ", Eta: 0.2, Hires steps: 5"
    path = put(tmp_path / "a.png", parameters=text)
    session = Session.open([], {"output": f"{tmp_path}/", "from_picture": path})
    (job,) = session.jobs()
    assert (job.seed, job.plan.sampling.schedule, job.plan.second) == (11, "karras", None)
    said = "; ".join(session.notes)
    assert "eta is not honoured: sampler dpmpp_2m has no eta" in said
    assert "hires steps is not honoured" in said
    with pytest.raises(UsageError, match="has no eta"):
        Session.open([], {"output": f"{tmp_path}/", "from_picture": path, "eta": "0.2"})


def test_a_graph_with_a_seed_of_another_name(tmp_path: Path) -> None:
    sampler = {
        "noise_seed": 5,
        "steps": 20,
        "cfg": 7,
        "sampler_name": "euler",
        "scheduler": "karras",
    }
    sampler |= {"add_noise": "enable", "start_at_step": 0, "end_at_step": 10000}
    sampler |= {"model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0]}
    graph = {
        "3": {"class_type": "KSamplerAdvanced", "inputs": sampler},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "storybook"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.2) barn"}},
    }
    found = replay(put(tmp_path / "a.png", prompt=json.dumps(graph)))
    wanted = {"seed": 5, "rng": "comfy", "prompt_style": "comfy", "schedule": "karras"}
    assert {name: found.settings[name] for name in wanted} == wanted
    assert not found.notes


def jobs(tmp_path: Path, words: list[str], **given: Any) -> list[Any]:
    session = Session.open(words, {"output": f"{tmp_path}/", **given})
    return list(session.jobs())


def test_options_of_the_command_line_win(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", parameters=A1111)
    (job,) = jobs(tmp_path, [], from_picture=path, guidance_scale="3", sigmas="9,3")
    assert (job.prompt, job.seed, job.plan.guidance_scale) == ("a (red:1.2) barn", 11, 3.0)
    assert job.plan.sampling.sigmas == (9.0, 3.0, 0.0)
    (other,) = jobs(tmp_path, ["a", "cat"], from_picture=path)
    assert (other.prompt, other.seed) == ("a cat", 11)
    assert len(jobs(tmp_path, [], from_picture=path, seed="1,5-7", steps="2,3")) == 8


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(device="cpu", dtype="fp32")


def drawn(engine: Engine, tmp_path: Path, form: Any = "png", **given: str) -> Path:
    steps = {} if "sigmas" in given else {"steps": "2"}
    (job,) = jobs(tmp_path, ["a", "barn"], **{"seed": "5", **steps, **given})
    (made,) = engine.draw(job.plan, [job.picture])
    path = tmp_path / f"picture.{form}"
    path.write_bytes(encode(made.image, made.record, form=form))
    return path


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sigmas": "9.123456789,3,1"},
        {"sampler": "euler_a", "eta": "0.5", "guidance_interval": "0.5,"},
        {"rng": "a1111-gpu", "negative": "night", "guidance_rescale": "0.3"},
        {"fast": True, "clip_skip": "1", "width": "144"},
    ],
)
def test_our_pictures_are_made_again(engine: Engine, tmp_path: Path, given: Any) -> None:
    path = drawn(engine, tmp_path, **given)
    (job,) = jobs(tmp_path, [], from_picture=path)
    (made,) = engine.draw(job.plan, [job.picture])
    with Image.open(path) as image:
        assert made.image.tobytes() == image.convert("RGB").tobytes()


def test_verify_tells_what_differs(engine: Engine, tmp_path: Path) -> None:
    path = drawn(engine, tmp_path)
    verifier = Verifier()
    assert verifier.verify(path).difference == 0
    with Image.open(path) as image:
        record = json.loads(image.text["diffgen"])  # type: ignore[attr-defined]
        changed = image.convert("RGB")
    changed.putpixel((3, 3), tuple((level + 100) % 256 for level in changed.getpixel((3, 3))))  # type: ignore[union-attr]
    path.write_bytes(encode(changed, record | {"version": "0.0"}))
    verdict = verifier.verify(path)
    assert verdict.difference >= 100
    assert any("version was 0.0" in note for note in verdict.notes)


def test_verify_names_a_picture_that_is_cut(engine: Engine, tmp_path: Path) -> None:
    path = drawn(engine, tmp_path, width="64", height="64")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(PictureError, match=r"picture\.png is damaged: image file is truncated"):
        Verifier().verify(path)


def test_verify_compares_like_with_like(engine: Engine, tmp_path: Path) -> None:
    verdict = Verifier().verify(drawn(engine, tmp_path, form="webp"))
    assert verdict.difference == 0
    assert "a webp loses something" in verdict.notes[0]
    with pytest.raises(UsageError, match="is A1111's: only diffgen's pictures can be verified"):
        Verifier().verify(put(tmp_path / "a.png", parameters=A1111))


def test_the_schema_names_every_setting() -> None:
    table = schema()
    assert table["required"] == ["prompt"]
    steps = table["properties"]["steps"]["anyOf"][0]
    assert (steps["type"], steps["minimum"]) == ("integer", 1)
    assert {"guidance_scale", "loras", "init", "sampler", "seed"} <= table["properties"].keys()
    assert "batch_size" not in table["properties"]
    json.dumps(table)
