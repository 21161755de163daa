"""The table of settings as JSON Schema (draft 2020-12) for a record of a prompt file."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from diffgen.batch.requests import GROUPS, RUN_ONLY
from diffgen.settings.setting import Row, each_row

TYPES: dict[Any, str] = {int: "integer", float: "number", bool: "boolean"}


def schema() -> dict[str, Any]:
    """A record with a prompt and any of the settings; lists make a matrix."""
    rows = (row for row in each_row(*GROUPS) if row.name not in RUN_ONLY)
    properties = {row.name: _property(row) for row in rows}
    prompt = {"type": "string", "description": "What to draw"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffgen picture",
        "type": "object",
        "properties": {"prompt": _or_list(prompt), **properties},
        "required": ["prompt"],
        "additionalProperties": True,  # other programs' spellings
    }


def _property(row: Row) -> dict[str, Any]:
    value = _value(row)
    value["description"] = row.setting.help
    return _or_list(value)


def _value(row: Row) -> dict[str, Any]:
    if get_origin(row.kind) is Literal and not row.setting.parse:
        return {"enum": list(get_args(row.kind))}
    if get_origin(row.kind) is tuple or row.setting.repeat:
        return {"type": ["array", "string", "number"]}
    if row.kind not in TYPES:
        return {"type": "string"}
    found: dict[str, Any] = {"type": TYPES[row.kind]}
    if row.kind is not bool:
        bounds = {"minimum": row.setting.low, "maximum": row.setting.high}
        found |= {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    return found


def _or_list(value: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [value, {"type": "array", "items": value}], **_described(value)}


def _described(value: dict[str, Any]) -> dict[str, Any]:
    return {"description": value["description"]} if "description" in value else {}
