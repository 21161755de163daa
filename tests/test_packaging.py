"""The wheel holds everything a fresh machine needs, and the README tells the truth about it."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffgen.cli.commands import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLERS = ROOT / "diffgen" / "diffusion" / "samplers" / "README.md"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_carries_model_and_registry(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        registry = archive.read("diffgen/weights.toml").decode()
    assert registry == (ROOT / "weights.toml").read_text(encoding="utf-8")
    model = ROOT / "diffgen" / "assets" / "storybook"
    files = {str(f.relative_to(ROOT)) for f in model.rglob("*") if f.is_file()}
    assert files <= names
    assert "diffgen/py.typed" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 50e6


def test_the_samplers_page_shows_them_as_they_are():
    printed = CliRunner().invoke(app, ["samplers"]).output
    page = SAMPLERS.read_text(encoding="utf-8")
    shown = re.search(r"<!-- samplers -->\n```text\n(.*?)```\n<!-- /samplers -->", page, re.DOTALL)
    assert shown
    assert shown[1].strip() == printed.strip()


def test_the_readme_is_a_page():
    assert len(README.split()) <= 900


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("[dst]*/**/README.md"))
)
def test_links_of_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_readme_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "barn.png").is_file()
    assert done.stdout.startswith("7 ")


def test_ci_runs_the_command_of_the_readme():
    (command,) = re.findall(r"```sh\n(python3 -m venv .*check\.py)\n```", README)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("install -q", "install")
    assert command in script


def test_torch_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert any(re.fullmatch(r"torch==\d+\.\d+\.\d+", line) for line in lines)
