"""A picture's metadata: a record, and the same as text.

The text follows the grammar of A1111's "parameters" chunk, which other programs read; the record,
as JSON under "diffgen", is complete.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffgen import __version__
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.engine.plan import FAST_EVERY, FAST_FIRST, FAST_PSNR, GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.errors import is_text
from diffgen.settings.names import SPACING_LABELS
from diffgen.settings.picture import Number
from diffgen.settings.sampling import EVERYWHERE
from diffgen.settings.setting import changed, rows

Record = Mapping[str, Any]

FORMAT = 1  # of the record; changes when a key changes its meaning
# A1111's word for where noise comes from, which it leaves out for a GPU's.
A1111_RNG = {"cpu": "CPU", "comfy": "CPU", "a1111-gpu": None}
PASSING = ("timings",)  # left out of files, so that equal commands write equal files
DIGITS, LORA_DIGITS = 10, 12  # of a hash, in A1111's text
# Settings recorded under other keys: single seeds, sampler options, full noise levels.
ELSEWHERE = {*rows(Number), "eta", "s_churn", "timesteps"}
MISLEADING = re.compile(r"(negative prompt|^\s*steps)(?=:)", re.IGNORECASE | re.MULTILINE)


def make_record(
    plan: GeneratePlan,
    picture: Picture,
    *,
    origin: Mapping[str, Any],
    dtype: str,
    device: str,
    cut: str,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """All settings of one picture as plain values; `origin` is an Origin's record."""
    sampling = plan.sampling
    return {
        "format": FORMAT,
        "prompt": picture.prompt,
        **_others(plan.request),
        "negative": plan.request.negative,
        "prompt_style": plan.prompt_style,
        "ignored_words": cut,
        "seed": picture.seed,
        "width": plan.width,
        "height": plan.height,
        **_edited(plan, picture),
        **origin,
        "clip_skip": plan.clip_skip,
        "sampler": sampling.spec.name,
        "schedule": sampling.schedule,
        "steps": sampling.steps_asked,
        "sigmas": None if sampling.schedule else list(sampling.whole),
        "rho": sampling.rho,
        "rng": sampling.rng,
        "options": dict(sampling.options),
        "guidance_scale": plan.guidance_scale,
        "guidance_rescale": plan.request.guidance_rescale,
        "guidance_interval": _interval(plan.request.guidance_interval),
        "fast": _fast() if plan.request.fast else None,
        "dtype": dtype,
        "device": device,
        "version": __version__,
        "libraries": _libraries(),
        "timings": dict(timings),
    }


def _edited(plan: GeneratePlan, picture: Picture) -> dict[str, Any]:
    """The picture a run began with and its edits; `steps_run` counts those left by its strength."""
    found: dict[str, Any] = {}
    if plan.edits is not None:
        found = {"init": plan.edits.paths[picture.init], **plan.edits[picture.init].record}
        found |= {"strength": plan.strength, "steps_run": plan.sampling.steps_run}
    if (second := plan.second) is not None:
        found |= {"hires_strength": second.strength, "hires_size": [second.width, second.height]}
        found |= {"hires_steps": second.sampling.steps_asked}
        found |= {"hires_steps_run": second.sampling.steps_run}
    return found


def _others(request: GenerateRequest) -> dict[str, Any]:
    """Settings without a key of their own in `make_record`, where they differ from the default."""
    found = changed(request)
    return {name: value for name, value in found.items() if name not in ELSEWHERE}


def parameters_text(record: Record) -> str:
    """The record in A1111's grammar: prompt, negative prompt, then one line of settings."""
    lines = [_unmistakable(record["prompt"])]
    if record["negative"]:
        lines.append(f"Negative prompt: {_unmistakable(record['negative'])}")
    pairs = (f"{name}: {_quoted(value)}" for name, value in _settings(record) if value is not None)
    # Names of files may hold bytes that are no text.
    return "\n".join([*lines, ", ".join(pairs)]).encode("utf-8", "replace").decode()


def text_chunks(record: Record) -> dict[str, str]:
    """The text chunks of a PNG, by keyword."""
    return {"parameters": parameters_text(record), "diffgen": record_text(record)}


def record_text(record: Record, *, ascii_only: bool = False) -> str:
    """The record as JSON, without the timings, so that equal commands write equal files."""
    lasting = {key: value for key, value in record.items() if key not in PASSING}
    text = json.dumps(lasting, ensure_ascii=ascii_only)
    # Bytes of a command line that are no text.
    return text if is_text(text) else json.dumps(lasting)


def _settings(record: Record) -> list[tuple[str, object]]:
    low, high = record["guidance_interval"] or (None, None)
    listed = record["sigmas"]
    schedule = record["schedule"]
    return [
        ("Steps", record["steps"]),
        ("Sampler", SAMPLERS[record["sampler"]].label),
        ("Schedule type", schedule and SPACING_LABELS[schedule]),
        ("CFG scale", f"{record['guidance_scale']:g}"),
        ("Seed", record["seed"]),
        ("Clip skip", None if record["clip_skip"] == 1 else record["clip_skip"]),
        ("Denoising strength", _plain(record.get("strength", record.get("hires_strength")))),
        ("Hires upscale", record.get("hires")),
        ("Size", f"{record['width']}x{record['height']}"),
        ("Model hash", _short(record["model_files"], record["model_path"])),
        ("Model", _name(record["model"])),
        ("VAE hash", _short(record["vae_files"], record["vae"])),
        ("VAE", record["vae"] and _name(Path(record["vae"]).name)),
        ("Lora", " ".join(map(_lora, record["loras"])) or None),
        ("Lora hashes", ", ".join(filter(None, map(_lora_hash, _all_loras(record)))) or None),
        *((name.replace("_", " ").capitalize(), f"{v:g}") for name, v in record["options"].items()),
        ("Towards", record.get("towards")),
        ("RNG", A1111_RNG[record["rng"]]),
        ("Rho", record["rho"]),
        ("Sigmas", listed and " ".join(f"{sigma:.6g}" for sigma in listed)),
        ("CFG Rescale phi", record["guidance_rescale"] or None),
        ("Guidance schedule", record.get("guidance_schedule")),
        ("Guidance method", record.get("guidance_method")),
        ("PAG scale", record.get("pag")),
        ("Guidance interval", None if low is None else f"{low:g} to {high or math.inf:g}"),
        ("Fast", record["fast"] and f"DeepCache {record['fast']['every']}"),
        ("Precision", record["dtype"]),
        ("Version", f"diffgen {record['version']}"),
    ]


@cache
def _libraries() -> dict[str, str]:
    """Versions of what computes a picture, without importing it."""
    return {name: version(name) for name in ("torch", "tokenizers")}


def _fast() -> dict[str, float]:
    """What was reused, and its measured distance from the exact picture."""
    return {"first": FAST_FIRST, "every": FAST_EVERY, "psnr_on_storybook": FAST_PSNR}


def _all_loras(record: Record) -> list[Mapping[str, Any]]:
    return [*record["loras"], *record.get("prompt_loras", [])]


def _lora(entry: Mapping[str, Any]) -> str:
    return f"{_name(Path(entry['file']).stem)}:{entry['weight']:g}"


def _lora_hash(entry: Mapping[str, Any]) -> str | None:
    known = entry["data_sha256"]
    return known and f"{_name(Path(entry['file']).stem)}: {known[:LORA_DIGITS]}"


def _plain(number: float | None) -> str | None:
    return None if number is None else f"{number:g}"


def _short(files: Mapping[str, str | None] | None, path: str | None) -> str | None:
    """The short hash of a single file; for folders no such convention exists."""
    known = files.get(Path(path).name) if files and path else None
    return known and known[:DIGITS]


def _name(text: str) -> str:
    """A file's name without the grammar's punctuation, as A1111 writes it: few readers unquote."""
    return re.sub(r'[,:"\n\r]', "", text)


def _unmistakable(text: str) -> str:
    """A prompt in which no reader mistakes a line for the next field.

    The grammar has no quotes for prompts. A space before the colon keeps the text readable and
    CLIP's tokens the same.
    """
    return MISLEADING.sub(r"\1 ", text).replace("\0", " ").encode("utf-8", "replace").decode()


def _quoted(value: object) -> str:
    """Quote values that hold the grammar's punctuation, as JSON strings."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:\n"') else text


def _interval(interval: tuple[float, float]) -> list[float | None] | None:
    """A guidance interval, None if it is everything. JSON has no infinity: an open end is None."""
    low, high = interval
    if interval == EVERYWHERE:
        return None
    return [low, high if math.isfinite(high) else None]
