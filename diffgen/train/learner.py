"""One optimizer step: the same for every target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffgen.device import DTYPES
from diffgen.errors import DiffgenError
from diffgen.settings.picture import MAX_SEED
from diffgen.train import state
from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World, reduction
from diffgen.train.draws import Draws
from diffgen.train.ema import Ema
from diffgen.train.optimizer import learning_rate, make_optimizer
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.sharding import full, gathered, share_of
from diffgen.train.targets.target import Target

BY_THEMSELVES = ("cuda",)  # devices that compute while the CPU does something else
SMALLEST_SCALE = 2.0**-20  # of fp16 losses; below it gradients underflow


class Learner:
    """The weights that learn, their optimizer and average, and the number of steps made."""

    def __init__(self, recipe: Recipe, target: Target, world: World, checkpoints: Path) -> None:
        """`checkpoints` is the folder that errors name the last good one in."""
        self.recipe, self.target, self.world = recipe, target, world
        self.checkpoints = checkpoints
        if recipe.run.channels_last:
            target.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
        self.module = world.wrap(target.module, recipe.run.parallel)
        self.parameters = [p for p in target.module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(target.module, recipe.optimizer, world.device)
        self.ema = Ema(target.module, recipe.run.ema)
        self.scaler = torch.amp.GradScaler(
            world.device.type, enabled=recipe.run.precision == "fp16"
        )
        self._ahead: Any = None  # inputs of the next step
        self.step = 0
        self.skipped = 0  # steps whose fp16 gradients overflowed
        torch.manual_seed((recipe.run.seed + world.rank) % (MAX_SEED + 1))

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
        parts = [self._backward(self._next(batches, part), part) for part in range(count)]
        self.scaler.unscale_(self.optimizer)
        norm = full(nn.utils.clip_grad_norm_(self.parameters, recipe.optimizer.clip or math.inf))
        self._look_ahead(batches)
        losses = self.world.mean(_told(parts, norm))
        self._check_finite(losses)
        self._move()
        if discriminator:
            losses |= discriminator.learn(rate)
        self.step += 1
        return {**losses, "lr": rate}

    def _move(self) -> None:
        """Update weights, average and target network, unless the scaler skips the step."""
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

    def _next(self, batches: Iterator[Batch], part: int) -> Any:
        """The module's input for one part of the step."""
        inputs, self._ahead = self._ahead, None
        return self._part(next(batches), self.step, part) if inputs is None else inputs

    def _look_ahead(self, batches: Iterator[Batch]) -> None:
        """Prepare the first part of the next step, if there is one, while the device computes."""
        last = self.step + 1 >= self.recipe.run.steps
        if last or self.world.device.type not in BY_THEMSELVES:
            return
        if (batch := next(batches, None)) is not None:
            self._ahead = self._part(batch, self.step + 1, 0)

    def _part(self, batch: Batch, step: int, part: int) -> Any:
        start = (part * self.world.size + self.world.rank) * self.recipe.run.batch_size
        return self._inputs(batch, step, range(start, start + len(batch.indices)))

    def _backward(self, inputs: Any, part: int) -> Mapping[str, Tensor]:
        """The losses of one part of the step, their gradients added to the parameters'."""
        run = self.recipe.run
        with reduction(self.module, last=part == run.accumulate - 1):
            losses = self._forward(self.module, inputs)
            self.scaler.scale(losses["loss"] / run.accumulate).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}

    def losses(
        self, module: nn.Module, batch: Batch, key: int | str, slots: Sequence[int]
    ) -> dict[str, Tensor]:
        """The losses of a batch; all randomness comes from the seed, `key` and `slots`."""
        return self._forward(module, self._inputs(batch, key, slots))

    def _forward(self, module: nn.Module, inputs: Any) -> dict[str, Tensor]:
        with self._autocast():
            losses: dict[str, Tensor] = module(inputs)
        return losses

    def _inputs(self, batch: Batch, key: int | str, slots: Sequence[int]) -> Any:
        draws = Draws.of((self.recipe.run.seed, key), slots, self.world.device)
        with self._autocast():
            return self.target.inputs(batch, draws)

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
        kept = list(state.checkpoints(self.checkpoints).values())
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made"
        return DiffgenError(
            f"{what} at step {self.step + 1}; {last}; "
            "try a smaller optimizer.lr, a longer warmup or run.precision = fp32"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state for a resumed run, unsharded, on the first process only."""
        weights = {
            "module": self.target.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        discriminator = self.target.discriminator
        return {
            "step": self.step,
            "skipped": self.skipped,
            **gathered(weights, keep=self.world.first),
            "opponent": discriminator.state_dict() if discriminator else None,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.step = saved["step"]
        self.skipped = saved.get("skipped", 0)  # earlier versions did not count
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


def _told(parts: Sequence[Mapping[str, Tensor]], norm: Tensor) -> dict[str, float]:
    """The means over a step's parts, and the norm, read from the device at once.

    Each single reading would wait until the device has nothing left to do.
    """
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    *values, size = torch.stack([*map(torch.as_tensor, sums.values()), norm]).tolist()
    means = {name: value / len(parts) for name, value in zip(sums, values, strict=True)}
    return {**means, "grad_norm": size}
