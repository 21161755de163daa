"""Every command at a real terminal: results reach stdout whole, and the screen can be read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from terminals import Seen, in_terminal
from training import draw_squares, make_recipe

from diffgen.diffusion.guidance import GUIDANCE
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.train.recipe.tables import to_toml

PROMPT = "a red barn beside a blue car at sunset in the snow with many trees around"
NAME = "a-red-barn-beside-a-blue-car-at-sunset-7.png"
RUN = "a run with quite a long name"
QUICK = ("--steps", "1", "--seed", "7", "--overwrite")
SWEEP = (
    *("--samplers", "ddim,dpmpp_2m_sde", "--steps", "2", "--reference", "4", "--seeds", "0"),
    *("--target-psnr", "1"),
)
COMMANDS = {
    "generate": (
        "generate",
        "-p",
        PROMPT,
        "-p",
        "\x1b]0;OWNED\x07\nerror: fake",
        *QUICK,
        "-o",
        "out/",
    ),
    "json": ("generate", PROMPT, *QUICK, "--json", "-o", "out/"),
    "train": ("train", "small.toml", "--set", "run.steps=2", "-o", RUN),
    "dry run": ("train", "small.toml", "--dry-run"),
    "sweep": ("sample-steps", "barn", *SWEEP, "--repeats", "1", "-o", "report"),
    "sweep json": ("sample-steps", "barn", *SWEEP, "--repeats", "1", "-o", "report", "--json"),
    "axes": (
        *("sample-steps", "barn", *SWEEP, "--repeats", "1", "-o", "axes"),
        *("-g", "1,3", "--guidance-rescale", "0,0.7", "--eta", "0,1"),
    ),
    "samplers": ("samplers",),
    "samplers json": ("samplers", "--json"),
}


SHOWN = ("generate", "json", "train", "sweep", "axes", "samplers")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    recipe = make_recipe(draw_squares(folder / "data"))
    (folder / "small.toml").write_text(to_toml(recipe))
    return folder


@pytest.fixture(scope="module")
def piped(place: Path) -> dict[str, Seen]:
    """`... | reader`, and what `$(...)` gets, in a narrow window."""
    return run(list(COMMANDS), place, 50, subprocess.PIPE)


@pytest.fixture(scope="module", params=[50, 80])
def shown(request: pytest.FixtureRequest, place: Path, piped: dict[str, Seen]) -> dict[str, Seen]:
    """Results and words in one window; the sweep has been measured by then, the run is another."""
    shutil.rmtree(place / RUN)
    return run(SHOWN, place, request.param) | {"columns": request.param}


def run(
    names: Sequence[str], folder: Path, columns: int, stdout: int | None = None
) -> dict[str, Seen]:
    commands = [COMMANDS[name] for name in names]
    seen = in_terminal(*commands, cwd=folder, columns=columns, stdout=stdout)
    return dict(zip(names, seen, strict=True))


def test_paths_and_json_reach_a_pipe_whole(piped: dict[str, Seen]) -> None:
    assert [seen.code for seen in piped.values()] == [0] * len(COMMANDS)
    barn, other = piped["generate"].out.splitlines()
    assert barn == f"out/{NAME}"
    assert other == "out/0-owned-error-fake-7.png"
    assert json.loads(piped["json"].out)["prompt"] == PROMPT
    assert json.loads(piped["sweep json"].out)["cells"]
    assert piped["train"].out == "a run with quite a long name/model\n"
    assert "12 pictures to learn from" in piped["dry run"].out
    *_, report, command = piped["sweep"].out.splitlines()
    assert report.endswith("report/report.html")
    assert command.startswith("diffgen generate --model storybook ")
    rows = len(SAMPLERS) + 1 + len(GUIDANCE) + 1 + 2  # a heading, empty lines, the schedules
    assert len(piped["samplers"].out.splitlines()) == rows
    listed = json.loads(piped["samplers json"].out)
    assert [sampler["name"] for sampler in listed["samplers"]] == list(SAMPLERS)


def test_results_reach_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "made.txt", "wb") as file:
        [seen] = in_terminal(("generate", PROMPT, *QUICK), cwd=tmp_path, stdout=file)
    assert (tmp_path / "made.txt").read_text() == f"{NAME}\n"
    assert NAME not in seen.terminal


def test_no_bar_is_left_and_every_word_has_a_line(piped: dict[str, Seen]) -> None:
    note, first, second, *rest = [line for line in piped["generate"].screen if line]
    assert note == 'note: storybook never learned "owned", "error", "fake"'
    assert first.startswith(f'1/2 "{PROMPT}" seed 7, 1 step of dpmpp_2m, ')
    assert first.endswith(" left")
    assert second.startswith('2/2 "\\u001b]0;OWNED\\u0007\\nerror: fake" seed 7')
    assert not rest
    for name in ("train", "sweep"):
        assert "━" in piped[name].terminal  # there was a bar
        assert "━" not in "".join(piped[name].screen)


def test_results_and_words_share_a_window(shown: dict[str, Seen]) -> None:
    lines = [line for line in shown["generate"].screen if line]
    starts = ("note: ", "out/", "1/2 ", "out/", "2/2 ")
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert json.loads(next(line for line in shown["json"].screen if line.startswith("{")))
    assert [line for line in shown["train"].screen if line][
        -1
    ] == "a run with quite a long name/model"


def test_tables_fit_the_window(shown: dict[str, Seen]) -> None:
    for name, rows in {"sweep": 5, "axes": 18, "samplers": len(SAMPLERS)}.items():
        lines = shown[name].screen
        top = next(i for i, line in enumerate(lines) if "sampler " in line or "name " in line)
        table = lines[top : top + rows]
        assert max(map(len, table)) <= shown["columns"]
        assert "…" not in "".join(table)
    sweep = "\n".join(shown["sweep"].screen)
    for word in (">", "dpmpp_2m_sde", "trailing", "PSNR dB", "steps"):
        assert word in sweep
    cells = [line[4:].split() for line in shown["axes"].screen if line[4:8] == "ddim"]
    points = {tuple(words[3:6]) for words in cells}  # behind sampler, schedule and steps
    assert points == set(product(("1", "3"), ("0", "0.7"), ("0", "1")))
    names = {line.split()[0] for line in shown["samplers"].screen if line}
    assert names >= set(SAMPLERS)
    assert "note: no room for source" in "\n".join(shown["samplers"].screen)
