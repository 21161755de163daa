"""`diffgen config`: show and write the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import print_json, print_result
from diffgen.errors import UsageError, one_line

if TYPE_CHECKING:
    from diffgen.configuration import Configuration, Given

EXAMPLE = """
# All of it is optional; the command line comes before DIFFGEN_... variables, these before the file.
model = "storybook"              # where no -m is given

[folders]                        # to find files in by their names
programs = ["~/ComfyUI"]         # of ComfyUI, A1111, Forge or InvokeAI, whose layouts are known
loras = ["~/loras"]              # likewise: models, vaes, embeddings; downloads is one folder

[settings]                       # any option of `diffgen generate`
output = "~/pictures"

[models.storybook]               # the same, for one model
steps = 12
"""


def config(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[set KEY VALUE]",
            help="Write a value: model, folders.loras, settings.steps, models.sdxl.steps.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="NAME", help="Show the settings for this model."),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a file to start from.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where the configuration is, what is in effect and where it comes from."""
    from diffgen.configuration import Configuration

    if words:
        _write(words)
    if example:
        print_result(EXAMPLE.strip())
        return
    found = Configuration.read()
    shown = _shown(found, model)
    if as_json:
        print_json({"path": str(found.path), "exists": found.path.is_file(), **shown})
        return
    there = "" if found.path.is_file() else " (not there yet; --example prints one to start from)"
    print_result(f"{found.path}{there}")
    for line in _lines(shown):
        print_result(line)


def _write(words: Sequence[str]) -> None:
    from diffgen.configuration_writing import write_value

    if len(words) != 3 or words[0] != "set":
        raise UsageError("to write a value: diffgen config set KEY VALUE (--help tells more)")
    write_value(words[1], words[2])


def _shown(found: Configuration, model: str | None) -> dict[str, Any]:
    """Every value with its source, as plain data."""
    from diffgen.configured import all_tables, default_model, settings_for

    named = model or str(default_model(found).value)
    tables = all_tables(found)
    if model is None:
        others = {name: _plain(table) for name, table in tables.items() if name}
    else:
        others = {}
    return {
        "model": _plain({"model": default_model(found)})["model"],
        "folders": _plain(found.given_folders),
        "settings": _plain(settings_for(named, found)),
        "models": others,
    }


def _plain(table: Mapping[str, Given]) -> dict[str, Any]:
    from diffgen.settings.setting import as_text

    def plain(value: Any) -> Any:
        if isinstance(value, bool | int | float | str):
            return value
        several = isinstance(value, tuple)
        return [as_text(each) for each in value] if several else as_text(value)

    return {
        name: {"value": plain(given.value), "source": given.source} for name, given in table.items()
    }


def _lines(shown: Mapping[str, Any]) -> Iterator[str]:
    rows = {"model": shown["model"]}
    rows |= {f"folders.{name}": row for name, row in shown["folders"].items()}
    rows |= {f"settings.{name}": row for name, row in shown["settings"].items()}
    for model, table in shown["models"].items():
        rows |= {f"models.{model}.{name}": row for name, row in table.items()}
    width = max(map(len, rows))
    for name, row in rows.items():
        value = row["value"]
        missing = _missing(value) if name.startswith("folders.") else []
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        note = f"; not there: {', '.join(missing)}" if missing else ""
        yield one_line(f"{name:{width}}  {one_line(text, 120)}  ({row['source']}{note})")


def _missing(value: str | list[str]) -> list[str]:
    paths = [value] if isinstance(value, str) else value
    return [path for path in paths if not Path(path).is_dir()]
