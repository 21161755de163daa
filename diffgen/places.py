"""The user's folders for configuration and data, by the rules of the operating system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs


def config_folder() -> Path:
    """The folder of the configuration: ~/.config/diffgen on Linux."""
    return platformdirs.user_config_path("diffgen", appauthor=False)


def data_folder() -> Path:
    """The folder for downloaded models: ~/.local/share/diffgen on Linux."""
    return platformdirs.user_data_path("diffgen", appauthor=False)


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Where programs of Hugging Face keep downloads, by the rules of huggingface_hub.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    if given := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expanduser(given))
    if home := environment.get("HF_HOME"):
        return Path(os.path.expanduser(home)) / "hub"
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "huggingface" / "hub"
