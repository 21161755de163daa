"""`diffgen show --prompt`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from diffgen.cli import main
from diffgen.cli.commands import app
from diffgen.errors import UsageError

LINE = "a\nSteps: 7, Sampler: Euler, CFG scale: 6, Seed: 11"
PROMPT = "a (red:1.2) barn [at night:by day:0.5] BREAK sea AND a cat:0.5"


def shown(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["show", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_a_picture_that_says_nothing_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("a", LINE), ("b", "words"), ("c", LINE)):
        info = PngInfo()
        info.add_text("parameters", text)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png", pnginfo=info)
    os.mkfifo(tmp_path / "pipe.png")
    names = [str(tmp_path / f"{name}.png") for name in ("a", "b", "pipe", "none", "c")]
    monkeypatch.setattr(sys, "argv", ["diffgen", "show", *names])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out.count("made by A1111") == 2
    assert err.splitlines() == [
        f"error: {names[1]} does not say how it was made, or not in words known here "
        "(it has parameters)",
        f"error: {names[2]}: no picture to be read: it is a pipe",
        f"error: {names[3]}: no picture to be read: No such file or directory",
    ]


def test_what_is_understood_is_printed() -> None:
    lines = shown("--prompt", PROMPT, "--prompt-style", "a1111", "--steps", "6", "-n", "(ugly)")
    assert lines == [
        "prompt, in the style of a1111, 6 steps",
        "prompt 1 of 2, weight 1",
        "  steps 1-3, chunk 1 of 2, 5 tokens: a (red:1.2) barn at night",
        "  steps 1-3, chunk 2 of 2, 1 token: sea",
        "  steps 4-6, chunk 1 of 2, 5 tokens: a (red:1.2) barn by day",
        "  steps 4-6, chunk 2 of 2, 1 token: sea",
        "prompt 2 of 2, weight 0.5",
        "  steps 1-6, chunk 1 of 1, 2 tokens: a cat",
        "negative, in the style of a1111, 6 steps",
        "  steps 1-6, chunk 1 of 1, 3 tokens: (ugly:1.1)",
    ]


def test_storybook_reads_plain_words() -> None:
    first, second = shown("--prompt", "a (barn)")
    assert first.startswith("prompt, in the style of plain, ")
    assert second.endswith("4 tokens: a ( barn )")


def test_json() -> None:
    (line,) = shown("--prompt", PROMPT, "--prompt-style", "comfy", "--json")
    told = json.loads(line)
    assert told["model"] == "storybook"
    assert told["texts"][0]["prompt"] == PROMPT
    assert [term["weight"] for term in told["texts"][0]["terms"]] == [1.0, 0.5]


def test_what_is_not_read_is_noted() -> None:
    result = CliRunner().invoke(app, ["show", "--prompt", "a (b", "--prompt-style", "a1111"])
    assert 'drawn as plain words: unbalanced brackets, "(" at character 3' in result.stderr


def test_nothing_to_show_is_refused() -> None:
    result = CliRunner().invoke(app, ["show"])
    assert isinstance(result.exception, UsageError)
    assert "give a picture, or --prompt" in str(result.exception)


@pytest.mark.parametrize("style", ["a1111", "comfy", "compel"])
def test_weights_out_of_range_are_refused(style: str) -> None:
    result = CliRunner().invoke(app, ["show", "--prompt", "(a:1e9)", "--prompt-style", style])
    assert "has the weight 1e+09, where weights are from -10 to 10" in str(result.exception)
