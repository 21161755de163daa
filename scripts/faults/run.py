"""Break diffgen while it works, with real processes, and look at what it leaves.

python scripts/faults/run.py                        # every fault, 5 times
python scripts/faults/run.py kill-generate --trials 30
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import generating
import sweeping
import train_faults
from common import Failed

FAULTS: dict[str, Callable[[Path], str]] = {
    "kill-generate": generating.kill_generate,
    "kill-batch": generating.kill_batch,
    "kill-train": train_faults.kill_train,
    "kill-sweep": sweeping.kill_sweep,
    "full-disk": generating.full_disk,
    "folder-gone": generating.folder_gone,
    "two-generate": generating.two_generate,
    "two-train": train_faults.two_train,
    "two-cache": train_faults.two_cache,
    "closed-stdout": generating.closed_stdout,
}


def main() -> int:
    """Print a row for each fault and outcome; returns 1 if anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=list(FAULTS))
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    broken = 0
    print("| fault | trials | outcome |\n|---|---|---|")
    for name in [options.name] if options.name else FAULTS:
        for outcome, times in trials(FAULTS[name], options.trials).items():
            broken += outcome.startswith("BROKEN")
            print(f"| {name} | {times} | {outcome} |", flush=True)
    return int(broken > 0)


def trials(fault: Callable[[Path], str], count: int) -> Counter[str]:
    """How often each outcome came; Ctrl-C ends the series, and what there is counts."""
    outcomes: Counter[str] = Counter()
    with suppress(KeyboardInterrupt):
        for number in range(count):
            outcome = trial(fault)
            outcomes[outcome] += 1
            print(f"{number + 1} of {count}: {outcome}", file=sys.stderr, flush=True)
    return outcomes


def trial(fault: Callable[[Path], str]) -> str:
    """What came of one fault in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fault(Path(folder))
        except Failed as failure:
            return f"BROKEN: {failure}".replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
