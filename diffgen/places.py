"""The user's folders for configuration and data, by the rules of the operating system."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

NOWHERE = Path("/nonexistent")  # what Debian calls the home of users who have none


def config_folder() -> Path:
    """The folder of the configuration: ~/.config/diffgen on Linux."""
    return _of_user(platformdirs.user_config_path)


def data_folder() -> Path:
    """The folder for downloaded models: ~/.local/share/diffgen on Linux."""
    return _of_user(platformdirs.user_data_path)


def _of_user(folder: Callable[..., Path]) -> Path:
    """A folder of diffgen's; containers run as users without a home, who have nothing there."""
    try:
        return folder("diffgen", appauthor=False)
    except RuntimeError:
        return NOWHERE / "diffgen"


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
