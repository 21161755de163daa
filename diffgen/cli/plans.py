"""The output of `--dry-run`: the planned pictures and their cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from diffgen.cli.console import print_json, print_line, print_result
from diffgen.cli.pace import Pace
from diffgen.cli.tracking import counted
from diffgen.errors import one_line
from diffgen.settings.running import Machine

if TYPE_CHECKING:
    from diffgen.batch.plan import Job
    from diffgen.batch.session import Session

SHOWN = 1000  # pictures; --json has all of them
PROMPT_SHOWN = 60  # characters


def print_plan(session: Session, *, as_json: bool, goes_on: bool = True) -> None:
    """Print each picture's name and settings on stdout, and the totals on stderr.

    What is there already is only counted: by names under --skip-existing, and by the journal of a
    run that `goes_on`.
    """
    pace = Pace.of_user(Machine.of(session.given))
    is_there = _finder(session, goes_on=goes_on)
    pictures = evaluations = there = 0
    seconds: list[float | None] = []
    taken: Counter[str] = Counter()
    jobs = session.jobs() if is_there or as_json else islice(session.jobs(), SHOWN)
    for job in jobs:
        if is_there and is_there(job):
            there += 1
            continue
        pictures, evaluations = pictures + 1, evaluations + (job.plan.evaluations or 0)
        if as_json or pictures <= SHOWN:
            seconds.append(pace.seconds(job))
            _print_picture(session, job, taken, seconds[-1], as_json=as_json)
    if not (is_there or as_json):
        pictures, evaluations = session.plan.count, session.plan.evaluations
    if pictures > SHOWN and not as_json:
        print_line(f"... and {pictures - SHOWN} more; --json prints all")
    more = " and more, as an adaptive sampler decides" if session.plan.adaptive else ""
    done = f"; {there} {'is' if there == 1 else 'are'} there already" if there else ""
    print_line(
        f"{counted(pictures, 'picture')}, {counted(evaluations, 'network evaluation')}{more}, "
        f"{_time(seconds, pictures)}{done}; nothing was made"
    )


def _finder(session: Session, *, goes_on: bool) -> Callable[[Job], bool] | None:
    """Whether a picture is there already; None where no one is."""
    from diffgen.batch.run import name_fields

    journal = session.journal(fresh=False, look=True) if goes_on else None
    skips = session.style.collision == "skip"
    if not skips and (journal is None or not journal.has_pictures):
        return None

    def is_there(job: Job) -> bool:
        named = skips and session.output.existing(name_fields(job), line=job.line)
        return bool(named) or (journal is not None and journal.is_made(job.key))

    return is_there


def _print_picture(
    session: Session, job: Job, taken: Counter[str], seconds: float | None, *, as_json: bool
) -> None:
    from diffgen.batch.run import name_fields

    fields = name_fields(job)
    path = str(session.output.name(fields, line=job.line))
    taken[path] += 1
    if as_json:
        own: dict[str, Any] = {"line": job.line, "evaluations": job.plan.evaluations}
        print_json({"path": path, **own, "seconds": seconds, **fields})
    else:
        in_use = session.style.collision == "number" and os.path.lexists(path)
        numbered = f"{path} (with a number)" if in_use or taken[path] > 1 else path
        print_result(f"{numbered}  {_settings(fields)}")


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
