"""What torchrun and accelerate tell a process of several, by its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping


def process_count(environment: Mapping[str, str] = os.environ) -> int:
    """The number of processes in all."""
    return int(environment.get("WORLD_SIZE", "1"))


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that writes and prints for all."""
    return environment.get("RANK", "0") == "0"
