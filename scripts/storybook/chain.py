"""The steps of a sitting on one GPU, in order, and what each of them costs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from diffgen.cli.train import RECIPES
from diffgen.train.recipe.read import read_recipe
from scripts.storybook.draw import SHARD, shard_path
from scripts.storybook.make import Step, command
from scripts.storybook.objects import HERE

TRAININGS: Final = (
    "storybook-gpu-autoencoder",
    "storybook-gpu-text",
    "storybook-gpu",
    "storybook-gpu-turbo",
)
WORLDS: Final = ("crowded", "wide")  # by turns
SHAPES: Final = ("256x256", "192x192", "256x256", "320x192", "192x320", "384x256", "256x384")
DRAWN: Final = ("squares", "shapes")  # steps that draw
SQUARES: Final = (
    1 / 3
)  # of all scenes: the autoencoder, the words, turbo and the verifier see these
SCENES: Final = 96000
REHEARSED: Final = 8  # steps of each training
VOCABULARY: Final = Path("data/storybook-tokenizer")
VERIFIER: Final = Path("runs/storybook-gpu-verifier")
REPORTS: Final = ("runs/storybook-gpu-report", "runs/storybook-gpu-report-each")
BARE: Final = Path("runs/storybook-gpu-bare")
WHOLE: Final = Path("runs/storybook-gpu-whole")

# Of what is not rehearsed; measured on two busy cores, so rather too much.
MET: Final = 1.5  # sprites in a scene that nobody drew before, at first
OPENING: Final = (
    0.0006  # seconds for a picture's header and captions, whenever a data set is opened
)
ENCODING: Final = 0.0010  # seconds for a picture's latents, beside decoding it
SHELVING: Final = 0.0030  # seconds for a picture of the verifier's
JUDGING: Final = 0.10  # seconds for a picture, drawn and judged
SCENE_BYTES, LATENT_BYTES = 22e3, 20.5e3  # on disk
CHECKPOINTS: Final = 0.6e9  # bytes of a training's, at most


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of everything: scenes, steps of each training, and what makes a trial small.

    `batch` overrides the recipes' batch sizes, `held_out` their validation, `patch` that of the
    autoencoder.
    """

    squares: int
    shapes: int
    steps: Mapping[str, int]
    batch: Mapping[str, int] = field(default_factory=dict)
    held_out: int | None = None
    every_step: bool = False  # is logged
    verifier: float = 180.0  # seconds of training
    asked: int | None = None  # prompts that are judged, at most
    patch: int | None = None  # side of the pieces that the autoencoder learns from

    def rehearsal(self) -> "Amount":
        """A few of everything, with the same batches."""
        few = dict.fromkeys(self.steps, REHEARSED)
        scenes = min(192, self.squares), min(192, self.shapes)
        return replace(
            self, squares=scenes[0], shapes=scenes[1], steps=few, held_out=16, every_step=True
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on this machine: of a step of each training and of all around it, and of drawing.

    `start` is that of the processes that draw; each of them draws what it meets of the `sprites`
    once, which takes `sprite` seconds. `scene` and `decoding` are for one picture on one core.
    """

    step: Mapping[str, float]
    begin: Mapping[str, float]
    start: float
    sprites: int
    sprite: float
    scene: float
    decoding: float

    def drawing(self, count: int) -> float:
        """Seconds for so many scenes, by all cores."""
        share = -(-count // min(cores(), -(-count // SHARD)))  # of one process
        met = min(self.sprites, MET * share)
        return self.start + met * self.sprite + share * self.scene


def full(scenes: int | None = None) -> Amount:
    """All of it, as the recipes say."""
    count = scenes or SCENES
    squares = max(1, round(count * SQUARES))
    steps = {name: read_recipe(RECIPES / f"{name}.toml").run.steps for name in TRAININGS}
    return Amount(squares, count - squares, steps)


def trial() -> Amount:
    """Enough to see that every step runs, on any machine."""
    steps, batch = dict.fromkeys(TRAININGS, 20), dict.fromkeys(TRAININGS, 4)
    return Amount(48, 48, steps, batch, held_out=8, verifier=4.0, asked=2, patch=64)


def cores() -> int:
    """CPU cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_folder(name: str) -> Path:
    """Where a training runs."""
    return Path("runs", name)


def vocabulary() -> Step:
    """The tokenizer's words, from captions, as many as the text encoder has."""
    recipe = read_recipe(RECIPES / "storybook-gpu-text.toml")
    assert recipe.model.text is not None
    words = command(
        "vocabulary", "--size", str(recipe.model.text.vocab_size), "--out", str(VOCABULARY)
    )
    return Step("vocabulary", words, (VOCABULARY / "merges.txt",), 0.3)


def drawn(
    amount: Amount, own_art: bool, art: Path, costs: Costs | None = None
) -> tuple[Step, Step]:
    """Squares of 256 pixels, and pictures of six sizes; their indices do not overlap."""
    places = (
        (0, amount.squares, ("--size", "256")),
        (SCENES, amount.shapes, ("--shapes", *SHAPES)),
    )
    made = []
    for name, (first, count, size) in zip(DRAWN, places, strict=True):
        out = Path(f"data/storybook-{name}")
        words = command(
            "draw", "--world", *WORLDS, "--count", str(count), "--first", str(first), "--seed", "1",
            "--format", "shards", "--shard", str(SHARD), "--keep", *size, "--out", str(out), "--workers", str(cores()),
            "--cache", str(art), *(["--own-art"] if own_art else []),
        )  # fmt: skip
        shards = tuple(shard_path(out, start) for start in range(first, first + count, SHARD))
        minutes = costs.drawing(count) / 60 if costs else 0.0
        made.append(Step(name, words, shards, minutes, count * SCENE_BYTES / 1e9, goes_on=True))
    return made[0], made[1]


def trained(name: str, amount: Amount, costs: Costs | None = None) -> Step:
    """A training, goes on from its checkpoint."""
    recipe, folder = read_recipe(RECIPES / f"{name}.toml"), run_folder(name)
    steps = amount.steps[name]
    settings: dict[str, object] = {
        "run.steps": steps,
        "optimizer.warmup": min(recipe.optimizer.warmup, steps // 4),
        "data.workers": max(1, cores() - 2),
    }
    if name in amount.batch:
        settings["run.batch_size"] = amount.batch[name]
    if amount.patch and recipe.target == "autoencoder":
        settings["autoencoder.patch"] = amount.patch
    if amount.held_out:
        settings["data.validation"] = amount.held_out
    if amount.every_step:
        settings["run.log_every"] = 1
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    path = str(RECIPES / f"{name}.toml")
    words = (sys.executable, "-m", "diffgen", "train", path, "-o", str(folder), *sets)
    pictures, new = _pictures(name, amount)
    minutes = 0.0
    if costs:
        encoding = new * (ENCODING + costs.decoding / max(1, cores() - 2))
        around = costs.begin[name] + pictures * OPENING + encoding
        minutes = (around + steps * costs.step[name]) / 60
    size = (CHECKPOINTS + new * LATENT_BYTES) / 1e9
    whole = (folder / "model" / "README.md",)
    return Step(name, words, whole, minutes, size, run=folder, goes_on=True)


def _pictures(name: str, amount: Amount) -> tuple[int, int]:
    """Pictures that a training opens, and those that it is the first to encode."""
    if name == "storybook-gpu":
        return amount.squares + amount.shapes, amount.shapes
    return amount.squares, amount.squares if name == "storybook-gpu-text" else 0


def sitting(amount: Amount, costs: Costs, own_art: bool, art: Path) -> list[Step]:
    """All steps in order, with their costs."""
    return [
        vocabulary(),
        *drawn(amount, own_art, art, costs),
        *(trained(name, amount, costs) for name in TRAININGS),
        *_judged(amount, [*(["--own-art"] if own_art else []), "--cache", str(art)]),
    ]


def _judged(amount: Amount, artwork: list[str]) -> list[Step]:
    """A verifier, the assembled model, what the verifier says of it, and both on one card."""
    model, limit = str(run_folder("storybook-gpu") / "model"), amount.asked
    judge = ["--model", str(BARE), "--verifier", str(VERIFIER / "verifier.pt"), *artwork]
    judge += ["--limit", str(limit)] if limit else ["--repeats", "2"]
    verify = ["--data", "data/storybook-squares", "--seconds", str(amount.verifier), *artwork]
    verify += ["--limit", str(limit)] if limit else []
    stages = [str(run_folder(name) / "model") for name in TRAININGS]
    assemble = ["--model", model, "--about", str(HERE / "card-gpu.md"), "--stages", *stages]
    held_out, each = REPORTS
    counts = (limit, limit) if limit else (768, 454)
    return [
        Step(
            "verifier",
            command("evaluate", *verify, "--out", str(VERIFIER)),
            (VERIFIER / "verifier.pt", VERIFIER / "report.md"),
            (amount.verifier + amount.squares * SHELVING + 60) / 60,
        ),
        Step(
            "bare", command("assemble", *assemble, "--out", str(BARE)), (BARE / "README.md",), 0.4
        ),
        Step(
            "judge",
            command("evaluate", *judge, "--out", held_out),
            (Path(held_out, "report.md"),),
            counts[0] * JUDGING / 60 + 1,
        ),
        Step(
            "judge-each",
            command("evaluate", *judge, "--each", "--out", each),
            (Path(each, "report.md"),),
            counts[1] * JUDGING / 60 + 1,
        ),
        Step(
            "assemble",
            command("assemble", *assemble, "--reports", *REPORTS, "--out", str(WHOLE)),
            (WHOLE / "README.md",),
            0.4,
        ),
        Step(
            "words",
            command("known_words", "--out", str(WHOLE)),
            (WHOLE / "words.json",),
            0.2,
        ),
    ]
