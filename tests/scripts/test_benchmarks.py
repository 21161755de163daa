"""Every benchmark runs, on the smallest size, so that none rots. Figures are not looked at."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALLEST = {
    "bench_step": ["--model", "tiny", "--size", "64", "--dtypes", "fp32,bf16", "--ceiling", "64"],
    "bench_vae": ["--model", "tiny", "--size", "32", "--dtypes", "fp32", "--ceiling", "64"],
    "bench_generate": ["--steps", "1", "--dtypes", "fp32"],
    "bench_load": [],
    "bench_kernels": ["--side", "4", "--dtypes", "fp32"],
}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script here, where torch and diffusers are imported already: what it prints."""

    def run_here(name: str, *words: str) -> str:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_here


@pytest.mark.parametrize("name", SMALLEST)
def test_it_runs(name, run, tmp_path):
    file = tmp_path / "figures.json"
    text = run(name, *SMALLEST[name], "--runs", "1", "--device", "cpu", "--json", str(file))
    assert "| case | median, s |" in text
    figures = json.loads(file.read_text())
    assert all(len(timing["seconds"]) == 1 for timing in figures["figures"])
    assert figures["table"] in text


def test_steps_of_several_sizes(run):
    words = ["--model", "tiny", "--sizes", "64,32", "--runs", "1", "--device", "cpu"]
    text = run("bench_step", *words)
    assert "| 32 px, one network for all |" in text


def test_busy(run, monkeypatch):
    words = ["--hogs", "0", "--runs", "1", "--turns", "1", "--steps", "1"]
    # It clears what is said of threads to OpenMP alone: two would spin while they wait.
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    # The others are these programs under another environment, which spins.
    text = run("bench_busy", *words, "--cases", "diffgen, one thread", "diffusers")
    assert "| diffgen, one thread |" in text


def test_seed(run):
    text = run("bench_seed", "--steps", "1", "--samplers", "euler,dpm_adaptive")
    assert "The same picture alone again: 0 levels with every sampler." in text
    assert "| samplers of 1 |" in text


def test_start_up(run, tmp_path):
    file = tmp_path / "figures.json"
    words = ["--runs", "1", "--steps", "1", "--json", str(file)]
    assert "| `import torch` |" in run("bench_startup", *words)
    assert len(json.loads(file.read_text())["figures"]["diffgen generate"]) == 1


def test_the_page_shows_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import page

    assert page.PAGE.read_text(encoding="utf-8") == page.page()


def test_fast(run):
    words = ["--runs", "1", "--steps", "5,4", "--every", "1,2", "--schedules", "ays"]
    text = run("bench_fast", *words, "--converged", "6", "--prompts", "1", "--device", "cpu")
    assert "| schedule | steps | every | guidance ends |" in text
    assert text.count("\n| ") == 5


def test_the_table_of_features_is_that_of_its_figures(monkeypatch):
    """And each of its rows is compared by a test that is there."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_features

    result = json.loads((SCRIPTS / "results" / "features.json").read_text(encoding="utf-8"))
    assert bench_features.table(**result["figures"]) == result["table"]
    parity = SCRIPTS.parent / "tests" / "parity"
    source = "".join((parity / name).read_text(encoding="utf-8") for name in bench_features.TESTS)
    for each in bench_features.FEATURES:
        assert f"def {each.test}(" in source
