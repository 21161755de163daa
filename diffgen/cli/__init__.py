"""The command line: `main`, and the commands that it imports.

Nothing here imports torch before a request has been parsed.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Ctrl-C is one line too while commands are still being imported."""
    try:
        from diffgen.cli.commands import run_command

        run_command()
    except KeyboardInterrupt:
        from diffgen.cli.console import print_error

        print_error("interrupted")
        sys.exit(130)
