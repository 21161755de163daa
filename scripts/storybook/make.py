"""Make storybook from nothing: `python -m scripts.storybook.make`.

Draws the pictures, trains every part in order, judges the result and puts it together in
`runs/storybook`. Stopped, the same command goes on: drawing keeps its shards, training its
checkpoints, and what is finished is not repeated. `--dry-run` prints the steps and what they cost.
`--gpu` makes another one on a GPU in one sitting; `--gpu --help` says how.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diffgen.cli.train import RECIPES
from scripts.storybook.draw import SHARD, shard_path

MODULE: Final = "scripts.storybook"
REPORTS: Final = ("runs/storybook-report", "runs/storybook-report-each")
GROWN: Final = "runs/storybook-grown"
MODEL: Final = "runs/storybook-average"
DECODER: Final = "runs/storybook-7-large/model"
TRAINED: Final = (  # recipes, and minutes that they took on two cores
    ("storybook-1-autoencoder", 20),
    ("storybook-2-text", 4),
    ("storybook-3-forty", 80),
    ("storybook-4-words", 4),
    ("storybook-5-things", 88),
    ("storybook-6-colours", 97),
    ("storybook-7-large", 60),
    ("storybook-8-crowded", 85),
    ("storybook-9-crowded", 71),
)
SHARE: Final = "0.7"  # of the last training, in the mean of the last two
GROWS: Final = 7  # so many trainings come before the U-Net grows
BLOCKS: Final = ("3", "1", "1")  # of its levels from then on


@dataclass(frozen=True, slots=True)
class Step:
    """A command, what is there when it has finished, and its minutes and disk, estimated.

    `run` is the folder of a training. What `goes_on` may be cut and loses little.
    """

    name: str
    command: tuple[str, ...]
    made: tuple[Path, ...]
    minutes: float
    gigabytes: float = 0.0
    run: Path | None = None
    goes_on: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command, which goes on where a training has a checkpoint."""
        begun = self.run is not None and any(self.run.glob("checkpoints/step-*.pt"))
        return (*self.command, "--resume") if begun else self.command

    @property
    def done(self) -> bool:
        """Whether all that it makes is there."""
        return all(path.exists() for path in self.made)


def command(name: str, *arguments: str) -> tuple[str, ...]:
    """Run a module of this folder."""
    return (sys.executable, "-m", f"{MODULE}.{name}", *arguments)


def _drawn(folder: str, seed: int, *parts: tuple[str, int], size: int = 128) -> list[Step]:
    """Steps that draw so many scenes of each world, one after the other, into one folder.

    Two worlds in one word take turns.
    """
    steps, first = [], 0
    for world, count in parts:
        options = {"--count": count, "--first": first, "--seed": seed}
        options |= {"--size": size, "--format": "shards", "--out": f"data/{folder}"}
        options["--shard"] = SHARD
        words = ["--world", *world.split()]
        words += [str(word) for pair in options.items() for word in pair]
        shards = range(first, first + count, SHARD)
        made = tuple(shard_path(Path("data", folder), start) for start in shards)
        steps.append(
            Step(f"{count} {world} scenes", command("draw", "--keep", *words), made, count / 6000)
        )
        first += count
    return steps


def _trained(name: str, minutes: float) -> Step:
    folder = Path("runs", name)
    recipe = str(RECIPES / f"{name}.toml")
    words = (sys.executable, "-m", "diffgen", "train", recipe, "-o", str(folder))
    return Step(name, words, (folder / "model" / "README.md",), minutes, run=folder)


def _grown() -> Step:
    """The U-Net with more residual blocks where the picture is largest."""
    words = ("--model", "runs/storybook-6-colours/model", "--blocks", *BLOCKS, "--out", GROWN)
    made = Path(GROWN, "model_index.json"), Path(GROWN, "unet", "config.json")
    return Step("grow", command("grow", *words), made, 0.1)


def _averaged() -> Step:
    """The U-Net between the last two trainings, nearer to the last."""
    models = [f"runs/{name}/model" for name, _ in TRAINED[-2:]]
    words = ("--models", *models, "--share", SHARE, "--out", MODEL)
    made = Path(MODEL, "model_index.json"), Path(MODEL, "unet", "config.json")
    return Step("average", command("average", *words), made, 0.1)


def _judged() -> list[Step]:
    """The parts together, judged, and once more together with what the judge found."""
    assemble = ["--model", MODEL, "--decoder", DECODER, "--about", "scripts/storybook/card.md"]
    assemble += ["--stages", *(f"runs/{name}/model" for name, _ in TRAINED)]
    bare, whole = Path("runs/storybook-bare"), Path("runs/storybook")
    report, each = REPORTS
    asked = ["--model", str(bare), "--repeats", "2"]
    held_out = [*asked, "--data", "data/storybook-judge", "--seconds", "1200", "--out", report]
    things = [*asked, "--verifier", f"{report}/verifier.pt", "--each", "--out", each]
    return [
        Step(
            "assemble", command("assemble", *assemble, "--out", str(bare)), (bare / "README.md",), 1
        ),
        Step("judge", command("evaluate", *held_out), (Path(report, "report.md"),), 25),
        Step("judge every thing", command("evaluate", *things), (Path(each, "report.md"),), 5),
        Step(
            "assemble",
            command("assemble", *assemble, "--reports", *REPORTS, "--out", str(whole)),
            (whole / "README.md",),
            1,
        ),
    ]


def steps() -> list[Step]:
    """All that makes storybook, in order."""
    vocabulary = Path("data/storybook-tokenizer")
    learn = command("vocabulary", "--size", "1738", "--out", str(vocabulary))
    return [
        *_drawn("storybook-wide", 1, ("wide", 8000)),
        *_drawn("storybook-medium", 2, ("narrow", 12000), ("medium", 12000)),
        *_drawn("storybook-all", 3, ("wide", 28000), ("medium", 8000)),
        *_drawn("storybook-colours", 4, ("wide", 36000), ("medium", 6000)),
        *_drawn("storybook-256", 5, ("wide", 16000), size=256),
        *_drawn("storybook-crowded", 8, ("crowded wide", 92000)),
        *_drawn("storybook-crowded-2", 9, ("crowded wide", 64000)),
        *_drawn("storybook-judge", 5, ("crowded wide", 16000), size=256),
        Step("vocabulary", learn, (vocabulary / "merges.txt",), 1),
        *(_trained(name, minutes) for name, minutes in TRAINED[:GROWS]),
        _grown(),
        *(_trained(name, minutes) for name, minutes in TRAINED[GROWS:]),
        _averaged(),
        *_judged(),
    ]


def make(steps: Sequence[Step]) -> int:
    """Run each step whose product is not there; the exit status of the first that fails, or 0."""
    for number, step in enumerate(steps, 1):
        place = f"{number}/{len(steps)} {step.name}"
        if step.done:
            print(f"{place}: done before", flush=True)
            continue
        print(f"{place}: about {step.minutes:.0f} min", flush=True)
        status = subprocess.run(step.words, check=False).returncode
        if status:
            print(f"{place} failed; the same command goes on from here", file=sys.stderr)
            return status
    return 0


def plan(steps: Sequence[Step]) -> str:
    """What each step makes, and what all that are left cost."""
    lines = [
        f"{step.minutes:6.0f} min  {step.name}: {step.made[-1]}"
        + (", done before" if step.done else "")
        for step in steps
    ]
    left = sum(step.minutes for step in steps if not step.done)
    return "\n".join([*lines, f"{left:6.0f} min in all, on two CPU cores"])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; run it unless told not to."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--gpu" in words:
        from scripts.storybook.sitting import main as sit  # which is made of the parts above

        words.remove("--gpu")
        return sit(words)
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}.make", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="in one sitting: --gpu --help")
    parser.add_argument("--dry-run", action="store_true", help="print the steps, run none")
    arguments = parser.parse_args(words)
    print(plan(steps()), flush=True)
    return 0 if arguments.dry_run else make(steps())


if __name__ == "__main__":
    sys.exit(main())
