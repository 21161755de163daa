"""Find files given by name alone in the user's folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.types import LoraRef


def with_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the names of LoRAs, embeddings and the autoencoder to paths.

    Raises UsageError for a name that is not found.
    """
    from diffgen.weights.finding import find_file

    found = dict(given)
    if "loras" in found:
        partial, given_loras = bool(found.get("lora_partial")), found["loras"]

        def located(loras: Iterable[LoraRef]) -> tuple[LoraRef, ...]:
            paths = ((each, find_file(str(each.path), "lora", option="--lora")) for each in loras)
            return tuple(replace(lora, path=path, partial=partial) for lora, path in paths)

        several = isinstance(given_loras, list)  # stacks of them, of a sweep
        found["loras"] = [*map(located, given_loras)] if several else located(given_loras)
    if "embeddings" in found:
        found["embeddings"] = tuple(
            replace(ref, path=find_file(str(ref.path), "embedding", option="--embedding"))
            for ref in found["embeddings"]
        )
    if found.get("vae") is not None:
        vae: Path = found["vae"]
        found["vae"] = find_file(str(vae), "vae", option="--vae")
    return found
