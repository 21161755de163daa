"""`diffgen train`: recipes to models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffgen.cli.console import logged_notes, print_line, print_result
from diffgen.train.recipe import Recipe

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from diffgen.train.loop import Progress, Reporter


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train, and how.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: run.steps=100."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The run's folder [default: runs/NAME]."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check it all, measure time and memory, train nothing."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say more, and show where errors arise.")
    ] = False,
) -> None:
    """Train a model by a recipe.

    The folder of the finished model is printed; `diffgen generate -m FOLDER` runs it.
    """
    checked = Recipe.load(recipe, assignments or [])
    folder = output or Path("runs") / recipe.stem
    with logged_notes(verbose), _reporter(quiet=quiet) as reporter:
        from diffgen.train import run

        if dry_run:
            for line in run.dry_run(checked, folder):
                print_result(line)
            return
        outcome = run.train(checked, folder, resume=resume, reporter=reporter)
    if outcome.signal:
        print_line(f"stopped; --resume -o {folder} goes on from the checkpoint just written")
        raise typer.Exit(128 + outcome.signal)
    if os.environ.get("RANK", "0") == "0":
        print_result(str(outcome.model))


class _Lines:
    """Plain lines, one whenever the numbers are logged."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        if not self._quiet:
            print_line(line)

    def step(self, progress: Progress) -> None:
        if progress.logged:
            self.say(f"step {progress.step}/{progress.total}: {_numbers(progress)}")


class _Terminal:
    """A rich progress bar, other lines above it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("loading", total=None)

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)

    def step(self, progress: Progress) -> None:
        self._bar.update(
            self._task,
            completed=progress.step,
            total=progress.total,
            description=_numbers(progress),
        )


def _numbers(progress: Progress) -> str:
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    return (
        f"loss {progress.loss:.4f}, {progress.steps_per_second:.2f} it/s, "
        f"{progress.pictures_per_second:.1f} images/s, {minutes}:{seconds:02} left"
    )


@contextmanager
def _reporter(*, quiet: bool) -> Iterator[Reporter]:
    if quiet or not sys.stderr.isatty():
        yield _Lines(quiet=quiet)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Terminal(bar)
