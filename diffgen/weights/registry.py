"""The models known by name, from weights.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from diffgen.errors import ConfigError, UsageError, did_you_mean, shown
from diffgen.jsonfile import KINDS, MAX_CONFIG, of_kind, parse_toml, read_text
from diffgen.limits import check_ranges, within
from diffgen.types import SamplerName, ScheduleName

PACKAGE = Path(__file__).resolve().parent.parent

KEYS: Mapping[str, type] = {
    "bundled": str,
    "lora": str,
    "description": str,
    "license": str,
    "steps": int,
    "guidance_scale": float,
    "sampler": str,
    "schedule": str,
}
REQUIRED = ("bundled", "description", "license")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "sampler": get_args(SamplerName),
    "schedule": get_args(ScheduleName),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One table of weights.toml: where a model is, and what its makers recommend.

    `bundled` and `lora`, a file that belongs to the model, are relative to the package. None means
    no such file, or no recommendation.
    """

    bundled: str
    description: str
    license: str
    lora: str | None = None
    steps: int | None = within(None, 1, 10_000)
    guidance_scale: float | None = within(None, 0.0, 1000.0)
    sampler: SamplerName | None = None
    schedule: ScheduleName | None = None


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model that was asked for: what to call it, where it is, and its entry if it has one."""

    name: str
    path: Path
    entry: ModelEntry | None = None

    @property
    def lora(self) -> Path | None:
        """The LoRA that makes this model of the one at `path`."""
        return PACKAGE / self.entry.lora if self.entry and self.entry.lora else None


def resolve(source: str, registry: Mapping[str, ModelEntry] | None = None) -> ModelRef:
    """Find a model by its name or path; `registry` defaults to the one that ships.

    A name wins over a folder of the same name, which `./name` still reaches. Raises UsageError if
    there is neither.
    """
    entries = read_registry(registry_path()) if registry is None else registry
    if source in entries:
        entry = entries[source]
        return ModelRef(source, PACKAGE / entry.bundled, entry)
    path = _place(source)
    if path.exists():
        return ModelRef(path.stem if path.is_file() else path.resolve().name, path)
    if "://" in source:
        raise UsageError(f"nothing is downloaded: fetch {source} yourself, then give its path")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise UsageError(
            f"there is no model at {path}, and nothing is downloaded; for a repository of Hugging "
            f"Face run: hf download {source} --local-dir {path.name}, then give -m ./{path.name}"
        )
    if "/" in source or source.startswith((".", "~")):
        raise UsageError(f"there is no model at {path}.")
    raise UsageError(
        f'there is no model named "{source}".{did_you_mean(source, entries)} '
        f"Known: {', '.join(entries)}; a path to a model works too."
    )


def _place(source: str) -> Path:
    """The path that a user means. Raises UsageError for one that nothing can have."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except OSError as error:
        raise UsageError(f"{shown(source)} cannot be read: {error.strerror}") from error
    except RuntimeError as error:  # ~name of nobody
        raise UsageError(f"there is no model at {source}: no such user") from error
    return path


def registry_path() -> Path:
    """weights.toml in the installed package, or at the root of the repository."""
    packaged = PACKAGE / "weights.toml"
    return packaged if packaged.is_file() else PACKAGE.parent / "weights.toml"


def read_registry(path: Path) -> dict[str, ModelEntry]:
    """Parse and check weights.toml. Raises ConfigError, naming file, table and key."""
    tables = parse_toml(read_text(path, at_most=MAX_CONFIG), str(path))
    return {name: _entry(f"{path} [{name}]", table) for name, table in tables.items()}


def _entry(where: str, table: object) -> ModelEntry:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: every model needs a table of its own")
    for key in REQUIRED:
        if key not in table:
            raise ConfigError(f'{where}: "{key}" is missing')
    entry = ModelEntry(**{key: _value(where, key, value) for key, value in table.items()})
    check_ranges(entry, lambda key: f'{where}: "{key}"')
    return entry


def _value(where: str, key: str, value: object) -> Any:
    if key not in KEYS:
        raise ConfigError(f'{where}: unknown key "{key}".{did_you_mean(key, KEYS)}')
    kind = KEYS[key]
    found = of_kind(value, kind)
    if found is None:
        raise ConfigError(f'{where}: "{key}" should be {KINDS[kind]}, not {shown(value)}')
    if key in CHOICES and value not in CHOICES[key]:
        hint = did_you_mean(str(value), CHOICES[key])
        raise ConfigError(f'{where}: "{key}" has the unknown value {shown(value)}.{hint}')
    return found
