"""Records as settings: look up every name, parse every value, multiply out lists.

A record may be a line of a prompt file, a row of a table, the output of `generate --json` or a
picture's metadata. A setting with several values makes one variant for each: a matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_origin

from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError, did_you_mean, shown
from diffgen.settings.model import Adapters, Source
from diffgen.settings.setting import Row, each_row, find

GROUPS = (GenerateRequest, Source, Adapters)
RUN_ONLY = {"batch_size": "--count says how many pictures"}
RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")
MORE = "(--help tells more)"
ANY_SEED = -1  # as in A1111: the run's
MOST_VALUES = 1_000_000  # of one setting, and of a matrix
# Keys of a record of ours that are no settings by their own names.
RECORD_ONLY = {"options", "model_path", "fast", "guidance_interval", "sigmas", "steps"}
RECORD_ONLY |= {"loras", "embeddings"}

# Settings of a line that override differently named ones of the command.
INSTEAD = {
    "sigmas": ("steps", "schedule", "timesteps"),
    "timesteps": ("steps", "schedule", "sigmas"),
    "steps": ("sigmas", "timesteps"),
    "schedule": ("sigmas", "timesteps"),
}

Given = Mapping[str, Any]  # values by field name, in the forms of `Row.read`


@dataclass(frozen=True, slots=True)
class Variant:
    """One line's prompt template with one value for each setting."""

    line: int
    prompt: str
    given: Given


def variants(line: int, settings: Given, base: Mapping[str, Sequence[Any]]) -> Iterator[Variant]:
    """The variants of a record; `base` holds defaults.

    Raises UsageError for an unknown setting and an invalid value.
    """
    if is_record(settings):
        settings = from_record(settings)
    prompts, lists = read_settings(settings)
    aside = {other for name in lists for other in INSTEAD.get(name, ())}
    kept = {name: list(values) for name, values in base.items() if name not in aside}
    lists = {**kept, **lists}
    if math.prod(map(len, lists.values())) * len(prompts) > MOST_VALUES:
        raise UsageError(f"a matrix of more than {MOST_VALUES} pictures")
    for prompt, *values in product(prompts, *lists.values()):
        yield Variant(line, prompt, dict(zip(lists, values, strict=True)))


def read_settings(settings: Given) -> tuple[list[str], dict[str, list[Any]]]:
    """The prompts, and each setting's values by field name. Raises UsageError."""
    prompts: list[str] = []
    lists: dict[str, list[Any]] = {}
    for word, value in settings.items():
        if word.lower() == "prompt":
            prompts = _prompts(value)
            continue
        row = row_of(word)
        if row.name in lists:
            raise UsageError(f"{row.word} is there twice")
        if value is not None and (values := read_values(row, value, word)):
            lists[row.name] = values
    if not prompts:
        raise UsageError("there is no prompt")
    return prompts, lists


def read_typed(given: Given) -> dict[str, list[Any]]:
    """Values from a command line, by field name. Raises UsageError."""
    table = {row.name: row for row in each_row(*GROUPS)}
    found = {}
    for name, value in given.items():
        if name in table and name not in RUN_ONLY:
            typed = f"--{table[name].word}"
            try:
                found[name] = read_values(table[name], value, typed)
            except UsageError as error:
                more = f" {MORE}" if str(error).startswith(f"{typed} takes a") else ""
                raise UsageError(f"{error}{more}") from error
    return {name: values for name, values in found.items() if values}


@lru_cache(maxsize=4096)
def row_of(word: str) -> Row:
    """The setting of a name. Raises UsageError for an unknown one, and for one of the whole run."""
    row = find(word, *GROUPS)
    if row is None:
        hint = did_you_mean(word, _words())
        raise UsageError(f"there is no setting {shown(word)}{hint}")
    if row.name in RUN_ONLY:
        raise UsageError(f"{word} is for the whole run; {RUN_ONLY[row.name]}")
    return row


def read_values(row: Row, value: Any, name: str) -> list[Any]:
    """The values of a setting: one, or several of a matrix. Raises UsageError."""
    if row.kind is bool and value == "":
        return [not _is_negated(row, name)]
    if value == "" and row.kind is not str:
        raise UsageError(f"{name} needs a value")
    plain = name if row.setting.parse else row.name.replace("_", " ")
    found = [row.read(each, plain, typed=name) for each in _split(row, value)]
    if not found:
        raise UsageError(f"{name} has no value")
    return [] if row.name == "seed" and found == [ANY_SEED] else found


def is_record(settings: Given) -> bool:
    """Whether diffgen wrote this record."""
    return "format" in settings and "version" in settings and "sampler" in settings


def from_record(record: Given) -> dict[str, Any]:
    """A record of diffgen, of this version or an older one, as settings by field name."""
    known = {row.name for row in each_row(*GROUPS)} - RECORD_ONLY
    found = {name: record[name] for name in known if record.get(name) is not None}
    found |= {name: value for name, value in (record.get("options") or {}).items() if name in known}
    found.setdefault("prompt_style", "plain")  # the value of records from before there was a choice
    found["prompt"] = record.get("template") or record["prompt"]
    if record.get("sigmas"):
        found["sigmas"] = list(record["sigmas"])
        found.pop("schedule", None)
    else:
        found["steps"] = record.get("steps")
    if record.get("model_path"):
        found["model"] = record["model_path"]
    if loras := record.get("loras"):
        found["loras"] = [
            f"{each['file']}:{each.get('settings') or format(each['weight'], '.15g')}"
            for each in loras
        ]
    if embeddings := record.get("embeddings"):
        found["embeddings"] = [_embedding(each["name"], each["file"]) for each in embeddings]
    if interval := record.get("guidance_interval"):
        low, high = interval
        found["guidance_interval"] = f"{low:.15g},{math.inf if high is None else high:.15g}"
    return found


def _embedding(name: str, file: str) -> str:
    return file if name == Path(file).stem else f"{name}={file}"


def _prompts(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, str) for each in found):
        raise UsageError(f"prompt takes text, not {shown(value)}")
    return found


def _split(row: Row, value: Any) -> list[Any]:
    """The values of a setting before they are parsed."""
    if row.setting.repeat:
        several = isinstance(value, list) and any(isinstance(each, list) for each in value)
        return value if several else [value]
    if get_origin(row.kind) is tuple:
        several = isinstance(value, list) and any(not _is_number(each) for each in value)
        return value if several else [value]
    if isinstance(value, list):
        return value
    if isinstance(value, str) and _is_listed(row):
        return [each for part in value.split(",") for each in _range(row, part.strip())]
    return [value]


def _is_listed(row: Row) -> bool:
    """Whether commas in text separate values, unlike those of prose and paths."""
    plain = row.kind in (int, float) or get_origin(row.kind) is Literal
    return plain or row.name in ("sampler", "schedule")


def _range(row: Row, text: str) -> Sequence[Any]:
    """`10-20`, of whole numbers."""
    bounds = RANGE.fullmatch(text) if row.kind is int else None
    if not bounds:
        return [text]
    low, high = int(bounds[1]), int(bounds[2])
    if low > high or high - low >= MOST_VALUES:
        raise UsageError(f"{row.word} {text}: no range, or too long a one")
    return range(low, high + 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_negated(row: Row, name: str) -> bool:
    opposite = row.setting.flags.partition("/")[2].lstrip("-")
    return bool(opposite) and name.lower().replace("_", "-").strip("-") == opposite


@cache
def _words() -> list[str]:
    return [spelling for row in each_row(*GROUPS) for spelling in row.spellings]
