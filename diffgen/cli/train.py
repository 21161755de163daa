"""`diffgen train`: recipes to models."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.command_line import command_line
from diffgen.cli.console import logged_notes, print_line, print_result
from diffgen.cli.memory import keep_freed_memory
from diffgen.cli.progress import Display, progress
from diffgen.cli.signals import reason
from diffgen.cli.signature import with_settings
from diffgen.cli.threads import settle_threads
from diffgen.errors import UsageError, did_you_mean, is_text
from diffgen.launch import is_first
from diffgen.settings.output import Talk
from diffgen.settings.running import Threads
from diffgen.settings.training import QuickLora, QuickOverrides, Training

if TYPE_CHECKING:
    from diffgen.train.loop import Progress
    from diffgen.train.recipe.recipe import Recipe
    from diffgen.train.run import Outcome

SUFFIX = ".safetensors"
KEYS = {  # of a recipe, for the options of --lora
    "data": "data.path",
    "model": "model.base",
    "caption": "data.caption",
    "vae": "model.autoencoder",
    "prediction": "model.prediction",
    "zero_snr": "model.zero_snr",
}
GROUPS = (Training, QuickLora, QuickOverrides, Threads, Talk)
RECIPES = Path(__file__).parent.parent / "assets" / "recipes"


def _print_example(wanted: bool) -> None:
    if wanted:
        typer.echo((RECIPES / "example.toml").read_text(encoding="utf-8"), nl=False)
        raise typer.Exit


@with_settings(*GROUPS, without=["progress"])
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="A .toml file, or the name of one on board.", show_default=False
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            callback=_print_example,
            is_eager=True,
            help="Print a recipe to begin with, and exit.",
            rich_help_panel=Training.panel,
        ),
    ] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Train a model by a recipe, or a LoRA on a folder of pictures.

    The folder of the finished model is printed, or a LoRA's file; `diffgen generate -m FOLDER` and
    `diffgen generate -m MODEL --lora FILE` draw with them.
    """
    settle_threads(given.get("threads"))
    # Understand what is to be trained, and where it goes.
    run, talk = Training.of(given), Talk.of(given)
    _check_text(run.output)
    path = _found(recipe) if recipe else None
    asked = {name: given[name] for name in KEYS if name in given}
    checked = _recipe(path, asked, run.output, list(run.assignments), lora="lora" in given)
    folder, file = _places(checked, path, run.output, resume=run.resume)
    _check_text(folder)
    first = is_first()
    if file and first and not talk.quiet:
        print_line(f"the run's folder is {folder}")
    # Train.
    with logged_notes(talk.verbose), progress(quiet=talk.quiet) as display:
        keep_freed_memory()
        from diffgen.train import run as runs

        if run.dry_run:
            for line in runs.dry_run(checked, folder):
                print_result(line)
            return
        outcome = runs.train(checked, folder, resume=run.resume, reporter=_Reporter(display))
    # Say what came of it.
    if first and outcome.model:
        print_result(str(_finished(checked, outcome.model, file)))
    if outcome.signal:
        if first:
            print_line(f"{reason(outcome.signal)}; {_how_to_go_on(outcome)}")
        raise typer.Exit(128 + outcome.signal)


def _how_to_go_on(outcome: Outcome) -> str:
    if outcome.model:
        return "the run had ended, and its result is whole"
    return f"this goes on: {command_line('--resume', groups=GROUPS)}"


def _found(recipe: str) -> Path:
    """A recipe by path, or by the name of a shipped one. Raises UsageError."""
    path = Path(recipe)
    if path.is_dir():
        quick = f"diffgen train --lora --data {shlex.quote(recipe)} -m MODEL"
        raise UsageError(f"{recipe} is a folder, not a recipe; a LoRA on its pictures: {quick}")
    if path.exists():
        return path
    on_board = {file.stem: file for file in RECIPES.glob("*.toml")}
    if recipe in on_board:
        return on_board[recipe]
    hint = did_you_mean(recipe, on_board)
    raise UsageError(f"there is no recipe {recipe}; --example prints one to begin with{hint}")


def _recipe(
    path: Path | None,
    given: dict[str, Any],
    output: Path | None,
    assignments: list[str],
    *,
    lora: bool,
) -> Recipe:
    """The recipe in a file, or one generated for --lora.

    Raises UsageError and ConfigError.
    """
    if path and lora:
        raise UsageError(f"--lora makes up a recipe by itself; drop it, or {path}")
    if path and given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        instead = " and ".join(f"--set {KEYS[name]}=..." for name in given)
        raise UsageError(f"{names}: for --lora; for a recipe use {instead}")
    if not path and not (lora and {"data", "model"} <= given.keys()):
        raise UsageError("give a RECIPE.toml, or --lora with --data DIR and -m MODEL")
    from diffgen.train.quick import lora_table
    from diffgen.train.recipe.read import parse_recipe, read_recipe
    from diffgen.train.recipe.tables import check_text, override

    if path:
        return read_recipe(path, assignments)
    check_text({name: str(value) for name, value in given.items()}, "--lora")
    name = (output or Path(f"{Path(given['data']).name or 'my'}-lora")).stem
    table = lora_table(QuickLora.of(given), QuickOverrides.of(given), name)
    return parse_recipe(override(table, assignments), "--lora")


def _check_text(folder: Path | None) -> None:
    """Raise UsageError for a name that is not UTF-8, which recipes and cards cannot hold."""
    if folder and not is_text(str(folder)):
        raise UsageError(f"the run's folder {folder} is not UTF-8; name another with -o")


def _places(
    recipe: Recipe, file: Path | None, output: Path | None, *, resume: bool
) -> tuple[Path, Path | None]:
    """The run's folder, and the file to write instead of one."""
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
    """The run's result, copied to the requested file."""
    if recipe.target != "lora":
        return model
    from diffgen.train.export import copy_file
    from diffgen.train.targets.lora import FILE

    made = model / FILE
    if file is None:
        return made
    copy_file(made, file)
    return file


class _Reporter:
    """Shows the numbers of every step on a bar, or as lines when logged."""

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
