"""An engine that draws nothing, for tests of what goes on around one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.batch.journal import Journal
from diffgen.batch.plan import BatchPlan, Job
from diffgen.batch.run import Run
from diffgen.batch.stock import Stock
from diffgen.engine.drawing import GeneratedImage
from diffgen.engine.metadata import make_record
from diffgen.engine.origin import Origin
from diffgen.engine.output import PictureOutput
from diffgen.errors import DeviceLost, DiffgenError, OutOfMemory


class Engine:
    """Fails for prompts with "bad" in them, by a bug for "bug", for good at "crash", and has room for `room` at once."""

    def __init__(self, stock: Stock, room: int = 99) -> None:
        self.batches: list[list[str]] = []
        self._room, self._origin = room, Origin(stock.model, stock.adapters.loras).record

    def draw(self, plan: Any, batch: Sequence[Any], *, on_step: Any) -> list[GeneratedImage]:
        prompts = [picture.prompt for picture in batch]
        self.batches.append(prompts)
        if len(batch) > self._room:
            raise OutOfMemory("out of memory")
        if any("bad" in prompt for prompt in prompts):
            raise DiffgenError("numbers that are not finite")
        if any("crash" in prompt for prompt in prompts):
            raise DeviceLost("the GPU failed")
        if any("bug" in prompt for prompt in prompts):
            raise RuntimeError("shape '[2, 3]' is invalid\nfor input of size 5")
        return [
            GeneratedImage(Image.new("RGB", (8, 8)), self._record(plan, each)) for each in batch
        ]

    def _record(self, plan: Any, picture: Any) -> dict[str, Any]:
        made = {"dtype": "fp32", "device": "cpu", "cut": "", "timings": {"sampling": 0.5}}
        return make_record(picture.own or plan, picture, origin=self._origin, **made)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.failures: list[tuple[int, str]] = []
        self.passed: list[str] = []

    def on_step(self, info: Any, batch: Sequence[Job]) -> None: ...

    def made(self, job: Job, path: Path | None, record: Mapping[str, Any]) -> None:
        self.paths.append(path.name if path else "-")

    def failed(self, job: Job, reason: str) -> None:
        self.failures.append((job.line, reason))

    def refused(self, line: int, reason: str) -> None:
        self.failures.append((line, reason))

    def skipped(self, job: Job, path: Path | None) -> None:
        self.passed.append(path.name if path else "-")


def planned(records: Sequence[Mapping[str, Any]], *, batch_size: int = 1) -> BatchPlan:
    """A plan of records, on lines 1, 2, ..."""
    plan = BatchPlan(seed=5, batch_size=batch_size)
    for line, record in enumerate(records, 1):
        problem = plan.add(line, record, {"steps": [2]})
        assert problem is None, problem
    return plan


class Made:
    """A run of a plan into a folder, and what came of it."""

    def __init__(self, plan: BatchPlan, folder: Path, *, room: int = 99, **options: Any) -> None:
        self.engines: list[Engine] = []
        self.heard = Heard()
        self._room = room
        output = PictureOutput(f"{folder}/", pictures=plan.count, **options.pop("output", {}))
        self.run = Run(plan, output, self._load, self.heard, **options)

    def _load(self, stock: Stock) -> Any:
        self.engines.append(Engine(stock, self._room))
        return self.engines[-1]

    @property
    def batches(self) -> list[list[str]]:
        return [batch for engine in self.engines for batch in engine.batches]


def journal_in(folder: Path, **more: Any) -> Journal:
    return Journal(folder / "p.txt.journal.jsonl", request="r", seed=5, **more)
