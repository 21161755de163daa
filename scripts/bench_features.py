"""What changes a picture: how near an oracle it is drawn, and its time beside plain generation.

python scripts/bench_features.py --json scripts/results/features.json

The agreement is what the tests in tests/parity find on tiny random models in float32, the worst of
all samplers, strengths and families that each tries. Times are of storybook, the cases in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
TESTS = ("test_editing_parity.py", "test_prompt_parity.py")
FOUND = "AGREEMENT_FILE"  # the file that a run of the tests leaves its figures in
LEAST, EQUAL = 60.0, 200.0  # dB: below, a test shows that something else differs
PROMPT = "a yellow sailboat on the sea at dawn"


class Feature(NamedTuple):
    """A row: the test that compares it, and what to ask of storybook, where that has it."""

    name: str
    oracle: str
    test: str
    asked: Mapping[str, Any] | None = None


FED = "diffusers fed transformers' embeddings"
FEATURES = (
    Feature(
        "img2img; timed at 0.6",
        "diffusers' Img2Img",
        "test_changing_a_picture",
        {"init": "boat", "strength": 0.6},
    ),
    Feature(
        "a mask, inside of it",
        "diffusers' Inpaint",
        "test_repainting_a_part",
        {"init": "boat", "mask": "mask"},
    ),
    Feature("a mask, 9-channel models", "diffusers' Inpaint", "test_a_model_for_masks"),
    Feature(
        "text alone, 9-channel models",
        "diffusers' Inpaint",
        "test_text_alone_on_a_model_for_masks_draws_everything",
    ),
    Feature("instructions, 8 channels", "InstructPix2Pix", "test_editing_by_instructions"),
    Feature("a refiner", "diffusers' XL pipelines", "test_a_refiner_ends_the_run"),
    Feature(
        "long prompts, in chunks",
        FED,
        "test_long_prompts",
        {"prompts": [f"{PROMPT}, " * 12], "prompt_style": "a1111"},
    ),
    Feature(
        "long negatives",
        FED,
        "test_a_long_negative_beside_a_short_prompt",
        {"negative": "night, storm, " * 20, "prompt_style": "a1111"},
    ),
    Feature(
        "[x:y:when]",
        FED,
        "test_edited_prompts_change_at_their_step",
        {"prompts": ["a [red:blue:0.5] barn"], "prompt_style": "a1111"},
    ),
    Feature("a prompt for each encoder", FED, "test_each_encoder_of_sdxl_reads_its_own_prompt"),
    Feature("--pag 3", "diffusers' PAG pipelines", "test_perturbed_attention", {"pag": 3.0}),
)


def pytest_configure(config: object) -> None:
    """As a plugin of pytest: keep what the tests compute, before they import it."""
    import pipeline_oracle

    found: dict[str, list[float]] = {}
    psnr, file = pipeline_oracle.psnr, Path(os.environ[FOUND])

    def kept(actual: Any, expected: Any) -> float:
        value = float(psnr(actual, expected))
        name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition("[")[0]
        found.setdefault(name.split()[0], []).append(min(value, EQUAL))
        file.write_text(json.dumps(found), encoding="utf-8")
        return value

    pipeline_oracle.psnr = kept


def agreement() -> dict[str, list[float]]:
    """The decibels that each test found. Ends the program where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        paths = [ROOT, ROOT / "scripts", ROOT / "tests", ROOT / "tests" / "parity"]
        own = {"PYTHONPATH": os.pathsep.join(map(str, paths)), FOUND: str(file)}
        tests = [f"tests/parity/{name}" for name in TESTS]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "bench_features", *tests]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | own, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            sys.exit(f"the tests of agreement failed:\n{done.stdout[-2000:]}")
        found: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8"))
    return {name: [each for each in values if each >= LEAST] for name, values in found.items()}


def times(runs: int, device: Any) -> dict[str, list[float]]:
    """Seconds of a picture by feature, "" for plain generation, in turns after one not counted."""
    from PIL import Image

    from diffgen import Engine, GenerateRequest

    engine = Engine.load("storybook", device=device)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.png") for name in ("boat", "mask")}
        (boat,) = engine.generate(GenerateRequest(prompts=[PROMPT], seed=2))
        boat.image.save(files["boat"])
        mask = Image.new("L", boat.image.size)
        mask.paste(255, (0, 0, mask.width, mask.height // 2))
        mask.save(files["mask"])
        cases: dict[str, Mapping[str, Any]] = {"": {}}
        cases |= {each.name: each.asked for each in FEATURES if each.asked is not None}
        found: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(runs + 1):
            for name, asked in cases.items():
                given = {key: files.get(str(value), value) for key, value in asked.items()}
                request = GenerateRequest(**{"prompts": [PROMPT], "seed": 3, **given})
                start = time.perf_counter()
                list(engine.generate(request))
                if number:
                    found[name].append(time.perf_counter() - start)
    return found


def table(agreement: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float]]) -> str:
    """Markdown."""
    lines = ["| feature | oracle | pictures | worst, dB | times plain generation |"]
    lines.append("|---|---|---|---|---|")
    for each in FEATURES:
        values = agreement[each.test]
        worst = "equal" if min(values) >= EQUAL else f"{min(values):.1f}"
        ratio = "-"
        if each.name in seconds:
            pairs = zip(seconds[each.name], seconds[""], strict=True)
            ratios = [own / plain for own, plain in pairs]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {each.name} | {each.oracle} | {len(values)} | {worst} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Compare, time and print."""
    from benchmark import arguments, publish

    options = arguments(__doc__)
    found, seconds = agreement(), times(options.runs, options.device)
    figures = {"agreement": found, "seconds": seconds}
    title = (
        "What changes a picture: worst agreement on tiny random models, and times of storybook, "
        f"{options.runs} runs in turns"
    )
    publish(title, table(found, seconds), figures, options.json, device=options.device)


if __name__ == "__main__":
    main()
