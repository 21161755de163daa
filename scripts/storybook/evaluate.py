"""Judge a model on held-out prompts: `python -m scripts.storybook.evaluate --model storybook`.

After GenEval (Ghosh et al. 2023, https://arxiv.org/abs/2310.11513): a verifier, trained here on
painted scenes, says what is in each generated picture. It reports its own accuracy first, on fresh
renders, and what it makes of scenes painted for the same prompts, as they are and after the model's
autoencoder; no score means more than that. Intervals are Wilson's, 95 %.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scripts.storybook.artwork import default_cache, fetch
from scripts.storybook.captions import captions
from scripts.storybook.objects import WORLD_ORDER
from scripts.storybook.paint import paint
from scripts.storybook.prompts import HELD_OUT, Question, each_kind, questions, read_scenes
from scripts.storybook.scene import World, world
from scripts.storybook.shelf import Shelf
from scripts.storybook.stream import SceneStream
from scripts.storybook.verifier import (
    Verifier,
    Vocabulary,
    accuracy,
    as_read,
    grade,
    painted,
    shelved,
    train,
)

Marks = dict[str, list[bool]]
TESTED = 16  # batches of 64 fresh renders
SHOWN = 24  # prompts named under the sheet
FRESH = 1_000_003  # added to the seed for the renders the verifier is tested on
PAINTED = "scenes painted for them"
DECODED = "these after the autoencoder"
DRAWN = "the model's pictures"


def wilson(right: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share (1927); (0, 1) when nothing was asked."""
    if total == 0:
        return 0.0, 1.0
    share, square = right / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total**2)
    reach = z * math.sqrt(spread) / (1 + square / total)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def table(marks: Marks) -> list[dict[str, Any]]:
    """One row for each category asked: right, total, share and its interval."""
    rows = []
    for name, answers in marks.items():
        if answers:
            right, total = sum(answers), len(answers)
            low, high = wilson(right, total)
            share = right / total
            rows.append(
                {"category": name, "right": right, "total": total, "share": share}
                | {"low": low, "high": high}
            )
    return rows


def markdown(title: str, rows: Iterable[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [f"## {title}", "", "| category | right | of | share | 95 % interval |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        interval = f"{row['low']:.1%} to {row['high']:.1%}"
        lines.append(
            f"| {row['category']} | {row['right']} | {row['total']} | {row['share']:.1%} | {interval} |"
        )
    return "\n".join([*lines, ""])


@torch.inference_mode()
def judge(model: Verifier, asked: Sequence[Question], pictures: Sequence[Image.Image]) -> Marks:
    """Marks by category: single object, colour, place and time over the plain prompts.

    Count, position and two objects come from the prompts that ask for them; `all together` needs
    every answer of a plain prompt right.
    """
    marks: Marks = {}
    for question, picture in zip(asked, pictures, strict=True):
        logits = model(torch.from_numpy(as_read([picture])))
        given = grade(logits, model.vocabulary.labels([question.scene]))
        if question.category == "plain":
            names = {"object": "single object", "all": "all together"}
            chosen = {
                names.get(n, n): given[n] for n in ("object", "colour", "place", "time", "all")
            }
        elif question.category == "two objects":
            chosen = {"two objects": given["object"]}
        else:
            both = given["object"][0] and given[question.category][0]
            chosen = {question.category: [both]}
        for name, answers in chosen.items():
            marks.setdefault(name, []).extend(answers)
    return marks


def _save(model: Verifier, path: Path) -> None:
    """Weights and vocabulary in one file."""
    torch.save({"vocabulary": asdict(model.vocabulary), "state": model.state_dict()}, path)


def load_verifier(path: Path) -> Verifier:
    """A verifier saved by an earlier run. Raises FileNotFoundError where there is none."""
    saved = torch.load(path, weights_only=True)
    words = {name: tuple(answers) for name, answers in saved["vocabulary"].items()}
    model = Verifier(Vocabulary(**words))
    model.load_state_dict(saved["state"])
    return model.eval()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.evaluate", description=__doc__
    )
    parser.add_argument("--model", help="name or path of the model; without, only the verifier")
    parser.add_argument("--out", type=Path, required=True, help="folder for report and verifier")
    parser.add_argument("--world", choices=WORLD_ORDER, default="wide")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures it reads")
    parser.add_argument("--data", type=Path, help="train the verifier on these shards")
    parser.add_argument("--seconds", type=float, default=600, help="time to train the verifier")
    parser.add_argument("--verifier", type=Path, help="use a trained verifier")
    parser.add_argument("--repeats", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--prompts", type=Path, default=HELD_OUT, help="CSV like held_out.csv")
    parser.add_argument(
        "--limit", type=int, help="a trial: so many prompts, one batch of fresh renders"
    )
    parser.add_argument("--each", action="store_true", help="ask for every thing once instead")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that paint, without --data"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-art", action="store_true", help="only objects drawn in this project")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="fetched artwork")
    return parser.parse_args(argv)


def _verifier(
    arguments: argparse.Namespace, stream: SceneStream
) -> tuple[Verifier, dict[str, Any]]:
    """The trained verifier and how it came about."""
    if arguments.verifier is not None:
        model = load_verifier(arguments.verifier)
        if model.vocabulary != Vocabulary.of(stream.world):
            raise ValueError(f"{arguments.verifier} was trained on another world; train it again")
        return model, {"verifier": str(arguments.verifier)}
    start = time.monotonic()
    vocabulary = Vocabulary.of(stream.world)
    if arguments.data is None:
        batches = painted(stream, workers=arguments.workers)
    else:
        batches = shelved(Shelf.read(arguments.data, arguments.size), vocabulary, arguments.seed)
    model, seen = train(batches, vocabulary, seconds=arguments.seconds, seed=arguments.seed)
    _save(model, arguments.out / "verifier.pt")
    return model, {"pictures": seen, "seconds": round(time.monotonic() - start, 1)}


def _judge_model(
    arguments: argparse.Namespace, model: Verifier, fresh: SceneStream
) -> tuple[str, dict[str, Any]]:
    """Scores, autoencoder and a sheet of plain prompts: Markdown, and the same as data."""
    from diffgen.train.export import save_grid
    from scripts.storybook.subject import autoencoded, generate, load, reconstruction_psnr

    engine, repeats = load(arguments.model), arguments.repeats
    once = _questions(arguments, fresh.world)
    prompts = [captions(question.scene)[0] for question in once]
    pictures = generate(engine, prompts, arguments.seed, count=repeats)
    side = (arguments.size, arguments.size)
    scaled = [picture.resize(side, Image.Resampling.LANCZOS) for picture in pictures]
    scenes = meant(once, repeats, fresh)
    seen = {PAINTED: scenes, DECODED: autoencoded(engine, scenes), DRAWN: scaled}
    asked = [question for question in once for _ in range(repeats)]
    scores = {name: table(judge(model, asked, each)) for name, each in seen.items()}
    loss = reconstruction_psnr(engine, fresh, count=64 * min(4, _batches(arguments)))
    plain = [k for k, question in enumerate(once) if question.category == "plain"]
    plain = plain[:: max(1, len(plain) // SHOWN)][:SHOWN]
    save_grid([pictures[k * repeats] for k in plain], arguments.out / "held-out.png", columns=6)
    shown = [prompts[k] for k in plain]
    kind = "things, each once" if arguments.each else "held-out prompts"
    found = {"model": arguments.model, "asked": f"{len(prompts)} {kind}", "pictures": len(pictures)}
    text = f"{found['pictures']} pictures of {found['asked']}\n\n"
    text += "\n".join(markdown(name, rows) for name, rows in scores.items())
    text += f"\nIts autoencoder gives scenes back with a PSNR of {loss:.1f} dB in the mean.\n"
    text += f"\n![prompts](held-out.png)\n\nIn rows: {'; '.join(shown)}.\n"
    print(text)
    return text, {**found, "scores": scores, "psnr": loss, "shown": shown}


def _questions(arguments: argparse.Namespace, where: World) -> list[Question]:
    """What the model is asked for, each once."""
    if arguments.each:
        asked = [Question(scene, "plain") for scene in each_kind(where)]
    else:
        asked = list(questions(read_scenes(arguments.prompts, where), where))
    return asked[: arguments.limit]


def meant(asked: Sequence[Question], repeats: int, like: SceneStream) -> list[Image.Image]:
    """What is asked for, painted `repeats` times each in the size and with the art of `like`."""
    shape = (like.size, like.size)
    return [
        Image.fromarray(paint(replace(question.scene, variation=k), shape, like.cache_dir))
        for question in asked
        for k in range(repeats)
    ]


def _batches(arguments: argparse.Namespace) -> int:
    """How many batches of fresh renders the verifier is tested on."""
    return TESTED if arguments.limit is None else 1


def main(argv: list[str] | None = None) -> int:
    """Train or load the verifier, test it, judge the model, write report.json and report.md."""
    arguments = _arguments(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.own_art:
        fetch(arguments.cache)
    where = world(arguments.world, own_only=arguments.own_art)
    stream = SceneStream(where, arguments.size, arguments.seed, arguments.cache)
    model, training = _verifier(arguments, stream)
    fresh = SceneStream(where, arguments.size, arguments.seed + FRESH, arguments.cache)
    own = table(accuracy(model, fresh, batches=_batches(arguments)))
    report: dict[str, Any] = {"world": arguments.world, "training": training, "verifier": own}
    text = markdown("The verifier on fresh renders", own)
    print(text, flush=True)
    if arguments.model is not None:
        judged, found = _judge_model(arguments, model, fresh)
        report |= found
        text += "\n" + judged
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (arguments.out / "report.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
