import pytest

from diffgen.cli import sweep
from diffgen.cli.progress import progress
from diffgen.cli.sweep import SweepProgress


def follow(*, quiet: bool) -> None:
    with progress(quiet=quiet) as display:
        listener = SweepProgress(display)
        listener.begin("reference")
        listener.expect(4)
        for _ in range(3):
            listener.called()
        listener.begin("round 1 of 1")
        listener.called()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    follow(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_lines_say_how_much_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LINE_EVERY", 0.0)
    follow(quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    first, *lines, last = err.splitlines()
    assert first == "4 network evaluations to come"
    assert [line.split(",")[0] for line in lines] == [f"reference: {n} of 4" for n in (1, 2, 3)]
    assert last == "round 1 of 1: 4 of 4, 0 s left"


def test_a_sweep_that_takes_more_than_was_foreseen_names_no_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that has not converged is solved again, in twice the steps."""
    monkeypatch.setattr(sweep, "LINE_EVERY", 0.0)
    with progress(quiet=False) as display:
        listener = SweepProgress(display)
        listener.begin("reference")
        listener.expect(1)
        listener.called()
        listener.called()
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines == ["reference: 1 of 1, 0 s left", "reference: 2 evaluations"]


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    follow(quiet=False)
    assert len(capsys.readouterr().err.splitlines()) == 1
