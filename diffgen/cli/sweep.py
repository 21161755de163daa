"""The work of `diffgen sample-steps`: measure, show, compare."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import typer

from diffgen.bench.compare import Comparison, Limits, check_comparable, compare
from diffgen.bench.folder import check_folder, exclusive
from diffgen.bench.request import SweepRequest
from diffgen.bench.result_files import read_results
from diffgen.bench.results import Results
from diffgen.bench.session import Film, Session
from diffgen.cli.command_line import command_line
from diffgen.cli.console import (
    logged_notes,
    print_json,
    print_line,
    print_note,
    print_result,
    print_table,
)
from diffgen.cli.progress import Display, progress
from diffgen.cli.prompts import listed_problems, read_prompts, tell_syntax
from diffgen.cli.signals import Stopped
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.engine.steering import unread_syntax
from diffgen.errors import DiffgenError, UsageError
from diffgen.files import expanded
from diffgen.settings.output import Talk
from diffgen.settings.sampling import Sampling
from diffgen.settings.setting import rows
from diffgen.settings.sweep import Comparing, Report

LINE_EVERY = 10.0  # seconds between lines, without a bar


def run_sweep(
    prompts: list[str] | None, given: dict[str, Any], groups: Sequence[type] = ()
) -> None:
    """Run the command; `given` holds the typed settings of these groups.

    Raises UsageError, Stopped after a signal, and typer.Exit with 1 if a comparison fails.
    """
    # Understand what is to be measured.
    comparing, report, talk = Comparing.of(given), Report.of(given), Talk.of(given)
    limits = Limits.parse(comparing.max_slower, comparing.max_worse)
    old = read_results(comparing.compare) if comparing.compare else None
    request = _request(prompts, given, old)
    film = _parse_film(report.trajectory) if report.trajectory else None
    folder = _folder(report.output, comparing.compare)
    # Open the model, and check the sweep against it.
    with logged_notes(talk.verbose):
        session = Session(request)
    tell_syntax(_unread(session), strict=given.get("strict", False))
    _check_steering(session)
    if old:
        settings = request.settings(session.task.plan)
        check_comparable(old, settings, [cell.key for cell in session.task.cells])
    shot = session.plan_run(film) if film else None
    # Measure, and show the results so far even if interrupted.
    with logged_notes(talk.verbose), exclusive(folder):
        session.open(folder, fresh=report.fresh)
        asked = _measure(session, shot, folder, quiet=talk.quiet)
        results = session.results()
        if results.cells:
            _show(results, folder, as_json=report.as_json)
    if asked:
        raise Stopped(asked, f"; to go on: {command_line(without='--fresh', groups=groups)}")
    if old and not _passes(compare(old, results, limits), as_json=report.as_json):
        raise typer.Exit(1)


def _folder(output: Path, compared: Path | None) -> Path:
    """The folder to write into, checked. Raises UsageError."""
    folder = expanded(output)
    if compared and compared.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--compare {compared} is in {folder}, which is to be written")
    check_folder(folder)
    return folder


def _request(prompts: list[str] | None, given: dict[str, Any], old: Results | None) -> SweepRequest:
    """The request, on top of that of the sweep to compare with."""
    if "steps" in given and "nfe" in given:
        raise UsageError("give one of --steps and --nfe")
    settings: dict[str, Any] = dict(old.settings) if old else {}
    if "steps" in given:
        settings.pop("nfe", None)
    if not old or prompts or "prompt_file" in given:
        with listed_problems():
            settings["prompts"] = read_prompts(prompts, given.get("prompt_file"))
    if "guidance_scale" in given:
        settings.pop("guidance_schedule", None)
    typed = {name: given[name] for name in rows(SweepRequest) if name in given}
    return SweepRequest.from_settings(settings, typed)


def _unread(session: Session) -> list[str]:
    """Foreign syntax in the prompts, each piece once."""
    known = bool(session.request.embeddings)
    plans = session.task.plans.values()
    pieces = (piece for plan in plans for piece in unread_syntax(plan, embeddings=known))
    return list(dict.fromkeys(pieces))


def _check_steering(session: Session) -> None:
    """Raise UsageError for what another prompt would change."""
    from diffgen.engine.tags import Finder, known_words

    request = session.request

    def known() -> set[str]:
        return known_words(session.opened, request.loras, request.embeddings)

    plans, find = session.task.plans.values(), Finder()
    if any(any(find.tags(plan, known).values()) for plan in plans):
        raise UsageError(
            "sample-steps takes no LoRAs and no embeddings from prompts; --lora and --embedding "
            "are for all of them"
        )


def _parse_film(text: str) -> Sampling:
    """`SAMPLER[:STEPS]`. Raises UsageError."""
    name, colon, steps = text.partition(":")
    sampler: Any = name  # any program's name for it
    if colon and not re.fullmatch(r"[1-9]\d*", steps):
        raise UsageError(f'--trajectory {text}: "{steps}" is no number of steps')
    return Sampling(sampler=sampler, steps=int(steps) if colon else None)


def _measure(
    session: Session, film: SamplingPlan | None, folder: Path, *, quiet: bool
) -> KeyboardInterrupt | None:
    """Run the sweep; returns the exception that stopped it, if any."""
    try:
        with progress(quiet=quiet) as display:
            listener = SweepProgress(display)
            session.measure(listener, listener.expect)
        if film:
            _write_film(session.film(film), folder, quiet=quiet)
    except KeyboardInterrupt as asked:
        return asked
    return None


def _write_film(film: Film, folder: Path, *, quiet: bool) -> None:
    from diffgen.bench.show.trajectory import write_trajectory

    paths = write_trajectory(film.frames, film.sigmas, folder, name=film.name)
    if not quiet:
        for path in paths:
            print_line(str(path))


def _show(results: Results, folder: Path, *, as_json: bool) -> None:
    """Draw the views into the folder and print the results."""
    report = _draw(results, folder)
    if as_json:
        print_json(asdict(results))
        for cell in results.cells:
            if cell.status == "failed":
                print_note(f"{cell.key} failed: {cell.reason}")
    else:
        from diffgen.bench.show.table import SACRIFICE, results_table

        print_table(partial(results_table, results), SACRIFICE)
        for advice in results.advice:
            print_result(advice.sentence)
        print_result(str(report))
        for advice in results.advice:
            print_result(advice.command)
    if all(cell.status == "failed" for cell in results.cells):
        raise DiffgenError("no cell could be measured")


def _draw(results: Results, folder: Path) -> Path:
    from diffgen.bench.show.plots import write_plots
    from diffgen.bench.show.report import write_report
    from diffgen.bench.show.sheet import write_sheet

    write_plots(results, folder)
    write_sheet(results, folder)
    return write_report(results, folder)


def _passes(comparison: Comparison, *, as_json: bool) -> bool:
    """Print the changes; to stderr if stdout holds JSON."""
    for line in comparison.lines():
        (print_line if as_json else print_result)(line)
    return not comparison.failed


class SweepProgress:
    """Displays the current work and counts network evaluations."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._label, self._done, self._total = "loading", 0, 0
        self._start = self._latest = time.monotonic()

    def begin(self, label: str) -> None:
        self._label = label
        self._update()

    def expect(self, calls: int) -> None:
        self._total = calls
        self._start = self._latest = time.monotonic()
        if not self._display.live:
            self._display.say(f"{calls} network evaluations to come")

    def called(self) -> None:
        self._done += 1
        self._update()
        now = time.monotonic()
        if not self._display.live and now - self._latest >= LINE_EVERY:
            self._latest = now
            left = (now - self._start) / self._done * (self._total - self._done)
            rest = f" of {self._total}, {left:.0f} s left" if self._known else " evaluations"
            self._display.say(f"{self._label}: {self._done}{rest}")

    @property
    def _known(self) -> bool:
        """Whether the end is in sight: a reference that does not converge takes more."""
        return 0 < self._total >= self._done

    def _update(self) -> None:
        self._display.update(self._label, self._done, self._total if self._known else None)
