"""Settings that other programs keep as flat tables of names and values, and ComfyUI's graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from diffgen.engine.texts import DRAW_THINGS
from diffgen.errors import ConfigError
from diffgen.jsonfile import parse_json

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How a picture was made.

    `named` holds settings as text under the names that `source` uses; diffgen's own pictures have a
    `record` instead.
    """

    source: str
    prompt: str
    negative: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    record: Table | None = None


@dataclass(frozen=True, slots=True)
class Flat:
    """A program's table: where it is, and which of its names mean what.

    `names` gives it the words that `diffgen.batch.replay` looks up; an empty one is dropped, as
    what asks for nothing. All others stay as they are.
    """

    source: str
    find: Callable[[Mapping[str, str]], Any]
    names: Mapping[str, str]

    def read(self, texts: Mapping[str, str]) -> PictureSettings | None:
        """The settings, if there are any with a prompt."""
        table = self.find(texts)
        if not isinstance(table, dict):
            return None
        named: dict[str, str] = {}
        for name, value in table.items():
            word = self.names.get(name, name)
            if word and (text := _text(value)):
                named.setdefault(word, text)
        prompt = named.pop("prompt", None)
        if prompt is None:
            return None
        return PictureSettings(self.source, prompt, named.pop("negative", None), named)


def read_others(texts: Mapping[str, str]) -> PictureSettings | None:
    """What the first program says that has a table among the texts."""
    return next(filter(None, (flat.read(texts) for flat in PROGRAMS)), None)


def _json(text: str | None) -> Any:
    if text and text.lstrip().startswith("{"):
        with suppress(ConfigError):
            return parse_json(text, "a text of the picture")
    return None


def _text(value: Any) -> str:
    """A value as text; a table's name, as models have one; nothing for what is off or a list."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("model_name")
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if plain else ""


def _swarm(texts: Mapping[str, str]) -> Any:
    found = _json(texts.get("parameters"))
    return found.get("sui_image_params") if isinstance(found, dict) else None


def _fooocus(texts: Mapping[str, str]) -> Any:
    found = _json(texts.get("parameters"))
    ours = isinstance(found, dict) and {"base_model", "adm_guidance"} & set(found)
    return found if ours else None


def _easy(texts: Mapping[str, str]) -> Any:
    found = _json(texts.get("parameters")) or texts
    return found if "num_inference_steps" in found else None


def _sd_scripts(texts: Mapping[str, str]) -> Any:
    return texts if {"prompt", "scale", "sampler", "steps"} <= set(texts) else None


def _novelai(texts: Mapping[str, str]) -> Any:
    if texts.get("Software") != "NovelAI" and "NovelAI" not in texts.get("Source", ""):
        return None
    found = _json(texts.get("Comment"))
    if not isinstance(found, dict):
        return None
    begun = found.get("request_type") in ("Img2ImgRequest", "NativeInfillingRequest")
    kept = {name: v for name, v in found.items() if begun or name != "strength"}
    return {"prompt": texts.get("Description")} | kept | {"model": texts.get("Source")}


def _draw_things(texts: Mapping[str, str]) -> Any:
    return _json(texts.get(DRAW_THINGS))


def _invokeai(texts: Mapping[str, str]) -> Any:
    return _json(texts.get("invokeai_metadata"))


PROGRAMS = (
    Flat(
        "SwarmUI",
        _swarm,
        {"negativeprompt": "negative", "cfgscale": "guidance", "images": "", "aspectratio": ""}
        | {"swarm_version": "", "initimagecreativity": "strength", "automaticvae": ""},
    ),
    Flat(
        "Fooocus",
        _fooocus,
        {"negative_prompt": "negative", "base_model": "model", "resolution": "Size"}
        | {"base_model_hash": "", "metadata_scheme": "", "created_by": "", "performance": ""}
        | {"full_prompt": "", "full_negative_prompt": "", "prompt_expansion": ""},
    ),
    Flat(
        "Easy Diffusion",
        _easy,
        {"negative_prompt": "negative", "num_inference_steps": "steps", "num_outputs": ""}
        | {"use_stable_diffusion_model": "model", "sampler_name": "sampler", "output_format": ""}
        | {"prompt_strength": "strength", "use_vae_model": "vae", "output_quality": ""},
    ),
    Flat("sd-scripts", _sd_scripts, {"negative-prompt": "negative", "scale": "guidance"}),
    Flat(
        "NovelAI",
        _novelai,
        {"uc": "negative", "scale": "guidance", "noise_schedule": "schedule", "n_samples": ""}
        | {"signed_hash": "", "noise": "", "version": "", "request_type": "", "legacy": ""},
    ),
    Flat(
        "Draw Things",
        _draw_things,
        {"c": "prompt", "uc": "negative", "scale": "guidance", "size": "Size", "seed_mode": ""},
    ),
    Flat(
        "InvokeAI",
        _invokeai,
        {"positive_prompt": "prompt", "negative_prompt": "negative", "scheduler": "sampler"}
        | {"app_version": "", "generation_mode": "", "rand_device": ""},
    ),
)
