"""The contents of a repository on the Hugging Face hub or a mirror; its errors as one line.

huggingface_hub makes the requests: tokens, mirrors (HF_ENDPOINT), proxies and retries are the
user's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from diffgen.errors import DiffgenError, UsageError, WeightsError, did_you_mean, some
from diffgen.weights.diffusers.folder import STEMS, candidates
from diffgen.weights.registry import ModelEntry, RemoteFile, is_inside
from diffgen.weights.shelf import INDEX

ENDPOINT = "https://huggingface.co"
TRUE = ("1", "on", "yes", "true")
SOURCE = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?::(?P<file>.+))?")
PARTS = (*STEMS, "tokenizer", "tokenizer_2", "scheduler")
SHA256 = re.compile(r"[0-9a-f]{64}")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Files to fetch: their repository, revision and licence."""

    name: str
    repository: str
    revision: str
    files: tuple[RemoteFile, ...]
    license: str | None = None

    @property
    def size(self) -> int | None:
        """The size of all files in bytes; None if some are unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def is_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has disabled network access."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environment.get(name, "").lower() in TRUE for name in names)


def order_of_entry(name: str, entry: ModelEntry) -> Order:
    """The download that weights.toml lists for a model. Raises UsageError if it has none."""
    if entry.repository is None:
        raise UsageError(f"{name} is on this machine already; there is nothing to fetch")
    return Order(
        name=name,
        repository=entry.repository,
        revision=entry.revision or "main",
        files=entry.files,
        license=entry.license,
    )


def order_of_repository(repository: str, file: str | None, variant: str | None = None) -> Order:
    """Ask the hub for a repository's files: a named one, or those of a whole model.

    Raises UsageError for missing or ambiguous files, WeightsError if the hub refuses.
    """
    from huggingface_hub import HfApi

    with plain_errors(repository):
        info = HfApi(endpoint=endpoint()).model_info(repository, files_metadata=True)
    files = {
        each.rfilename: RemoteFile(each.rfilename, each.size, each.lfs.sha256 if each.lfs else None)
        for each in info.siblings or []
        if is_inside(each.rfilename)
    }
    card = info.card_data
    return Order(
        name=f"{repository}:{file}" if file else repository,
        repository=repository,
        revision=info.sha or "main",
        files=tuple(_chosen(repository, file, files, variant)),
        license=str(card.get("license_name") or card.get("license") or "") or None
        if card
        else None,
    )


def _chosen(
    repository: str, wanted: str | None, files: Mapping[str, RemoteFile], variant: str | None
) -> Sequence[RemoteFile]:
    if wanted is not None:
        if wanted not in files:
            raise UsageError(f"{repository} has no file {wanted}{did_you_mean(wanted, files)}")
        return [files[wanted]]
    if INDEX in files:
        return [files[name] for name in _of_a_folder(files, variant)]
    single = [name for name in files if "/" not in name and name.endswith(".safetensors")]
    if len(single) == 1:
        return [files[single[0]]]
    if not single:
        raise UsageError(f"{repository} has neither a {INDEX} nor a .safetensors file")
    raise UsageError(
        f"{repository} has several files, such as {some(single)}; name one: "
        f"diffgen pull {repository}:{single[0]}"
    )


def _of_a_folder(files: Mapping[str, RemoteFile], variant: str | None) -> Iterator[str]:
    """The configs, vocabularies and weights of a model in diffusers layout."""
    for name in files:
        path = PurePosixPath(name)
        inside = path.parts[0] in PARTS and len(path.parts) == 2
        config = path.suffix in (".json", ".txt") and ".index." not in name
        if name == INDEX or (inside and config):
            yield name
    for part, stem in STEMS.items():
        found = [each for each in candidates(stem, variant) if f"{part}/{each}" in files]
        if found:
            yield f"{part}/{found[0]}"
        if found and found[0].endswith(".json"):
            marks = set(found[0].split(".")) - {stem, "safetensors", "index", "json"}
            yield from (name for name in files if _is_shard(name, part, marks))


def _is_shard(name: str, part: str, marks: set[str]) -> bool:
    """Whether a file is one of several that hold a component in the variant `marks` names."""
    folder, _, file = name.partition("/")
    words = re.sub(r"-\d+-of-\d+", "", file).split(".")
    return (
        folder == part
        and "-of-" in file
        and words[-1] == "safetensors"
        and (set(words[1:-1]) == marks)
    )


@contextmanager
def plain_errors(repository: str) -> Iterator[None]:
    """Turn errors of the hub and of the network into one line with advice."""
    from huggingface_hub import errors

    # The library's HTTP client has changed twice; this is a common base of its errors.
    network: tuple[Any, ...] = (*errors.HfHubHTTPError.__bases__, OSError)
    try:
        yield
    except DiffgenError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{repository} is gated: accept its terms at {endpoint()}/{repository}, then {LOG_IN}, "
            "and run this again"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"there is no repository {repository} at {endpoint()}, or it is private: check the "
            f"name, or {LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{repository} no longer has the revision that was asked for") from error
    except errors.EntryNotFoundError as error:
        raise UsageError(f"{repository} no longer has the file that was asked for") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = LOG_IN if status in (401, 403) else "try again later"
        raise WeightsError(f"{endpoint()} answers {status} for {repository}: {advice}") from error
    except errors.HFValidationError as error:
        raise UsageError(f"{repository} is no name of a repository: owner/name") from error
    except network as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{endpoint()} cannot be reached ({reason}); the same command goes on later"
        ) from error
