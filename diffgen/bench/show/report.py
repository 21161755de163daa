"""report.html: the whole sweep in one file that needs no network and no server.

The page is a skeleton, a style sheet and JavaScript modules (`diffgen/assets/report`), joined into
one, with the results embedded as JSON. The scripts set text, never markup, so a prompt cannot
inject any.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from diffgen.bench.answer import RULE
from diffgen.bench.limits import by_solution
from diffgen.bench.pictures import KEPT
from diffgen.bench.results import Cell, Recommendation, Results, Statistic
from diffgen.bench.show import views
from diffgen.bench.show.views import DASH, Series
from diffgen.settings.axes import NONE, value_text
from diffgen.settings.sweep import BY_LABEL

SCRIPTS = ("data.js", "page.js", "dialog.js", "plot.js", "table.js", "sheet.js", "main.js")
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
# Label, unit, digits, whether more is better, whether the axis is logarithmic, and a description.
METRICS: Mapping[str, tuple[str, str, int, bool, bool, str]] = {
    "psnr": ("PSNR", "dB", 1, True, False, "against the converged picture of the same seed"),
    "ssim": ("SSIM", "", 3, True, False, "structural similarity, 1 where pictures are equal"),
    "latent_rmse": ("Latent RMSE", "", 3, False, True, "distance in latent space, less is better"),
    "clip": ("CLIP score", "", 2, True, False, "agreement of the picture with its prompt"),
}
SHOWN_VALUES = 32
BESIDE = ("results.csv", "results.json", "plots.png", "sheet.png")


def write_report(results: Results, folder: Path) -> Path:
    """Write report.html into the folder, with the pictures in its `cells`.

    Raises OutputError.
    """
    parts = {
        "title": html.escape(f"sample-steps: {results.model}"),
        "style": _asset("report.css"),
        "data": _script_value(_page(results, folder)),
        "script": "\n".join(_joined(_asset(name)) for name in SCRIPTS),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("report.html"))
    return views.write_file(
        folder / "report.html", lambda path: path.write_text(page, encoding="utf-8")
    )


def _asset(name: str) -> str:
    return (resources.files("diffgen") / "assets" / "report" / name).read_text(encoding="utf-8")


def _joined(module: str) -> str:
    """A module as a part of one script: names are unique, and a file:// page may not import."""
    return _EXPORT.sub("", _IMPORT.sub("", module))


def _script_value(value: object) -> str:
    """JSON that is safe inside <script>, whatever the strings contain."""
    return json.dumps(value, separators=(",", ":"), default=str).replace("<", "\\u003c")


def _page(results: Results, folder: Path) -> dict[str, Any]:
    """The page's data as plain values; texts are formatted."""
    series = views.all_series(results)
    return {
        "model": results.model,
        "created": results.created,
        "prompts": _strings(results.settings.get("prompts")),
        "shown": {
            "prompt": views.first_prompt(results.settings),
            "seed": views.first_seed(results.settings),
        },
        "answer": results.recommendation.sentence if results.recommendation else None,
        "command": results.recommendation.command if results.recommendation else None,
        "others": [_advice(one) for one in results.other_recommendations],
        "rule": RULE,
        "notes": list(results.notes),
        "files": _files(folder),
        "machine": _machine_facts(results),
        "settings": _settings(results.settings),
        "metrics": [
            _metric(name) for name in METRICS if any(getattr(c, name) for c in results.cells)
        ],
        "references": {name: _reference(results, name, folder) for name in results.references},
        "axes": views.axes_of(results),
        "solving": [label for label in views.axes_of(results) if BY_LABEL[label].solves],
        "series": [_series(results, one) for one in series],
        "ticks": views.TICKS,
        "keys": {"front": views.FRONT, "recommended": views.RECOMMENDED},
        "steps": sorted({cell.steps for cell in results.cells}),
        "cells": {
            cell.key: _cell(results, cell, number, folder)
            for number, one in enumerate(series)
            for cell in one.cells
        },
        "order": [cell.key for cell in views.by_cost(results.cells)],
        "fronts": _fronts(results),
        "recommended": results.recommendation.cell if results.recommendation else None,
    }


def _advice(advice: Recommendation) -> dict[str, str]:
    return {"cell": advice.cell, "sentence": advice.sentence, "command": advice.command}


def _fronts(results: Results) -> list[list[str]]:
    """The keys on the Pareto front of each solution."""
    cells = {cell.key: cell for cell in results.cells}
    found = [cells[key] for key in results.front if key in cells]
    return [[cell.key for cell in front] for front in by_solution(found)]


def _files(folder: Path) -> list[str]:
    """The files beside the report: those of every sweep, then the films."""
    films = folder.glob("trajectory-*")
    return [*BESIDE, *sorted(film.name for film in films if film.suffix in (".png", ".gif"))]


def _metric(name: str) -> dict[str, Any]:
    label, unit, _, more_is_better, logarithmic, meaning = METRICS[name]
    return {
        "name": name,
        "label": label,
        "unit": unit,
        "moreIsBetter": more_is_better,
        "logarithmic": logarithmic,
        "meaning": meaning,
    }


def _series(results: Results, series: Series) -> dict[str, Any]:
    return {
        "sampler": series.sampler,
        "schedule": series.schedule,
        "at": series.at,
        "label": series.label,
        "colour": series.colour,
        "dashes": " ".join(map(str, series.dashes)) or None,
        "knee": results.knees.get(series.key),
        "cells": {cell.steps: cell.key for cell in series.cells},
        "reference": series.cells[0].limit,
    }


def _reference(results: Results, name: str, folder: Path) -> dict[str, Any]:
    reference = results.references[name]
    return {
        "title": reference.title or name,
        "shared": reference in views.common_references(results, results.cells),
        "label": views.reference_label(reference),
        "picture": _picture(views.reference_file(folder, name)),
        "checkedWith": reference.checked_with,
        "floor": {
            "psnr": reference.floor_psnr,
            "ssim": reference.floor_ssim,
            "latent_rmse": reference.floor_latent_rmse,
        },
        "floorText": f"PSNR {reference.floor_psnr:.1f} dB, SSIM {reference.floor_ssim:.4f}, "
        f"latent RMSE {reference.floor_latent_rmse:.2g}",
    }


def _cell(results: Results, cell: Cell, series: int, folder: Path) -> dict[str, Any]:
    statistics = {name: getattr(cell, name) for name in METRICS}
    values = {name: s.mean for name, s in statistics.items() if s}
    seconds = {"seconds": cell.seconds.median} if cell.seconds else {}
    return {
        "series": series,
        "sampler": cell.sampler,
        "schedule": cell.schedule,
        "steps": cell.steps,
        "at": {label: value_text(value) for label, value in cell.at.items()},
        "status": cell.status,
        "reason": cell.reason,
        "values": {"nfe": cell.nfe, "steps": cell.steps} | seconds | values | _plain_at(cell),
        "spread": {name: s.ci95 for name, s in statistics.items() if s},
        "text": {name: _statistic(name, s) for name, s in statistics.items()}
        | {
            "nfe": str(cell.nfe),
            "seconds": views.seconds_text(cell.seconds.median) if cell.seconds else DASH,
            "plainSeconds": views.plain_seconds(cell.seconds),
        },
        "numbers": _numbers(cell),
        "settings": _settings(cell.settings),
        "pictures": _each_picture(cell),
        "shownPsnr": f"{cell.psnr.values[0]:.1f} dB" if cell.psnr else "",
        "picture": _picture(views.picture_file(folder, cell)),
        "more": _more_pictures(results, cell, folder),
        "reference": views.reference_name(results, cell),
    }


def _plain_at(cell: Cell) -> dict[str, float | str]:
    """The values on the further axes as sort keys."""
    return {
        label: value_text(value) if isinstance(value, bool) else value
        for label, value in cell.at.items()
    }


def _more_pictures(results: Results, cell: Cell, folder: Path) -> list[dict[str, Any]]:
    """The stored pictures after the first, as links: embedding them would bloat the page."""
    name = views.reference_name(results, cell)
    more = []
    for number, label in enumerate(views.picture_labels(results.settings)[:KEPT]):
        path = views.picture_file(folder, cell, number) if number else None
        if path:
            converged = None if name is None else views.reference_file(folder, name, number)
            values = cell.psnr.values if cell.psnr else ()
            psnr = f", {values[number]:.1f} dB" if number < len(values) else ""
            more.append(
                {
                    "label": f"{label}{psnr}",
                    "file": path.relative_to(folder).as_posix(),
                    "converged": converged and converged.relative_to(folder).as_posix(),
                }
            )
    return more


def _numbers(cell: Cell) -> list[tuple[str, str]]:
    """The numbers of a cell in the dialog, as far as they were measured."""
    rows = [
        ("Network evaluations", str(cell.nfe)),
        ("Sampling", views.timing_text(cell.seconds)),
        (
            "Decoding",
            DASH if cell.decode_seconds is None else views.seconds_text(cell.decode_seconds),
        ),
        ("Peak memory", views.memory_text(cell.peak_memory)),
        *((METRICS[name][0], _statistic(name, getattr(cell, name))) for name in METRICS),
        ("Noise", "stochastic" if cell.stochastic else "deterministic"),
    ]
    return [row for row in rows if row[1] != DASH]


def _statistic(name: str, statistic: Statistic | None) -> str:
    _, unit, digits, *_ = METRICS[name]
    text = views.statistic_text(statistic, digits)
    return f"{text} {unit}" if unit and statistic else text


def _each_picture(cell: Cell) -> str:
    """PSNR of every single picture: a mean hides an outlier."""
    if not cell.psnr or len(cell.psnr.values) < 2:
        return ""
    shown = [f"{value:.1f}" for value in cell.psnr.values[:SHOWN_VALUES]]
    return ", ".join(shown) + (", ..." if len(cell.psnr.values) > SHOWN_VALUES else "")


def _machine_facts(results: Results) -> list[tuple[str, str]]:
    machine = results.machine
    return [
        ("Device", f"{machine.device}, {machine.dtype}"),
        ("Threads", str(machine.threads)),
        ("Platform", machine.platform),
        *((name, version) for name, version in machine.versions.items()),
        ("Text encoding", f"{views.seconds_text(results.text_seconds)}, once for all cells"),
    ]


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _settings(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """The settings as text; None was the model's choice."""
    return [(name, _plain(value)) for name, value in settings.items() if value is not None]


def _plain(value: object) -> str:
    """A setting as a readable text."""
    if isinstance(value, list | tuple):
        return ", ".join(
            " + ".join(item) or NONE if isinstance(item, list) else _plain(item) for item in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _picture(path: Path | None) -> str | None:
    """A picture as a data URL."""
    if path is None:
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
