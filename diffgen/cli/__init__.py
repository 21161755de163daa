"""The command line: three lines per command, one place where errors end.

Nothing here imports torch before a request has been understood.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from diffgen import __version__
from diffgen.cli.console import kept_warnings, lost_results, print_error
from diffgen.cli.generate import generate
from diffgen.cli.sample_steps import sample_steps
from diffgen.cli.samplers import samplers
from diffgen.cli.streams import guarded_streams
from diffgen.cli.train import train
from diffgen.errors import DiffgenError

app = typer.Typer(
    name="diffgen",
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


app.command()(generate)
app.command()(sample_steps)
app.command()(samplers)
app.command()(train)


def main() -> NoReturn:
    """Run a command; errors become one line on stderr and an exit code."""
    verbose = bool({"-v", "--verbose"} & set(sys.argv))
    with guarded_streams() as results, kept_warnings(verbose):
        code = _run(verbose=verbose)
        results.flush()
        if not code and (lost := lost_results(results)):
            print_error(lost)
            code = 1
    sys.exit(code)


def _run(*, verbose: bool) -> int:
    try:
        code = app(standalone_mode=False)
        if code == 130:  # typer's word for Ctrl-C
            print_error("interrupted")
        return int(code or 0)
    except typer.TyperException as error:
        print_error(f"{error.format_message().rstrip('.')} (--help tells more)")
        return error.exit_code
    except DiffgenError as error:
        print_error(str(error))
        return error.exit_code
    except Exception as error:
        if verbose:
            raise
        print_error(f"unexpected {type(error).__name__}: {error} (-v shows where)")
        return 1
