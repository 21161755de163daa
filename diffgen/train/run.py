"""Run a recipe: what `diffgen train` does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError

from diffgen.device import available_memory, peak_memory
from diffgen.errors import OutputError, UsageError, one_line
from diffgen.files import expanded, locked, replaced, was_locked
from diffgen.jsonfile import parse_toml
from diffgen.launch import is_first
from diffgen.signals import heard
from diffgen.train import state
from diffgen.train.card import commit, hardware, write_card
from diffgen.train.data.bpe import settle_vocabulary
from diffgen.train.data.cache import CachedData
from diffgen.train.data.dataset import TrainingData, open_data
from diffgen.train.data.latents import LatentFiles
from diffgen.train.dist import World, open_world
from diffgen.train.loop import Reporter, Trainer
from diffgen.train.metrics import plot_curve, read_rows
from diffgen.train.optional import optional
from diffgen.train.recipe.checks import remarks
from diffgen.train.recipe.read import parse_recipe
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import to_toml
from diffgen.train.sources import hash_sources
from diffgen.train.targets.autoencoder import autoencoder_target
from diffgen.train.targets.contrastive import contrastive_target
from diffgen.train.targets.diffusion import diffusion_target
from diffgen.train.targets.distill import distill_target
from diffgen.train.targets.lora import lora_target
from diffgen.train.targets.target import LatentEncoder, Target

ENCODED_TOGETHER = {"cpu": 16}  # pictures; more leave a processor's cache without gaining anything
ENCODED_BY_GPU = 64
KEPT = 0.5  # of the memory that is available: latents that are read from disk only once

TARGETS: dict[str, Callable[[Recipe, torch.device], Target]] = {
    "diffusion": diffusion_target,
    "autoencoder": autoencoder_target,
    "contrastive": contrastive_target,
    "distill": distill_target,
    "lora": lora_target,
}
LOCK = ".lock"
PRODUCTS = ("model", "samples", "tokenizer", "tensorboard", "metrics.jsonl", "recipe.toml")
TRIAL_STEPS = 2
ENCODING_EVERY = 10.0  # seconds between two lines about the latent cache
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the finished model's folder, and the signal that asked to stop, if any did."""

    model: Path | None
    signal: int = 0


def train(recipe: Recipe, run: Path, *, resume: bool, reporter: Reporter) -> Outcome:
    """Train, or go on with training, in the folder `run`.

    Raises UsageError, ConfigError or WeightsError before the first step for a recipe, data or model
    that cannot be used, and what `Trainer.train` raises afterwards.
    """
    _check_folder(run, resume=resume)
    with _alone_in(run), open_world(recipe.run.device) as world:
        settled = settle_vocabulary(recipe, run / "tokenizer", world, learned=resume)
        trainer = _prepare(recipe, run, world, settled, reporter.say)
        # One process is enough to read files of gigabytes.
        trainer.sources = world.gather(hash_sources(recipe) if world.first else {})[0]
        if resume:
            for change in _restore(trainer):
                reporter.say(f"goes on with {change}")
        if world.first:
            with _disk_errors(trainer):
                keep_recipe(recipe, run)
            for line in [*trainer.data.report.lines, *remarks(recipe), _summary(trainer)]:
                reporter.say(line)
        with _asked_to_stop() as stop, _disk_errors(trainer):
            stopped = trainer.train(reporter, stop)
            if stopped:
                return Outcome(None, stopped)
            trainer.export(reporter)
            for failed in world.gather(trainer.data.failed):
                trainer.data.mark_damaged(failed)
            if world.first:
                _finish(trainer)
            return Outcome(run / "model", world.agree(stop()))


def dry_run(recipe: Recipe, run: Path) -> list[str]:
    """Check everything, learn for a few steps without saving, and say what a run would take.

    Raises what `train` would raise before its first step.
    """
    with open_world(recipe.run.device) as world, TemporaryDirectory() as scratch:
        settled = settle_vocabulary(recipe, Path(scratch) / "tokenizer", world, learned=False)
        trainer = _prepare(recipe, run, world, settled, None)
        summary, batches = _summary(trainer), trainer.batches()
        latents = []
        if isinstance(trainer.data, CachedData):
            latents = [f"latent cache: {trainer.data.state()}; a run encodes the others first"]
            # Those that a few steps need are encoded now, for the time below is without that.
            needed = (1 + TRIAL_STEPS) * recipe.run.accumulate
            batches = iter(list(islice(batches, needed)))
        trainer.learner.learn(batches)  # the first is slower: kernels are chosen, memory is found
        start = time.perf_counter()
        for _ in range(TRIAL_STEPS):
            trainer.learner.learn(batches)
        seconds = (time.perf_counter() - start) / TRIAL_STEPS
    steps = recipe.run.steps
    epochs = steps * trainer.pictures_per_step / max(1, trainer.data.report.pictures)
    return [
        *trainer.data.report.lines,
        *latents,
        *remarks(recipe),
        summary,
        f"{steps} steps of {_pictures(trainer)}: {epochs:.1f} epochs",
        f"time: about {steps * seconds / 60:.1f} min ({seconds:.3f} s a step, measured)",
        *_memory(world.device),
    ]


def _check_folder(run: Path, *, resume: bool) -> None:
    """Raise UsageError for a folder that holds something else than this run."""
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file; a run needs a folder, so choose another -o")
    found = state.checkpoints(run / "checkpoints")
    if found and not resume:
        raise UsageError(f"{run} holds a run already; add --resume to go on, or choose another -o")
    if resume and not found:
        raise UsageError(f"{run} has no checkpoint to resume from; start without --resume")
    taken = [name for name in PRODUCTS if (run / name).exists()]
    # A run that was stopped before its first checkpoint leaves its lock, and may start again.
    begun = was_locked(run, LOCK) and "model" not in taken
    if taken and not resume and not begun:
        raise UsageError(
            f"{run} holds {', '.join(taken)}, which a run would replace; choose another -o"
        )


def _alone_in(run: Path) -> AbstractContextManager[None]:
    """The run's folder, locked by the first process. Raises OutputError where it is in use."""
    return locked(run, LOCK) if is_first() else nullcontext()


def keep_recipe(recipe: Recipe, run: Path) -> None:
    """Write RUN/recipe.toml, which makes the run again. Raises OSError."""
    with replaced(run / "recipe.toml") as part:
        part.write_text(to_toml(recipe), encoding="utf-8")


def _prepare(recipe: Recipe, run: Path, world: World, settled: Recipe, say: Say | None) -> Trainer:
    """Build target and data; `settled` is the recipe with its vocabulary learned.

    The latent cache is filled if `say` is given, which reports the progress.
    """
    target = TARGETS[recipe.target](settled, world.device)
    tokenizer = next(iter(target.tokenizers), None)
    data = open_data(recipe.data, tokenizer=tokenizer, captioned=tokenizer is not None)
    if not recipe.data.cache or not target.latent_encoder:
        return Trainer(recipe, target, data, world, run)
    cached = _cached(recipe, data, target.latent_encoder, world)
    if say:
        cached.fill(
            _source(recipe.data.path),
            world=world,
            batch_size=min(
                recipe.run.batch_size, ENCODED_TOGETHER.get(world.device.type, ENCODED_BY_GPU)
            ),
            workers=recipe.data.workers,
            on_progress=_encoding(say) if world.first else lambda _done, _total: None,
        )
    return Trainer(recipe, target, cached, world, run)


def _source(data: str) -> str:
    """The name of a data set in the cache: its absolute path, or the pattern of its shards."""
    path = expanded(data)
    return str(path.absolute()) if path.exists() else f"data.path = {data}"


def _cached(recipe: Recipe, data: TrainingData, encoder: LatentEncoder, world: World) -> CachedData:
    folder = expanded(recipe.data.cache or "")
    files = LatentFiles(folder, encoder.autoencoder_hash())
    memory = int(KEPT * available_memory()) // world.size
    return CachedData(data, encoder.encode, files, memory=memory)


def _encoding(say: Say) -> Callable[[int, int], None]:
    """Report the number of encoded pictures from time to time."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= ENCODING_EVERY:
            last = time.monotonic()
            say(f"encoded {done} of {total} pictures")

    return progress


def _restore(trainer: Trainer) -> list[str]:
    """Load the last checkpoint; returns the settings that differ on purpose."""
    saved: dict[str, Any] = state.load_last(trainer.checkpoints)
    before = parse_recipe(
        parse_toml(saved["recipe"], str(trainer.checkpoints)), str(trainer.checkpoints)
    )
    changes = state.check_same(
        before,
        trainer.recipe,
        data=(saved["data"], trainer.data.report.fingerprint),
        world=(len(saved["rng"]), trainer.world.size),
        sources=(saved.get("sources", {}), trainer.sources),  # earlier versions kept none
    )
    trainer.restore(saved)
    return changes


@contextmanager
def _disk_errors(trainer: Trainer) -> Iterator[None]:
    """Turn failures to write pictures, metrics and models into OutputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(str(error))
        # Of a failed rename, the second name is the one that was meant.
        names = (getattr(error, "filename2", None), getattr(error, "filename", None))
        path = next(filter(None, names), trainer.folder)
        raise OutputError(
            f"cannot write {path}: {reason}; {state.last_good(trainer.checkpoints)}"
        ) from error


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the signal that asked to stop, or 0; a second signal kills.

    Signals ignored since the start of the program, as under nohup, stay ignored.
    """
    came: list[int] = []

    def remember(number: int, _frame: object) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, remember) for number in heard()}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(trainer: Trainer) -> str:
    count = sum(p.numel() for p in trainer.learner.parameters)
    run, world = trainer.recipe.run, trainer.world
    where = f"{world.size} x {world.device.type}" if world.size > 1 else world.device.type
    begin = f"from step {trainer.step} " if trainer.step else ""
    return (
        f"training {count / 1e6:.2f} M parameters {begin}to step {run.steps} "
        f"in {run.precision} on {where}"
    )


def _memory(device: torch.device) -> list[str]:
    """The most that was used so far, where the system says."""
    size = peak_memory(device)
    return [] if size is None else [f"memory: about {size / 2**30:.2f} GiB (measured)"]


def _finish(trainer: Trainer) -> None:
    """The loss curve and the model card."""
    recipe, report = trainer.recipe, trainer.data.report
    rows = read_rows(trainer.folder / "metrics.jsonl")
    model = trainer.folder / "model"
    with optional("the loss curve"):
        plot_curve(rows, model / "loss.png")
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    facts = {
        "data": f"{recipe.data.path}: {report.pictures} pictures, hash {report.fingerprint}",
        **report.remarks,
        "licence": recipe.license,
        "base": recipe.model.base or "none: trained from nothing",
        "seed": str(recipe.run.seed),
        "steps": f"{trainer.step} of {_pictures(trainer)}",
        "held-out loss": f"{held_out[-1]:.5f}" if held_out else "not measured",
        "hardware": hardware(trainer.world.device, trainer.world.size),
        "time": f"{trainer.seconds / 60:.1f} min",
        "made with": f"{commit()}, torch {torch.__version__}",
        "curve": "![loss](loss.png)",
    }
    with optional("the model card"):
        write_card(model, recipe, facts)


def _pictures(trainer: Trainer) -> str:
    """What a step learns from."""
    count = trainer.pictures_per_step
    return f"{count} picture{'s' if count > 1 else ''}"
