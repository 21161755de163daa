"""diffgen: text-to-image generation in the terminal.

The public names are loaded on first use, so `import diffgen` costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffgen.engine.drawing import GeneratedImage
    from diffgen.engine.engine import Engine
    from diffgen.engine.request import GenerateRequest
    from diffgen.errors import DiffgenError
    from diffgen.types import LoraRef

__version__ = "0.1.0"
__all__ = [
    "DiffgenError",
    "Engine",
    "GenerateRequest",
    "GeneratedImage",
    "LoraRef",
    "__version__",
]

_HOMES = {
    "DiffgenError": "diffgen.errors",
    "Engine": "diffgen.engine.engine",
    "GenerateRequest": "diffgen.engine.request",
    "GeneratedImage": "diffgen.engine.drawing",
    "LoraRef": "diffgen.types",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
