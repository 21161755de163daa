"""The training loop: one for every target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from diffgen.device import DTYPES, memory_errors
from diffgen.files import replaced_folder
from diffgen.train import state
from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World
from diffgen.train.held_out import held_out_loss
from diffgen.train.learner import Learner
from diffgen.train.metrics import Metrics, means_of
from diffgen.train.optional import optional
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import to_toml
from diffgen.train.sharding import whole_weights
from diffgen.train.targets.target import Data, Target


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run after a step; the loss is averaged over processes."""

    step: int
    total: int
    loss: float
    steps_per_second: float
    pictures_per_second: float
    seconds_left: float
    logged: bool


class Reporter(Protocol):
    """Shows the progress of a run; only the first process reports."""

    def step(self, progress: Progress) -> None: ...
    def say(self, line: str) -> None: ...


class Trainer:
    """One run: what learns, the data, and when to log, validate, export and save."""

    def __init__(
        self, recipe: Recipe, target: Target, data: Data, world: World, folder: Path
    ) -> None:
        self.recipe, self.target, self.data, self.world = recipe, target, data, world
        self.folder = folder
        self.learner = Learner(recipe, target, world, self.checkpoints)
        self.reported = 0  # skipped steps
        self.seconds = 0.0
        self.sources: Mapping[str, str] = {}  # hashes of the files that the recipe names
        self.saved = time.monotonic()  # when the last checkpoint was written, or the run began
        self.window: list[dict[str, float]] = []  # losses since the last logged step

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def step(self) -> int:
        """The number of steps made."""
        return self.learner.step

    @property
    def pictures_per_step(self) -> int:
        """Pictures seen by all processes in one step."""
        run = self.recipe.run
        return run.batch_size * run.accumulate * self.world.size

    def batches(self) -> Iterator[Batch]:
        """The data from the present position on."""
        run = self.recipe.run
        return self.data.batches(
            batch_size=run.batch_size,
            seed=run.seed,
            rank=self.world.rank,
            world=self.world.size,
            start=self.step * run.accumulate,
            workers=self.recipe.data.workers,
        )

    def train(self, reporter: Reporter, stop: Callable[[], int]) -> int:
        """Go on to the last step; `stop` gives the number of a signal that asks to end, or 0.

        Returns the signal a run was stopped by after writing a checkpoint, else 0. Raises
        DiffgenError, naming step and last good checkpoint, when the loss is not finite; OutputError
        when a checkpoint cannot be written; DeviceError when memory runs out.
        """
        batches = self.batches()
        metrics = Metrics(self.folder, step=self.step) if self.world.first else None
        before, first, start = self.seconds, self.step, time.perf_counter()
        while self.step < self.recipe.run.steps:
            with memory_errors():
                losses = self.learner.learn(batches)
            spent = time.perf_counter() - start
            self.seconds = before + spent
            self._report(losses, metrics, reporter, (self.step - first) / spent)
            if signal := self._save(metrics, reporter, stop):
                return signal
        return 0

    def _report(
        self,
        losses: dict[str, float],
        metrics: Metrics | None,
        reporter: Reporter,
        speed: float,
    ) -> None:
        """Log a step and show it; `speed` is in steps per second."""
        logged = self._record(losses, metrics, speed)
        if metrics:
            reporter.step(self._progress(losses["loss"], speed, logged))
            if logged:
                self._report_skipped(reporter)

    def _save(self, metrics: Metrics | None, reporter: Reporter, stop: Callable[[], int]) -> int:
        """Validate, draw samples and write a checkpoint where each is due; the signal that came."""
        run = self.recipe.run
        # One number for two questions: the signal, and whether it is time for a checkpoint.
        signal, overdue = divmod(self.world.agree(2 * stop() + self._overdue()), 2)
        if self._due(run.validate_every) and self.data.report.held_out:
            self._validate(metrics, reporter)
        done = self.step == run.steps
        if self._due(self.recipe.samples.every) and not signal and not done:
            self.export(reporter)
        if signal or overdue or self._due(run.checkpoint_every) or done:
            self.checkpoint()
        return signal

    def _overdue(self) -> bool:
        """Whether a checkpoint by time is due, by the clock of the first process."""
        minutes = self.recipe.run.checkpoint_minutes
        spent = time.monotonic() - self.saved
        return self.world.first and bool(minutes) and spent >= 60.0 * minutes

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _record(self, losses: dict[str, float], metrics: Metrics | None, speed: float) -> bool:
        """Write the averages of the last steps to the metrics if they are due."""
        self.window.append(losses)
        run = self.recipe.run
        if not self._due(run.log_every) and self.step < run.steps:
            return False
        row = means_of(self.window)
        if self.learner.scaler.is_enabled():
            row["skipped_steps"] = self.learner.skipped
        self.window = []
        if metrics:
            pictures = self.pictures_per_step
            pace = {"pictures": self.step * pictures, "pictures_per_second": speed * pictures}
            metrics.write({"step": self.step, **row, **pace, "seconds": self.seconds})
        return True

    def _report_skipped(self, reporter: Reporter) -> None:
        if self.learner.skipped > self.reported:
            reporter.say(
                f"step {self.step}: {self.learner.skipped} skipped, whose fp16 gradients overflowed"
            )
            self.reported = self.learner.skipped

    def _progress(self, loss: float, speed: float, logged: bool) -> Progress:
        total = self.recipe.run.steps
        left = (total - self.step) / speed
        return Progress(self.step, total, loss, speed, speed * self.pictures_per_step, left, logged)

    def _validate(self, metrics: Metrics | None, reporter: Reporter) -> None:
        """The loss of averaged weights on held-out pictures, each with its own fixed noise."""
        self.target.module.eval()
        with self.learner.ema.applied(), torch.no_grad():
            loss = held_out_loss(
                self.data, self.recipe.run.batch_size, self._held_out_loss, self.world
            )
        if metrics and loss is not None:
            metrics.write({"step": self.step, "held_out_loss": loss})
            reporter.say(f"step {self.step}: held-out loss {loss:.5f}")

    def _held_out_loss(self, batch: Batch) -> float:
        return float(
            self.learner.losses(self.target.module, batch, "held out", batch.indices)["loss"]
        )

    def export(self, reporter: Reporter) -> None:
        """Write RUN/model from averaged weights, and what it draws to RUN/samples."""
        module, first, model = self.target.module.eval(), self.world.first, self.folder / "model"
        with self.learner.ema.applied():
            with whole_weights(module, keep=first):
                if first:
                    with replaced_folder(model) as folder:
                        self.target.export(folder, DTYPES[self.recipe.run.save_dtype])
            picture = self.folder / "samples" / f"step-{self.step:08d}.png"
            if first:
                held_out = self.data.validation(self.recipe.run.batch_size, rank=0, world=1)
                with optional("the preview"):
                    self.target.preview(model, picture, held_out)
        if first and picture.exists():
            reporter.say(f"step {self.step}: {picture}")
        self.world.wait()

    def checkpoint(self) -> None:
        """Write a checkpoint: the same file whether weights are sharded or not."""
        run = self.recipe.run
        generators = self.world.gather(state.rng_state())
        learned = self.learner.state_dict()
        if self.world.first:
            saved = {
                **learned,
                "seconds": self.seconds,
                "window": self.window,
                "recipe": to_toml(self.recipe),
                "data": self.data.report.fingerprint,
                "sources": dict(self.sources),
                "rng": generators,
            }
            state.save(self.checkpoints, self.step, saved)
            state.prune(self.checkpoints, keep_last=run.keep_last, keep_every=run.keep_every)
        self.world.wait()
        self.saved = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `checkpoint` wrote."""
        self.seconds, self.window = saved["seconds"], saved["window"]
        self.learner.load_state_dict(saved)
        self.reported = self.learner.skipped
        state.set_rng_state(saved["rng"][self.world.rank])
