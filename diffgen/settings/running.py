"""How a run goes on, and where it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffgen.settings.setting import Group, Setting
from diffgen.types import DeviceName, DtypeName

MAX_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class Machine(Group):
    """Where and in which number format to compute; changes pictures by rounding only."""

    panel: ClassVar[str] = "Machine"

    device: Annotated[DeviceName, Setting("--device", "Where to run [default: auto]")] = "auto"
    dtype: Annotated[
        DtypeName,
        Setting(
            "--dtype",
            "Number format of the networks; auto: half where it is fast [default: auto]",
            peers="precision torch-dtype type weight-type",
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Threads(Group):
    """How many threads compute on the CPU."""

    panel: ClassVar[str] = "Machine"

    threads: Annotated[
        int | None,
        Setting(
            "--threads",
            "Threads on the CPU [default: one a core]",
            "N",
            low=1,
            high=MAX_THREADS,
            peers="t num-threads n-threads cpu-threads",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Running(Group):
    """How a run of many pictures goes on."""

    panel: ClassVar[str] = "Run"

    dry_run: Annotated[
        bool, Setting("--dry-run", "Check everything, say what would be made, make nothing")
    ] = False
    resume: Annotated[
        bool,
        Setting(
            "--resume/--fresh",
            "Whether a prompt file goes on where it stopped, or starts over [default: go on]",
        ),
    ] = True
    exact: Annotated[
        bool,
        Setting("--exact", "One picture at a time, by deterministic kernels: equal to the bit"),
    ] = False
    stop_on_error: Annotated[
        bool, Setting("--stop-on-error", "Stop at the first picture that fails")
    ] = False
    contact_sheet: Annotated[
        str | None,
        Setting("--contact-sheet", "Draw all pictures of the run, small, into one", "FILE"),
    ] = None
    grid: Annotated[
        str | None,
        Setting("--grid", "The same with a row for each value of a matrix's last list", "FILE"),
    ] = None
    summary: Annotated[
        str | None, Setting("--summary", "Write what the run came to, as JSON", "FILE")
    ] = None
