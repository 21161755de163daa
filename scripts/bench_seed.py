"""How far what is made beside a picture changes it: the seed contract, in levels of 255.

    python scripts/bench_seed.py --json scripts/results/seed.json

Each sampler draws one picture of storybook alone, twice, and among three others in one batch, in
float32 at 256 x 256 pixels. An adaptive sampler makes one at a time and is left out.
"""

from __future__ import annotations

from collections import Counter

from benchmark import arguments, publish
from PIL import Image, ImageChops

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.engine.engine import Engine
from diffgen.engine.plan import Picture
from diffgen.engine.request import GenerateRequest

OTHERS = (Picture("a blue cat", 8), Picture("a green boat at sea", 9), Picture("", 7))


def apart(one: Image.Image, other: Image.Image) -> int:
    histogram = ImageChops.difference(one, other).histogram()
    return max(i % 256 for i, number in enumerate(histogram) if number)


def measured(engine: Engine, sampler: str, steps: int) -> tuple[int, int] | None:
    """Levels between a picture alone and again alone, and among others; None for an adaptive one."""
    plan = engine.plan(GenerateRequest(prompts=[""], sampler=sampler, steps=steps))
    mine = Picture("a red barn", 7)
    if plan.sampling.nfe is None:
        return None
    alone, again = (engine.draw(plan, [mine])[0].image for _ in range(2))
    beside = engine.draw(plan, [OTHERS[0], mine, *OTHERS[1:]])[1].image
    return apart(alone, again), apart(alone, beside)


def main() -> None:
    parsed = arguments(
        __doc__,
        steps={"type": int, "default": 10, "help": "sampler steps"},
        samplers={"default": ",".join(SAMPLERS), "help": "names, separated by commas"},
    )
    engine = Engine.load(device="cpu", dtype="fp32")
    found = {name: measured(engine, name, parsed.steps) for name in parsed.samplers.split(",")}
    kept = {name: each for name, each in found.items() if each}
    again = max(first for first, _ in kept.values())
    counts = sorted(Counter(second for _, second in kept.values()).items())
    rows = "\n".join(f"| {level} | {number} |" for level, number in counts)
    table = (
        f"The same picture alone again: {again} levels with every sampler.\n\n"
        f"| levels of 255 in a batch of four, at most | samplers of {len(kept)} |\n|---|---|\n{rows}"
    )
    title = f"One picture among three others, storybook, {parsed.steps} steps, float32"
    figures = {name: list(each) for name, each in kept.items()}
    publish(title, table, figures, parsed.json, device="cpu")


if __name__ == "__main__":
    main()
