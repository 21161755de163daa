"""`diffgen inspect`: the kind and contents of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import print_json, print_note, print_result
from diffgen.errors import in_bytes, one_line, shown, some

if TYPE_CHECKING:
    from diffgen.weights.inspection import Component, Fit, Report

FAMILIES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
METADATA_SHOWN = 12
WIDTH = 16  # of the first column


def inspect(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|DIR|NAME", help="A weights file, a model's folder, a name."),
    ],
    hashes: Annotated[
        bool, typer.Option("--hash", help="Tell the sha256 of each file, which reads them whole.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Name tensors that a model lacks, or has too many."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a weights file or a model is, without loading it."""
    from diffgen.weights.inspection import inspect as look

    report = look(source, hashes=hashes, check=check)
    if as_json:
        print_json(asdict(report) | {"path": str(report.path)})
    else:
        for line in _lines(report):
            print_result(line)
    if report.trouble:
        print_note(f"it cannot be used as it is: {report.trouble}")


def _lines(report: Report) -> Iterator[str]:

    yield _line("file", report.path)
    yield _line("what", ", ".join(_what(report)))
    yield _line("size", in_bytes(report.size))
    if report.known_as:
        yield _line("known as", f"{report.known_as}, licence: {report.license}")
    for component in report.components:
        yield _line(component.name, _numbers(component))
    for name, value in {**report.settings, **report.adapter}.items():
        if value is not None:
            yield _line(name.replace("_", " "), _value(value))
    for note in report.notes:
        yield _line("note", note)
    yield from _metadata(report)
    for name, fit in (report.fit or {}).items():
        yield _line(f"{name} fit", _fit(fit))
    for name, digits in (report.sha256 or {}).items():
        yield _line("sha256", f"{digits} {name}")


def _fit(fit: Fit) -> str:
    found = {
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "of another shape": fit.of_another_shape,
    }
    texts = [f"{len(names)} {kind} ({some(names)})" for kind, names in found.items() if names]
    return "; ".join(texts) or "every tensor in its place"


def _metadata(report: Report) -> Iterator[str]:
    names = sorted(report.metadata, key=lambda name: not name.startswith("modelspec."))
    for name in names[:METADATA_SHOWN]:
        yield _line("metadata", f"{name} = {shown(report.metadata[name])}")
    if len(names) > METADATA_SHOWN:
        yield _line("metadata", f"and {len(names) - METADATA_SHOWN} more, which --json has")


def _what(report: Report) -> Iterator[str]:
    yield report.holds
    if report.family:
        yield FAMILIES.get(report.family, "a family of its own")
    if report.layout:
        yield f"in the layout of {report.layout}"


def _numbers(component: Component) -> str:
    formats = ", ".join(
        name if len(component.dtypes) == 1 else f"{name} ({count})"
        for name, count in component.dtypes.items()
    )
    return f"{component.tensors} tensors, {_short(component.parameters)} parameters, {formats}"


def _short(number: int) -> str:
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {unit}"
    return str(number)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(name: str, value: object) -> str:
    return f"{name:{WIDTH}} {one_line(str(value), 300)}"
