"""A small made-up sweep with pictures, as all views draw it."""

from dataclasses import replace

from PIL import Image

from diffgen.bench.results import (
    SCHEMA,
    Cell,
    Machine,
    Recommendation,
    Reference,
    Results,
    Statistic,
    Timing,
)

PROMPT = "a <b>barn</b> & \"sky\" </script><script>document.title='owned'</script> {{data}}"
MODEL = "tiny <model> $x$"
SIZE = (16, 12)
SEVERAL = "ddim-leading-8"  # the cell with two pictures
REASON = "ran out of memory <at> step 3"
NO_LIMIT = "fresh noise at every step"


def statistic(mean, ci95=1.5):
    return Statistic(mean, ci95, (mean - 1.0, mean + 1.0))


def cell(sampler, schedule, steps, *, psnr=None, seconds=0.0, nfe=None, **changes):
    fields = {
        "sampler": sampler,
        "schedule": schedule,
        "steps": steps,
        "nfe": nfe or steps,
        "stochastic": False,
        "status": "ok",
        "settings": {"guidance": 5.0, "negative": None},
        "seconds": Timing(seconds, seconds * 0.9, seconds * 1.2, (seconds,) * 3),
        "decode_seconds": 0.015,
        "peak_memory": 400 * 2**20,
    }
    if psnr is not None:
        fields |= {
            "psnr": statistic(psnr),
            "ssim": statistic(psnr / 50, 0.01),
            "latent_rmse": statistic(10 / psnr, 0.01),
        }
    return Cell(**fields | changes)


def reference(sampler, floor_psnr, picture):
    return Reference(
        sampler=sampler,
        schedule="exponential",
        steps=200,
        nfe=200,
        checked_with="heun + exponential, 100 steps",
        floor_latent_rmse=0.003,
        floor_psnr=floor_psnr,
        floor_ssim=0.999,
        picture=picture,
    )


CELLS = (
    cell("ddim", "leading", 4, psnr=20.0, seconds=0.08),
    cell("ddim", "leading", 8, psnr=31.2, seconds=0.16),
    cell("ddim", "leading", 16, psnr=36.0, seconds=0.32),
    cell("heun", "karras", 4, psnr=15.0, seconds=0.14, nfe=7),
    cell("heun", "karras", 8, psnr=33.0, seconds=0.3, nfe=15),
    cell("dpmpp_sde", "karras", 8, psnr=28.0, seconds=0.31, nfe=15, stochastic=True),
    cell("lcm", "lcm", 4, seconds=0.081, stochastic=True, status="no_limit", reason=NO_LIMIT),
    cell("unipc", "karras", 8, status="failed", reason=REASON, seconds=0.0, peak_memory=None),
)
RESULTS = Results(
    schema=SCHEMA,
    created="2026-01-02T03:04:05+00:00",
    model=MODEL,
    settings={"prompts": (PROMPT, "another"), "seeds": (7, 8), "clip": None, "repeats": 3},
    machine=Machine(
        device="cpu",
        dtype="fp32",
        threads=2,
        platform="made <up>",
        versions={"python": "3.11", "torch": "2.13", "diffgen": "0.1"},
    ),
    text_seconds=0.3,
    references={
        "": reference("dpmpp_3m", 58.0, "cells/reference.png"),
        "dpmpp_sde": reference("dpmpp_sde", 43.0, "cells/reference-dpmpp_sde.png"),
    },
    cells=tuple(replace(c, seconds=None) if c.status == "failed" else c for c in CELLS),
    front=("ddim-leading-4", "ddim-leading-8", "heun-karras-8", "ddim-leading-16"),
    knees={"ddim-leading": 8},
    recommendation=Recommendation(
        cell="ddim-leading-8",
        sentence="ddim + leading, 8 steps: 31.2 dB from the converged picture, <fine>",
    ),
)


def empty_results():
    """What is left when a sweep is stopped before the first cell."""
    return replace(RESULTS, cells=(), references={}, front=(), knees={}, recommendation=None)


def make_folder(folder):
    """Pictures of all cells but the failed one; each is a little off its reference."""
    pictures = folder / "cells"
    pictures.mkdir(parents=True)
    converged = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    converged.save(pictures / "reference.png")
    converged.transpose(Image.Transpose.ROTATE_180).save(pictures / "reference-dpmpp_sde.png")
    for number, one in enumerate(CELLS):
        if one.status != "failed":
            off = converged.point(lambda level, shift=3 * number: min(255, level + shift))
            off.save(pictures / f"{one.key}.png")
    for name in (SEVERAL, "reference"):
        converged.transpose(Image.Transpose.ROTATE_90).save(pictures / f"{name}-p2.png")
    return folder


def at_guidance(results=RESULTS, scales=(3.0, 7.0)):
    """The same sweep at two guidance scales, each with its own references, front and advice."""
    cells = [replace(c, at={"guidance": scale}) for scale in scales for c in results.cells]
    references = {
        f"{name}-guidance_{scale:g}".removeprefix("-"): replace(
            one, title=f"{name}, guidance {scale:g}".removeprefix(", ")
        )
        for scale in scales
        for name, one in results.references.items()
    }
    first, *others = (
        replace(
            results.recommendation,
            cell=f"ddim-leading-8-guidance_{scale:g}",
            sentence=f"guidance {scale:g}: take it",
            command=f"diffgen generate -g {scale:g}",
        )
        for scale in scales
    )
    return replace(
        results,
        cells=tuple(cells),
        references=references,
        front=tuple(f"{key}-guidance_{scale:g}" for scale in scales for key in results.front),
        knees={f"ddim-leading-guidance_{scale:g}": 8 for scale in scales},
        recommendation=first,
        other_recommendations=tuple(others),
    )
