"""`diffgen samplers`: the registry as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffgen.cli.console import print_result

if TYPE_CHECKING:
    from diffgen.diffusion.samplers.spec import SamplerSpec

HEADINGS = ("name", "order", "evals/step", "noise", "settings", "known as", "source")


def samplers() -> None:
    """List the samplers and schedules."""
    from diffgen.diffusion.names import SCHEDULE_NAMES
    from diffgen.diffusion.samplers import SAMPLERS

    rows = [HEADINGS, *(_row(spec) for spec in SAMPLERS.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_result("  ".join(cells).rstrip())
    print_result("")
    print_result(f"schedules: {', '.join(SCHEDULE_NAMES)}")


def _row(spec: SamplerSpec) -> tuple[str, ...]:
    settings = " ".join(f"{name}={value:g}" for name, value in spec.options.items())
    evaluations = "adaptive" if spec.nfe is None else str(spec.evals_per_step)
    noise = "" if spec.noise == "none" else spec.noise
    return (
        spec.name,
        str(spec.order),
        evaluations,
        noise or "-",
        settings or "-",
        spec.label,
        spec.paper,
    )
