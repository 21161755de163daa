"""Timing on asynchronous devices: a GPU runs its queue after Python has filled it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from diffgen.device import synchronize
from diffgen.types import StepCallback, StepInfo, ignore

# An event in a device's queue that can be waited for.
EVENTS: dict[str, Callable[[], Any]] = {
    "cuda": lambda: torch.cuda.Event(),  # type: ignore[no-untyped-call]  # torch's own
    "mps": lambda: torch.mps.event.Event(),
}


class Clock:
    """Seconds of each stage, shared equally by the pictures of a batch."""

    def __init__(self, device: torch.device, share: int) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._share = device, share
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage, after waiting for the device."""
        synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = round((now - self._start) / self._share, 4)
        self._start = now


def paced(on_step: StepCallback, device: torch.device) -> StepCallback:
    """Report a step once a GPU has finished the one before it.

    Otherwise Python would report all steps while the GPU runs the first. One step always stays
    queued, so that the GPU never idles.
    """
    if device.type not in EVENTS or on_step is ignore:
        return on_step
    before: Any = None

    def report(info: StepInfo) -> None:
        nonlocal before
        event = EVENTS[device.type]()
        event.record()
        if before is not None:
            before.synchronize()
        before = event
        on_step(info)

    return report
