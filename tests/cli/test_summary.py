"""diffgen.cli.summary: what --summary says, however a run ends."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from diffgen.batch.run import Tally
from diffgen.cli.signals import Asked, Stopped
from diffgen.cli.summary import summarised
from diffgen.errors import OutputError, UsageError


def after(file: Path, error: BaseException | None, tally: Tally | None = None) -> dict[str, Any]:
    """The summary of a run with these counts that ends by an error."""

    def run() -> None:
        with summarised(str(file)) as summary:
            if tally:
                summary.begin(tally)
                assert not file.exists()  # an older one would be taken for this run's
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            run()
    else:
        run()
    return json.loads(file.read_text()) if file.exists() else {}


def test_a_run_that_ends_well_or_in_part(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{}")
    found = after(tmp_path / "s.json", None, Tally(made=2, skipped=1))
    assert (found["made"], found["skipped"], found["exit_code"], found["error"]) == (2, 1, 0, None)
    found = after(tmp_path / "s.json", None, Tally(made=2, failed=1))
    assert (found["failed"], found["exit_code"]) == (1, 3)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OutputError("its folder is gone"), 1, "its folder is gone"),
        (Stopped(Asked(signal.SIGTERM), " after 2"), 143, "stopped by SIGTERM after 2"),
        (Asked(signal.SIGINT), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "a.png"), 1, "a.png: Permission denied"),
        (ValueError("x"), 1, "unexpected ValueError: x (-v shows where)"),
    ],
)
def test_a_run_that_is_ended(error: BaseException, code: int, line: str, tmp_path: Path) -> None:
    found = after(tmp_path / "s.json", error, Tally(made=2))
    assert (found["made"], found["exit_code"], found["error"]) == (2, code, line)


def test_a_command_that_never_begins(tmp_path: Path) -> None:
    found = after(tmp_path / "s.json", UsageError("1 problem in p.txt"))
    assert (found["made"], found["exit_code"], found["error"]) == (0, 2, "1 problem in p.txt")


def test_a_dry_run_leaves_the_last_runs_summary(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"made": 5}')
    assert after(tmp_path / "s.json", typer.Exit()) == {"made": 5}


def test_a_summary_that_cannot_be_written_hides_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gone" / "s.json"
    assert after(file, UsageError("no prompts")) == {}
    assert capsys.readouterr().err == f"error: cannot write {file}: No such file or directory\n"
    with pytest.raises(OutputError, match="cannot write"):
        after(file, None)
