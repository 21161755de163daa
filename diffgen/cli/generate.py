"""`diffgen generate`: prompts to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer

from diffgen.cli.console import logged_notes, print_line, print_note, reported_pipe
from diffgen.cli.memory import loading_to_stay, return_freed_memory
from diffgen.cli.pace import Pace
from diffgen.cli.plans import print_plan
from diffgen.cli.progress import progress
from diffgen.cli.screen import Previews, Screen
from diffgen.cli.signals import Asked, Stopped, finishing_first
from diffgen.cli.signature import Prompts, with_settings
from diffgen.cli.streams import stdout_file, stdout_is_closed
from diffgen.cli.summary import summarised
from diffgen.cli.threads import settle_threads
from diffgen.cli.tracking import Tracker
from diffgen.errors import UsageError
from diffgen.files import expanded
from diffgen.settings.editing import Editing, Enlarging, Refining, Varying
from diffgen.settings.model import Adapters, Source
from diffgen.settings.output import Output, Talk
from diffgen.settings.picture import Number, Size
from diffgen.settings.prompting import Interpolating, Prompting, Reading
from diffgen.settings.running import Machine, Running, Threads
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.types import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from diffgen.batch.journal import Journal
    from diffgen.batch.plan import BatchPlan
    from diffgen.batch.run import Run, Viewer
    from diffgen.batch.session import Session
    from diffgen.batch.sheet import Sheet
    from diffgen.batch.stock import Stock
    from diffgen.engine.engine import Engine

PICTURES = (
    *(Prompting, Size, Number, Sampling, Guidance, Source, Adapters),
    *(Editing, Enlarging, Varying, Refining),
)


@with_settings(
    *(Reading, Interpolating, *PICTURES, Output, Running, Machine, Threads, Talk),
    configured=None,
    as_text=PICTURES,
)
def generate(words: Prompts = None, *, given: dict[str, Any]) -> int:
    """Make pictures from prompts.

    The path of each picture is printed as soon as it is finished.
    """
    # Imported here: --help and the other commands do without.
    from diffgen.batch.session import Session

    with making(given, lambda: Session.open(words or [], given)) as (run, plans):
        for plan in plans:
            run.run(plan)
    return run.tally.exit_code


@contextmanager
def making(
    given: Mapping[str, Any], opened: Callable[[], Session]
) -> Iterator[tuple[Run, Iterable[BatchPlan]]]:
    """Set up a run with its progress, and the plans to draw.

    Ends the command if only a plan is wanted.
    """
    settle_threads(given.get("threads"))
    from diffgen.batch.sheet import check_sheet

    talk, running, output = Talk.of(given), Running.of(given), Output.of(given)
    _check_stdout(output)
    _check_negative(given.get("negative"))
    for file in (running.contact_sheet, running.grid):
        check_sheet(file)
    _check_folders(output.output, running.contact_sheet, running.grid, running.summary)
    previews = Previews(output.preview_every) if output.preview_every else None
    with logged_notes(talk.verbose), summarised(running.summary) as summary:
        session = _told(opened, given.get("prompt_file"))
        if running.dry_run:
            print_plan(session, as_json=output.as_json, goes_on=running.resume)
            raise typer.Exit
        with _reported(session, running, talk, output, previews) as (run, plans):
            summary.begin(run.tally)
            yield run, plans


def _told(opened: Callable[[], Session], prompt_file: str | None) -> Session:
    """Open a session, and print notes on it."""
    from diffgen.cli.prompts import listed_problems, tell_syntax, tell_terminal

    tell_terminal(prompt_file)
    with listed_problems():
        session = opened()
    for note in (*session.notes, *session.plan.too_large.values()):
        print_note(note)
    tell_syntax([*session.plan.unread.values()])
    return session


def _check_folders(output: str | None, *files: str | None) -> None:
    """Raise UsageError for a file of the run's end that has no folder, nor gets one by `output`."""
    target = expanded(output or ".").absolute()
    for path in (expanded(file) for file in files if file):
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")
        folder = path.absolute().parent
        if not folder.is_dir() and folder not in (target, *target.parents):
            raise UsageError(f"cannot write {path}: there is no folder {path.parent}")


def _check_stdout(output: Output) -> None:
    if output.output == "-" and output.as_json:
        raise UsageError("--json and -o - both want stdout; choose one")
    if output.output == "-" and stdout_is_closed():
        raise UsageError("-o -: stdout is closed; give a file's name")
    file = stdout_file()
    if output.output != "-" and file and file.suffix.lower() in PICTURE_SUFFIXES:
        raise UsageError(
            f"stdout tells the paths of pictures, and goes to {file.name}; "
            f"-o - > {file.name} writes a picture there"
        )


def _check_negative(negative: str | None) -> None:
    """Raise UsageError for a number: -n counts pictures in many programs."""
    if negative and negative.strip().isdecimal():
        count = negative.strip()
        raise UsageError(
            f"-n says what not to draw, and {count} is a number; -c {count} is so many pictures"
        )


@contextmanager
def _reported(
    session: Session, running: Running, talk: Talk, output: Output, previews: Previews | None
) -> Iterator[tuple[Run, Iterable[BatchPlan]]]:
    """A session's run and its plans, with journal, progress, sheets and a closing line."""
    from diffgen.batch.files import name_of

    sheets, file = _sheets(session, running), session.reading.prompt_file
    journal = session.journal(fresh=not running.resume)
    with (
        journal or nullcontext(),
        progress(quiet=talk.quiet, kind=talk.progress) as display,
        previews.shown() if previews else nullcontext(),
    ):
        pace = Pace.of_user(Machine.of(session.given))
        tracker = Tracker(
            display,
            session.plan,
            kind=talk.progress,
            as_json=output.as_json,
            file=file and name_of(file),
            pace=None if previews else pace,  # drawing the sheet takes time too
        )
        viewers: list[Viewer] = [*sheets.values(), *([Screen()] if output.show else [])]
        run = _run(session, running, tracker, journal, viewers, previews)
        return_freed_memory()
        _tell_journal(journal)
        try:
            with _told_when_stopped(run, tracker, goes_on=journal is not None):
                yield run, _plans(session, run, tracker)
        finally:
            pace.keep()
        for name, sheet in sheets.items():
            if len(sheet):
                sheet.save(expanded(name))
        if file and not talk.quiet:
            print_line(run.tally.closing())


def _run(
    session: Session,
    running: Running,
    tracker: Tracker,
    journal: Journal | None,
    viewers: Sequence[Viewer],
    previews: Previews | None,
) -> Run:
    from diffgen.batch.frames import Animation
    from diffgen.batch.run import Run

    return Run(
        session.plan,
        session.output,
        _loader(Machine.of(session.given), exact=running.exact),
        tracker,
        journal=journal,
        # An animation needs all of its frames.
        stop_on_error=running.stop_on_error or isinstance(session.output, Animation),
        viewers=viewers,
        watcher=previews,
        saving=reported_pipe if session.output.to_stdout else nullcontext,
    )


def _sheets(session: Session, running: Running) -> dict[str, Sheet]:
    from diffgen.batch.sheet import Sheet, columns_of

    row = columns_of([len(values) for values in session.base.values()])
    sheets = {running.contact_sheet: Sheet(), running.grid: Sheet(row)}
    return {file: sheet for file, sheet in sheets.items() if file}


def _loader(machine: Machine, *, exact: bool) -> Callable[[Stock], Engine]:
    def load(stock: Stock) -> Engine:
        with loading_to_stay():
            from diffgen.device import be_deterministic, memory_errors, take_own_gpu
            from diffgen.engine.engine import Engine

            take_own_gpu()
            if exact:
                be_deterministic()

            with memory_errors():
                return Engine.load(
                    stock.model,
                    device=machine.device,
                    dtype=machine.dtype,
                    loras=stock.adapters.loras,
                    embeddings=stock.adapters.embeddings,
                )

    return load


@contextmanager
def _told_when_stopped(run: Run, tracker: Tracker, *, goes_on: bool) -> Iterator[None]:
    """On a signal, a resumable run finishes the batch in progress; others stop at once."""
    try:
        if goes_on:
            with finishing_first(run.stopping) as came:
                yield
                if came:
                    raise Asked(came[0])
        else:
            yield
    except KeyboardInterrupt as asked:
        raise Stopped(asked, tracker.rest(goes_on=goes_on)) from asked


def _plans(session: Session, run: Run, tracker: Tracker) -> Iterator[BatchPlan]:
    """The plan of the command, or those of stdin, line by line."""
    from diffgen.batch.files import Problem
    from diffgen.cli.prompts import tell_syntax

    unread = session.plan.unread
    told = len(unread)
    yield session.plan
    for arrived in session.arriving() if session.stream else ():
        if run.stopping.is_set():
            break
        tell_syntax([*unread.values()][told:])
        told = len(unread)
        if isinstance(arrived, Problem):
            run.refuse(arrived)
        else:
            tracker.expect(arrived.count)
            yield arrived


def _tell_journal(journal: Journal | None) -> None:
    for number in journal.damaged if journal else ():
        print_line(f"note: {journal and journal.path}:{number}: a damaged line, passed over")
