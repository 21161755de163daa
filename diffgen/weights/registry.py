"""The models known by name: the shipped weights.toml, and the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from diffgen.errors import ConfigError, did_you_mean, shown
from diffgen.jsonfile import KINDS, MAX_CONFIG, of_kind, parse_toml, read_text
from diffgen.limits import check_ranges, within
from diffgen.places import config_folder
from diffgen.types import SamplerName, SpacingName

PACKAGE = Path(__file__).resolve().parent.parent

Kind: TypeAlias = Literal["model", "lora", "vae", "decoder", "embedding"]
Family: TypeAlias = Literal["sd1", "sd2", "sdxl", "custom"]

KEYS: Mapping[str, type] = {
    "bundled": str,
    "path": str,
    "repository": str,
    "revision": str,
    "kind": str,
    "family": str,
    "lora": str,
    "description": str,
    "license": str,
    "steps": int,
    "guidance_scale": float,
    "sampler": str,
    "schedule": str,
}
REQUIRED = ("description", "license")
PLACES = ("bundled", "path", "repository")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "family": get_args(Family),
    "sampler": get_args(SamplerName),
    "schedule": get_args(SpacingName),
}
FILE_KEYS: Mapping[str, type] = {"path": str, "size": int, "sha256": str}
SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its path there, and its size and SHA-256, if known."""

    path: str
    size: int | None = within(None, 0, 1 << 50)
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One table of weights.toml: the location of a model or a part, and recommended settings.

    It lies in the package (`bundled`), on this machine (`path`) or in a repository of the Hugging
    Face hub, which has `files`; `lora`, a file of the package, belongs to the model. None means no
    such file, or no recommendation.
    """

    description: str
    license: str
    bundled: str | None = None
    path: str | None = None
    repository: str | None = None
    revision: str | None = None
    files: tuple[RemoteFile, ...] = ()
    kind: Kind = "model"
    family: Family = "custom"
    lora: str | None = None
    steps: int | None = within(None, 1, 10_000)
    guidance_scale: float | None = within(None, 0.0, 1000.0)
    sampler: SamplerName | None = None
    schedule: SpacingName | None = None

    @property
    def size(self) -> int | None:
        """Bytes to download; None if unknown."""
        sizes = [file.size for file in self.files]
        return sum(filter(None, sizes)) if all(sizes) and sizes else None


def known_entries() -> dict[str, ModelEntry]:
    """Every model known by name; the user's override others of the same name."""
    own = user_registry_path()
    return read_registry(registry_path()) | (read_registry(own) if own.is_file() else {})


def registry_path() -> Path:
    """weights.toml in the installed package, or at the root of the repository."""
    packaged = PACKAGE / "weights.toml"
    return packaged if packaged.is_file() else PACKAGE.parent / "weights.toml"


def user_registry_path() -> Path:
    """The user's registry of models, whether or not the file exists."""
    return config_folder() / "weights.toml"


def read_registry(path: Path) -> dict[str, ModelEntry]:
    """Parse and check a weights.toml. Raises ConfigError, naming file, table and key."""
    tables = parse_toml(read_text(path, at_most=MAX_CONFIG), str(path))
    return {name: _entry(f"{path} [{name}]", table) for name, table in tables.items()}


def _entry(where: str, table: object) -> ModelEntry:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: every model needs a table of its own")
    given = dict(table)
    files = tuple(_files(where, given.pop("files", [])))
    values = {key: _value(where, key, value, KEYS) for key, value in given.items()}
    for key in REQUIRED:
        if key not in values:
            raise ConfigError(f'{where}: "{key}" is missing')
    _check_place(where, values, files)
    entry = ModelEntry(**values, files=files)
    check_ranges(entry, lambda key: f'{where}: "{key}"')
    return entry


def _check_place(where: str, values: Mapping[str, object], files: tuple[RemoteFile, ...]) -> None:
    given = [key for key in PLACES if key in values]
    if len(given) != 1:
        names = ", ".join(f'"{key}"' for key in PLACES)
        found = " and ".join(f'"{key}"' for key in given) or "none"
        raise ConfigError(f"{where}: exactly one of {names} says where it is, not {found}")
    if given == ["repository"] and not files:
        raise ConfigError(f'{where}: "files" is missing: a list such as [{{ path = "x" }}]')


def _files(where: str, value: object) -> list[RemoteFile]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ConfigError(f'{where}: "files" should be a list of tables, not {shown(value)}')
    return [_file(f"{where}: files {number}", table) for number, table in enumerate(value, 1)]


def _file(where: str, table: Mapping[str, object]) -> RemoteFile:
    values = {key: _value(where, key, value, FILE_KEYS) for key, value in table.items()}
    if "path" not in values:
        raise ConfigError(f'{where}: "path" is missing')
    if not is_inside(values["path"]):
        raise ConfigError(f'{where}: "path" leads out of the repository: {shown(values["path"])}')
    digits = values.get("sha256")
    if digits is not None and not _is_sha256(digits):
        raise ConfigError(f'{where}: "sha256" should be 64 hexadecimal digits, not {shown(digits)}')
    file = RemoteFile(**values)
    check_ranges(file, lambda key: f'{where}: "{key}"')
    return file


def is_inside(path: str) -> bool:
    """Whether an untrusted relative path stays inside its folder."""
    return bool(path) and not (
        path.startswith(("/", "~"))
        or ".." in path.split("/")
        or any(char in path for char in "\\:\0")
    )


def _is_sha256(digits: str) -> bool:
    return len(digits) == SHA256_DIGITS and set(digits) <= set("0123456789abcdef")


def _value(where: str, key: str, value: object, keys: Mapping[str, type]) -> Any:
    if key not in keys:
        raise ConfigError(f'{where}: unknown key "{key}"{did_you_mean(key, keys)}')
    kind = keys[key]
    found = of_kind(value, kind)
    if found is None:
        raise ConfigError(f'{where}: "{key}" should be {KINDS[kind]}, not {shown(value)}')
    if key in CHOICES and value not in CHOICES[key]:
        hint = did_you_mean(str(value), CHOICES[key])
        raise ConfigError(f'{where}: "{key}" has the unknown value {shown(value)}{hint}')
    return found
