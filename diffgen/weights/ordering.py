"""From a user's request to the files to fetch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffgen.configuration import Configuration, Folders
from diffgen.errors import UsageError, WeightsError, did_you_mean
from diffgen.weights.hub import (
    SOURCE,
    Order,
    endpoint,
    is_offline,
    order_of_entry,
    order_of_repository,
)
from diffgen.weights.registry import known_entries
from diffgen.weights.shelf import folder_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order, and its target."""

    order: Order
    folders: Folders

    @property
    def folder(self) -> Path:
        """The folder for its files."""
        return folder_of(self.order.repository, self.folders)

    @property
    def page(self) -> str:
        """The web page with details and the licence."""
        return f"{endpoint()}/{self.order.repository}"


def order(source: str, *, variant: str | None = None, offline: bool = False) -> Wanted:
    """The files behind a registered name, or `owner/name`, or `owner/name:file`.

    Asks the hub about a repository. Raises UsageError for an unknown name, WeightsError if the hub
    is needed and unreachable.
    """
    folders, entries = Configuration.read().folders, known_entries()
    if source in entries:
        return Wanted(order_of_entry(source, entries[source]), folders)
    match = SOURCE.fullmatch(source)
    if match is None:
        hint = did_you_mean(source, entries)
        raise UsageError(
            f'no model "{source}" is known{hint or "."} `diffgen models` lists '
            "them; a repository is written owner/name, a file of it owner/name:file"
        )
    if offline or is_offline():
        raise WeightsError(
            f"what {source} has, only the hub can tell, and nothing is asked offline"
        )
    return Wanted(order_of_repository(match["repository"], match["file"], variant), folders)
