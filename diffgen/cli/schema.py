"""`diffgen schema`: the table of settings for programs."""

from __future__ import annotations

import json

from diffgen.cli.console import print_result


def schema() -> None:
    """Print the settings of a picture as JSON Schema: what a line of a .jsonl file may hold."""
    from diffgen.batch import schema as table

    print_result(json.dumps(table.schema(), indent=2))
