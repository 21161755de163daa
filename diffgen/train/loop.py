"""The training loop: one for every target."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffgen.device import DTYPES, memory_errors
from diffgen.errors import DiffgenError
from diffgen.files import replaced_folder
from diffgen.train import state
from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World, reduction
from diffgen.train.draws import Draws
from diffgen.train.ema import Ema
from diffgen.train.held_out import held_out_loss
from diffgen.train.lr import learning_rate
from diffgen.train.metrics import Metrics, means_of
from diffgen.train.optimizer import make_optimizer
from diffgen.train.optional import optional
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import to_toml
from diffgen.train.sharding import full, gathered, share_of, whole_weights
from diffgen.train.targets.target import Data, Target

SMALLEST_SCALE = 2.0**-20  # of fp16 losses; below it nothing is left of a gradient that fits


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known after a step, `step` of `total`; the loss is averaged over processes."""

    step: int
    total: int
    loss: float
    steps_per_second: float
    pictures_per_second: float
    seconds_left: float
    logged: bool


class Reporter(Protocol):
    """Somebody who wants to hear how a run goes; only the first process reports."""

    def step(self, progress: Progress) -> None: ...
    def say(self, line: str) -> None: ...


class Trainer:
    """One run: its weights, optimizer, average and position."""

    def __init__(
        self,
        recipe: Recipe,
        target: Target,
        data: Data,
        world: World,
        run: Path,
    ) -> None:
        self.recipe, self.target, self.data, self.world, self.run = recipe, target, data, world, run
        if recipe.run.channels_last:
            target.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
        self.module = world.wrap(target.module, recipe.run.parallel)
        self.parameters = [p for p in target.module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(target.module, recipe.optimizer, world.device)
        self.ema = Ema(target.module, recipe.run.ema)
        self.scaler = torch.amp.GradScaler(
            world.device.type, enabled=recipe.run.precision == "fp16"
        )
        self.step = 0
        self.skipped = self.told = 0  # steps whose fp16 gradients overflowed; those reported
        self.seconds = 0.0
        self.sources: Mapping[str, str] = {}  # hashes of the files that the recipe names
        self.saved = time.monotonic()  # when the last checkpoint was written, or the run began
        self.window: list[dict[str, float]] = []  # of the steps since the last logged one
        torch.manual_seed(recipe.run.seed + world.rank)

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self.run / "checkpoints"

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
        run, batches = self.recipe.run, self.batches()
        metrics = Metrics(self.run, step=self.step) if self.world.first else None
        before, first, start = self.seconds, self.step, time.perf_counter()
        while self.step < run.steps:
            with memory_errors():
                losses = self.learn(batches)
            spent = time.perf_counter() - start
            self.seconds = before + spent
            logged = self._record(losses, metrics, (self.step - first) / spent)
            if metrics:
                reporter.step(self._progress(losses["loss"], (self.step - first) / spent, logged))
                if logged:
                    self._tell_skipped(reporter)
            # One number for two questions: the signal, and whether it is time for a checkpoint.
            signal, overdue = divmod(self.world.agree(2 * stop() + self._overdue()), 2)
            if self._due(run.validate_every) and self.data.report.held_out:
                self._validate(metrics, reporter)
            done = self.step == run.steps
            if self._due(self.recipe.samples.every) and not signal and not done:
                self.export(reporter)
            if signal or overdue or self._due(run.checkpoint_every) or done:
                self.checkpoint()
            if signal:
                return signal
        return 0

    def learn(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimizer step; its losses and gradient norm, averaged over all processes.

        Raises DiffgenError, before any weight changes, when they are not finite. In fp16 a step
        whose scaled gradients overflow is skipped: nothing moves but the count of steps, and its
        gradient norm is not finite.
        """
        recipe, count = self.recipe, self.recipe.run.accumulate
        rate = learning_rate(recipe.optimizer, self.step, recipe.run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.target.module.train()
        discriminator = self.target.discriminator
        if discriminator:
            discriminator.begin(self.step, self.world)
        parts = [self._backward(next(batches), part) for part in range(count)]
        self.scaler.unscale_(self.optimizer)
        norm = full(nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip or math.inf))
        means = {name: float(sum(part[name] for part in parts)) / count for name in parts[0]}
        losses = self.world.mean({**means, "grad_norm": float(norm)})
        self._check_finite(losses)
        self._move()
        if discriminator:
            losses |= discriminator.learn(rate)
        self.step += 1
        return {**losses, "lr": rate}

    def _move(self) -> None:
        """Let the weights and all that follows them move, unless the scaler skips the step."""
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() >= scale:
            self.ema.update()
            self.target.stepped()
            return
        self.skipped += 1
        if scale < SMALLEST_SCALE:
            raise self._diverged("the gradient overflows fp16 whatever it is scaled by")

    def _backward(self, batch: Batch, part: int) -> Mapping[str, Tensor]:
        """The losses of one part of the step, their gradients added to the parameters'."""
        run = self.recipe.run
        start = (part * self.world.size + self.world.rank) * run.batch_size
        slots = range(start, start + len(batch.indices))
        with reduction(self.module, last=part == run.accumulate - 1):
            losses = self._losses(self.module, batch, self.step, slots)
            self.scaler.scale(losses["loss"] / run.accumulate).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}

    def _losses(
        self, module: nn.Module, batch: Batch, key: int | str, slots: Sequence[int]
    ) -> dict[str, Tensor]:
        """What the target says of a batch; the seed, `key` and `slots` decide all randomness."""
        draws = Draws.of((self.recipe.run.seed, key), slots, self.world.device)
        with self._autocast():
            losses: dict[str, Tensor] = module(self.target.inputs(batch, draws))
        return losses

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.recipe.run.precision]
        half = dtype != torch.float32
        # Its cache of weights in half precision would keep what sharding frees.
        return torch.autocast(
            self.world.device.type,
            dtype if half else None,
            enabled=half,
            cache_enabled=self.recipe.run.parallel == "ddp",
        )

    def _check_finite(self, losses: Mapping[str, float]) -> None:
        # Scaled fp16 gradients overflow as a matter of course; the scaler then skips the step.
        watched = ["loss"] if self.scaler.is_enabled() else ["loss", "grad_norm"]
        wrong = [name for name in watched if not math.isfinite(losses[name])]
        if wrong:
            raise self._diverged(f"{wrong[0]} is {losses[wrong[0]]}")

    def _diverged(self, what: str) -> DiffgenError:
        kept = list(state.checkpoints(self.folder).values())
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made"
        return DiffgenError(
            f"{what} at step {self.step + 1}; {last}; "
            "try a smaller optimizer.lr, a longer warmup or run.precision = fp32"
        )

    def _overdue(self) -> bool:
        """Whether the last checkpoint, or the start, is too long ago by the first process's clock."""
        minutes = self.recipe.run.checkpoint_minutes
        spent = time.monotonic() - self.saved
        return self.world.first and bool(minutes) and spent >= 60.0 * minutes

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _record(self, losses: dict[str, float], metrics: Metrics | None, speed: float) -> bool:
        """Write the averages of the last steps when it is time for it."""
        self.window.append(losses)
        run = self.recipe.run
        if not self._due(run.log_every) and self.step < run.steps:
            return False
        row = means_of(self.window)
        if self.scaler.is_enabled():
            row["skipped_steps"] = self.skipped
        self.window = []
        if metrics:
            pictures = self.pictures_per_step
            pace = {"pictures": self.step * pictures, "pictures_per_second": speed * pictures}
            metrics.write({"step": self.step, **row, **pace, "seconds": self.seconds})
        return True

    def _tell_skipped(self, reporter: Reporter) -> None:
        if self.skipped > self.told:
            reporter.say(
                f"step {self.step}: {self.skipped} skipped, whose fp16 gradients overflowed"
            )
            self.told = self.skipped

    def _progress(self, loss: float, speed: float, logged: bool) -> Progress:
        total = self.recipe.run.steps
        left = (total - self.step) / speed
        return Progress(self.step, total, loss, speed, speed * self.pictures_per_step, left, logged)

    def _validate(self, metrics: Metrics | None, reporter: Reporter) -> None:
        """The loss of averaged weights on held-out pictures, each with its own fixed noise."""
        self.target.module.eval()
        with self.ema.applied(), torch.no_grad():
            loss = held_out_loss(
                self.data, self.recipe.run.batch_size, self._held_out_loss, self.world
            )
        if metrics and loss is not None:
            metrics.write({"step": self.step, "held_out_loss": loss})
            reporter.say(f"step {self.step}: held-out loss {loss:.5f}")

    def _held_out_loss(self, batch: Batch) -> float:
        return float(self._losses(self.target.module, batch, "held out", batch.indices)["loss"])

    def export(self, reporter: Reporter) -> None:
        """Write RUN/model from averaged weights, and what it draws to RUN/samples."""
        module, first, model = self.target.module.eval(), self.world.first, self.run / "model"
        with self.ema.applied():
            with whole_weights(module, keep=first):
                if first:
                    with replaced_folder(model) as folder:
                        self.target.export(folder, DTYPES[self.recipe.run.save_dtype])
            picture = self.run / "samples" / f"step-{self.step:08d}.png"
            if first:
                held_out = self.data.validation(self.recipe.run.batch_size, rank=0, world=1)
                with optional("the preview"):
                    self.target.preview(model, picture, held_out)
        if first and picture.exists():
            reporter.say(f"step {self.step}: {picture}")
        self.world.wait()

    def checkpoint(self) -> None:
        """Write everything a continuation needs, whole: the same file however weights lie."""
        run = self.recipe.run
        generators = self.world.gather(state.rng_state())
        weights = {
            "module": self.target.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        weights = gathered(weights, keep=self.world.first)
        discriminator = self.target.discriminator
        if self.world.first:
            saved = {
                "step": self.step,
                "skipped": self.skipped,
                "seconds": self.seconds,
                "window": self.window,
                "recipe": to_toml(self.recipe),
                "data": self.data.report.fingerprint,
                "sources": dict(self.sources),
                **weights,
                "opponent": discriminator.state_dict() if discriminator else None,
                "scaler": self.scaler.state_dict(),
                "rng": generators,
            }
            state.save(self.folder, self.step, saved)
            state.prune(self.folder, keep_last=run.keep_last, keep_every=run.keep_every)
        self.world.wait()
        self.saved = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `checkpoint` wrote."""
        self.step, self.seconds, self.window = saved["step"], saved["seconds"], saved["window"]
        self.skipped = self.told = saved.get("skipped", 0)  # earlier versions did not count
        live, optimizer = self.target.module.state_dict(), saved["optimizer"]
        module = {name: share_of(tensor, live[name]) for name, tensor in saved["module"].items()}
        self.target.module.load_state_dict(module)
        self.ema.load_state_dict(saved["ema"])
        moments = {
            index: {name: share_of(t, self.parameters[index]) for name, t in entry.items()}
            for index, entry in optimizer["state"].items()
        }
        self.optimizer.load_state_dict({**optimizer, "state": moments})
        self.scaler.load_state_dict(saved["scaler"])
        if self.target.discriminator:
            self.target.discriminator.load_state_dict(saved["opponent"])
        state.set_rng_state(saved["rng"][self.world.rank])
