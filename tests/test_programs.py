"""programs.start: a forked program is what a fresh interpreter is, as far as tests look at it."""

import os
import signal
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from programs import start


@pytest.mark.parametrize(
    "words", [("--version",), ("generate", "x", "--steps", "x"), ("generate", "--prompts", "-")]
)
def test_words_and_exit_code_are_those_of_a_fresh_interpreter(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    ends = []
    for fresh in (False, True):
        pipes = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
        with start(*words, cwd=tmp_path, fresh=fresh, **pipes) as program:
            said = program.communicate()
            ends.append((program.returncode, said))
    assert ends[0] == ends[1]
    assert any(ends[0][1])


def test_it_has_the_folder_the_environment_and_the_streams_that_it_is_given(tmp_path: Path) -> None:
    own = os.environ | {"DIFFGEN_STEPS": "1"}
    with (tmp_path / "out").open("w") as out:
        words = ("generate", "--prompts", "-", "--seed", "3", "-o", "made.png", "--json")
        streams = {"stdin": PIPE, "stdout": out, "stderr": PIPE}
        with start(*words, cwd=tmp_path, env=own, **streams) as program:
            assert program.stdin
            program.stdin.write("a barn\n")
            program.communicate()
    assert program.returncode == 0
    assert '"steps": 1' in (tmp_path / "out").read_text()
    assert (tmp_path / "made.png").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_signals_reach_it(number: int, code: int, tmp_path: Path) -> None:
    with start(
        "generate", "--prompts", "-", "-v", cwd=tmp_path, stdin=PIPE, stderr=PIPE
    ) as program:
        assert program.stdin
        assert program.stderr
        program.stdin.write("a barn --steps 5000\n")
        program.stdin.flush()
        while "5000 steps" not in program.stderr.readline():
            assert program.poll() is None
        program.send_signal(number)
        assert program.wait() == code
