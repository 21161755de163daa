"""Redraw pictures at a larger size, as `generate --init FILE --strength 0 --hires 2x` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.batch.plan import BatchPlan
from diffgen.batch.replay import replay
from diffgen.batch.requests import INSTEAD, read_typed, variants
from diffgen.batch.session import Session, empty_plan, style_of
from diffgen.engine.output import PictureOutput
from diffgen.engine.pictures import Source
from diffgen.errors import UsageError
from diffgen.settings.editing import Editing, Enlarging
from diffgen.settings.output import Output
from diffgen.settings.picture import Size
from diffgen.settings.prompting import Reading
from diffgen.settings.setting import rows

# Settings that describe the original's own source and size.
OF_ITS_OWN = {*rows(Editing), *rows(Enlarging), *rows(Size), "count"}
TWICE = "2x"


def open_upscaling(files: Sequence[Path], given: Mapping[str, Any]) -> Session:
    """Parse a command: pictures to enlarge, and typed settings by field name.

    A picture's own settings apply where none were typed. Raises UsageError, PictureError for a file
    that is no picture, and DiffgenError for a model that cannot be opened.
    """
    reading, output = Reading.of(given), Output.of(given)
    hires = str(given.get("hires") or TWICE)
    if "template" not in given:
        output = replace(output, template=f"{{prompt:40}}-{{seed}}-{hires}.{{ext}}")
    style = style_of(output)
    left_out = {*rows(Editing), "width", "height"}
    base = read_typed({name: value for name, value in given.items() if name not in left_out})
    base = {**base, "hires": base.get("hires", [TWICE]), "strength": [0.0]}
    plan = empty_plan(given, reading, style)
    notes: list[str] = []
    for line, file in enumerate(files, 1):
        image = Source.read(str(file)).image
        settings, said = _described(file, reading.texts, base)
        notes += said
        _add(plan, line, {**settings, "init": str(file)}, base, image.size)
    sink = PictureOutput(output.output, pictures=plan.count, style=style)
    session = Session(given, reading, base, plan, sink, style, notes=tuple(notes))
    session.check_names()
    return session


def _described(
    file: Path, texts: Sequence[str], base: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The settings that redraw a picture, among them `prompt`, and notes on them."""
    typed = set(base) | {other for name in base for other in INSTEAD.get(name, ())} | OF_ITS_OWN
    try:
        found = replay(file)
    except UsageError:
        known: dict[str, Any] = {"prompt": ""}
        nothing = f"{file} does not say how it was made; --prompt says what it shows"
        notes = [] if texts else [nothing]
    else:
        known = {name: value for name, value in found.settings.items() if name not in typed}
        notes = [f"{file}: {note}" for note in found.notes]
    return known | ({"prompt": list(texts)} if texts else {}), notes


def _add(
    plan: BatchPlan,
    line: int,
    settings: Mapping[str, Any],
    base: Mapping[str, Sequence[Any]],
    size: tuple[int, int],
) -> None:
    """Plan a picture at its own size, less what does not fill the latents of its model."""
    first = next(iter(variants(line, settings, base)))
    factor = plan.settler.stock(first.given)[1].model.checkpoint.config.factor
    width, height = (max(factor, side // factor * factor) for side in size)
    if problem := plan.add(line, {**settings, "width": width, "height": height}, base):
        raise problem.error or UsageError(problem.message)
