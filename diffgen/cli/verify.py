"""`diffgen verify`: redraw pictures and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import logged_notes, print_error, print_json, print_result
from diffgen.errors import DeviceLost, DiffgenError, UsageError

if TYPE_CHECKING:
    from diffgen.batch.verifying import Verdict


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures of diffgen.")],
    tolerance: Annotated[
        int, typer.Option("--tolerance", metavar="N", help="Levels of 255 that may differ.")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per picture.")
    ] = False,
) -> int:
    """Make pictures again by what they say of themselves, and tell how far the results differ.

    Like is compared with like: on the same kind of device, in the same number format.
    """
    from diffgen.batch.verifying import Verifier

    if not 0 <= tolerance <= 255:
        raise UsageError(f"--tolerance must be from 0 to 255, got {tolerance}")
    worst = 0
    with logged_notes(False):
        verifier = Verifier()
        for file in files:
            try:
                worst = max(worst, _told(file, verifier.verify(file), tolerance, as_json=as_json))
            except DeviceLost:
                raise  # no other file would fare better
            except DiffgenError as error:
                print_error(str(error))
                worst = 1
    return worst


def _told(file: Path, verdict: Verdict, tolerance: int, *, as_json: bool) -> int:
    same = verdict.difference <= tolerance
    if as_json:
        found: dict[str, Any] = {"path": str(file), "difference": verdict.difference, "same": same}
        print_json(found | {"notes": list(verdict.notes)})
    else:
        said = "equal" if verdict.difference == 0 else f"differs by {verdict.difference} of 255"
        notes = f" ({'; '.join(verdict.notes)})" if verdict.notes else ""
        print_result(f"{file}: {said}{notes}")
    return 0 if same else 1
