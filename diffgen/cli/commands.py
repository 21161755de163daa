"""The commands, and the one place where errors end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.core import TyperGroup

from diffgen import __version__
from diffgen.cli.config import config
from diffgen.cli.console import kept_warnings, lost_results, print_error
from diffgen.cli.convert import convert
from diffgen.cli.doctor import doctor
from diffgen.cli.generate import generate
from diffgen.cli.inspect import inspect
from diffgen.cli.mistakes import explain, known_trouble, no_command
from diffgen.cli.models import models
from diffgen.cli.pull import pull
from diffgen.cli.sample_steps import sample_steps
from diffgen.cli.samplers import samplers
from diffgen.cli.schema import schema
from diffgen.cli.show import show
from diffgen.cli.signals import asked_to_stop, reason
from diffgen.cli.signature import PanelledCommand
from diffgen.cli.streams import guarded_streams
from diffgen.cli.train import train
from diffgen.cli.upscale import upscale
from diffgen.cli.verify import verify
from diffgen.errors import DiffgenError, UsageError, reason_of

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter


class Commands(TyperGroup):
    """The group of commands: full help texts, and a hint if `generate` was left out."""

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(no_command(args, self.commands))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        rows = [(name, each.get_short_help_str(500)) for name, each in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    name="diffgen",
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffgen {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _diffgen(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Make pictures from text: diffgen generate "red barn at sunset"."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


EXAMPLES: dict[Callable[..., object], str] = {
    generate: """diffgen generate "red barn at sunset"
diffgen generate "a cat" --seed 7 -c 4 -o cats/
diffgen generate --prompts prompts.txt -o night/ --dry-run
diffgen generate --from a-cat-7.png --steps 10,20,30""",
    upscale: """diffgen upscale a-cat-7.png
diffgen upscale photo.jpg --prompt "a harbour" --hires 1.5x --hires-strength 0.3 -o large.png""",
    train: """diffgen train --example > my.toml
diffgen train my.toml --dry-run
diffgen train --lora --data photos/ -m storybook""",
    sample_steps: """diffgen sample-steps "red barn at sunset"
diffgen sample-steps "a cat" --samplers dpmpp_2m,unipc --steps 5-20:5""",
    samplers: "diffgen samplers --json",
    models: """diffgen models --here
diffgen models --kind lora --json""",
    pull: """diffgen pull sd-turbo
diffgen pull Lykon/DreamShaper:DreamShaper_8_pruned.safetensors""",
    inspect: """diffgen inspect dreamshaper_8.safetensors
diffgen inspect my-lora.safetensors --hash --json""",
    convert: """diffgen convert model.safetensors model/
diffgen convert sdxl/ sdxl.safetensors --dtype fp16 --lora style.safetensors:0.8
diffgen convert old.ckpt new.safetensors""",
    show: """diffgen show a-cat-7.png --json
diffgen show --prompt "a (red:1.2) barn [at night:by day:0.5]" --prompt-style a1111""",
    verify: "diffgen verify night/*.png",
    schema: "diffgen schema > settings.json",
    config: """diffgen config set model dreamshaper_8
diffgen config set folders.programs ~/ComfyUI
diffgen config set models.sdxl.steps 30""",
    doctor: "diffgen doctor --json",
}
for command, examples in EXAMPLES.items():
    app.command(cls=PanelledCommand, epilog=examples)(command)


def run_command() -> NoReturn:
    """Run a command; errors become one line on stderr and an exit code."""
    verbose = bool({"-v", "--verbose"} & set(sys.argv))
    with guarded_streams() as results, kept_warnings(verbose):
        with _errors_ended(verbose=verbose) as ending:
            ending.code = int(app(standalone_mode=False) or 0)
        results.flush()
        if not ending.code and (lost := lost_results(results)):
            print_error(lost)
            ending.code = 1
    sys.exit(ending.code)


@dataclass
class _Ending:
    code: int = 0


@contextmanager
def _errors_ended(*, verbose: bool) -> Iterator[_Ending]:
    """The one place where errors end: a line on stderr, and the exit code."""
    ending = _Ending()
    try:
        with asked_to_stop() as signals:
            yield ending
        if ending.code == 130 and signals:  # typer's word for any KeyboardInterrupt
            print_error(reason(signals[0]))
            ending.code = 128 + signals[0]
    except typer.TyperException as error:
        print_error(explain(error))
        ending.code = error.exit_code
    except DiffgenError as error:
        print_error(str(error))
        ending.code = error.exit_code
    except Exception as error:
        known = known_trouble(error)
        if verbose and not known:
            raise
        message, ending.code = known or (reason_of(error), 1)
        print_error(message)
