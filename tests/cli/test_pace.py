"""How long pictures take: learned from runs, told by `--dry-run`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from diffgen.batch.plan import Job
from diffgen.cli.commands import app
from diffgen.cli.pace import MOST, Pace
from diffgen.settings.running import Machine

AUTO = Machine()


def job(
    evaluations: int | None = 10, width: int = 64, guidance: float = 4.0, *, fast: bool = False
) -> Job:
    plan = SimpleNamespace(evaluations=evaluations, width=width, height=64, guidance_scale=guidance)
    plan.request = SimpleNamespace(fast=fast)
    return cast(Job, SimpleNamespace(plan=plan, model="storybook"))


def record(**timings: float) -> dict[str, Any]:
    return {"timings": timings, "device": "cpu", "dtype": "bf16"}


def test_steps_cost_in_proportion_and_the_rest_once(tmp_path: Path) -> None:
    file = tmp_path / "a" / "pace.json"
    pace = Pace(file, AUTO)
    pace.learn(job(), record(text=0.5, sampling=20.0, decode=1.5))
    pace.keep()
    again = Pace(file, AUTO)
    assert again.seconds(job(10)) == pytest.approx(22.0)
    assert again.seconds(job(30)) == pytest.approx(62.0)
    for other in (job(None), job(width=128), job(guidance=1.0), job(fast=True)):
        assert again.seconds(other) is None
    for machine in (Machine(device="cpu", dtype="bf16"), Machine(device="cpu")):
        assert Pace(file, machine).seconds(job()) == pytest.approx(22.0)
    for machine in (Machine(dtype="fp32"), Machine(device="cuda"), Machine(device="mps")):
        assert Pace(file, machine).seconds(job()) is None


def test_two_runs_at_once_both_count_and_the_file_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "pace.json"
    one, other = (Pace(file, Machine(device="cpu", dtype="bf16")) for _ in range(2))
    one.learn(job(width=8), record(sampling=1.0))
    other.learn(job(width=16), record(sampling=1.0))
    one.keep()
    other.keep()
    assert len(json.loads(file.read_text())) == 2
    for width in range(MOST + 5):
        one.learn(job(width=width), record(sampling=1.0))
    one.keep()
    assert len(json.loads(file.read_text())) == MOST


@pytest.mark.parametrize(
    "text", ["", "[]", '{"storybook 64x64 guided auto auto": [1e999, "x"]}', "\xff"]
)
def test_a_file_that_makes_no_sense_is_no_estimate(text: str, tmp_path: Path) -> None:
    file = tmp_path / "pace.json"
    file.write_bytes(text.encode("latin-1"))
    assert Pace(file, AUTO).seconds(job()) is None
    assert Pace(None, AUTO).seconds(job()) is None


def test_a_dry_run_tells_the_time_after_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ("generate", "barn", "--seed", "1", "--steps")

    def said(*more: str) -> str:
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0, result.output
        return result.output

    assert "time not known" in said("2", "--dry-run")
    said("2", "-o", "out/")
    assert re.search(r"10 pictures, .*, about \d+:\d\d as the", said("2", "-c", "10", "--dry-run"))
    # What this took says nothing of other formats, nor of --fast.
    assert "time not known" in said("2", "--dry-run", "--fast")
    formats = [said("2", "--dry-run", "--dtype", name) for name in ("fp32", "bf16")]
    assert sorted("time not known" in text for text in formats) == [False, True]
    few, many = (
        json.loads(said(steps, "--dry-run", "--json").splitlines()[0])["seconds"]
        for steps in ("2", "40")
    )
    assert 0 < few < many < 20.5 * few
