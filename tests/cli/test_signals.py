import os
import signal
import sys

import pytest

from diffgen.cli import main
from diffgen.cli.signals import Asked, Stopped, asked_to_stop


def test_the_first_signal_asks_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with asked_to_stop() as came:
        with pytest.raises(Asked):
            os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_that_nohup_ignores_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as came:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not came
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("asked", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted; x"),
        (Asked(signal.SIGTERM), 143, "stopped by SIGTERM; x"),
    ],
)
def test_the_exit_code_tells_the_signal(asked: KeyboardInterrupt, code: int, line: str) -> None:
    stopped = Stopped(asked, "; x")
    assert (stopped.exit_code, str(stopped)) == (code, line)


class Interrupting:
    """Ctrl-C while the commands are being imported."""

    def find_spec(self, name: str, *_others: object) -> None:
        if name == "diffgen.cli.commands":
            raise KeyboardInterrupt


def test_the_first_moment_of_a_command_is_interrupted_in_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "diffgen.cli.commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")
