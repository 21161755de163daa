"""Rewrite usage errors: one line that says what to type instead."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

import typer

from diffgen.cli.peers import OPTIONS, TRAINING
from diffgen.errors import did_you_mean, shown

MORE = "(--help tells more)"
SHORTENED = 3  # letters of a command that tell it from the beginning of a prompt
NAMED = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)


def explain(error: typer.TyperException) -> str:
    """A usage error of the parser, in the user's terms."""
    if isinstance(error, typer.BadParameter):
        return f"{_wrong_value(error)} {MORE}"
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is not None and not hasattr(error, "possibilities"):
        return f"{option} needs a value {MORE}"
    if option is None or context is None:
        return f"{_too_many(error.format_message())} {MORE}"
    if context.parent is None:
        return f"{option} comes after a command: diffgen generate PROMPT {option} {MORE}"
    known = [name for parameter in context.command.params for name in parameter.opts]
    return f"{_unknown_option(option, known, context.info_name)} {MORE}"


def no_command(arguments: Sequence[str], commands: Iterable[str]) -> str:
    """For a first word that is no command, most likely a prompt."""
    first = arguments[0]
    begun = [name for name in commands if len(first) >= SHORTENED and name.startswith(first)]
    if near := begun or get_close_matches(first, list(commands), n=1):
        return f'no command {shown(first)}. Did you mean "{near[0]}"? {MORE}'
    if first.endswith(".toml"):
        return f"to train by a recipe: diffgen train {shlex.quote(first)} {MORE}"
    prompt = " ".join(takewhile(lambda word: not word.startswith("-"), arguments))
    quoted = shlex.quote(prompt) if re.search(r'["$`\\!]', prompt) else f'"{prompt}"'
    return f"to make a picture: diffgen generate {quoted} {MORE}"


def known_trouble(error: Exception) -> tuple[str, int] | None:
    """Common errors of files and memory, as a line and an exit code."""
    if isinstance(error, MemoryError):
        return "out of memory; ask for less at a time", 1
    if not isinstance(error, OSError) or not error.strerror:
        return None
    code = 2 if error.errno in NAMED else 1
    if error.filename is not None:
        return f"{_path(error.filename)}: {error.strerror}", code
    if error.errno == errno.ENOENT:
        return "the current folder is gone; change to one that exists", code
    return None


def _path(name: Any) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def _wrong_value(error: typer.BadParameter) -> str:
    """`--steps takes a whole number, not "many"`."""
    parameter: Any = error.param
    names = parameter.opts if parameter is not None else []
    option = max(names, key=len, default="an argument")
    details: Any = getattr(error.__cause__, "errors", list)()
    if not details and not error.message:
        return f"there is no {parameter.metavar or option.upper()}"
    if not details:
        return f"{option}: {error.message.rstrip('.')}"
    detail = details[0]
    return f"{option} takes {_wanted(detail['type'], parameter)}, not {shown(detail['input'])}"


def _wanted(kind: str, parameter: Any) -> str:
    if choices := parameter.type_descriptor.choices:
        *others, last = map(str, choices)
        return f"{', '.join(others)} or {last}"
    if kind == "int_parsing_size":
        return "a number of fewer digits"
    if kind.startswith("int"):
        return "a whole number"
    return "a number" if kind.startswith("float") else "another value"


def _unknown_option(option: str, known: Sequence[str], command: str) -> str:
    word = option.lstrip("-").lower().replace("_", "-")
    ours = TRAINING.get(word) if command == "train" else OPTIONS.get(word)
    if ours and (not ours.startswith("--") or re.findall(r"--[a-z-]+", ours)[0] in known):
        return f"there is no {option}; here it is {ours}"
    if re.match(r"-\d", option):
        return f"there is no {option}; words that begin with - come last, after --"
    hint = did_you_mean(option, [name for name in known if name.startswith("--")])
    return f"there is no {option}{hint}"


def _too_many(message: str) -> str:
    found = re.fullmatch(r"Got unexpected extra argument\S* \((.*)\)", message, re.DOTALL)
    return f"one argument too many: {shown(found[1])}" if found else message.rstrip(".")
