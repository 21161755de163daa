import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from programs import ROOT, start

from diffgen import cli
from diffgen.bench.result_files import read_results

PROGRAM = [sys.executable, "-m", "diffgen"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
SMALL = ["--samplers", "ddim,dpmpp_2m", "--schedules", "default", "--steps", "1,2"]
# With any higher target the reference would take many more steps than 4.
QUICK = [*SMALL, "--seeds", "0", "--reference", "4", "--repeats", "1", "-g", "1"]
QUICK += ["--target-psnr", "1"]


class Made(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def begun(*words, cwd):
    return start(*words, cwd=cwd, env=os.environ | {"HF_HUB_OFFLINE": "1"}, **PIPES)


def run(*words, cwd):
    """`diffgen WORDS` in a process of its own, which is to end by itself."""
    with begun(*words, cwd=cwd) as process:
        out, err = process.communicate()
        return Made(process.returncode, out, err)


@pytest.fixture
def diffgen(monkeypatch, capsys):
    """`diffgen sample-steps` in this process, in a folder."""

    def sample_steps(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["diffgen", "sample-steps", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Made(left.value.code, *capsys.readouterr())

    return sample_steps


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def done(workplace):
    """One small sweep, with everything it may be asked for."""
    words = ("sample-steps", "red barn at sunset", *QUICK, "--trajectory", "euler:2")
    return run(*words, cwd=workplace)


def test_a_sweep_ends_with_a_table_and_one_sentence(done, workplace):
    assert done.returncode == 0, done.stderr
    *table, sentence, report, command = done.stdout.rstrip().splitlines()
    assert "dpmpp_2m" in "".join(table)
    assert re.search(r"steps?: PSNR \d", sentence)
    assert "your" not in sentence  # generate takes 10 steps, which were not measured
    assert Path(report) == Path("report/report.html")
    advice = read_results(workplace / "report").recommendation
    assert (sentence, command) == (advice.sentence, advice.command)


def test_the_last_line_makes_the_recommended_picture(done, workplace):
    *_, command = done.stdout.rstrip().splitlines()
    program, *words = shlex.split(command)
    assert program == "diffgen"
    made = run(*words, "-o", "pasted.png", cwd=workplace)
    assert made.returncode == 0, made.stderr
    advice = read_results(workplace / "report").recommendation
    pictures = [workplace / "pasted.png", workplace / "report" / "cells" / f"{advice.cell}.png"]
    shown = [Image.open(path).convert("RGB").tobytes() for path in pictures]
    assert shown[0] == shown[1]


def test_the_folder_holds_the_whole_report(done, workplace):
    names = {path.name for path in (workplace / "report").iterdir()}
    assert {"report.html", "plots.png", "plots.svg", "sheet.png"} <= names
    assert {"results.json", "results.csv", "journal.jsonl", "cells"} <= names
    assert {f"trajectory-euler-trailing-2-{kind}" for kind in ("strip.png", "animated.gif")} < names
    assert "report/trajectory-euler-trailing-2-strip.png" in done.stderr
    cells = {path.stem for path in (workplace / "report" / "cells").iterdir()}
    assert cells == {
        "reference",
        *(f"{name}-{n}" for name in ("ddim-trailing", "dpmpp_2m-beta") for n in (1, 2)),
    }


def test_progress_goes_to_stderr_as_plain_lines(done):
    assert "network evaluations to come" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_the_same_command_has_nothing_left_to_do(done, workplace, diffgen):
    before = read_results(workplace / "report").cells
    again = diffgen("red barn at sunset", *QUICK, "--json", cwd=workplace)
    assert "0 network evaluations to come" in again.stderr
    assert read_results(workplace / "report").cells == before
    assert json.loads(again.stdout) == json.loads(
        (workplace / "report" / "results.json").read_text()
    )


def test_other_settings_are_refused_until_fresh(done, workplace, diffgen):
    other = diffgen("a cat", *QUICK, cwd=workplace)
    assert other.returncode == 2
    assert "prompts was ['red barn at sunset'], now ['a cat']" in other.stderr
    assert "--fresh starts over" in other.stderr


def test_comparing_repeats_the_old_sweep(done, workplace, diffgen):
    made = diffgen(
        *("--compare", "report/results.json", "-o", "new", "--max-slower", "100000%"),
        cwd=workplace,
    )
    assert made.returncode == 0, made.stderr
    assert "none of 4 cells got slower or worse" in made.stdout
    assert read_results(workplace / "new").settings["prompts"] == ["red barn at sunset"]


def test_comparing_fails_where_it_got_slower(done, workplace, diffgen):
    data = json.loads((workplace / "report" / "results.json").read_text())
    for cell in data["cells"]:
        cell["seconds"]["median"] /= 1000
    (workplace / "faster.json").write_text(json.dumps(data))
    made = diffgen("--compare", "faster.json", "-o", "gate", "--steps", "2", cwd=workplace)
    assert made.returncode == 1, made.stderr
    assert made.stdout.count("<- slower") == 2
    assert "not measured this time: ddim-trailing-1, dpmpp_2m-beta-1" in made.stdout
    assert made.stdout.endswith("2 of 2 cells got slower or worse\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompt given"),
        (["a", "--samplers", "dimm,foo"], 'unknown samplers: "dimm" (did you mean "ddim"?), "foo"'),
        (["a", "--schedules", "kerras"], 'unknown schedules: "kerras" (did you mean "karras"?)'),
        (["a", "--samplers", ","], "--samplers is an empty list"),
        (["a", "--steps", "0,5"], "--steps must be 1 or more, got 0"),
        (["a", "--steps", "5", "--nfe", "5"], "give one of --steps and --nfe"),
        (["a", "--seeds", "x"], '--seeds: "x" is no number'),
        (["a", "--seeds", ""], "--seeds is an empty list"),
        (["a", "--repeats", "0"], "repeats must be at least 1"),
        (["a", "--max-slower", "fast"], "--max-slower takes a number"),
        (["a", "--compare", "none.json"], "cannot read none.json"),
        (["--compare", "old.json"], 'old.json has schema "diffgen.sample-steps/0"'),
        (["a", "--trajectory", "elder"], 'unknown sampler "elder"'),
        (["a", "--trajectory", "euler:x"], '"x" is no number of steps'),
        (["a", "-m", "nonsuch"], "no model named"),
        (["a", "-o", "thesis"], "thesis holds other files"),
        (["a", "-o", "thesis/a.tex"], "thesis/a.tex is a file"),
        (["a", "-o", "/dev/null/x"], "cannot work in /dev/null/x"),
        (["a", "--clip", "./nowhere"], "--clip ./nowhere cannot be loaded as a CLIP model"),
    ],
)
def test_bad_requests_are_one_line_and_exit_2(tmp_path, diffgen, arguments, message):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    (tmp_path / "old.json").write_text('{"schema": "diffgen.sample-steps/0"}')
    made = diffgen(*arguments, cwd=tmp_path)
    assert made.returncode == 2, made.stderr
    assert message in made.stderr
    assert len(made.stderr.strip().splitlines()) == 1
    assert made.stdout == ""


def test_results_are_not_compared_with_themselves(done, workplace, diffgen):
    made = diffgen("--compare", "report/results.json", cwd=workplace)
    assert made.returncode == 2
    assert "is in report, which is to be written" in made.stderr


def test_usage_errors_and_help_need_no_torch():
    probe = (
        "import sys, diffgen.cli\n"
        "sys.argv = ['diffgen', 'sample-steps', 'a', '--samplers', 'foo']\n"
        "try:\n    diffgen.cli.main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        "print(code, *(name for name in ('torch', 'matplotlib', 'numpy') if name in sys.modules))"
    )
    made = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert made.stdout.split() == ["2"]


LONG = [*QUICK, "--steps", "1,2,3,4", "--seeds", "0-9"]


def test_signals_leave_a_report_and_the_line_they_print_goes_on(tmp_path):
    """Ctrl-C, a service manager and a closed terminal, each at the command that the last printed."""
    command = [*PROGRAM, "sample-steps", "a barn", *LONG, "--fresh"]
    journal, runs, noted = tmp_path / "report" / "journal.jsonl", 0, 8
    for number, reason in [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "stopped by SIGTERM"),
        (signal.SIGHUP, "stopped by SIGHUP"),
    ]:
        code, out, words = stopped(command, tmp_path, number, more_than=noted)
        assert code == 128 + number, words
        assert "PSNR" in out
        said, _, line = words.splitlines()[-1].partition("; to go on: ")
        assert said == f"error: {reason}"
        command = shlex.split(line)
        assert "--fresh" not in command
        entries = [json.loads(entry).get("run") for entry in journal.read_text().splitlines()]
        made = [*filter(None, entries)]
        noted, found = len(made), {}
        for run in made:
            # Times may have been taken again, where the machine has changed; pictures are not.
            assert found.setdefault((run["cell"], run["round"]), run["psnr"]) == run["psnr"]
        assert len(found) >= runs
        runs = len(found)
        assert (tmp_path / "report" / "report.html").exists()
        assert len(read_results(tmp_path / "report").cells) == 8
    assert not list((tmp_path / "report").rglob("*.part*"))


def stopped(command, folder, number, *, more_than):
    """Exit code, stdout and stderr of a sweep that gets a signal once it has made some runs."""
    assert command[:3] == PROGRAM
    with begun(*command[3:], cwd=folder) as process:
        wait_for_runs(process, folder / "report" / "journal.jsonl", more_than + 1)
        process.send_signal(number)
        out, err = process.communicate()
        return process.returncode, out, err


def wait_for_runs(process, journal, count):
    deadline = time.monotonic() + 300
    while not journal.exists() or journal.read_text().count('"run"') < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
