import sys

from rich.table import Table

from diffgen.cli import sweep_console
from diffgen.cli.sweep_console import print_table, sweep_progress


def follow(progress):
    progress.begin("reference")
    progress.expect(4)
    for _ in range(3):
        progress.called()
    progress.begin("round 1 of 1")
    progress.called()


def pretend_terminal(monkeypatch):
    """Called in the test itself: pytest captures setup and test separately."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def test_quiet_is_quiet(capsys, monkeypatch):
    pretend_terminal(monkeypatch)
    with sweep_progress(quiet=True) as progress:
        follow(progress)
    assert capsys.readouterr() == ("", "")


def test_lines_say_how_much_is_left(capsys, monkeypatch):
    monkeypatch.setattr(sweep_console, "LINE_EVERY", 0.0)
    with sweep_progress(quiet=False) as progress:
        follow(progress)
    out, err = capsys.readouterr()
    assert out == ""
    first, *lines, last = err.splitlines()
    assert first == "4 network evaluations to come"
    assert [line.split(",")[0] for line in lines] == [f"reference: {n} of 4" for n in (1, 2, 3)]
    assert last == "round 1 of 1: 4 of 4, 0 s left"


def test_lines_are_rare(capsys):
    with sweep_progress(quiet=False) as progress:
        follow(progress)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    pretend_terminal(monkeypatch)
    with sweep_progress(quiet=False) as progress:
        follow(progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert "round 1 of 1" in err
    assert "4/4" in err


def test_a_table_in_a_pipe_is_not_squeezed(capsys):
    table = Table("a" * 60, "b" * 60)
    table.add_row("x" * 60, "y" * 60)
    print_table(table)
    assert "x" * 60 in capsys.readouterr().out
