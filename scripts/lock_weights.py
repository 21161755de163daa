"""Fill in the sizes and hashes that weights.toml lacks, and compare those it has, with the hub.

    python scripts/lock_weights.py [--check] [FILE]

One request a repository. A hash that differs from the hub's is an error, never overwritten: somebody has
to look. `--check` writes nothing and fails where something is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from diffgen.errors import DiffgenError, WeightsError
from diffgen.files import replaced
from diffgen.weights.hub import endpoint, plain_errors
from diffgen.weights.registry import ModelEntry, RemoteFile, read_registry, registry_path


def lock(path: Path, *, check: bool) -> list[str]:
    """The names of entries that lacked something; the file has it afterwards, unless `check`.

    Raises WeightsError for a file that the hub has otherwise.
    """
    text, changed = path.read_text(encoding="utf-8"), []
    for name, entry in read_registry(path).items():
        if entry.repository is None:
            continue
        files = _locked(entry.repository, entry)
        if files != entry.files:
            changed.append(name)
            text = _with_files(text, name, files)
    if changed and not check:
        with replaced(path) as part:
            part.write_text(text, encoding="utf-8")
    return changed


def _locked(repository: str, entry: ModelEntry) -> tuple[RemoteFile, ...]:
    from huggingface_hub import HfApi

    with plain_errors(repository):
        info = HfApi(endpoint=endpoint()).model_info(
            repository, revision=entry.revision, files_metadata=True
        )
    there = {each.rfilename: each for each in info.siblings or []}
    found = []
    for file in entry.files:
        if file.path not in there:
            raise WeightsError(f"{repository} has no {file.path}")
        hub = there[file.path]
        digits = hub.lfs.sha256 if hub.lfs else None
        for ours, theirs in ((file.size, hub.size), (file.sha256, digits)):
            if None not in (ours, theirs) and ours != theirs:
                raise WeightsError(f"{repository}: {file.path} is {theirs} there, {ours} here")
        found.append(RemoteFile(file.path, file.size or hub.size, file.sha256 or digits))
    return tuple(found)


def _with_files(text: str, name: str, files: tuple[RemoteFile, ...]) -> str:
    """The TOML text with another `files` line in the table of this name, all else as it was."""
    heading = re.escape(name) if "." not in name else re.escape(json.dumps(name))
    pattern = re.compile(rf"(^\[{heading}\]\n(?:(?!\[).*\n)*?)files = .*$", re.MULTILINE)
    rows = ", ".join(_row(vars_of(file)) for file in files)
    new, count = pattern.subn(lambda match: f"{match[1]}files = [{rows}]", text)
    if count != 1:
        raise WeightsError(f"[{name}] has no line that begins with: files =")
    return new


def vars_of(file: RemoteFile) -> dict[str, object]:
    """What is known of a file, by key."""
    values = {"path": file.path, "size": file.size, "sha256": file.sha256}
    return {key: value for key, value in values.items() if value is not None}


def _row(values: Mapping[str, object]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=registry_path())
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    try:
        changed = lock(options.file, check=options.check)
    except DiffgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(changed)} incomplete: {', '.join(changed)}" if changed else "all complete")
    return int(bool(changed) and options.check)


if __name__ == "__main__":
    sys.exit(main())
