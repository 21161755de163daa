"""Put a finished storybook together: `python -m scripts.storybook.assemble --help`.

Takes the folder that the last training run exported, with another decoder if one was trained on its
latents, and writes one page from what every run recorded and what the judge found.
"""

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.train.export import save_grid
from scripts.storybook.objects import kinds_of
from scripts.storybook.subject import generate, load
from scripts.storybook.words import COLOURS, PLACES, POSITIONS, TIMES

SAMPLE_SEED = 2
SAMPLES = (  # four in a row
    "red barn at sunset",
    "a blue car on a road at night",
    "a cat on the beach on a sunny day",
    "a yellow sailboat on the sea at dawn",
    "a castle in the mountains in the fog",
    "a snowman in the snow while it is snowing",
    "three foxes in the forest in the fog",
    "a green house under a rainbow",
    "a rocket over the city at night",
    "a giraffe in the desert on a sunny day",
    "a teddy bear left of a red umbrella",
    "a purple butterfly over a lake in the rain",
)
SHEETS = "held-out{}.png"  # of each report
FACTS = ("data", "seed", "steps", "held-out loss", "time", "made with")  # of a run, as it records
CURVE = (640, 360)  # pixels of one run's curve on the sheet
CREDITS = """## Pictures and licences

All training pictures were drawn by `scripts/storybook/` of the diffgen repository: backgrounds
painted in code, objects from drawings of the project (Apache-2.0), from Noto Emoji (Apache-2.0,
Google, npm package @iconify-json/noto 1.2.9) and from Fluent Emoji Flat (MIT, Microsoft, npm package
@iconify-json/fluent-emoji-flat 1.2.6). The weights are Apache-2.0.
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.assemble", description=__doc__
    )
    parser.add_argument("--model", type=Path, required=True, help="exported by the last run")
    parser.add_argument("--decoder", type=Path, help="exported by a run of decoder_only")
    parser.add_argument("--stages", type=Path, nargs="+", required=True, help="all runs' models")
    parser.add_argument("--about", type=Path, required=True, help="Markdown to begin the card with")
    parser.add_argument(
        "--reports", type=Path, nargs="*", default=[], help="folders that evaluate.py wrote"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    return parser.parse_args(argv)


def known_words(world: str) -> str:
    """What a model of a world has words for, as Markdown."""
    kinds = kinds_of(world)
    lists = {
        "things of any colour": ", ".join(kind.name for kind in kinds if kind.body),
        "things of their own colour": ", ".join(kind.name for kind in kinds if not kind.body),
        "colours": ", ".join(COLOURS),
        "places": ", ".join(PLACES),
        "times and weather": ", ".join(TIMES),
        "where": ", ".join(POSITIONS),
        "how many": "one, two, three",
    }
    rows = "".join(f"| {name} | {words} |\n" for name, words in lists.items())
    return f"## What it knows\n\n| | |\n|---|---|\n{rows}"


def stages(cards: Sequence[str]) -> str:
    """A row for each run: its name, and what it recorded."""
    rows = []
    for card in cards:
        title = re.search(r"^# (.+)$", card, flags=re.M)
        facts = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", card, flags=re.M))
        facts["data"] = re.sub(r", hash .*", "", facts.get("data", ""))
        cells = [title[1] if title else "", *(facts.get(name, "") for name in FACTS)]
        rows.append(f"| {' | '.join(cells)} |")
    head = f"| run | {' | '.join(FACTS)} |\n|{'---|' * (len(FACTS) + 1)}\n"
    return head + "\n".join(rows) + "\n\n![loss of each run, in their order](curves.png)\n"


def curves(paths: Sequence[Path]) -> Image.Image:
    """The curves of all runs on one sheet, two in a row."""
    page = Image.new("RGB", (2 * CURVE[0], math.ceil(len(paths) / 2) * CURVE[1]), "white")
    for number, path in enumerate(paths):
        with Image.open(path, formats=["PNG"]) as curve:
            row, column = divmod(number, 2)
            page.paste(curve.convert("RGB").resize(CURVE), (column * CURVE[0], row * CURVE[1]))
    return page


def findings(reports: Sequence[dict[str, Any]]) -> str:
    """Shares of right answers of each report, a row for each question, and what was shown."""
    text = f"The autoencoder gives scenes back with {reports[0]['psnr']:.1f} dB in the mean.\n"
    for number, report in enumerate(reports):
        columns = {name: _shares(rows) for name, rows in report["scores"].items()}
        text += (
            f"\n| {report['pictures']} pictures of {report['asked']} | {' | '.join(columns)} |\n"
        )
        text += f"|{'---|' * (len(columns) + 1)}\n"
        for question in list(columns.values())[-1]:
            cells = [shares.get(question, "") for shares in columns.values()]
            text += f"| {question} | {' | '.join(cells)} |\n"
        sheet = SHEETS.format(number or "")
        text += f"\n![prompts]({sheet})\n\nIn rows: {'; '.join(report['shown'])}.\n"
    return text


def _shares(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {
        row["category"]: f"{row['share']:.1%} ({row['low']:.0%} to {row['high']:.0%})"
        for row in rows
    }


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the parts and write the card."""
    arguments = _arguments(argv)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for part in ("unet", "text_encoder", "tokenizer", "scheduler", "vae"):
        source = arguments.decoder if part == "vae" and arguments.decoder else arguments.model
        _copy(source / part, out / part)
    shutil.copy(arguments.model / "model_index.json", out)
    pictures = generate(load(str(out)), SAMPLES, seed=SAMPLE_SEED)
    save_grid(pictures, out / "samples.png", columns=4)
    samples = f"![samples](samples.png)\n\nIn rows, seed {SAMPLE_SEED}: {'; '.join(SAMPLES)}.\n"
    cards = [(folder / "README.md").read_text(encoding="utf-8") for folder in arguments.stages]
    curves([folder / "loss.png" for folder in arguments.stages]).save(out / "curves.png")
    about = arguments.about.read_text(encoding="utf-8")
    sections = [about.format(runs=stages(cards), samples=samples, scores=_judged(arguments, out))]
    sections += [known_words("wide"), CREDITS]
    head = "---\nlicense: Apache-2.0\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n\n"
    (out / "README.md").write_text(head + "\n".join(sections), encoding="utf-8")
    return 0


def _judged(arguments: argparse.Namespace, out: Path) -> str:
    """What the reports found, their sheets beside the card; empty where nothing was judged."""
    if not arguments.reports:
        return ""
    for number, folder in enumerate(arguments.reports):
        with Image.open(folder / "held-out.png", formats=["PNG"]) as sheet:
            sheet.reduce(2).save(out / SHEETS.format(number or ""))
    texts = [(folder / "report.json").read_text(encoding="utf-8") for folder in arguments.reports]
    return findings([json.loads(text) for text in texts])


if __name__ == "__main__":
    sys.exit(main())
