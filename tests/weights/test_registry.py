"""diffgen.weights.registry: weights.toml, and models by name or path."""

from pathlib import Path

import pytest

from diffgen.errors import ConfigError, UsageError
from diffgen.weights.adapters.files import read_lora
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.registry import (
    ModelEntry,
    ModelRef,
    read_registry,
    registry_path,
    resolve,
)

MINIMAL = '[tiny]\nbundled = "assets/tiny"\ndescription = "a model"\nlicense = "MIT"\n'
ENTRY = ModelEntry(bundled="assets/tiny", description="a model", license="MIT")


def test_every_model_that_ships_can_be_opened() -> None:
    entries = read_registry(registry_path())
    assert "storybook" in entries
    for name in entries:
        found = resolve(name)
        checkpoint = Checkpoint.open(found.path)
        assert checkpoint.tensors
        if found.lora:
            assert read_lora(found.lora, checkpoint)


def test_recommendations_of_the_storybook() -> None:
    entry = resolve("storybook").entry
    assert entry is not None
    assert (entry.sampler, entry.schedule) == ("dpmpp_2m", "beta")
    assert (entry.steps, entry.guidance_scale) == (10, 4.0)


def test_turbo_is_storybook_with_a_lora() -> None:
    turbo, storybook = resolve("storybook-turbo"), resolve("storybook")
    assert turbo.path == storybook.path
    assert turbo.lora is not None
    assert storybook.lora is None
    assert turbo.entry is not None
    assert (turbo.entry.sampler, turbo.entry.steps) == ("lcm", 4)


def test_what_is_not_said_is_none(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(MINIMAL)
    assert read_registry(path) == {"tiny": ENTRY}


def test_a_whole_number_does_for_guidance(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(MINIMAL + "guidance_scale = 4\n")
    assert read_registry(path)["tiny"].guidance_scale == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tiny\n", r"weights\.toml: not valid TOML: .*line 1"),
        ("tiny = 1\n", r"\[tiny\]: every model needs a table"),
        ("[tiny]\n", r'\[tiny\]: "bundled" is missing'),
        (MINIMAL + "stpes = 20\n", r'\[tiny\]: unknown key "stpes"\. Did you mean "steps"\?'),
        (MINIMAL + 'steps = "20"\n', r'"steps" should be a whole number, not "20"'),
        (MINIMAL + "steps = true\n", r'"steps" should be a whole number, not true'),
        (MINIMAL + "steps = 0\n", r'"steps" must be from 1 to 10000, not 0'),
        (MINIMAL + "steps = [4]\n", r'"steps" should be a whole number, not \[4\]'),
        (MINIMAL + "guidance_scale = nan\n", r'"guidance_scale" must be a finite number'),
        (MINIMAL + "bundled = 7\n", r"not valid TOML: Cannot overwrite a value"),
        (MINIMAL + f"steps = {'9' * 5000}\n", "not usable TOML: it has a number of thousands"),
        (
            MINIMAL + f"steps = 0x{'f' * 9000}\n",
            '"steps" must be .*, not a value too large to show',
        ),
        (MINIMAL + 'sampler = "eulr"\n', r'unknown value "eulr"\. Did you mean "euler"\?'),
        (MINIMAL + 'schedule = "kerras"\n', r'unknown value "kerras"\. Did you mean "karras"\?'),
    ],
)
def test_mistakes_in_the_registry(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_registry(path)


def test_an_existing_folder_is_a_model(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == ModelRef(tmp_path.name, tmp_path)


def test_a_relative_folder_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path / "tiny")
    assert resolve(".").name == "tiny"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model").path == tmp_path / "model"


def test_a_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", {"tiny": ENTRY}).entry is ENTRY
    assert resolve("./tiny", {"tiny": ENTRY}).entry is None


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(UsageError, match=r'"storybok"\. Did you mean "storybook"\? Known: story'):
        resolve("storybok")


def test_paths_that_nothing_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\"xxx.*\.\.\. cannot be read: File name too long$"):
        resolve("x" * 5000)
    with pytest.raises(UsageError, match="there is no model at ~nobody-here/model: no such user"):
        resolve("~nobody-here/model")
    with pytest.raises(UsageError, match="there is no model"):
        resolve("./\0")


@pytest.mark.parametrize("source", ["./no-such-folder", "~/no-such-folder", "no/such/folder"])
def test_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(UsageError, match=r"there is no model at .*no.such.folder"):
        resolve(source)
