"""diffgen.engine.others, graphs and texts: what other programs write, where they write it."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffgen.engine.reading import read_settings
from diffgen.errors import UsageError

IMAGE = Image.effect_noise((64, 64), 40).convert("RGB")
EXIF, COMMENT = 0x8769, 0x9286
NAI = {"steps": 20, "sampler": "k_euler", "seed": 5, "strength": 0.7, "scale": 7, "uc": "night"}
API = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "steps": 20, "cfg": 7, "sampler_name": "euler"}
        | {"scheduler": "karras", "denoise": 1.0, "latent_image": ["5", 0]}
        | {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a barn", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "night", "clip": ["4", 1]}},
}
EDITOR = {
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "widgets_values": [5, "fixed", 20, 7, "euler", "karras", 1],
            "inputs": [
                {"name": name, "link": number}
                for number, name in enumerate(("model", "positive", "negative", "latent_image"), 1)
            ],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["sd"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [64, 64, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a barn"]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["night"]},
        {"id": 8, "type": "LoraLoader", "widgets_values": ["style", 1, 1]},
    ],
    "links": [
        [1, 4, 0, 3, 0, "M"],
        [2, 6, 0, 3, 1, "C"],
        [3, 7, 0, 3, 2, "C"],
        [4, 5, 0, 3, 3, "L"],
    ],
}


def png(**texts: str) -> bytes:
    info, file = PngInfo(), io.BytesIO()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    IMAGE.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def lossy(form: str = "JPEG", said: bytes = b"", tags: Any = None, **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    if said:
        exif.get_ifd(EXIF)[COMMENT] = said
    for tag, text in (tags or {}).items():
        exif[tag] = text
    IMAGE.save(file, format=form, exif=exif.tobytes(), **options)
    return file.getvalue()


def stealthy(content: dict[str, str]) -> bytes:
    """NovelAI's way: bits of a packed JSON in the transparency, from top to bottom."""
    packed = gzip.compress(json.dumps(content).encode())
    data = b"stealth_pngcomp" + (8 * len(packed)).to_bytes(4) + packed
    bits = "".join(f"{byte:08b}" for byte in data)
    image, file = IMAGE.convert("RGBA"), io.BytesIO()
    pixels: Any = image.load()
    for i, bit in enumerate(bits):
        x, y = divmod(i, image.height)
        pixels[x, y] = (*pixels[x, y][:3], 254 | int(bit))
    image.save(file, format="PNG")
    return file.getvalue()


def xmp(inside: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF '
        'xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description '
        f'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:s="sdcpp"{inside}</r:Description>'
        "</r:RDF></x:xmpmeta>"
    )


LINE = (
    "a barn\nNegative prompt: night\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64"
)
SWARM = json.dumps(
    {"sui_image_params": {"prompt": "a barn", "negativeprompt": "night", "seed": 5, "steps": 20}}
)
FOOOCUS = {"adm_guidance": "(1.5, 0.8)", "prompt": "a barn", "negative_prompt": "night"}
EASY = {"prompt": "a barn", "negative_prompt": "night", "num_inference_steps": "20", "seed": "5"}
NOVEL = {"Software": "NovelAI", "Description": "a barn", "Comment": json.dumps(NAI)}
DRAWN = json.dumps({"c": "a barn", "uc": "night", "seed": 5, "steps": 20, "size": "64x64"})
INVOKE = {"positive_prompt": "a barn", "negative_prompt": "night", "seed": 5, "steps": 20}


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("SwarmUI", lambda: png(parameters=SWARM)),
        ("SwarmUI", lambda: lossy(said=b"UNICODE\0" + SWARM.encode("utf-16-be"))),
        ("Fooocus", lambda: png(parameters=json.dumps(FOOOCUS | {"seed": "5", "steps": 20}))),
        ("Fooocus", lambda: png(parameters=f"{LINE}, Version: Fooocus v2.5")),
        ("Easy Diffusion", lambda: png(**EASY)),
        ("Easy Diffusion", lambda: lossy(said=bytes(8) + json.dumps(EASY).encode())),
        ("NovelAI", lambda: png(**NOVEL)),
        ("NovelAI", lambda: stealthy(NOVEL)),
        (
            "Draw Things",
            lambda: png(
                **{"XML:com.adobe.xmp": xmp(f"><exif:UserComment>{DRAWN}</exif:UserComment>")}
            ),
        ),
        ("InvokeAI", lambda: png(invokeai_metadata=json.dumps(INVOKE))),
        (
            "sd-scripts",
            lambda: png(
                prompt="a barn", seed="5", steps="20", sampler="euler", scale="7",
                **{"negative-prompt": "night"},
            ),
        ),
        ("ComfyUI", lambda: png(workflow=json.dumps(EDITOR))),
        ("ComfyUI", lambda: lossy("WEBP", tags={0x010F: f"prompt:{json.dumps(API)}"})),
        ("ComfyUI", lambda: lossy("WEBP", tags={0x0110: f"Workflow:{json.dumps(EDITOR)}"})),
        ("A1111", lambda: lossy(said=b"ASCII\0\0\0" + LINE.encode())),
        ("A1111", lambda: lossy("WEBP", said=b"UNICODE\0" + LINE.encode("utf-16-le"))),
        ("stable-diffusion.cpp", lambda: lossy(comment=CPP.replace("&#10;", "\n").encode())),
        ("stable-diffusion.cpp", lambda: lossy("WEBP", xmp=xmp(f' s:parameters="{CPP}">').encode())),
    ],
)  # fmt: skip
def test_what_other_programs_write(
    put: Callable[[bytes], Path], source: str, content: Callable[[], bytes]
) -> None:
    found = read_settings(put(content()))
    assert (found.source, found.prompt, found.negative) == (source, "a barn", "night")
    named = {name.lower(): text for name, text in found.named.items()}
    assert (named["seed"], named["steps"]) == ("5", "20")


CPP = f"{LINE}, RNG: cuda, Version: stable-diffusion.cpp".replace("\n", "&#10;")


@pytest.mark.parametrize("graph", [API, EDITOR, {"prompt": API}])
def test_a_graph_in_a_file_of_its_own(tmp_path: Path, graph: Any) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    found = read_settings(path)
    assert (found.source, found.prompt, found.negative) == ("ComfyUI", "a barn", "night")
    assert found.named.get("nodes") == ("LoraLoader" if graph is EDITOR else None)


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"nodes": [1]}', '{"nodes": [], "links": [[]]}']
)
def test_a_file_that_is_no_graph(tmp_path: Path, content: str) -> None:
    path = tmp_path / "graph.json"
    path.write_text(content)
    with pytest.raises(UsageError):
        read_settings(path)


@pytest.mark.parametrize(
    "content",
    [
        png(parameters='{"sui_image_params": [1]}'),
        png(parameters='{"sui_image_params": {"prompt": {"a": []}}}'),
        png(invokeai_metadata="[1, 2]"),
        png(Software="NovelAI", Comment="[" * 5000),
        png(workflow='{"nodes": {"id": 1}, "links": 3}'),
        stealthy({"Comment": "x" * 9})[:-200],
        lossy("WEBP", tags={0x010F: "prompt:[]"}),
    ],
)
def test_tables_that_say_nothing(put: Callable[[bytes], Path], content: bytes) -> None:
    with pytest.raises(UsageError):
        read_settings(put(content))
