"""What a shell offers for the values of options, through the machinery that the shell calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffgen.cli.completion import LISTS, SOURCES
from diffgen.cli.generate import PICTURES
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.settings.names import SPACING_NAMES
from diffgen.settings.setting import rows
from diffgen.settings.sweep import Axes

DRIVER = """
import sys
sys.argv = ["diffgen"]
from diffgen import cli
try:
    cli.main()
finally:
    heavy = {"torch", "numpy", "transformers"} & set(sys.modules)
    assert not heavy, heavy
"""


def offered(words: str, home: Path, shell: str = "bash", **environment: str) -> list[str]:
    """What is offered for the last of `words`, where a blank at the end begins another."""
    place = {name: str(home) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    asked = {
        "_DIFFGEN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": f"diffgen {words}",
        "COMP_CWORD": str(len(words.split(" "))),
        "_TYPER_COMPLETE_ARGS": f"diffgen {words}",
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, **place, **asked, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("option", ["-s", "--sampler"])
def test_samplers_are_offered_without_torch(option: str, tmp_path: Path) -> None:
    assert offered(f"generate x {option} ", tmp_path) == list(SAMPLERS)
    some = [name for name in SAMPLERS if name.startswith("dpmpp_2m")]
    assert offered(f"generate x {option} dpmpp_2m", tmp_path) == some


def test_schedules_are_offered(tmp_path: Path) -> None:
    assert offered("generate --schedule ", tmp_path) == list(SPACING_NAMES)


def test_the_last_name_of_a_list_is_completed(tmp_path: Path) -> None:
    assert offered("sample-steps x --samplers ddim,unip", tmp_path) == [
        "ddim,unipc",
        "ddim,unipc_bh1",
    ]


def test_models_and_loras_are_offered_by_the_names_that_find_them(tmp_path: Path) -> None:
    for folder, name in (("checkpoints", "mine_v2"), ("loras", "cut")):
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / f"{name}.safetensors").write_bytes(b"x")
    programs = {"DIFFGEN_PROGRAMS": str(tmp_path)}
    models = offered("generate -m ", tmp_path, **programs)
    assert {"storybook", "sdxl", "mine_v2"} <= set(models)
    assert "cut" not in models
    loras = offered("generate --lora ", tmp_path, **programs)
    assert "cut" in loras
    assert not {"storybook", "mine_v2"} & set(loras)
    assert offered("generate --lora c", tmp_path, **programs) == ["cut"]


def test_shells_that_show_it_get_a_word_about_each(tmp_path: Path) -> None:
    (line,) = offered("generate -s dpmpp_2m_", tmp_path, "zsh")
    assert "dpmpp_2m_sde" in line
    assert SAMPLERS["dpmpp_2m_sde"].label in line


def test_a_broken_configuration_is_no_noise_at_the_prompt(tmp_path: Path) -> None:
    broken = tmp_path / "config.toml"
    broken.write_text("no toml")
    assert "storybook" in offered("generate -m ", tmp_path, DIFFGEN_CONFIG=str(broken))


def test_every_name_in_the_table_is_a_setting() -> None:
    known = {name for group in (*PICTURES, Axes) for name in rows(group)}
    assert set(SOURCES) <= known
    assert set(LISTS) <= set(SOURCES)
