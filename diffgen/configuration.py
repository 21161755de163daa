"""The user's configuration: a default model, folders of models, settings, settings per model.

A value on the command line wins over the environment (`DIFFGEN_STEPS` for `steps`), and that over
config.toml; without any, the model's or diffgen's default applies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, UsageError, did_you_mean, shown
from diffgen.files import expanded
from diffgen.jsonfile import MAX_CONFIG, parse_toml, read_text
from diffgen.places import config_folder, data_folder

PREFIX = "DIFFGEN_"
TABLES = ("folders", "settings", "models")


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders to search for files by name; `programs` are folders of A1111, ComfyUI or InvokeAI."""

    models: tuple[Path, ...] = ()
    loras: tuple[Path, ...] = ()
    vaes: tuple[Path, ...] = ()
    embeddings: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()
    downloads: Path = field(default_factory=lambda: data_folder() / "models")


FOLDER_VARIABLES = {f"{PREFIX}{spec.name.upper()}": spec.name for spec in fields(Folders)}


@dataclass(frozen=True, slots=True)
class Given:
    """A value and its source: an environment variable, or a key of the file."""

    value: Any
    source: str


@dataclass(frozen=True)
class Configuration:
    """The values of the environment and config.toml; `path` is the file's, existing or not."""

    path: Path
    data: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Configuration:
        """Read the user's file, if it exists. Raises ConfigError naming file and key."""
        path = config_path(environment)
        text = read_text(path, at_most=MAX_CONFIG) if path.exists() else ""
        found = cls(path, parse_toml(text, str(path)), dict(environment))
        found.check()
        return found

    def check(self) -> None:
        """Raise ConfigError for the first unknown key or invalid value of the file."""
        for key, value in self.data.items():
            if key not in ("model", *TABLES):
                hint = did_you_mean(key, ["model", *TABLES])
                raise ConfigError(f'{self.path}: unknown key "{key}"{hint}')
            if key in TABLES and not isinstance(value, dict):
                raise ConfigError(f'{self.path}: "{key}" should be a table, not {shown(value)}')
        self.folders  # noqa: B018 (reads and checks them)
        self.model  # noqa: B018

    @cached_property
    def model(self) -> Given | None:
        """The default model's name or path."""
        if name := self.environment.get(f"{PREFIX}MODEL"):
            return Given(name, f"{PREFIX}MODEL")
        value = self.data.get("model")
        if value is not None and not (isinstance(value, str) and value):
            raise ConfigError(f'{self.path}: "model" should be a name, not {shown(value)}')
        return None if value is None else Given(value, str(self.path))

    @cached_property
    def folders(self) -> Folders:
        """The folders of the environment, else of the file."""
        return Folders(**{name: given.value for name, given in self.given_folders.items()})

    @cached_property
    def given_folders(self) -> dict[str, Given]:
        """The given folders, by the names of `Folders`' fields. Raises ConfigError."""
        table = self.data.get("folders", {})
        known = [spec.name for spec in fields(Folders)]
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known)
                raise ConfigError(f'{self.path} [folders]: unknown key "{key}"{hint}')
        found = {}
        for name in known:
            if text := self.environment.get(variable := f"{PREFIX}{name.upper()}"):
                paths = [expanded(part) for part in text.split(os.pathsep) if part]
                found[name] = Given(_of_field(name, paths), variable)
            elif name in table:
                paths = self._paths(name, table[name])
                found[name] = Given(_of_field(name, paths), str(self.path))
        return found

    def _paths(self, name: str, value: object) -> list[Path]:
        """Paths in the file: a string or a list, relative to the file's folder."""
        texts: list[Any] = value if isinstance(value, list) else [value]
        one = name == "downloads"
        if not texts or not all(isinstance(text, str) and text for text in texts):
            wanted = "a folder's path" if one else "a list of folders' paths"
            raise ConfigError(
                f'{self.path} [folders]: "{name}" should be {wanted}, not {shown(value)}'
            )
        return [self.path.parent / _expanded(self.path, text) for text in texts]


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of the configuration: DIFFGEN_CONFIG, or config.toml in the user's folder."""
    given = environment.get(f"{PREFIX}CONFIG")
    return expanded(given) if given else config_folder() / "config.toml"


def _of_field(name: str, paths: list[Path]) -> Path | tuple[Path, ...]:
    return paths[0] if name == "downloads" else tuple(paths)


def _expanded(file: Path, text: str) -> Path:
    try:
        return expanded(text)
    except UsageError as error:
        raise ConfigError(f"{file} [folders]: {error}") from error
