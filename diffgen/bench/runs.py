"""Runs, each one picture of one cell, and the figures of a cell computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from diffgen.bench.grid import PlannedCell
from diffgen.bench.results import FORM, Cell, CellStatus, Statistic, Timing
from diffgen.bench.uncertainty import statistic
from diffgen.diffusion.samplers.spec import SamplerSpec

NO_LIMIT = (
    "its noise depends on where its steps fall: more steps give another picture, not a closer one"
)


@dataclass(frozen=True, slots=True)
class Drift:
    """The times of a sitting, counted from 0, are outdated: the machine has changed.

    `ratio` is the time of the same runs now to the time then.
    """

    __pydantic_config__ = FORM

    sitting: int
    ratio: float

    def sentence(self) -> str:
        """The message for the user."""
        slower = self.ratio > 1.0
        factor = self.ratio if slower else 1.0 / self.ratio
        return (
            f"the machine is {factor:.2g} times {'slower' if slower else 'faster'} than when this "
            "sweep was interrupted; what was timed before is timed again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one run of a sampler.

    Each round of a sweep makes one run of every cell: of the pictures in turn, then, for more
    repeats than pictures, of the first ones again for their time alone. `reason` says why a run
    failed; anything not measured is None. `sitting` counts the parts of a sweep between
    interruptions.
    """

    __pydantic_config__ = FORM

    cell: str  # Cell.key
    round: int
    nfe: int = 0
    seconds: float | None = None
    decode_seconds: float | None = None
    peak_memory: int | None = None
    latent_rmse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    clip: float | None = None
    picture: str | None = None
    reason: str = ""
    sitting: int = 0


def has_limit(spec: SamplerSpec) -> bool:
    """Whether a sampler's picture converges with more steps.

    An ODE solver's does, and an SDE solver's on a fixed Brownian path. Samplers of distilled models
    jump to x0 and draw fresh noise of full strength at every step: more steps, another picture.
    Restart adds noise that depends on its steps' positions and number.
    """
    return not spec.distilled and spec.name != "restart"


def make_cell(
    planned: PlannedCell,
    runs: Sequence[Run],
    settings: Mapping[str, float | int | str | None],
) -> Cell:
    """The figures of a cell from its runs so far, at least one."""
    spec = planned.plan.spec
    status, reason = _status(spec, runs)
    done = [] if status == "failed" else sorted(runs, key=lambda run: run.round)
    # Cells are compared picture by picture, so pictures after a missing one are left out.
    unbroken = [run for number, run in enumerate(done) if run.round == number]
    decodes = [run.decode_seconds for run in done if run.decode_seconds is not None]
    memory = [run.peak_memory for run in done if run.peak_memory is not None]
    return Cell(
        sampler=spec.name,
        schedule=str(planned.plan.schedule),
        steps=planned.steps,
        nfe=round(median(run.nfe for run in runs)),
        stochastic=planned.stochastic,
        status=status,
        reason=reason,
        at=dict(planned.point),
        settings={**planned.plan.options, **settings, **dict(planned.point)},
        seconds=_timing([run.seconds for run in done if run.seconds is not None]),
        decode_seconds=median(decodes) if decodes else None,
        peak_memory=max(memory, default=None),
        latent_rmse=_statistic(unbroken, "latent_rmse"),
        psnr=_statistic(unbroken, "psnr"),
        ssim=_statistic(unbroken, "ssim"),
        clip=_statistic(unbroken, "clip"),
        picture=next((run.picture for run in done if run.picture), None),
    )


def _status(spec: SamplerSpec, runs: Sequence[Run]) -> tuple[CellStatus, str]:
    """The status of a cell, and its reason."""
    failure = next((run.reason for run in runs if run.reason), "")
    if failure:
        return "failed", failure
    return ("ok", "") if has_limit(spec) else ("no_limit", NO_LIMIT)


def _statistic(runs: Sequence[Run], name: str) -> Statistic | None:
    """The statistic of one figure over the pictures that have it; None without any."""
    values = [getattr(run, name) for run in runs]
    found = [value for value in values if value is not None]
    return statistic(found) if found else None


def _timing(seconds: Sequence[float]) -> Timing | None:
    if not seconds:
        return None
    return Timing(median(seconds), min(seconds), max(seconds), tuple(seconds))
