"""Everything a change must pass: lint, format, types, tests. Stops at the first failure.

Extra arguments go to pytest: `python scripts/check.py -k parity`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest", "--numprocesses", "auto", "--dist", "loadfile", *sys.argv[1:]),
)

for check in CHECKS:
    print(f"== {' '.join(check)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)
