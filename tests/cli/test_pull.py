"""`diffgen pull`: what is said and printed while a hub on loopback is asked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serving
from terminals import ROOT, environment, in_terminal
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.errors import WeightsError

DATA = os.urandom(1000) * 25_000  # 25 MB, of which 10 MB are written at a time
DIGITS = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("DIFFGEN_DOWNLOADS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path / "config" / "diffgen" / "weights.toml"
    own.parent.mkdir(parents=True)
    own.write_text(
        '[mine]\ndescription = "d"\nlicense = "MIT"\nrepository = "a/b"\n'
        f'files = [{{ path = "x.safetensors", size = {len(DATA)}, sha256 = "{DIGITS}" }}]\n'
    )
    with serving(Hub({"a/b": {"x.safetensors": DATA}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_a_model_is_fetched_and_found(hub: Hub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "mine"])
    path = tmp_path / "models" / "a--b" / "x.safetensors"
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    assert result.stderr == f"mine, 25 MB; licence: MIT ({hub.url}/a/b)\n"
    assert path.read_bytes() == DATA
    rows = json.loads(CliRunner().invoke(app, ["models", "--json", "--here"]).stdout)["models"]
    assert [row["path"] for row in rows if row["name"] == "mine"] == [str(path)]


def test_the_result_as_json(hub: Hub) -> None:
    result = CliRunner().invoke(app, ["pull", "a/b", "--json", "-q"])
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert (found["name"], found["license"]) == ("a/b", "openrail++")
    assert found["files"][0]["sha256"] == DIGITS
    assert found["files"][0]["downloaded"] == len(DATA)


def test_a_bar_on_a_terminal_leaves_nothing_behind(hub: Hub, tmp_path: Path) -> None:
    (seen,) = in_terminal(["pull", "mine"], cwd=tmp_path, columns=60)
    assert seen.code == 0
    assert "fetching x.safetensors" in seen.terminal
    assert "25.0 MB" in seen.terminal
    assert "".join(seen.screen).endswith("a--b/x.safetensors")
    assert not any("fetching" in line for line in seen.screen)


def test_a_gated_model_is_explained(hub: Hub) -> None:
    hub.gated = ("a/b",)
    result = CliRunner().invoke(app, ["pull", "mine"])
    assert isinstance(result.exception, WeightsError)
    assert "accept its terms" in str(result.exception)


def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 12_000_000  # 10 MB are written; then the hub says nothing more
    hub.hold = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "diffgen", "pull", "mine"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part, deadline = None, time.monotonic() + 60
    while part is None and time.monotonic() < deadline:
        found = list((tmp_path / "models").rglob("*.part"))
        part = next((p for p in found if p.stat().st_size >= 10_000_000), None)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    hub.hold.set()
    assert process.returncode == 130
    assert "what is fetched is kept: the same command goes on" in err
    assert part is not None
    kept = part.stat().st_size
    result = CliRunner().invoke(app, ["pull", "mine", "--json"])
    assert json.loads(result.stdout)["files"][0]["downloaded"] == len(DATA) - kept
    assert hub.ranges[-1] == f"bytes={kept}-"


def test_pulling_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from diffgen.weights import download, ordering, listing; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
