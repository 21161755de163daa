"""Building a network without giving its parameters memory or values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

AnyConfig = TypeVar("AnyConfig")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def build_empty(kind: Callable[[AnyConfig], AnyModule], config: AnyConfig) -> AnyModule:
    """The module of a config on the meta device, for weights to be assigned to."""
    with torch.device("meta"), _NoInitialisation():
        return kind(config)


class _NoInitialisation(TorchFunctionMode):
    """Turns every function of torch.nn.init into a no-op.

    The values would be replaced anyway, and a random one on the meta device costs a second: it
    makes torch import its compiler.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
