"""`diffgen models`: registered models and those on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from diffgen.cli.console import print_json, print_table
from diffgen.errors import in_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from diffgen.weights.listing import Listed

SACRIFICE = ("where", "licence", "about", "kind")  # for a narrow terminal


def models(
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Only model, lora, vae, decoder or embedding."),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only what is on this machine.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that are known by name or on this machine."""
    from diffgen.weights.listing import list_models, parse_kind

    listed = list_models(parse_kind(kind), here=here)
    if as_json:
        print_json({"models": [asdict(each) | {"path": _path(each)} for each in listed]})
        return
    print_table(lambda left_out: _table(listed, left_out), SACRIFICE)


def _path(each: Listed) -> str | None:
    return None if each.path is None else str(each.path)


def _table(listed: Sequence[Listed], left_out: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    rows = [_row(each) for each in listed]
    names = [name for name in _row_names() if name not in left_out]
    for name in names:
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _row_names() -> tuple[str, ...]:
    return ("name", "here", "size", "family", "kind", "licence", "about", "where")


def _row(each: Listed) -> dict[str, str]:
    from diffgen.errors import one_line

    cells = {
        "name": each.name,
        "here": "yes" if each.path else "-",
        "size": in_bytes(each.size) if each.size is not None else "?",
        "family": each.family or "?",
        "kind": each.kind or "?",
        "licence": each.license or "-",
        "about": each.description or each.trouble or "-",
        "where": str(each.path) if each.path else "-",
    }
    return {name: one_line(cell, 80) for name, cell in cells.items()}
