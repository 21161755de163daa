"""Files of `__wildcards__`: one choice a line in text, lists in YAML and JSON, read when asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dynamicprompts.wildcards import WildcardManager
from dynamicprompts.wildcards.collection import WildcardCollection
from dynamicprompts.wildcards.collection.list import ListWildcardCollection
from dynamicprompts.wildcards.item import WildcardItem
from dynamicprompts.wildcards.tree import WildcardTree
from dynamicprompts.wildcards.values import WildcardValues

from diffgen.errors import UsageError, did_you_mean, shown, some
from diffgen.jsonfile import parse_json

WEIGHT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)::(.+)")
TABLES = (".json", ".yaml", ".yml")


class Lines(WildcardCollection):
    """A file of text: a choice a line, with `0.5::` before one that is chosen less often."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_values(self) -> list[str | WildcardItem]:
        """Raises UsageError for a file that is no text."""
        try:
            text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise UsageError(f"cannot read {self._path}: {error.strerror}") from error
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise UsageError(f"{self._path} is not UTF-8 text; save the file as UTF-8")
        lines = (line.strip() for line in re.split(r"[\r\n]+", text))
        return [_weighed(line) for line in lines if line and not line.startswith("#")]


class Wildcards(WildcardManager):
    """The wildcards of a folder, which must be there where they are asked for.

    `encoded` makes a line text of the library's grammar. `weighted` says whether weights count:
    where all combinations are wanted, the library would repeat and leave out lines by them.
    """

    def __init__(self, folder: Path | None, encoded: Callable[[str], str]) -> None:
        super().__init__()
        self.weighted = True
        self._folder, self._encoded = folder, encoded
        self._broken: list[str] = []
        self._tree = WildcardTree.from_map(dict(self._found(folder) if folder else ()))

    def get_values(self, wildcard: str) -> WildcardValues:
        """The lines as the library reads them. Raises UsageError for none."""
        return WildcardValues.from_items(
            WildcardItem(self._encoded(each.content), each.weight if self.weighted else 1.0)
            for each in self.items(wildcard)
        )

    def items(self, name: str) -> list[WildcardItem]:
        """What may be chosen for a wildcard. Raises UsageError for nothing."""
        items = [
            each if isinstance(each, WildcardItem) else WildcardItem(each)
            for each in super().get_values(name).items
        ]
        if not items:
            raise UsageError(self._missing(name))
        return items

    def _missing(self, name: str) -> str:
        known = sorted(self.get_collection_names())
        if name in known:
            return f"the wildcard {shown(name)} in {self._folder} has no lines"
        broken = f"; {some(self._broken)} cannot be read" if self._broken else ""
        hint = did_you_mean(name, known)
        return f"no wildcard {shown(name)} in {self._folder}{broken}{hint}"

    def _found(self, root: Path) -> Iterator[tuple[str, WildcardCollection]]:
        """Each wildcard of the folder by its name, behind links too, but not twice."""
        seen = set()
        for folder, inner, files in os.walk(root, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                inner.clear()
                continue
            seen.add(real)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for path in (Path(folder) / name for name in sorted(files)):
                yield from self._of_file(path, path.relative_to(root))

    def _of_file(self, path: Path, within: Path) -> Iterator[tuple[str, WildcardCollection]]:
        if path.suffix == ".txt":
            yield within.with_suffix("").as_posix(), Lines(path)
        elif path.suffix in TABLES:
            try:
                for name, items in _lists(_read(path), within.with_suffix("").name):
                    yield (within.parent / name).as_posix(), ListWildcardCollection(items)
            except Exception:  # whatever its parsers raise
                self._broken.append(str(path))


def _read(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".json":
        return parse_json(text, str(path))
    import yaml  # type: ignore[import-untyped]  # only where there is such a file

    return yaml.load(text, yaml.BaseLoader)  # all is text: no other types, "no" and 1.50 as written


def _lists(value: Any, name: str) -> Iterator[tuple[str, list[str | WildcardItem]]]:
    """Each list of a table, by the names that lead to it; a whole file's by the file's."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for below, items in _lists(inner, ""):
                yield f"{key}/{below}".strip("/"), items
    elif isinstance(value, list):
        yield name, [item for each in value if (item := _item(each))]
    elif value:
        yield name, [_weighed(str(value))]


def _item(value: Any) -> str | WildcardItem | None:
    """An entry of a list: text, or a table of the text and its weight. None for none.

    Raises ValueError for anything else.
    """
    if isinstance(value, dict):
        text = str(value.get("text") or value.get("content") or "")
        return WildcardItem(text, float(value.get("weight", 1))) if text else None
    if not isinstance(value, str | int | float | None):
        raise ValueError
    return _weighed(str(value)) if value not in (None, "") else None


def _weighed(line: str) -> str | WildcardItem:
    found = WEIGHT.fullmatch(line)
    return WildcardItem(found[2].strip(), float(found[1])) if found else line
