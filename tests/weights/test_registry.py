"""diffgen.weights.registry: weights.toml, and models by name or path."""

from pathlib import Path

import pytest

from diffgen.errors import ConfigError
from diffgen.weights.adapters.files import read_lora
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.finding import resolve
from diffgen.weights.registry import (
    ModelEntry,
    RemoteFile,
    known_entries,
    read_registry,
    registry_path,
)

MINIMAL = '[tiny]\nbundled = "assets/tiny"\ndescription = "a model"\nlicense = "MIT"\n'
HUB = MINIMAL.replace('bundled = "assets/tiny"', 'repository = "a/b"')
ENTRY = ModelEntry(bundled="assets/tiny", description="a model", license="MIT")


def test_every_model_that_ships_can_be_opened() -> None:
    entries = read_registry(registry_path())
    ships = [name for name, entry in entries.items() if entry.bundled]
    assert ships == ["storybook", "storybook-turbo"]
    for name in ships:
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
        ("[tiny]\n", r'\[tiny\]: "description" is missing'),
        (MINIMAL.replace("bundled", "path") + 'repository = "a/b"\n', '"path" and "repository"$'),
        (MINIMAL.replace('bundled = "assets/tiny"\n', ""), "says where it is, not none"),
        (MINIMAL.replace('bundled = "assets/tiny"', 'repository = "a/b"'), '"files" is missing'),
        (HUB + "files = 3\n", '"files" should be a list of tables, not 3'),
        (HUB + "files = [{ size = 3 }]\n", 'files 1: "path" is missing'),
        (HUB + 'files = [{ path = "../x" }]\n', '"path" leads out of the repository'),
        (HUB + 'files = [{ path = "x", sha256 = "AB" }]\n', '"sha256" should be 64 hexadecimal'),
        (HUB + 'files = [{ path = "x", size = -1 }]\n', '"size" must be from 0'),
        (MINIMAL + 'kind = "lorra"\n', r'unknown value "lorra"\. Did you mean "lora"\?'),
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


def test_the_known_models_have_all_that_is_needed_to_check_them() -> None:
    entries = read_registry(registry_path())
    hubs = {name: entry for name, entry in entries.items() if entry.repository}
    assert len(hubs) > 30
    assert {file.sha256 and len(file.sha256) for e in hubs.values() for file in e.files} == {64}
    assert [name for name, entry in hubs.items() if entry.size is None] == ["sdxl-lightning-lora"]
    digits = [file.sha256 for entry in hubs.values() for file in entry.files]
    assert len(set(digits)) == len(digits)


def test_users_add_models_and_change_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "diffgen" / "weights.toml"
    own.parent.mkdir()
    text = '[mine]\ndescription = "d"\nlicense = "MIT"\nrepository = "a/b"\n'
    file = f'files = [{{ path = "x.safetensors", size = 5, sha256 = "{"a" * 64}" }}]\n'
    own.write_text(text + file + MINIMAL.replace("[tiny]", "[storybook]"))
    entries = known_entries()
    assert entries["mine"].files == (RemoteFile("x.safetensors", 5, "a" * 64),)
    assert entries["mine"].size == 5
    assert entries["storybook"].bundled == "assets/tiny"
    assert entries["sdxl"].kind == "model"
