"""The output of `--dry-run`: the planned pictures and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from diffgen.cli.console import print_json, print_line, print_result
from diffgen.cli.pace import Pace
from diffgen.cli.tracking import counted
from diffgen.errors import one_line
from diffgen.settings.running import Machine

if TYPE_CHECKING:
    from diffgen.batch.session import Session

SHOWN = 1000  # pictures; --json has all of them
PROMPT_SHOWN = 60  # characters


def print_plan(session: Session, *, as_json: bool) -> None:
    """Print each picture's name and settings on stdout, and the totals on stderr."""
    from diffgen.batch.run import name_fields

    pace = Pace.of_user(Machine.of(session.given))
    seconds: list[float | None] = []
    taken: Counter[str] = Counter()
    jobs = ((job, name_fields(job)) for job in session.jobs())
    for job, fields in jobs if as_json else islice(jobs, SHOWN):
        seconds.append(pace.seconds(job))
        path = str(session.output.name(fields, line=job.line))
        taken[path] += 1
        numbered = path if taken[path] == 1 else f"{path} (with a number)"
        if as_json:
            own: dict[str, Any] = {"line": job.line, "evaluations": job.plan.evaluations}
            print_json({"path": path, **own, "seconds": seconds[-1], **fields})
        else:
            print_result(f"{numbered}  {_settings(fields)}")
    plan = session.plan
    if plan.count > SHOWN and not as_json:
        print_line(f"... and {plan.count - SHOWN} more; --json prints all")
    more = " and more, as an adaptive sampler decides" if plan.adaptive else ""
    print_line(
        f"{counted(plan.count, 'picture')}, {counted(plan.evaluations, 'network evaluation')}{more}, "
        f"{_time(seconds, plan.count)}; nothing was made"
    )


def _time(seconds: Sequence[float | None], count: int) -> str:
    """The estimated time of all pictures, extrapolated from known ones."""
    from diffgen.batch.run import as_clock

    known = [each for each in seconds if each is not None]
    if not known or len(known) < len(seconds):
        return "time not known before a first run of such pictures"
    return f"about {as_clock(sum(known) / len(known) * count)} as the last run went"


def _settings(fields: dict[str, Any]) -> str:
    schedule = f" on {fields['schedule']}" if fields["schedule"] else ""
    return one_line(
        f"{fields['width']}x{fields['height']} seed {fields['seed']}, {counted(fields['steps'], 'step')} of "
        f"{fields['sampler']}{schedule}, guidance {fields['guidance_scale']:g}, "
        f'{fields["model"]}: "{one_line(fields["prompt"], PROMPT_SHOWN)}"'
    )
