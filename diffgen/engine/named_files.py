"""Find files given by name alone in the user's folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any


def with_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the names of LoRAs, embeddings and the autoencoder to paths.

    Raises UsageError for a name that is not found.
    """
    from diffgen.weights.finding import find_file

    found = dict(given)
    if "loras" in found:
        partial = bool(found.get("lora_partial"))
        found["loras"] = tuple(
            replace(lora, path=find_file(str(lora.path), "lora", option="--lora"), partial=partial)
            for lora in found["loras"]
        )
    if "embeddings" in found:
        found["embeddings"] = tuple(
            replace(ref, path=find_file(str(ref.path), "embedding", option="--embedding"))
            for ref in found["embeddings"]
        )
    if found.get("vae") is not None:
        vae: Path = found["vae"]
        found["vae"] = find_file(str(vae), "vae", option="--vae")
    return found
