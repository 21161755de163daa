import sys

import pytest
from terminals import screen

from diffgen.cli.console import print_note, print_result
from diffgen.cli.progress import progress


def pretend_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, term: str = "xterm") -> None:
    """Called in the test itself: pytest captures setup and test separately."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("columns", [20, 50, 80, 200])
def test_a_bar_has_one_line_and_results_stay_on_stdout(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch, columns)
    with progress(quiet=False) as display:
        assert display.live
        display.update("[red]\x1b]0;a label that is longer than most windows are wide", 3, 4)
        print_result("made/" + "x" * 300)
        print_note("y" * 300)
        display.say("z" * 300)
    out, err = capsys.readouterr()
    assert out == "made/" + "x" * 300 + "\n"
    assert [line for line in screen(err) if line] == ["note: " + "y" * 300, "z" * 300]
    assert "\x1b[1A\x1b[2K\x1b[1A" not in err  # never more than one line to go back
    if columns >= 80:
        assert "[red]" in err
        assert "3/4" in err


def test_a_bar_counts_once_the_total_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch, 80)
    with progress(quiet=False) as display:
        display.update("loading", 0, None)
        display.update("drawing", 1, 4)
    err = capsys.readouterr().err
    assert "loading" in err
    assert "/?" not in err
    assert "1/4" in err


def test_a_dumb_terminal_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch, 80, term="dumb")
    with progress(quiet=False) as display:
        display.update("loading", 1, 2)
        display.say("a line")
    assert capsys.readouterr().err == "a line\n"
