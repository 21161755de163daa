"""`diffgen sample-steps`: which sampler, and how many steps."""

from __future__ import annotations

from typing import Any

from diffgen.cli.memory import keep_freed_memory
from diffgen.cli.signature import Prompts, configured_settings, with_settings
from diffgen.cli.threads import settle_threads
from diffgen.settings.model import Adapters, Source
from diffgen.settings.output import Talk
from diffgen.settings.picture import Size
from diffgen.settings.prompting import Prompting, Reading
from diffgen.settings.running import Machine, Threads
from diffgen.settings.sampling import Guidance
from diffgen.settings.sweep import AXES, Axes, Comparing, Measuring, Report, Varied

GROUPS = (
    *(Reading, Prompting, Size, Axes, Varied, Guidance, Measuring, Comparing),
    *(Source, Adapters),
    *(Report, Machine, Threads, Talk),
)


@with_settings(
    *GROUPS,
    without=["progress"],  # generate's alone has events to report
    instead=AXES,
)
def sample_steps(prompts: Prompts = None, *, given: dict[str, Any]) -> None:
    """Measure samplers and step counts on a model, and say which to use.

    Every picture is compared with the converged picture of its seed. Options that show ",..." take
    several values, each measured with all else. Models, LoRAs and guidance change the converged
    picture, so each of their values has one of its own; number formats are held against that of
    fp32. The folder gets report.html, plots, results.json and results.csv.
    """
    # What is compared with says the rest.
    own = () if "compare" in given else ("model", "device", "dtype")
    given = configured_settings(given, ("threads", *own), find_files=True)
    settle_threads(given.get("threads"))
    keep_freed_memory()
    from diffgen.cli.sweep import run_sweep

    run_sweep(prompts, given, GROUPS)
