"""Translate the settings of pictures by any program; unsupported ones are reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.batch.requests import GROUPS, from_record, read_values
from diffgen.engine.reading import PictureSettings, read_settings
from diffgen.errors import DiffgenError, UsageError, one_line
from diffgen.settings.setting import find

# Keys of other programs without effect, or covered by another key.
SILENT = {
    *("version", "model hash", "lora hashes", "vae hash", "ti hashes", "hashes", "size", "rng"),
    *("precision", "user", "app", "model"),
}
OTHER_WORDS = {"scheduler": "schedule", "cfg_scale": "guidance_scale", "uc": "negative"}
A1111_RNG = {"CPU": "cpu", "NV": "a1111-gpu", "": "a1111-gpu"}


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
    settings["rng"] = _rng(found)
    width, _, height = found.named.get("Size", "").partition("x")
    if width.isdigit() and height.isdigit():
        settings |= {"width": int(width), "height": int(height)}
    for name, text in found.named.items():
        if name.lower() == "model":
            _add_model(settings, text, notes)
        elif name.lower() not in SILENT:
            _add(settings, name, text, notes)
    return Replay(found.source, settings, tuple(notes))


def _rng(found: PictureSettings) -> str:
    if found.source == "A1111":
        return A1111_RNG.get(found.named.get("RNG", ""), "cpu")
    return "comfy" if found.source == "ComfyUI" else "cpu"


def _add(settings: dict[str, Any], name: str, text: str, notes: list[str]) -> None:
    row = find(OTHER_WORDS.get(name.lower(), name), *GROUPS)
    said = one_line(f"{name}: {text}", 80)
    if row is None:
        notes.append(f"{said} is not honoured: there is no such setting here")
    elif row.name == "strength":
        notes.append(f"{said} is not honoured: the picture it began with is not in the file")
    elif row.name not in settings:
        try:
            (settings[row.name],) = read_values(row, text, name)
        except (UsageError, ValueError) as error:
            notes.append(f"{said} is not honoured: {error}")


def _add_model(settings: dict[str, Any], name: str, notes: list[str]) -> None:
    from diffgen.weights.finding import resolve

    try:
        resolve(name)
        settings["model"] = name
    except DiffgenError:
        said = one_line(name, 80)
        notes.append(f"the model {said} is not here; -m names another")
