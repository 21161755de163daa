"""Everything a change must pass: lint, format, types, tests. Stops at the first failure.

Extra arguments go to pytest: `python scripts/check.py -k parity`. The report's JavaScript is checked
by TypeScript's `tsc` where that is installed, else by node for its syntax, else not at all.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
)
TESTS = ("pytest", "--numprocesses", "auto", "--dist", "loadfile", *sys.argv[1:])
MODULES = sorted((ROOT / "diffgen" / "assets" / "report").glob("*.js"))


def check(*command: str, text: bytes | None = None) -> None:
    """Run a command, and end with its exit code if that is not 0."""
    print(f"== {' '.join(command)}", flush=True)
    code = subprocess.run(command, cwd=ROOT, check=False, input=text).returncode
    if code:
        sys.exit(code)


for words in PYTHON:
    check(sys.executable, "-m", *words)
if tsc := shutil.which("tsc"):
    check(tsc, "-p", "scripts/tsconfig.json")
elif node := shutil.which("node"):
    for module in MODULES:
        check(node, "--input-type=module", "--check", text=module.read_bytes())
check(sys.executable, "-m", *TESTS)
