"""Change one value of config.toml, and leave the rest of the file untouched."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from diffgen.configuration import FOLDER_VARIABLES, Configuration, config_path
from diffgen.configured import GROUPS, all_tables
from diffgen.errors import ConfigError, OutputError, UsageError, did_you_mean
from diffgen.files import replaced
from diffgen.jsonfile import MAX_CONFIG, parse_toml, read_text
from diffgen.settings.setting import each_row, find

BARE = re.compile(r"[A-Za-z0-9_-]+")
KEYS = "model, folders.NAME, settings.NAME or models.MODEL.NAME"


def write_value(key: str, value: str) -> Path:
    """Set `model`, `folders.loras`, `settings.steps` or `models.sdxl.steps`; the file's path.

    Creates the file if need be, and does not touch it for an invalid value. Raises UsageError,
    ConfigError for an already invalid file, OutputError.
    """
    path = config_path()
    table, name, literal = _understood(key, value)
    text = read_text(path, at_most=MAX_CONFIG) if path.exists() else ""
    before = Configuration(path, parse_toml(text, str(path)))
    before.check()
    new = _edited(text, table, name, literal)
    try:
        changed = Configuration(path, parse_toml(new, str(path)))
        changed.check()
        all_tables(changed)
    except ConfigError as error:  # a value over several lines, a table under another heading
        raise UsageError(
            f"{path} is laid out in a way that cannot be changed line by line ({error}); edit it"
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            part.write_text(new, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _understood(key: str, value: str) -> tuple[str, str, str]:
    """The table's heading, the key in it and the value, as TOML."""
    table, _, name = key.rpartition(".")
    first, _, model = table.partition(".")
    if key == "model":
        return "", "model", json.dumps(value, ensure_ascii=False)
    if table == "folders":
        if name not in FOLDER_VARIABLES.values():
            hint = did_you_mean(name, FOLDER_VARIABLES.values())
            raise UsageError(f'there is no folder "{name}"{hint}')
        paths = value if name == "downloads" else [p for p in value.split(os.pathsep) if p]
        return "folders", name, json.dumps(paths, ensure_ascii=False)
    if table != "settings" and not (first == "models" and model):
        raise UsageError(f'there is no key "{key}": it is {KEYS}')
    row = find(name, *GROUPS)
    if row is None:
        hint = did_you_mean(name, [each.word for each in each_row(*GROUPS)])
        raise UsageError(f'there is no setting "{name}"{hint}')
    heading = f"models.{_quoted(model)}" if model else "settings"
    return heading, row.word, _literal(row.read(value), value)


def _quoted(name: str) -> str:
    return name if BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _literal(read: Any, text: str) -> str:
    return json.dumps(read if isinstance(read, bool | int | float) else text, ensure_ascii=False)


def _edited(text: str, table: str, name: str, literal: str) -> str:
    """The text with a line for this key: replaced, at its table's end, or in a new table."""
    lines, line = text.splitlines(), f"{name} = {literal}"
    begin = 0 if not table else _index_of(lines, rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?")
    if begin is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{table}]", line, ""])
    start = begin + bool(table)
    end = start + next(
        (n for n, each in enumerate(lines[start:]) if each.lstrip().startswith("[")),
        len(lines) - start,
    )
    for index in range(start, end):
        if re.match(rf"\s*\"?{re.escape(name)}\"?\s*=", lines[index]):
            return "\n".join([*lines[:index], line, *lines[index + 1 :], ""])
    while end > start and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], line, *lines[end:], ""])


def _index_of(lines: list[str], pattern: str) -> int | None:
    return next((n for n, line in enumerate(lines) if re.fullmatch(pattern, line)), None)
