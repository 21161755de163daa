"""`diffgen samplers`: the registry as a table."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import print_json, print_result, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from diffgen.diffusion.samplers.spec import SamplerSpec

SACRIFICE = ("source", "order", "settings", "known as", "noise")  # for a narrow terminal


def samplers(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the samplers, the schedules and the rules of guidance."""
    from diffgen.diffusion.guidance import GUIDANCE
    from diffgen.diffusion.samplers import SAMPLERS
    from diffgen.settings.names import SPACING_NAMES

    if as_json:
        known = [_values(spec) for spec in SAMPLERS.values()]
        rules = [asdict(rule) for rule in GUIDANCE.values()]
        print_json({"samplers": known, "schedules": list(SPACING_NAMES), "guidance": rules})
        return
    print_table(_table, SACRIFICE)
    line = f"schedules: {', '.join(SPACING_NAMES)}"
    print_result("")
    for rule in GUIDANCE.values():
        told = f"guidance {rule.name}, {rule.evaluations} evaluations a step: {rule.equation}"
        told += f" ({rule.paper})"
        print_result(_wrapped(told) if sys.stdout.isatty() else told)
    print_result("")
    print_result(_wrapped(line) if sys.stdout.isatty() else line)


def _values(spec: SamplerSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "order": spec.order,
        "evals_per_step": None if spec.nfe is None else spec.evals_per_step,
        "noise": spec.noise,
        "settings": dict(spec.options),
        "label": spec.label,
        "source": spec.paper,
    }


def _table(left_out: Sequence[str]) -> Table:
    from rich.table import Table

    from diffgen.diffusion.samplers import SAMPLERS

    rows = [_row(spec) for spec in SAMPLERS.values()]
    names = [name for name in rows[0] if name not in left_out]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _row(spec: SamplerSpec) -> dict[str, str]:
    settings = " ".join(f"{name}={value:g}" for name, value in spec.options.items())
    return {
        "name": spec.name,
        "order": str(spec.order),
        "evals/step": "adaptive" if spec.nfe is None else str(spec.evals_per_step),
        "noise": "-" if spec.noise == "none" else spec.noise,
        "settings": settings or "-",
        "known as": spec.label,
        "source": spec.paper,
    }


def _wrapped(line: str) -> str:
    return textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent="  ")
