"""Each sampler's knee: the step count beyond which more gain little."""

from __future__ import annotations

from collections.abc import Sequence

from diffgen.bench.results import Cell

KNEE_CELLS = 3


def find_knees(cells: Sequence[Cell]) -> dict[str, int]:
    """The step count of each series of cells beyond which more steps gain little.

    SSIM against network evaluations, both scaled to 0 .. 1: the knee is where the curve is highest
    above its chord (Satopaa et al., "Finding a Kneedle in a Haystack", 2011). It needs three cells,
    and a rising curve.
    """
    groups: dict[str, list[tuple[int, float, int]]] = {}
    for cell in cells:
        if cell.ssim and cell.status == "ok":
            groups.setdefault(cell.series, []).append((cell.nfe, cell.ssim.mean, cell.steps))
    knees = {name: _knee(sorted(curve)) for name, curve in groups.items()}
    return {name: steps for name, steps in knees.items() if steps is not None}


def _knee(curve: Sequence[tuple[int, float, int]]) -> int | None:
    """`curve` holds (evaluations, SSIM, steps) in ascending order."""
    (first, low, _), (last, high, _) = curve[0], curve[-1]
    if len(curve) < KNEE_CELLS or high <= low or last <= first:
        return None
    heights = [
        ((value - low) / (high - low) - (nfe - first) / (last - first), -nfe, steps)
        for nfe, value, steps in curve
    ]
    return max(heights)[2]
