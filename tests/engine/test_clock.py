"""Progress on a device that works by itself."""

import pytest
import torch

from diffgen.engine.clock import Clock, paced
from diffgen.types import StepInfo, ignore


def step(index: int) -> StepInfo:
    x = torch.zeros(1)
    return StepInfo(index, 4, 1.0, x, x)


def test_a_cpu_is_done_when_it_says_so():
    def on_step(info: StepInfo) -> None: ...

    assert paced(on_step, torch.device("cpu")) is on_step
    assert paced(ignore, torch.device("cuda")) is ignore


@pytest.mark.parametrize(("kind", "module"), [("cuda", torch.cuda), ("mps", torch.mps.event)])
def test_a_step_is_told_of_when_the_one_before_is_done(monkeypatch, kind, module):
    log: list[str] = []

    class Event:
        def record(self) -> None:
            self.name = f"after step {len([word for word in log if word.startswith('after')])}"
            log.append(self.name)

        def synchronize(self) -> None:
            log.append(f"waited for {self.name}")

    monkeypatch.setattr(module, "Event", Event)
    report = paced(lambda info: log.append(f"told of {info.index}"), torch.device(kind))
    for index in range(3):
        report(step(index))
    assert log == [
        *("after step 0", "told of 0"),
        *("after step 1", "waited for after step 0", "told of 1"),
        *("after step 2", "waited for after step 1", "told of 2"),
    ]


def test_stages_share_their_time_among_the_pictures(monkeypatch):
    times = iter([10.0, 11.0, 15.0])
    monkeypatch.setattr("diffgen.engine.clock.time.perf_counter", lambda: next(times))
    clock = Clock(torch.device("cpu"), 4)
    clock.lap("text")
    clock.lap("sampling")
    assert clock.seconds == {"text": 0.25, "sampling": pytest.approx(1.0)}


def test_a_stage_ends_when_the_device_has_done_it(monkeypatch):
    waited = []
    monkeypatch.setattr("diffgen.engine.clock.synchronize", waited.append)
    Clock(torch.device("mps"), 1).lap("text")
    assert waited == [torch.device("mps")]
