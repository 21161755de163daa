"""diffgen.cli.main: help, versions, and where errors end."""

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import diffgen
from diffgen import cli
from diffgen.cli import commands
from diffgen.errors import DiffgenError, WeightsError

ROOT = Path(__file__).resolve().parent.parent.parent


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["diffgen", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_entry_point_is_main() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("diffgen", scripts["diffgen"], "console_scripts").load() is cli.main


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr() == (f"diffgen {diffgen.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert "Make pictures from text" in out
    assert "generate" in out
    assert "samplers" in out
    assert not err


@pytest.mark.parametrize(
    "arguments",
    [
        ("genrate",),
        ("generate", "x", "--stesp", "3"),
        ("generate", "x", "--steps", "many"),
        ("generate", "x", "--steps"),
        ("generate", "x", "--device", "tpu"),
        ("samplers", "more"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.endswith(" (--help tells more)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", [50, 80])
def test_help_of_commands_is_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert "..." not in out.partition("Commands:")[2]
    assert "say which to use." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WeightsError("a.safetensors is empty"), "error: a.safetensors is empty"),
        (WeightsError("a\x1b]0;x\x07\nerror: b"), "error: a\\x1b]0;x\\x07\\nerror: b"),
        (MemoryError(), "error: out of memory; ask for less at a time"),
        (OSError(28, "No space left on device", "a/b"), "error: a/b: No space left on device"),
        (ZeroDivisionError("x"), "error: unexpected ZeroDivisionError: x (-v shows where)"),
    ],
)
def test_errors_end_in_one_line(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(commands, "app", fail)
    assert run(monkeypatch, "generate", "x") == 1
    assert capsys.readouterr() == ("", f"{line}\n")


def test_verbose_shows_where_a_defect_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "app", fail)
    monkeypatch.setattr(sys, "argv", ["diffgen", "-v"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_every_error_has_an_exit_code() -> None:
    codes = {kind.__name__: kind.exit_code for kind in DiffgenError.__subclasses__()}
    assert codes.pop("UsageError") == 2
    assert set(codes.values()) == {1}
