"""CUDA graphs of a U-Net's steps: hundreds of launches recorded once and replayed by one call.

At batch 1 a GPU finishes most operators of a Stable Diffusion 1.5 before Python has launched the
next (stable-fast's and OneDiff's published figures); a graph launches them all at once. The results
are identical: the same kernels run on the same shapes.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from diffgen.errors import UsageError
from diffgen.models.fast.inference import FusedCrossAttention
from diffgen.types import Conditioning

logger = logging.getLogger("diffgen")

VARIABLE = "DIFFGEN_GRAPHS"
MOST = 8  # graphs in memory; each holds its inputs and outputs, intermediate memory is shared
Outputs: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[..., Outputs]  # x, t, conditioning and further maps, as UNet.reuse


class Capture(Protocol):
    """Records a function while running it: its outputs, and a call that computes them again."""

    def __call__(self, run: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]: ...


def wanted(device: torch.device) -> bool:
    """Whether to record steps on a device: on CUDA, unless DIFFGEN_GRAPHS is `off`.

    Raises UsageError for values other than `auto` and `off`.
    """
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in ("auto", "off"):
        raise UsageError(f'{VARIABLE}="{chosen}" is no choice: use auto or off')
    return device.type == "cuda" and chosen == "auto"


class CudaCapture:
    """Records on the current CUDA device, with one memory pool for all graphs.

    Sharing is safe, since no two graphs run at the same time and each one's outputs are held.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = run()
        return outputs, graph.replay


class Graphs:
    """The graphs of one network with constant weights, one per step and shapes.

    A combination of shapes is recorded the second time it occurs: the first call initialises
    libraries, compiles kernels, and may be the only one.
    """

    def __init__(self, network: nn.Module, capture: Capture) -> None:
        """A failed recording is logged as a warning, and ends the use of graphs."""
        self._readers = [m for m in network.modules() if isinstance(m, FusedCrossAttention)]
        self._capture: Capture | None = capture
        self._graphs: OrderedDict[Hashable, _Graph | None] = OrderedDict()

    def of(self, step: Step) -> Step:
        """The same step, replayed from a graph where possible."""
        return partial(self._run, step)

    def forget(self) -> None:
        """Read prompts again, after weights have changed in place."""
        for graph in self._graphs.values():
            if graph is not None:
                graph.forget()

    def _run(self, step: Step, x: Tensor, t: Tensor, cond: Conditioning, *maps: Tensor) -> Outputs:
        key = (step, _shapes(x, t, *maps), *_tensors(cond), _shapes(*_tensors(cond).values()))
        graph = self._graphs.get(key)
        if graph is None and key in self._graphs and self._capture is not None:
            graph = self._record(self._capture, step, x, t, cond, *maps)
        self._keep(key, graph)
        return (graph or step)(x, t, cond, *maps)

    def _record(
        self, capture: Capture, step: Step, x: Tensor, t: Tensor, cond: Conditioning, *maps: Tensor
    ) -> _Graph | None:
        try:
            return _Graph(step, self._readers, capture, x, t, cond, *maps)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            logger.warning("this GPU records no CUDA graph (%s); sampling goes on without", reason)
            self._capture = None
            return None

    def _keep(self, key: Hashable, graph: _Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > MOST:
            self._graphs.popitem(last=False)


class _Graph:
    """One recording, with its input and output memory."""

    def __init__(
        self,
        step: Step,
        readers: list[FusedCrossAttention],
        capture: Capture,
        x: Tensor,
        t: Tensor,
        cond: Conditioning,
        *maps: Tensor,
    ) -> None:
        self._moving = [tensor.clone() for tensor in (x, t, *maps)]
        self._cond = cond.map(torch.clone)
        self._told: Conditioning | None = cond
        self._readers = readers
        # Read before recording, so that replays do not read the same prompt again.
        self._keys_values = [reader.read(self._cond.context) for reader in readers]
        x, t, *more = self._moving
        self._outputs, self._replay = capture(lambda: step(x, t, self._cond, *more))

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning, *maps: Tensor) -> Outputs:
        for kept, new in zip(self._moving, (x, t, *maps), strict=True):
            kept.copy_(new)
        if cond is not self._told:
            self._tell(cond)
        self._replay()
        return tuple(output.clone() for output in self._outputs)

    def forget(self) -> None:
        """Read the next prompt again, even if it is the same."""
        self._told = None

    def _tell(self, cond: Conditioning) -> None:
        """Copy another prompt into the graph's memory."""
        new = _tensors(cond)
        for name, kept in _tensors(self._cond).items():
            kept.copy_(new[name])
        for reader, kept in zip(self._readers, self._keys_values, strict=True):
            kept.copy_(reader.to_kv(self._cond.context))
        self._told = cond


def _shapes(*tensors: Tensor) -> Hashable:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _tensors(cond: Conditioning) -> dict[str, Tensor]:
    values = {field.name: getattr(cond, field.name) for field in fields(cond)}
    return {name: value for name, value in values.items() if value is not None}
