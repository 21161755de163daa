"""What each way to guide costs and does, on storybook's held-out prompts.

python scripts/bench_guidance.py --verifier report/verifier.pt --json scripts/results/guidance.json

The verifier is one that `python -m scripts.storybook.evaluate` trained; without it nothing is said
of what is in the pictures. Saturation is the mean of S in HSV: guidance that is too strong raises it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from benchmark import arguments, publish
from PIL.Image import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from scripts.storybook.captions import captions
from scripts.storybook.evaluate import judge, load_verifier
from scripts.storybook.prompts import HELD_OUT, Question, read_scenes
from scripts.storybook.scene import world

PARTS, SEED = 3, 0  # each part of the prompts is a round, in which all ways take their turn
WAYS: dict[str, dict[str, Any]] = {
    "cfg 4": {"guidance_scale": 4.0},
    "none": {"guidance_scale": 1.0},
    "cfg 4, rescale 0.7": {"guidance_scale": 4.0, "guidance_rescale": 0.7},
    "cfg 4, interval 0.3 to 5": {"guidance_scale": 4.0, "guidance_interval": (0.3, 5.0)},
    "apg 4": {"guidance_scale": 4.0, "guidance_method": "apg"},
    "cfg 4, pag 3": {"guidance_scale": 4.0, "pag": 3.0},
    "cfg 4, ddim": {"guidance_scale": 4.0, "sampler": "ddim", "steps": 10},
    "cfg++ 0.6, ddim": {
        "guidance_scale": 0.6,
        "guidance_method": "cfg++",
        "sampler": "ddim",
        "steps": 10,
    },
    "cfg 12": {"guidance_scale": 12.0},
    "cfg 12, rescale 0.7": {"guidance_scale": 12.0, "guidance_rescale": 0.7},
    "apg 12": {"guidance_scale": 12.0, "guidance_method": "apg"},
}


@dataclass
class Row:
    """One way to guide: seconds of a picture in each round, and the pictures of all prompts."""

    name: str
    seconds: list[float] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)


def draw(engine: Engine, prompts: Sequence[str]) -> list[Row]:
    """Every prompt in every way, the ways in turn."""
    requests = {name: {"seed": SEED, "batch_size": 8, **given} for name, given in WAYS.items()}
    rows = [Row(name) for name in requests]
    list(engine.generate(GenerateRequest(prompts=prompts[:8], **requests["cfg 4"])))
    for part in range(PARTS):
        for row in rows:
            asked = prompts[part::PARTS]
            start = time.perf_counter()
            made = list(engine.generate(GenerateRequest(prompts=asked, **requests[row.name])))
            row.seconds.append((time.perf_counter() - start) / len(made))
            row.pictures += [each.image for each in made]
    return rows


def saturation(pictures: Sequence[Image]) -> float:
    """The mean of S in HSV over all pixels, 0 to 1."""
    return float(
        np.mean([np.asarray(each.convert("HSV"))[..., 1].mean() for each in pictures]) / 255
    )


def right(rows: Sequence[Row], questions: Sequence[Question], verifier: Path | None) -> list[str]:
    """The share of pictures with all that was asked for, by row."""
    if verifier is None:
        return ["-"] * len(rows)
    model = load_verifier(verifier)
    asked = [question for part in range(PARTS) for question in questions[part::PARTS]]
    marks = [judge(model, asked, row.pictures)["all together"] for row in rows]
    return [f"{sum(each) / len(each):.0%}" for each in marks]


def table(rows: Sequence[Row], shares: Sequence[str]) -> str:
    """Markdown: what each way costs, and what becomes of the pictures."""
    first = rows[0]
    lines = ["| guidance | s a picture | times cfg's | right | saturation | dB to cfg 4 |"]
    lines.append("|---|---|---|---|---|---|")
    for row, share in zip(rows, shares, strict=True):
        ratios = [a / b for a, b in zip(row.seconds, first.seconds, strict=True)]
        near = (
            statistics.mean(map(psnr, row.pictures, first.pictures)) if row is not first else None
        )
        lines.append(
            f"| {row.name} | {statistics.median(row.seconds):.3f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {share} "
            f"| {saturation(row.pictures):.2f} | {'-' if near is None else format(near, '.1f')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Draw, judge and print."""
    options = arguments(
        __doc__,
        model={"default": "storybook", "help": "a name or folder"},
        verifier={"type": Path, "help": "of scripts.storybook.evaluate"},
    )
    where = world("wide")
    questions = [Question(scene, "plain") for scene in read_scenes(HELD_OUT, where)]
    engine = Engine.load(options.model, device=options.device)
    rows = draw(engine, [captions(question.scene)[0] for question in questions])
    shown = table(rows, right(rows, questions, options.verifier))
    figures = [asdict(Row(row.name, row.seconds)) for row in rows]
    title = f"Ways to guide storybook, 10 steps, {len(questions)} held-out prompts in batches of 8"
    publish(title, shown, figures, options.json, device=options.device)


if __name__ == "__main__":
    main()
