"""`diffgen sample-steps`: which sampler, and how many steps."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from diffgen.bench.compare import Comparison, Limits, check_comparable, compare
from diffgen.bench.grid import parse_integers
from diffgen.bench.request import SweepRequest
from diffgen.bench.results import Results
from diffgen.bench.session import Film, Session
from diffgen.bench.storage import check_folder, read_results
from diffgen.cli import options as opt
from diffgen.cli import sweep_options as sweep
from diffgen.cli.console import logged_notes, print_line, print_note, print_result
from diffgen.cli.sweep_console import print_table, sweep_progress
from diffgen.diffusion.names import parse_sampler
from diffgen.diffusion.sampling import SamplingPlan, SamplingSettings
from diffgen.errors import DiffgenError, UsageError

INTERRUPTED = 130


def sample_steps(
    prompts: opt.Prompts = None,
    prompt_file: opt.PromptFile = None,
    model: sweep.Model = None,
    samplers: sweep.Samplers = None,
    schedules: sweep.Schedules = None,
    steps: sweep.Steps = None,
    nfe: sweep.Calls = None,
    seeds: sweep.Seeds = None,
    negative: opt.Negative = None,
    guidance: opt.Guidance = None,
    width: sweep.Width = None,
    height: sweep.Height = None,
    reference: sweep.ReferenceSteps = None,
    repeats: sweep.Repeats = None,
    clip: sweep.Clip = None,
    target_psnr: sweep.TargetPsnr = None,
    budget_seconds: sweep.BudgetSeconds = None,
    compare_with: sweep.CompareWith = None,
    max_slower: sweep.MaxSlower = "10%",
    max_worse: sweep.MaxWorse = "0.5dB",
    trajectory: sweep.Trajectory = None,
    output: sweep.Output = "report",
    fresh: sweep.Fresh = False,
    device: sweep.Device = None,
    dtype: sweep.Dtype = None,
    as_json: sweep.AsJson = False,
    quiet: sweep.Quiet = False,
    verbose: sweep.Verbose = False,
) -> None:
    """Measure samplers and step counts on a model, and say which to use.

    Every picture is compared with the converged picture of its seed. The folder gets report.html,
    plots, results.json and results.csv.
    """
    limits = Limits.parse(max_slower, max_worse)
    before = Path(compare_with).expanduser() if compare_with else None
    old = read_results(before) if before else None
    if not old or prompts or prompt_file:
        prompts = opt.read_prompts(prompts, prompt_file)
    given = {
        "prompts": prompts,
        "model": model,
        "negative": negative,
        "seeds": None if seeds is None else parse_integers("--seeds", seeds, lowest=0),
        "samplers": samplers,
        "schedules": schedules,
        "steps": steps,
        "nfe": nfe,
        "guidance": guidance,
        "width": width,
        "height": height,
        "reference": reference,
        "repeats": repeats,
        "clip": clip,
        "target_psnr": target_psnr,
        "budget_seconds": budget_seconds,
        "device": device,
        "dtype": dtype,
    }
    request = _request({k: v for k, v in given.items() if v is not None}, old)
    folder = Path(output).expanduser()
    if before and before.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--compare {before} is in {folder}, which is to be written")
    film = _parse_film(trajectory) if trajectory else None
    check_folder(folder)
    session = Session(request)
    if old:
        settings = request.settings(session.task.plan)
        check_comparable(old, settings, [cell.key for cell in session.task.cells])
    shot = session.plan_run(film) if film else None
    session.open(folder, fresh=fresh)
    with logged_notes(verbose):
        interrupted = _measure(session, shot, folder, quiet=quiet)
    results = session.results()
    if results.cells:
        _show(results, folder, as_json=as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if old and not _passes(compare(old, results, limits), as_json=as_json):
        raise typer.Exit(1)


def _request(given: dict[str, Any], old: Results | None) -> SweepRequest:
    """What was asked for, on top of the sweep to compare with."""
    if "steps" in given and "nfe" in given:
        raise UsageError("give one of --steps and --nfe")
    settings = dict(old.settings) if old else {}
    if "steps" in given:
        settings.pop("nfe", None)
    return SweepRequest.from_settings(settings | given)


def _parse_film(text: str) -> SamplingSettings:
    """`SAMPLER[:STEPS]`. Raises UsageError."""
    name, colon, steps = text.partition(":")
    sampler, schedule = parse_sampler(name)
    if colon and not re.fullmatch(r"[1-9]\d*", steps):
        raise UsageError(f'--trajectory {text}: "{steps}" is no number of steps')
    return SamplingSettings(sampler=sampler, schedule=schedule, steps=int(steps) if colon else None)


def _measure(session: Session, film: SamplingPlan | None, folder: Path, *, quiet: bool) -> bool:
    """Run the sweep; True if the user stopped it."""
    try:
        with sweep_progress(quiet=quiet) as progress:
            session.measure(progress, progress.expect)
        if film:
            _write_film(session.film(film), folder, quiet=quiet)
    except KeyboardInterrupt:
        return True
    return False


def _write_film(film: Film, folder: Path, *, quiet: bool) -> None:
    from diffgen.bench.trajectory import write_trajectory

    paths = write_trajectory(film.frames, film.sigmas, folder, name=film.name)
    if not quiet:
        for path in paths:
            print_line(str(path))


def _show(results: Results, folder: Path, *, as_json: bool) -> None:
    """Draw the views into the folder and say what came out."""
    report = _draw(results, folder)
    if as_json:
        print_result(json.dumps(asdict(results), ensure_ascii=False))
    else:
        from diffgen.bench.table import results_table

        print_table(results_table(results))
        if results.recommendation:
            print_result(results.recommendation.sentence)
        print_result(str(report))
    for cell in results.cells:
        if cell.status == "failed":
            print_note(f"{cell.key} failed: {cell.reason}")
    if all(cell.status == "failed" for cell in results.cells):
        raise DiffgenError("no cell could be measured")


def _draw(results: Results, folder: Path) -> Path:
    from diffgen.bench.plots import write_plots
    from diffgen.bench.report import write_report
    from diffgen.bench.sheet import write_sheet

    write_plots(results, folder)
    write_sheet(results, folder)
    return write_report(results, folder)


def _passes(comparison: Comparison, *, as_json: bool) -> bool:
    """Say what changed, beside the results where those are for a program to read."""
    for line in comparison.lines():
        (print_line if as_json else print_result)(line)
    return not comparison.failed
