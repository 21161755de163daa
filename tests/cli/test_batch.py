"""`diffgen generate --prompts`: real processes, killed, stopped, shared and driven through a pipe."""

import fcntl
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inside import Run
from PIL import Image
from programs import ROOT, Process

from diffgen import cli
from diffgen.batch.session import Session
from diffgen.text.conditioner import Conditioner

Start = Callable[..., Process]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
LINES = 14


def write_prompts(folder: Path, last: int | None = None) -> str:
    """A file of lines of 2 to 4 steps, the second half of as many as are `last`."""
    steps = [last if last and i >= LINES // 2 else 2 + i % 3 for i in range(LINES)]
    lines = [f"barn {i} --steps {steps[i]} --seed {i}\n" for i in range(LINES)]
    (folder / "p.txt").write_text("".join(lines))
    return "p.txt"


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write_prompts(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The pictures of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["diffgen", "generate", "--prompts", write_prompts(folder), "-o", "o/"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == 0
    return pictures(folder / "o")


def pictures(folder: Path) -> dict[str, bytes]:
    """Every picture, which must be whole."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        if not path.name.startswith("."):
            with Image.open(path) as image:
                image.load()
            found[path.name] = path.read_bytes()
    return found


def first_lines(process: Process, count: int) -> None:
    assert process.stdout
    for _ in range(count):
        assert process.stdout.readline().endswith(".png\n")


def test_a_run_that_is_killed_goes_on(
    start: Start, file: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """The pictures are those of a run that nobody disturbs, and none is made twice."""
    chance = random.Random(1)
    made = 0
    while made < LINES - 5:
        process = start("--prompts", file, "-o", "killed/")
        first_lines(process, chance.randint(2, 4))
        time.sleep(chance.random() * 0.2)
        process.kill()
        process.wait()
        assert len(pictures(tmp_path / "killed")) > made
        made = len(pictures(tmp_path / "killed"))
    last = start("--prompts", file, "-o", "killed/")
    _, err = last.communicate()
    assert last.returncode == 0
    assert f"0 failed, {made} skipped" in err.splitlines()[-1]
    assert pictures(tmp_path / "killed") == whole
    assert len(whole) == LINES


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_behind_the_batch_in_hand(
    start: Start, tmp_path: Path, number: int, code: int
) -> None:
    file = write_prompts(tmp_path, last=200)  # which take so long that no signal is too late
    report = ("--summary", "s.json")
    process = start("--prompts", file, "-o", "o/", "--batch-size", "2", *report)
    first_lines(process, 2)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert f"of {LINES} pictures; the same command goes on" in err.splitlines()[-1]
    done = len(pictures(tmp_path / "o"))
    assert 2 <= done < LINES
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["made"], summary["exit_code"]) == (done, code)
    assert not list((tmp_path / "o").glob(".*.part*"))
    journal = (tmp_path / "o" / "p.txt.journal.jsonl").read_text().splitlines()
    states = {entry["key"]: entry["state"] for entry in map(json.loads, journal) if "key" in entry}
    assert list(states.values()) == ["made"] * done  # nothing was begun and left


def test_two_processes_share_a_file_and_one_is_killed(
    start: Start, file: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    words = ("--prompts", file, "-o", "o/", "--progress", "json")
    reader, writer = os.pipe()
    # As nobody reads what it says, it waits in the middle of a picture while the other draws.
    fill(writer, room=600)
    one = start(*words, stderr=writer)
    os.close(writer)
    first_lines(one, 1)
    other = start(*words, stderr=subprocess.DEVNULL)
    first_lines(other, 1)
    one.kill()
    assert one.wait() == -signal.SIGKILL
    os.close(reader)
    assert other.wait() == 0
    assert pictures(tmp_path / "o") == whole


def fill(pipe: int, *, room: int) -> None:
    """Leave room for some bytes in a pipe."""
    size = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    os.write(pipe, b"x" * (size - room))


def children(process: Process) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's processes in /proc")
def test_torchrun_shares_a_file_and_the_lines_of_a_process_that_dies_are_made_later(
    file: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    command = [sys.executable, *TWO, "-m", "diffgen", "generate", "--prompts", file, "-o", "o/"]
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=own, **pipes) as first:
        first_lines(first, 2)
        os.kill(children(first)[0], signal.SIGKILL)
        first.communicate(timeout=300)
    assert first.returncode != 0
    made = len(pictures(tmp_path / "o"))
    assert made >= 2
    again = subprocess.run(command, cwd=tmp_path, env=own, timeout=300, check=True, **pipes)
    assert len(again.stdout.splitlines()) == LINES - made
    assert pictures(tmp_path / "o") == whole


def test_a_bug_in_a_line_is_that_lines_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("a barn\na tree\na cat\n")
    common = ("--prompts", "p.txt", "--steps", "1", "--seed", "1", "--batch-size", "3")
    encode = Conditioner._encode

    def faulty(self: Conditioner, words: Any, *more: Any) -> Any:
        if words and "tree" in str(words):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)")
        return encode(self, words, *more)

    monkeypatch.setattr(Conditioner, "_encode", faulty)
    words = "unexpected RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"
    first = run(*common, "-o", "o/")
    assert first.code == 3
    assert [line for line in first.err.splitlines() if line.startswith(("error", "Trace"))] == [
        f"error: p.txt:2: {words} (-v shows where)"
    ]
    assert first.out.split() == ["o/a-barn-1.png", "o/a-cat-1.png"]
    assert "2 made, 1 failed, 0 skipped" in first.err
    again = run(*common, "-o", "o/", "-v")
    assert again.code == 3
    assert (again.out, again.err.count("Traceback")) == ("", 1)
    assert "in faulty" in again.err
    stopped = run(*common, "-o", "stopped/", "--stop-on-error", "--batch-size", "1")
    assert stopped.code == 1
    assert stopped.out.split() == ["stopped/a-barn-1.png"]
    assert stopped.err.splitlines()[-1] == f"error: {words} (-v shows where)"


def test_a_program_drives_one_model_through_a_pipe(start: Start) -> None:
    process = start("--prompts", "-", "--steps", "1", "--json", "-q", stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    seeds = []
    for seed in (3, 4):
        process.stdin.write(f"a barn --seed {seed}\n")
        process.stdin.flush()
        seeds.append(json.loads(process.stdout.readline())["seed"])  # before the next is asked
    process.stdin.write("a barn --sped 3\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait() == 3
    assert seeds == [3, 4]
    assert (answer["line"], answer["error"][:26]) == (3, 'there is no setting "sped"')
    assert process.stderr
    assert 'stdin:3: there is no setting "sped"' in process.stderr.read()


def test_lines_of_stdin_that_ask_for_nothing_are_counted_and_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line makes a picture, so that no model is loaded."""
    lines = b"a --seed x\n<hypernet:x:1> a\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    report = ("--progress", "json", "--summary", "s.json")
    code, _, err = run("--prompts", "-", "--strict", *report)
    assert code == 1
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told == [
        'error: stdin:1: seed takes a whole number, not "x"',
        'error: stdin:2: prompts hold syntax that is not read: hypernetworks, "<hypernet:x:1>"',
    ]
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [(e["event"], e["line"], e["done"]) for e in events] == [
        ("failed", 1, 1),
        ("failed", 2, 2),
    ]
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["failed"], [e["line"] for e in summary["failures"]]) == (2, [1, 2])


def test_what_was_printed_is_a_prompt_file(run: Run, tmp_path: Path) -> None:
    first = run("a", "barn", "--steps", "2", "--seed", "1,2", "--json", "-q", "-o", "a/")
    (tmp_path / "made.jsonl").write_text(first.out)
    assert run("--prompts", "made.jsonl", "-q", "-o", "b/").code == 0
    one, two = (
        [
            Image.open(path, formats=["PNG"]).tobytes()
            for path in sorted((tmp_path / name).glob("a*.png"))
        ]
        for name in "ab"
    )
    assert one == two
    assert len(one) == 2


def test_every_problem_of_a_file_is_told_at_once(run: Run, tmp_path: Path) -> None:
    bad = [f"a --steps {'x' if i % 2 else 3}\n" for i in range(140)]
    (tmp_path / "p.txt").write_text("".join(bad))
    code, out, err = run("--prompts", "p.txt", "-o", "o/")
    lines = err.splitlines()
    assert (code, out) == (2, "")
    assert lines[0] == 'p.txt:2: steps takes a whole number, not "x"'
    assert len(lines) == 51
    assert lines[-1] == ("error: 70 problems in p.txt, of which 50 are shown; no picture was made")
    assert not (tmp_path / "o").exists()


def test_strict_names_each_line_with_syntax_that_is_not_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(
        '"a sign: --ar 3" --negative "x --y"\na \\--b\na <hypernet:x:1>\nb <hypernet:y:1>\n'
    )
    code, _, err = run("--prompts", "p.txt", "--strict", "-o", "o/")
    assert code == 2
    assert [line[:11] for line in err.splitlines()] == ["p.txt:3: pr", "p.txt:4: pr", "error: 2 pr"]
    (tmp_path / "p.csv").write_text("prompt\na sign --ar 3\n")
    code, _, err = run("--prompts", "p.csv", "--strict", "-o", "o/")
    assert "p.csv:2: prompts hold syntax that is not read: parameters (give" in err


def test_a_dry_run_makes_nothing(run: Run, file: str, tmp_path: Path) -> None:
    code, out, err = run("--prompts", file, "-o", "o/", "--dry-run", "--guidance", "5,7")
    assert code == 0
    assert out.splitlines()[0].startswith("o/barn-0-0.png  256x256 seed 0, 2 steps of dpmpp_2m")
    assert len(out.splitlines()) == 2 * LINES
    assert err.splitlines()[-1].startswith(f"{2 * LINES} pictures, ")
    assert not (tmp_path / "o").exists()


def test_a_dry_run_counts_what_is_there_already(run: Run, file: str, tmp_path: Path) -> None:
    session = Session.open([], {"prompt_file": file, "output": "o/", "model": "storybook"})
    with session.journal(fresh=False) as journal:  # of a run that made one picture and was stopped
        first = next(session.jobs())
        journal.made(first.key, tmp_path / "o" / "first.png", 3)
        (tmp_path / "o" / "first.png").write_bytes(b"png")
    before = sorted((tmp_path / "o").iterdir())
    code, out, err = run("--prompts", file, "-o", "o/", "--dry-run")
    assert (code, len(out.splitlines())) == (0, LINES - 1)
    assert err.startswith(f"{LINES - 1} pictures, ")
    assert "; 1 is there already; nothing was made" in err
    assert sorted((tmp_path / "o").iterdir()) == before
    (tmp_path / "o" / "barn-0-0.png").touch()
    _, out, _ = run("--prompts", file, "-o", "o/", "--dry-run", "--fresh")
    assert out.startswith("o/barn-0-0.png (with a number)  256x256")
    assert len(out.splitlines()) == LINES
    _, out, _ = run("--prompts", file, "-o", "o/", "--dry-run", "--fresh", "--skip-existing")
    assert len(out.splitlines()) == LINES - 1


def test_progress_for_programs(run: Run, tmp_path: Path) -> None:
    result = run("a", "--steps", "2", "--progress", "json", "--summary", "s.json")
    events = [json.loads(line) for line in result.err.splitlines()]
    assert [event["event"] for event in events] == ["step", "step", "made"]
    assert (events[-1]["done"], events[-1]["pictures"]) == (1, 1)
    assert json.loads((tmp_path / "s.json").read_text())["made"] == 1
