"""Settings from the environment and the configuration, as defaults of the command line.

They are parsed by the same table as the command line: `diffgen.settings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffgen.configuration import FOLDER_VARIABLES, PREFIX, Configuration, Given
from diffgen.errors import ConfigError, UsageError, did_you_mean, shown
from diffgen.settings.model import DEFAULT_MODEL, Adapters, Overrides
from diffgen.settings.output import Output, Talk
from diffgen.settings.picture import Number, Size
from diffgen.settings.prompting import Prompting
from diffgen.settings.running import Machine, Threads
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.settings.setting import Row, each_row, find

GROUPS: tuple[type, ...] = (
    *(Prompting, Size, Number, Sampling, Guidance, Overrides, Adapters),
    *(Output, Machine, Threads, Talk),
)
# A typed setting overrides configured ones that express the same differently.
INSTEAD: Mapping[str, tuple[str, ...]] = {
    "sigmas": ("steps", "schedule", "timesteps"),
    "timesteps": ("steps", "schedule", "sigmas"),
    "steps": ("sigmas", "timesteps"),
    "schedule": ("sigmas", "timesteps"),
    "sampler": ("schedule", "eta", "s_churn", "rho"),
}


def with_configuration(given: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
    """Typed settings, completed by those configured for their model, or the default model.

    Raises ConfigError for the first invalid setting of the file, UsageError for one of the
    environment.
    """
    model = given.get("model") or default_model(configuration).value
    asked = {"model": model, **given}
    aside = {name for typed in given for name in INSTEAD.get(typed, ())}
    found = {
        name: each.value
        for name, each in settings_for(str(model), configuration).items()
        if name not in aside
    }
    return {**found, **asked}


def default_model(configuration: Configuration) -> Given:
    """The model to use if none is named."""
    return configuration.model or Given(DEFAULT_MODEL, "diffgen")


def settings_for(model: str, configuration: Configuration) -> dict[str, Given]:
    """A model's settings by field name: all models', then its own, then the environment's."""
    tables = _tables(configuration)
    own = next((table for name, table in tables.items() if name and _is_called(model, name)), {})
    return {**tables[""], **own, **_of_environment(configuration.environment)}


def all_tables(configuration: Configuration) -> dict[str, dict[str, Given]]:
    """Every model's settings in the file, by its name there; those of all models under ""."""
    return _tables(configuration)


def _tables(configuration: Configuration) -> dict[str, dict[str, Given]]:
    """All tables, also those of other models, so that every mistake is reported."""
    path, data = configuration.path, configuration.data
    tables = {"": dict(_of_table(f"{path} [settings]", data.get("settings", {})))}
    for name, table in data.get("models", {}).items():
        where = f"{path} [models.{name}]"
        if not isinstance(table, dict):
            raise ConfigError(f"{where} should be a table of settings, not {shown(table)}")
        tables[name] = dict(_of_table(where, table))
    return tables


def _of_table(where: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Given]]:
    for key, value in table.items():
        row = find(key, *GROUPS)
        if row is None:
            hint = did_you_mean(key, [each.word for each in each_row(*GROUPS)])
            raise ConfigError(f'{where}: unknown setting "{key}"{hint}')
        try:
            yield row.name, Given(row.read(value, f'{where}: "{key}"'), where)
        except UsageError as error:
            named = "" if where in str(error) else f'{where}: "{key}": '
            raise ConfigError(f"{named}{error}") from error


def _of_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    rows: dict[str, Row] = {}
    for row in each_row(*GROUPS):
        for word in (row.name, row.word.replace("-", "_")):
            rows[f"{PREFIX}{word.upper()}"] = row
    found = {}
    for variable, text in environment.items():
        if text and variable in rows and variable not in FOLDER_VARIABLES:
            row = rows[variable]
            found[row.name] = Given(row.read(text, variable), variable)
    return found


def _is_called(model: str, name: str) -> bool:
    """Whether a table's name matches the model: its name, or its file's with or without suffix."""
    path = Path(model)
    return name.casefold() in (model.casefold(), path.name.casefold(), path.stem.casefold())
