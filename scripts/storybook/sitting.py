"""Make storybook on one GPU in one sitting: `python -m scripts.storybook.make --gpu`.

All of it in order, from scenes to the assembled folder. First every training runs for a few steps
on a few scenes (in `rehearsal/`), which shows that it can, and what a step costs here; the plan that
follows from it is kept, and printed before anything else is done. Stopped, cut or paused, the same
command goes on: drawing keeps its shards, trainings their checkpoints, and what is finished is not
repeated. Nothing is written outside the folder: copying the result over the bundled model is up to
you.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from diffgen.errors import DiffgenError, UsageError
from scripts.storybook.artwork import default_cache
from scripts.storybook.chain import (
    TRAININGS,
    VOCABULARY,
    Amount,
    Costs,
    Step,
    cores,
    drawn,
    full,
    sitting,
    trained,
    trial,
    vocabulary,
)
from scripts.storybook.rehearsal import rehearsed

ROOT: Final = Path(__file__).parents[2]
PLAN: Final = Path("storybook-gpu-plan.json")
TIMES: Final = Path("seconds.json")  # of the rehearsal's steps, in its folder
SPARE: Final = 0.95  # of a budget: what is planned for, as estimates err
FEWEST: Final = 2  # steps of a training, however small the budget
LETTING_GO: Final = 20.0  # seconds for a training to write its checkpoint
PAUSED: Final = 3  # exit status: not finished, and nothing failed


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for, what steps cost, and how many are made."""

    asked: dict[str, Any]
    costs: Costs
    amount: Amount

    def save(self) -> None:
        """Keep it for the command that goes on."""
        part = PLAN.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(PLAN)

    @classmethod
    def read(cls, asked: dict[str, Any]) -> "Plan | None":
        """The plan that was kept. Raises UsageError where something else is asked for."""
        if not PLAN.exists():
            return None
        table = json.loads(PLAN.read_text(encoding="utf-8"))
        kept = table["asked"]
        for name, value in asked.items():
            if value and value != kept[name]:
                raise UsageError(
                    f"{PLAN} was made with {name} {kept[name]}, not {value}; "
                    "drop that, or delete the file to plan anew"
                )
        return cls(kept, Costs(**table["costs"]), Amount(**table["amount"]))

    def steps(self, art: Path) -> list[Step]:
        """All steps, with their minutes and disk; `art` is the folder of the artwork."""
        return sitting(self.amount, self.costs, self.asked["own_art"], art)


def until(steps: list[Step], last: str | None) -> list[Step]:
    """The steps up to one of them. Raises UsageError for an unknown one."""
    if last is None:
        return steps
    return steps[: _place(steps, last, "--until") + 1]


def _place(steps: Sequence[Step], name: str, option: str) -> int:
    names = [step.name for step in steps]
    if name not in names:
        raise UsageError(f"{option} {name}: the steps are {', '.join(names)}")
    return names.index(name)


def fitted(amount: Amount, costs: Costs, budget: float | None, last: str | None = None) -> Amount:
    """Fewer steps of every training, in proportion, so that all up to `last` takes `budget` minutes.

    Raises UsageError where what does not shrink takes longer than that.
    """
    if budget is None:
        return amount
    steps = until(sitting(amount, costs, False, Path()), last)
    names = [step.name for step in steps if step.name in amount.steps]
    learning = sum(costs.step[name] * amount.steps[name] for name in names) / 60
    rest = sum(step.minutes for step in steps) - learning
    share = (SPARE * budget - rest) / learning if names else 0.0
    if not names or share <= 0:
        largest = max((s for s in steps if s.name not in amount.steps), key=lambda s: s.minutes)
        raise UsageError(
            f"a budget of {budget:.1f} min is too small: {rest:.1f} min do not shrink, "
            f"{largest.minutes:.1f} of them for {largest.name}; give more, or fewer --scenes"
        )
    kept = {name: max(FEWEST, int(min(1.0, share) * count)) for name, count in amount.steps.items()}
    return replace(amount, steps=kept)


def table(steps: Sequence[Step], budget: float | None) -> str:
    """What each step costs, and all that are left."""
    lines = [
        f"{s.minutes:6.1f} min {s.gigabytes:6.2f} GB  {s.name}"
        + ("  done before" if s.done else "")
        for s in steps
    ]
    left = [step for step in steps if not step.done]
    minutes, size = sum(s.minutes for s in left), sum(s.gigabytes for s in left)
    limit = "" if budget is None else f", of a budget of {budget:.0f} min"
    return "\n".join([*lines, f"{minutes:6.1f} min {size:6.2f} GB in all, estimated{limit}"])


def run(steps: Sequence[Step], deadline: float) -> int:
    """Run each step that is not done, until the deadline on the monotonic clock.

    Returns the exit status of the first step that fails, PAUSED at the deadline, else 0.
    """
    ran = False
    for number, step in enumerate(steps, 1):
        place = f"{number}/{len(steps)} {step.name}"
        if step.done:
            continue
        left = deadline - time.monotonic() - LETTING_GO
        if left <= 0 or (not step.goes_on and 60 * step.minutes > left):
            if not ran:
                print(f"{place} takes longer than --stop-after allows", file=sys.stderr)
                return 1
            print(f"paused before {place}; the same command goes on", flush=True)
            return PAUSED
        print(f"{place}: about {step.minutes:.1f} min", flush=True)
        start, ran = time.monotonic(), True
        status, cut = _finish(step, left)
        print(f"{place}: {(time.monotonic() - start) / 60:.1f} min", flush=True)
        if cut:
            print(f"paused in {place}; the same command goes on", flush=True)
            return PAUSED
        if status or not step.done:
            print(f"{place} failed; the same command goes on from here", file=sys.stderr)
            return status or 1
    return 0


def _finish(step: Step, seconds: float) -> tuple[int, bool]:
    """Run a step for so long at most: its exit status, and whether it was cut."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    # In a session of its own it hears of a Ctrl-C from here alone: a second signal would kill it.
    with subprocess.Popen(step.words, env=environment, start_new_session=True) as process:
        try:
            return process.wait(seconds if seconds < float("inf") else None), False
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait(), True
        except KeyboardInterrupt:
            process.terminate()  # what goes on saves what it has
            process.wait()
            raise


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.make --gpu", description=__doc__
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where data/ and runs/ go")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="shorten trainings to fit")
    parser.add_argument("--stop-after", type=float, metavar="MINUTES", help="pause by then")
    parser.add_argument("--scenes", type=int, help="draw so many instead of 96000")
    parser.add_argument("--until", metavar="STEP", help="end after this step")
    parser.add_argument("--only", metavar="STEP", help="run this step alone")
    parser.add_argument("--dry-run", action="store_true", help="rehearse, print the plan, and end")
    parser.add_argument("--trial", action="store_true", help="a few scenes and steps: no model")
    parser.add_argument("--own-art", action="store_true", help="only objects drawn in this project")
    parser.add_argument("--art", type=Path, default=default_cache(), help="fetched artwork")
    arguments = parser.parse_args(argv)
    for name in ("budget", "stop_after", "scenes"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    return arguments


def _planned(arguments: argparse.Namespace, asked: dict[str, Any], start: float) -> Plan:
    """The plan that was kept, or a new one from a rehearsal."""
    if (kept := Plan.read(asked)) is not None:
        return kept
    amount = trial() if arguments.trial else full(arguments.scenes)
    own, art = arguments.own_art, arguments.art
    words = vocabulary()
    _must([words])
    print(f"rehearsing {len(TRAININGS)} trainings on {cores()} CPU cores", flush=True)
    few, folder = amount.rehearsal(), Path("rehearsal")
    shutil.copytree(VOCABULARY, folder / VOCABULARY, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        parts = [*drawn(few, own, art), *(trained(name, few) for name in TRAININGS)]
        costs = rehearsed({step.name: _timed(step) for step in parts}, own, art)
    budget = arguments.budget
    left = budget and budget - (time.monotonic() - start) / 60
    return Plan(asked, costs, fitted(amount, costs, left, arguments.until))


def _timed(step: Step) -> float:
    """The seconds that a step of the rehearsal takes, or took before the command was stopped."""
    known: dict[str, float] = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    if step.name not in known or not step.done:
        known[step.name] = _must([step])
        TIMES.write_text(json.dumps(known))
    return known[step.name]


def _must(steps: Sequence[Step]) -> float:
    """Run steps that are not done; the seconds it took. Raises DiffgenError."""
    start = time.monotonic()
    if status := run(steps, float("inf")):
        raise DiffgenError(f"{steps[-1].name} ended with status {status}")
    return time.monotonic() - start


def _sit(arguments: argparse.Namespace, start: float) -> int:
    names = ("budget", "scenes", "trial", "own_art")
    asked = {name: getattr(arguments, name) for name in names}
    arguments.art = arguments.art.absolute()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(arguments.folder):
        plan = _planned(arguments, asked, start)
        if not PLAN.exists():
            plan.save()
        steps = until(plan.steps(arguments.art), arguments.until)
        print(table(steps, plan.asked["budget"]), flush=True)
        if arguments.dry_run:
            return 0
        if arguments.only:
            place = _place(steps, arguments.only, "--only")
            steps = steps[place : place + 1]
        deadline = start + 60 * (arguments.stop_after or float("inf"))
        return run(steps, deadline)


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, print the plan, and run it unless told not to."""
    start, arguments = time.monotonic(), _arguments(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _sit(arguments, start)
    except DiffgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
