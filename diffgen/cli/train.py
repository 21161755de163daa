"""`diffgen train`: recipes to models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffgen.cli import options as opt
from diffgen.cli.console import logged_notes, print_line, print_result
from diffgen.cli.memory import keep_freed_memory
from diffgen.cli.progress import Display, progress
from diffgen.cli.threads import settle_threads
from diffgen.errors import UsageError

if TYPE_CHECKING:
    from diffgen.train.loop import Progress
    from diffgen.train.recipe import Recipe

SUFFIX = ".safetensors"


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE.toml", help="What to train, and how.", show_default=False),
    ] = None,
    lora: Annotated[
        bool,
        typer.Option("--lora", help="Without a recipe: adapt MODEL to the pictures of --data."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Pictures with captions beside them."),
    ] = None,
    caption: Annotated[
        str | None,
        typer.Option(
            "--caption", metavar="TEXT", help="The caption of the pictures that have none."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="NAME|PATH", help="The model that --lora adapts."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: run.steps=100."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR|FILE",
            help="The run's folder [default: runs/NAME], or a LoRA's .safetensors file.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check it all, measure time and memory, train nothing."),
    ] = False,
    threads: opt.Threads = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say more, and show where errors arise.")
    ] = False,
) -> None:
    """Train a model by a recipe, or a LoRA on a folder of pictures.

    The folder of the finished model is printed, or a LoRA's file; `diffgen generate -m FOLDER` and
    `diffgen generate -m MODEL --lora FILE` draw with them.
    """
    settle_threads(threads)
    changes = assignments or []
    checked = _recipe(recipe, data, model, output, changes, lora=lora, caption=caption)
    folder, file = _places(checked, recipe, output, resume=resume)
    first = os.environ.get("RANK", "0") == "0"
    if file and first and not quiet:
        print_line(f"the run's folder is {folder}")
    with logged_notes(verbose), progress(quiet=quiet) as display:
        keep_freed_memory()
        from diffgen.train import run

        if dry_run:
            for line in run.dry_run(checked, folder):
                print_result(line)
            return
        outcome = run.train(checked, folder, resume=resume, reporter=_Reporter(display))
    if outcome.signal:
        print_line(
            f"stopped; --resume -o {file or folder} goes on from the checkpoint just written"
        )
        raise typer.Exit(128 + outcome.signal)
    if first and outcome.model:
        print_result(str(_finished(checked, outcome.model, file)))


def _recipe(
    path: Path | None,
    data: str | None,
    model: str | None,
    output: Path | None,
    assignments: list[str],
    *,
    lora: bool,
    caption: str | None,
) -> Recipe:
    """The recipe that was given, or the one made up for --lora. Raises UsageError, ConfigError."""
    if path and lora:
        raise UsageError(f"--lora makes up a recipe by itself; drop it, or {path}")
    if path and (data or model or caption is not None):
        raise UsageError(
            "--data, --model and --caption go with --lora; for a recipe use --set data.path=..., "
            "--set model.base=... and --set data.caption=..."
        )
    if not path and not (lora and data and model):
        raise UsageError("give a RECIPE.toml, or --lora with --data DIR and -m MODEL")
    from diffgen.train.quick import lora_table
    from diffgen.train.recipe import Recipe
    from diffgen.train.tables import override

    if path:
        if not path.exists():
            raise UsageError(f"there is no recipe {path}")
        return Recipe.load(path, assignments)
    assert data
    assert model
    name = (output or Path(f"{Path(data).name or 'my'}-lora")).stem
    return Recipe.parse(override(lora_table(data, model, name, caption), assignments), "--lora")


def _places(
    recipe: Recipe, file: Path | None, output: Path | None, *, resume: bool
) -> tuple[Path, Path | None]:
    """The run's folder, and the file that was asked for instead of one."""
    if output is None or output.suffix != SUFFIX:
        return output or Path("runs") / (file.stem if file else recipe.name), None
    if recipe.target != "lora":
        raise UsageError(
            f"-o {output}: a {recipe.target} run makes a model folder, not a file; name a folder"
        )
    if output.exists() and not resume:
        raise UsageError(f"{output} exists; choose another -o or delete it")
    return output.with_suffix(".run"), output


def _finished(recipe: Recipe, model: Path, file: Path | None) -> Path:
    """What the run was for, put where it was asked for."""
    if recipe.target != "lora":
        return model
    from diffgen.train.export import copy_file
    from diffgen.train.lora import FILE

    made = model / FILE
    if file is None:
        return made
    copy_file(made, file)
    return file


class _Reporter:
    """Numbers of every step on a bar, or on lines whenever they are logged."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def say(self, line: str) -> None:
        self._display.say(line)

    def step(self, progress: Progress) -> None:
        self._display.update(_numbers(progress), progress.step, progress.total)
        if progress.logged and not self._display.live:
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            self.say(
                f"step {progress.step}/{progress.total}: {_numbers(progress)}, "
                f"{progress.steps_per_second:.2f} it/s, {minutes}:{seconds:02} left"
            )


def _numbers(progress: Progress) -> str:
    return f"loss {progress.loss:.4f}, {progress.pictures_per_second:.1f} images/s"
