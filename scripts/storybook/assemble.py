"""Put a finished storybook together: `python -m scripts.storybook.assemble --help`.

Takes the folder that the last training run exported, with another decoder if one was trained on its
latents, and writes one model card from what every run recorded and what the judge found.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from diffgen import Engine
from diffgen.train.export import save_grid
from scripts.storybook.objects import kinds_of
from scripts.storybook.subject import generate
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
    parser.add_argument("--name", help="its name in weights.toml, which says how to sample it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    return parser.parse_args(argv)


def known_words(world: str) -> str:
    """What a model of a world has words for, as Markdown."""
    things = ", ".join(
        f"{kind.name}{'' if kind.body else ' (one colour)'}" for kind in kinds_of(world)
    )
    lists = {
        "things": things,
        "colours": ", ".join(COLOURS),
        "places": ", ".join(PLACES),
        "times and weather": ", ".join(TIMES),
        "where": ", ".join(POSITIONS),
        "how many": "one, two, three",
    }
    rows = "".join(f"| {name} | {words} |\n" for name, words in lists.items())
    return f"## What it knows\n\n| | |\n|---|---|\n{rows}"


def stage(card: str, curve: str) -> str:
    """One run's card as a section, its curve under another name."""
    _, _, body = card.split("---\n", 2)
    return body.strip().replace("# ", "## ", 1).replace("(loss.png)", f"({curve})") + "\n"


def findings(reports: Sequence[str]) -> str:
    """The first report whole; of those that follow only the model's scores and their sheet."""
    first, *more = reports
    for number, report in enumerate(more, 1):
        scores = re.sub(r"\nIts autoencoder.*\n", "", report[report.rindex("## ") :])
        first += "\n" + scores.replace("held-out.png", SHEETS.format(number))
    return "## How well it does\n\n" + re.sub(r"^## ", "### ", first, flags=re.M)


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
    sections = [arguments.about.read_text(encoding="utf-8"), known_words("wide")]
    if arguments.reports:
        texts = [(folder / "report.md").read_text(encoding="utf-8") for folder in arguments.reports]
        sections.append(findings(texts))
        for number, folder in enumerate(arguments.reports):
            shutil.copy(folder / "held-out.png", out / SHEETS.format(number or ""))
    sections.append(CREDITS)
    for number, folder in enumerate(arguments.stages, 1):
        curve = f"loss-{number}.png"
        shutil.copy(folder / "loss.png", out / curve)
        sections.append(stage((folder / "README.md").read_text(encoding="utf-8"), curve))
    pictures = generate(Engine.load(arguments.name or str(out)), SAMPLES, seed=SAMPLE_SEED)
    save_grid(pictures, out / "samples.png", columns=4)
    samples = f"![samples](samples.png)\n\nIn rows, seed {SAMPLE_SEED}: {'; '.join(SAMPLES)}.\n"
    sections.insert(1, samples)
    head = "---\nlicense: Apache-2.0\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n\n"
    (out / "README.md").write_text(head + "\n".join(sections), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
