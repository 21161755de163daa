"""`diffgen pull`: fetch a model, and verify it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import print_json, print_line, print_result
from diffgen.cli.progress import Display, progress
from diffgen.cli.signals import Stopped
from diffgen.errors import in_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffgen.weights.download import Fetched
    from diffgen.weights.hub import Order

SAY_EVERY = 30.0  # seconds between lines, without a bar


def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|REPO[:FILE]",
            help="A name that `diffgen models` lists, or a repository of Hugging Face.",
        ),
    ],
    variant: Annotated[
        str | None,
        typer.Option("--variant", metavar="NAME", help="Of a repository's weights: fp16, ..."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check what is here; fetch nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")
    ] = False,
) -> None:
    """Fetch a model from Hugging Face and check it.

    What was begun goes on where it stopped.
    """
    from diffgen.weights.ordering import order

    wanted = order(source, variant=variant, offline=offline)
    if not quiet:
        print_line(_announcement(wanted))
    with progress(quiet=quiet, in_bytes=True) as display:
        fetched = _fetch(wanted, display, offline=offline)
    path = fetched[0].path if len(fetched) == 1 else wanted.folder
    if as_json:
        print_json(_values(wanted.order, fetched, str(path)))
    else:
        print_result(str(path))


def _announcement(wanted: Any) -> str:

    order = wanted.order
    size = "" if order.size is None else f", {in_bytes(order.size)}"
    return f"{order.name}{size}; licence: {order.license or 'not stated'} ({wanted.page})"


def _fetch(wanted: Any, display: Display, *, offline: bool) -> list[Fetched]:
    from diffgen.weights.download import fetch

    teller = Teller(display)
    try:
        return fetch(wanted.order, wanted.folders, report=teller.report, offline=offline)
    except KeyboardInterrupt as asked:
        raise Stopped(asked, "; what is fetched is kept: the same command goes on") from asked


class Teller:
    """Moves the bar, or prints a line now and then."""

    def __init__(self, display: Display) -> None:
        self._display, self._said = display, time.monotonic()

    def report(self, label: str, done: int, total: int | None) -> None:
        self._display.update(label, done, total)
        now = time.monotonic()
        if not self._display.live and now - self._said > SAY_EVERY:
            self._said = now
            share = f", {100 * done // total} %" if total else ""
            self._display.say(f"{label}: {done} bytes{share}")


def _values(order: Order, fetched: Sequence[Fetched], place: str) -> dict[str, Any]:
    files = [
        {
            "path": str(each.path),
            "size": each.size,
            "sha256": each.sha256,
            "downloaded": each.downloaded,
        }
        for each in fetched
    ]
    return {
        "name": order.name,
        "path": place,
        "repository": order.repository,
        "revision": order.revision,
        "license": order.license,
        "files": files,
    }
