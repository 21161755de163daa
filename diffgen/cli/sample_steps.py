"""`diffgen sample-steps`: which sampler, and how many steps."""

from __future__ import annotations

from typing import Any

from diffgen.cli.memory import keep_freed_memory
from diffgen.cli.signature import Prompts, with_settings
from diffgen.cli.threads import settle_threads
from diffgen.settings.model import Source
from diffgen.settings.output import Talk
from diffgen.settings.picture import Size
from diffgen.settings.prompting import Prompting, Reading
from diffgen.settings.running import Machine, Threads
from diffgen.settings.sampling import Guidance
from diffgen.settings.sweep import AXES, Axes, Comparing, Measuring, Report, Varied

GROUPS = (
    *(Reading, Prompting, Size, Axes, Varied, Guidance, Measuring, Comparing, Source),
    *(Report, Machine, Threads, Talk),
)


@with_settings(
    *GROUPS,
    without=["progress"],  # generate's alone has events to report
    configured=("model", "device", "dtype", "threads"),
    instead=AXES,
)
def sample_steps(prompts: Prompts = None, *, given: dict[str, Any]) -> None:
    """Measure samplers and step counts on a model, and say which to use.

    Every picture is compared with the converged picture of its seed. Options that show ",..." take
    several values, each measured with all else; guidance changes the converged picture, so each of
    its values has one of its own. The folder gets report.html, plots, results.json and results.csv.
    """
    settle_threads(given.get("threads"))
    keep_freed_memory()
    from diffgen.cli.sweep import run_sweep

    run_sweep(prompts, given, GROUPS)
