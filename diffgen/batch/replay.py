"""Translate the settings of pictures by any program; unsupported ones are reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.batch.learned_words import learned_words
from diffgen.batch.requests import GROUPS, from_record, read_values
from diffgen.engine.others import PictureSettings
from diffgen.engine.reading import read_settings
from diffgen.errors import DiffgenError, UsageError, one_line
from diffgen.settings.grammar import parse_variation
from diffgen.settings.names import parse_sampler
from diffgen.settings.setting import find

# Keys of other programs without effect, or covered by another key.
SILENT = {
    *("version", "model hash", "lora hashes", "vae hash", "ti hashes", "hashes", "size", "rng"),
    *("precision", "user", "app", "model", "ensd", "sdcpp"),
}
OTHER_WORDS = {
    "scheduler": "schedule",
    "cfg_scale": "guidance_scale",
    "uc": "negative",
    "noise_seed": "seed",
}
# Whose noise a seed gave, where it is known; A1111's by what it writes.
RNG = {"ComfyUI": "comfy", "SwarmUI": "comfy", "Fooocus": "comfy"}
RNG_SAID = {"CPU": "cpu", "NV": "a1111-gpu", "": "a1111-gpu", "cuda": "a1111-gpu"}
OWN_NOISE = ("NovelAI", "Draw Things")
STYLES = {"ComfyUI": "comfy", "SwarmUI": "comfy", "InvokeAI": "compel"}
# A1111's schedule of a sampler where "Automatic" is chosen; for its others k-diffusion's, which is
# also meant where none is named.
AUTOMATIC = {
    **dict.fromkeys(("dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m", "dpmpp_sde"), "karras"),
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_3m_sde"), "exponential"),
}
K_DIFFUSION = (*AUTOMATIC, "euler", "euler_a", "heun", "lms")
SIZE = re.compile(r"\(?(\d{1,5})\s*[x,]\s*(\d{1,5})\)?")
# What asks for nothing, by the value.
USUAL = {
    "denoise": ("1", "1.0"),
    "eta": ("0", "0.0", "0.000000"),
    "strength": ("1", "1.0"),
    "add_noise": ("enable",),
    "start_at_step": ("0",),
    "end_at_step": ("10000",),
    "return_with_leftover_noise": ("disable",),
}


@dataclass(frozen=True, slots=True)
class Replay:
    """A picture's settings, among them `prompt`, and messages about those not honoured."""

    source: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def replay(path: Path) -> Replay:
    """The settings that redraw a picture. Raises UsageError for one without any."""
    found = read_settings(path)
    if found.record is not None:
        return Replay(found.source, _known(from_record(found.record)))
    return _translated(found)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _translated(found: PictureSettings) -> Replay:
    settings: dict[str, Any] = {"prompt": found.prompt}
    if found.negative:
        settings["negative"] = found.negative
    notes: list[str] = []
    named = _second_pass(found.named)
    settings["rng"] = _rng(found.source, named, notes)
    if style := STYLES.get(found.source if "(" in f"{found.prompt}{found.negative}" else ""):
        settings["prompt_style"] = style
    if size := SIZE.fullmatch(named.pop("Size", "")):
        settings |= {"width": int(size[1]), "height": int(size[2])}
    settings |= _variation(named)
    if embeddings := learned_words(named, notes):
        settings["embeddings"] = embeddings
    for name, text in named.items():
        if name.lower() == "model":
            _add_model(settings, text, notes)
        elif name.lower() not in SILENT and text not in USUAL.get(name.lower(), ()):
            _add(settings, name, text, notes)
    if found.source in ("A1111", "stable-diffusion.cpp"):
        _settle_schedule(settings, named)
    return Replay(found.source, settings, tuple(notes))


def _rng(source: str, named: dict[str, str], notes: list[str]) -> str:
    said = named.pop("RNG", "")
    if source in OWN_NOISE:
        notes.append(f"{source} draws noise of its own: its seed gives another picture here")
    if source not in ("A1111", "stable-diffusion.cpp"):
        return RNG.get(source, "cpu")
    if said not in (*RNG_SAID, "cpu"):
        notes.append(f"RNG: {one_line(said, 80)} is not honoured: its noise is not known here")
    return RNG_SAID.get(said, "cpu")


def _second_pass(named: Mapping[str, str]) -> dict[str, str]:
    """What A1111 calls hires fix, whose strength it calls as that of a picture to begin with."""
    words = {"Hires upscale": "hires", "Hires resize": "hires"}
    if not set(words) & set(named):
        return dict(named)
    words["Denoising strength"] = "hires denoising strength"
    factor = named.get("Hires upscale")
    given = {"hires": f"{factor}x"} if factor else {}  # first: others are about it
    return given | {words.get(n, n): text for n, text in named.items() if n != "Hires upscale"}


def _variation(named: dict[str, str]) -> dict[str, Any]:
    """A1111's second seed and how far the noise is turned towards it."""
    seed, share = (named.pop(f"Variation seed{what}", "") for what in ("", " strength"))
    try:
        return {"variation": parse_variation("", f"{seed}:{share}")} if seed and share else {}
    except UsageError:
        named |= {"Variation seed strength": share}  # to be told
        return {}


def _settle_schedule(settings: dict[str, Any], named: Mapping[str, str]) -> None:
    """Name the schedule that is meant where none is."""
    if "schedule" in settings or "sampler" not in settings:
        return
    sampler, schedule = parse_sampler(settings["sampler"])
    if schedule is None and sampler in K_DIFFUSION:
        automatic = named.get("Schedule type") == "Automatic"
        settings["schedule"] = AUTOMATIC.get(sampler, "normal") if automatic else "normal"


def _add(settings: dict[str, Any], name: str, text: str, notes: list[str]) -> None:
    row = find(OTHER_WORDS.get(name.lower(), name), *GROUPS)
    said = one_line(f"{name}: {text}", 80)
    if row is None:
        notes.append(f"{said} is not honoured: there is no such setting here")
    elif row.name == "strength":
        notes.append(f"{said} is not honoured: the picture it began with is not in the file")
    elif row.name not in settings and (row.name, text) != ("schedule", "Automatic"):
        try:
            (settings[row.name],) = read_values(row, _respelled(row.name, text), name)
        except (UsageError, ValueError) as error:
            notes.append(f"{said} is not honoured: {error}")


def _respelled(setting: str, text: str) -> str:
    """Other programs' values in diffgen's spelling."""
    if setting == "hires_upscaler":
        return text.lower() if text == "Latent" else text
    if setting == "seamless" and text.lower() == "true":
        return "xy"
    if setting == "sampler":  # InvokeAI's mark of karras, and k-diffusion's
        text = re.sub(r"_k$", " karras", text)
        return text.removeprefix("k_") if text.startswith("k_dpmpp") else text
    return text


def _add_model(settings: dict[str, Any], name: str, notes: list[str]) -> None:
    from diffgen.weights.finding import resolve

    try:
        resolve(name)
        settings["model"] = name
    except DiffgenError:
        said = one_line(name, 80)
        notes.append(f"the model {said} is not here; -m names another")
