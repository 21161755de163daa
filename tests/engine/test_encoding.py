"""diffgen.engine.encoding and .reading: what is written into a picture is read back, by others too."""

import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from diffgen.engine.encoding import AI_MADE, FORMATS, encode, format_of
from diffgen.engine.metadata import make_record, parameters_text
from diffgen.engine.model import Model
from diffgen.engine.origin import Origin
from diffgen.engine.plan import Picture
from diffgen.engine.reading import parse_parameters, read_settings
from diffgen.engine.request import GenerateRequest
from diffgen.engine.texts import read_texts
from diffgen.errors import UsageError

IMAGE = Image.radial_gradient("L").convert("RGB").resize((64, 48))
PROMPTS = [
    "a red barn",
    'a "quoted" barn, with: colons, commas',
    "two\nlines",
    "\u8d64\u3044 \U0001f33b <xml> & 'more'",
    "a\nNegative prompt: b\nSteps: 3, Seed: 4, Sampler: x",
    "tab\tand\x07bell",
    "",
]


def record(prompt: str = "a barn", **changes: Any) -> dict[str, Any]:
    model = Model.open("storybook")
    plan = model.plan(GenerateRequest(prompts=[prompt], seed=5, **changes))
    made = {"dtype": "fp32", "device": "cpu", "cut": "", "timings": {"text": 0.1}}
    return make_record(plan, Picture(prompt, 5), origin=Origin(model, ()).record, **made)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_record_comes_back(put: Callable[[bytes], Path], form: Any, prompt: str) -> None:
    made = record(prompt, negative="blue: night")
    path = put(encode(IMAGE, made, form=form))
    found = read_settings(path)
    assert found.record == {key: value for key, value in made.items() if key != "timings"}
    assert (found.source, found.prompt, found.negative) == ("diffgen", prompt, "blue: night")


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", PROMPTS[:4])
def test_others_read_the_text(put: Callable[[bytes], Path], form: Any, prompt: str) -> None:
    path = put(encode(IMAGE, record(prompt, negative="blue"), form=form))
    info = ParserManager().parse(path)
    (sampler,) = info.samplers
    assert [each.value for each in sampler.prompts] == [prompt]
    assert sampler.parameters["seed"] == "5"


@pytest.mark.parametrize("form", FORMATS)
def test_machines_are_told_that_a_model_made_it(put: Callable[[bytes], Path], form: Any) -> None:
    content = encode(IMAGE, record(), form=form)
    packet = content[content.index(b"<x:xmpmeta") : content.index(b"</x:xmpmeta>") + 12]
    (node,) = ElementTree.fromstring(packet).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    assert node.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == AI_MADE


@pytest.mark.parametrize("form", FORMATS)
def test_without_metadata_nothing_is_inside(put: Callable[[bytes], Path], form: Any) -> None:
    content = encode(IMAGE, record(), form=form, metadata=False)
    assert b"barn" not in content
    assert b"iptc" not in content
    with pytest.raises(UsageError, match="does not say how it was made"):
        read_settings(put(content))


@pytest.mark.parametrize("form", FORMATS)
def test_equal_pictures_are_equal_bytes(form: Any) -> None:
    made = record()
    other = made | {"timings": {"text": 9.9}}
    assert encode(IMAGE, made, form=form) == encode(IMAGE, other, form=form)


def test_quality_is_a_matter_of_size() -> None:
    for form in ("jpeg", "webp", "avif"):
        low, high = (len(encode(IMAGE, record(), form=form, quality=q)) for q in (20, 95))
        assert low < high


def test_a_prompt_that_a_jpeg_has_no_room_for(put: Callable[[bytes], Path]) -> None:
    made = record("word " * 12_000)
    with pytest.raises(UsageError, match="no room in a JPEG; take png or --no-metadata"):
        encode(IMAGE, made, form="jpeg")
    assert encode(IMAGE, made, form="jpeg", metadata=False)
    assert read_settings(put(encode(IMAGE, made, form="webp"))).prompt == made["prompt"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_whose_name_is_no_text(put: Callable[[bytes], Path], form: Any) -> None:
    """Names of files may be bytes that are no UTF-8."""
    named = {"model": "caf\udce9", "model_path": "/m/caf\udce9", "vae": "v\udce9.pt"}
    found = read_settings(put(encode(IMAGE, record() | named, form=form)))
    assert found.record
    assert {name: found.record[name] for name in named} == named
    assert "Model: caf?," in parameters_text(record() | named)


def test_formats_by_suffix() -> None:
    assert [format_of(s) for s in (".JPG", ".jpeg", ".png")] == ["jpeg", "jpeg", "png"]
    with pytest.raises(UsageError, match=r"\.jepg: pictures are png, jpg, .* files"):
        format_of(".jepg")


def png(**texts: str) -> bytes:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text, zip=len(text) > 1000)
    file = io.BytesIO()
    IMAGE.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


A1111 = """a barn, sunset
second line
Negative prompt: night
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5, Lora hashes: "ink: 012, b: 345", Version: v1.9.4"""


def test_a1111s_text(put: Callable[[bytes], Path]) -> None:
    found = read_settings(put(png(parameters=A1111)))
    assert (found.source, found.prompt, found.negative) == (
        "A1111",
        "a barn, sunset\nsecond line",
        "night",
    )
    assert found.named["Sampler"] == "DPM++ 2M"
    assert found.named["Lora hashes"] == "ink: 012, b: 345"
    assert found.named["Size"] == "512x768"


def test_text_that_is_none_of_a1111s() -> None:
    assert parse_parameters("just words, and: more") is None
    assert parse_parameters("") is None


COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 512, "height": 512, "batch_size": 1},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a barn", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "night", "clip": ["4", 1]}},
}


LINKS = [[1, 6, 0, 3, 1, "CONDITIONING"], [2, 7, 0, 3, 2, "CONDITIONING"], [3, 4, 0, 3, 0, "MODEL"]]


@pytest.mark.parametrize("more", [{"workflow": json.dumps({"links": LINKS})}, {}])
def test_comfyuis_graph(put: Callable[[bytes], Path], more: dict[str, str]) -> None:
    found = read_settings(put(png(prompt=json.dumps(COMFY), **more)))
    assert (found.source, found.prompt, found.negative) == ("ComfyUI", "a barn", "night")
    assert found.named["steps"] == "25"
    assert found.named["sampler"] == "dpmpp_2m"
    assert (found.named["width"], found.named["height"]) == ("512", "512")


def test_invokeais_json(put: Callable[[bytes], Path]) -> None:
    metadata = {
        "positive_prompt": "a barn",
        "negative_prompt": "night",
        "seed": 42,
        "steps": 25,
        "cfg_scale": 6.5,
        "scheduler": "euler",
        "width": 512,
        "height": 512,
        "rand_device": "cpu",
        "model": {"name": "sd15", "hash": "x"},
        "app_version": "5",
        "generation_mode": "txt2img",
    }
    found = read_settings(put(png(invokeai_metadata=json.dumps(metadata))))
    assert (found.source, found.prompt) == ("InvokeAI", "a barn")
    assert found.named["seed"] == "42"


def test_novelais_json(put: Callable[[bytes], Path]) -> None:
    comment = {"steps": 28, "seed": 42, "sampler": "k_euler", "uc": "night", "scale": 11.0}
    texts = {"Comment": json.dumps(comment), "Description": "a barn", "Source": "NAI", "Title": "x"}
    texts["Software"] = "NovelAI"
    found = read_settings(put(png(**texts)))
    assert (found.source, found.prompt, found.negative) == ("NovelAI", "a barn", "night")
    assert found.named["steps"] == "28"


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def with_chunk(extra: bytes) -> bytes:
    plain = png()
    return plain[:33] + extra + plain[33:]  # behind IHDR


@pytest.mark.parametrize(
    "hostile",
    [
        chunk(b"tEXt", b"parameters\0" + b"x" * (100 << 20)),
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * (200 << 20))),
        chunk(b"tEXt", b"diffgen\0" + b"[" * 900_000),
        chunk(b"tEXt", b'diffgen\0{"prompt": 3}'),
        chunk(b"tEXt", b"no zero at all"),
        chunk(b"iTXt", b"parameters\0\1\0\0\0not packed"),
        chunk(b"tEXt", b"prompt\0" + b'{"a":' * 90_000),
        (1 << 31).to_bytes(4) + b"tEXt",
    ],
)
def test_hostile_texts(put: Callable[[bytes], Path], hostile: bytes) -> None:
    import resource

    path = put(with_chunk(hostile))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="does not say how it was made"):
        read_settings(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_entities_do_not_explode(put: Callable[[bytes], Path]) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + "https://diffgen.invalid/record/1/"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", bomb)
    file = io.BytesIO()
    IMAGE.save(file, format="PNG", pnginfo=info)
    with pytest.raises(UsageError):
        read_settings(put(file.getvalue()))


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\xff\xd8\xff\xe0broken", b"RIFF1234WEBP"]
)
def test_no_picture(put: Callable[[bytes], Path], content: bytes) -> None:
    path = put(content)
    with pytest.raises(UsageError, match=re.escape(f"{path}: no picture to be read")):
        read_texts(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_texts(tmp_path / "x.png")
    with pytest.raises(UsageError, match="Is a directory"):
        read_texts(tmp_path)
