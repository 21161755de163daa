"""Commands whose options are settings: one decorator gives them the signature that Typer reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import Parameter, Signature, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin

import typer
from typer.core import TyperCommand

from diffgen.cli.completion import completion_of
from diffgen.settings.setting import Row, rows

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.", show_default=False)
]
METAVARS: Mapping[Any, str] = {int: "N", float: "X"}
EXIT_CODES = (
    ("0", "done"),
    ("1", "something met could not be used"),
    ("2", "usage error"),
    ("3", "some pictures failed"),
    ("130, 143, 129", "stopped by a signal"),
)
GIVEN = "given"  # the parameter that receives the settings


def with_settings(
    *groups: type,
    without: Iterable[str] = (),
    configured: Collection[str] | None = (),
    as_text: Iterable[type] = (),
    instead: Mapping[str, Row] = MappingProxyType({}),
) -> Callable[..., Callable[..., Any]]:
    """Turn a command's parameter `given` into the options of some groups of settings.

    `given` then holds the typed values, parsed and checked, by field name; untyped ones are absent,
    so that defaults stay where they are declared. `without` names fields to leave out, `configured`
    those that the user's configuration may supply (None: all). Values of the groups `as_text` stay
    unparsed, and their files are not looked up. `instead` has rows, by field name, that replace the
    groups' own.
    """
    own_rows = {name: row for group in groups for name, row in rows(group).items()}
    table = {name: instead.get(name, row) for name, row in own_rows.items()}
    unread = {name for group in as_text for name in rows(group)}
    for name in without:
        del table[name]

    def settle(values: Mapping[str, Any]) -> dict[str, Any]:
        read = _given(table, values, unread)
        given = configured_settings(read, configured, find_files=not unread)
        return {**{name: values[name] for name in values if name not in table}, GIVEN: given}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [each for name, each in signature(command).parameters.items() if name != GIVEN]
        options = [_parameter(row, read=name not in unread) for name, row in table.items()]
        shown = [*(each.replace(annotation=_hint(command, each)) for each in own), *options]
        # Typer inspects these.
        command.__signature__ = Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in shown}
        command.settle = settle  # type: ignore[attr-defined]  # for `PanelledCommand`
        return command

    return decorate


class PanelledCommand(TyperCommand):
    """A command whose help lists options by panel, then examples and exit codes.

    A command with settings is called with all parsed values at once.
    """

    def __init__(self, name: str | None, *, callback: Callable[..., Any], **more: Any) -> None:
        self._settle = getattr(callback, "settle", None)
        taken = callback.__wrapped__ if self._settle else callback  # type: ignore[attr-defined]
        super().__init__(name, callback=taken, **more)

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if self._settle and not ctx.resilient_parsing:
            lists = {k: [*v] if isinstance(v, tuple) else v for k, v in ctx.params.items()}
            ctx.params = self._settle(lists)
        return rest

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                panel = getattr(parameter, "rich_help_panel", None)
                panels.setdefault(panel or _default_panel(parameter), []).append(record)
        for panel, records in sorted(panels.items(), key=lambda item: item[0] == "Help"):
            with formatter.section(panel):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Examples"):
            for line in (self.epilog or "").splitlines():
                formatter.write_text(line)
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


def _default_panel(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return "Help" if parameter.name == "help" else "Options"


def _hint(command: Callable[..., Any], parameter: Parameter) -> Any:
    from typing import get_type_hints

    return get_type_hints(command, include_extras=True)[parameter.name]


def _given(
    table: Mapping[str, Row], values: Mapping[str, Any], unread: Collection[str]
) -> dict[str, Any]:
    typed = {name: values[name] for name in table if values.get(name) not in (None, [])}
    return {
        name: value if name in unread else table[name].read(value, _called(table[name]))
        for name, value in typed.items()
    }


def configured_settings(
    given: dict[str, Any], configured: Collection[str] | None, *, find_files: bool
) -> dict[str, Any]:
    """Typed values, configured values for the rest, and paths for file names."""
    from diffgen.engine.named_files import with_paths

    if configured is None or configured:
        from diffgen.configuration import Configuration
        from diffgen.configured import with_configuration

        full = with_configuration(given, Configuration.read())
        given = {
            name: value
            for name, value in full.items()
            if name in given or configured is None or name in configured
        }
    return with_paths(given) if find_files else given


def _called(row: Row) -> str:
    """The name of a setting in error lines, if its grammar does not include it."""
    return f"--{row.word}" if row.setting.parse else row.name.replace("_", " ")


def _parameter(row: Row, *, read: bool) -> Parameter:
    setting = row.setting
    option = typer.Option(
        *setting.flags.split(),
        help=setting.help,
        metavar=_metavar(row),
        rich_help_panel=row.panel,
        show_default=False,
        autocompletion=completion_of(row.name),
    )
    kind: Any = Annotated[_typed(row, read=read), option]
    return Parameter(row.name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _metavar(row: Row) -> str | None:
    metavar = row.setting.metavar or METAVARS.get(row.kind)
    if not row.setting.metavar and get_origin(row.kind) is Literal:
        metavar = "|".join(map(str, get_args(row.kind)))
    return f"{metavar},..." if row.listed else metavar


def _typed(row: Row, *, read: bool) -> Any:
    """The Typer type of a setting: text if it has its own grammar."""
    if row.setting.repeat:
        return list[str] | None
    own_grammar = row.setting.parse or row.listed or get_origin(row.kind) is tuple
    if (not read and row.kind is not bool) or own_grammar:
        return str | None
    return Optional[row.kind]  # noqa: UP045 - the type is only known at run time
