"""The results of a sweep as plain data: results.json, and the source of every view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from diffgen.bench.limits import limit_key, solution_of
from diffgen.settings.axes import Point, suffix_of

SCHEMA = "diffgen.sample-steps/2"
READABLE = ("diffgen.sample-steps/1", SCHEMA)  # version 1 had no further axes

FORM = {"extra": "forbid", "allow_inf_nan": False}  # for pydantic, when reading

# ok: measured. no_limit: ran, but has no converged picture to compare with (lcm).
# failed: `reason` says why (out of memory, numbers that are not finite, ...).
CellStatus: TypeAlias = Literal["ok", "no_limit", "failed"]


@dataclass(frozen=True, slots=True)
class Statistic:
    """Mean over seeds and prompts with half the width of its 95 % confidence interval.

    `values` holds one number per picture, in the order of the sweep's pictures.
    """

    __pydantic_config__ = FORM

    mean: float
    ci95: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one picture over the repeats: their median and extremes."""

    __pydantic_config__ = FORM

    median: float
    low: float
    high: float
    repeats: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One sampler with one schedule and step count, at one value of each further axis.

    `at` has these values by label, for the axes that the sweep varies and the sampler has. `nfe`
    counts network evaluations. The distances are to the converged solution of the same seed:
    `latent_rmse` in latent space, `psnr` (dB) and `ssim` in pixel space; `clip` is the CLIP score
    against the prompt. `seconds` is sampling alone. `picture` is the file of the first picture,
    relative to the report's folder; `peak_memory` is in bytes.
    """

    __pydantic_config__ = FORM

    sampler: str
    schedule: str
    steps: int
    nfe: int
    stochastic: bool
    status: CellStatus
    reason: str = ""
    at: Mapping[str, float | bool | str] = field(default_factory=dict)
    settings: Mapping[str, float | int | str | None] = field(default_factory=dict)
    seconds: Timing | None = None
    decode_seconds: float | None = None
    peak_memory: int | None = None
    latent_rmse: Statistic | None = None
    psnr: Statistic | None = None
    ssim: Statistic | None = None
    clip: Statistic | None = None
    picture: str | None = None

    @property
    def key(self) -> str:
        """Unique within a sweep, and usable as a file name."""
        return f"{self.sampler}-{self.schedule}-{self.steps}{suffix_of(self.at.items())}"

    @property
    def series(self) -> str:
        """A key for cells that differ only in steps."""
        return f"{self.sampler}-{self.schedule}{suffix_of(self.at.items())}"

    @property
    def solution(self) -> Point:
        """A key, equal for cells that solve the same equation and are therefore comparable."""
        return solution_of(self.at.items())

    @property
    def limit(self) -> str:
        """The key in `Results.references` of the cell's reference."""
        return limit_key(self.sampler, self.at.items(), stochastic=self.stochastic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The converged solution that distances are measured to.

    `floor_*` is the disagreement with a second solver: smaller differences are meaningless. A
    stochastic sampler's reference is itself on the same Brownian path with `steps` steps; its floor
    is against half as many. `picture` is the file of the first picture; `title` names the reference
    if there are several.
    """

    __pydantic_config__ = FORM

    sampler: str
    schedule: str
    steps: int
    nfe: int
    checked_with: str
    floor_latent_rmse: float
    floor_psnr: float
    floor_ssim: float
    picture: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of the timings."""

    __pydantic_config__ = FORM

    device: str
    dtype: str
    threads: int
    platform: str
    versions: Mapping[str, str]  # python, torch, diffgen


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The answer: a cell, a sentence with the reason, and the `generate` command to paste.

    `more_seeds` is how many more would distinguish the best rival from "yours", if the sentence
    says so.
    """

    __pydantic_config__ = FORM

    cell: str  # Cell.key
    sentence: str
    command: str = ""
    more_seeds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A whole sweep. `settings` are all settings, by option name.

    `references` maps "" to the deterministic reference and a stochastic sampler's name to its own,
    followed by the value of any axis that changes the solution (see `Cell.limit`). `front` lists
    the keys of the Pareto-optimal cells (quality against seconds), fastest first, solution by
    solution; `knees` maps `Cell.series` to the step count beyond which more steps gain little.
    `recommendation` is that of the first solution, `other_recommendations` those of the others.
    `notes` are remarks on repeated or uncertain measurements.
    """

    __pydantic_config__ = FORM

    schema: str
    created: str  # ISO 8601, UTC
    model: str
    settings: Mapping[str, object]
    machine: Machine
    text_seconds: float
    references: Mapping[str, Reference]
    cells: tuple[Cell, ...]
    front: tuple[str, ...] = ()
    knees: Mapping[str, int] = field(default_factory=dict)
    recommendation: Recommendation | None = None
    other_recommendations: tuple[Recommendation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def advice(self) -> tuple[Recommendation, ...]:
        """One recommendation for each solution, in the order of the sweep."""
        first = (self.recommendation,) if self.recommendation else ()
        return (*first, *self.other_recommendations)

    @property
    def recommended(self) -> frozenset[str]:
        """The keys of the recommended cells."""
        return frozenset(advice.cell for advice in self.advice)
