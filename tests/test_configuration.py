"""diffgen.configuration, configured and configuration_writing: file, environment, command line."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged_bytes

from diffgen.configuration import Configuration, Folders, config_path
from diffgen.configuration_writing import write_value
from diffgen.configured import all_tables, default_model, settings_for, with_configuration
from diffgen.errors import ConfigError, DiffgenError, UsageError
from diffgen.files import expanded
from diffgen.places import hub_cache
from diffgen.types import LoraRef

FILE = """
model = "sdxl"

[folders]
loras = ["~/loras", "more"]
models = "/models"
downloads = "/big"

[settings]
steps = 20
cfg-scale = 6
sampler = "DPM++ 2M Karras"
guidance_interval = "0.3,5"
zero-snr = true

[models.sdxl]
steps = 30

[models."dreamshaper_8"]
clip_skip = 2
sigmas = [14.6, 5, 1]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "diffgen" / "config.toml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def values(model: str, configuration: Configuration) -> dict[str, Any]:
    return {name: given.value for name, given in settings_for(model, configuration).items()}


def test_without_a_file_nothing_is_configured(tmp_path: Path) -> None:
    found = Configuration.read({"DIFFGEN_CONFIG": str(tmp_path / "none.toml")})
    assert found.folders == Folders()
    assert default_model(found).value == "storybook"
    assert settings_for("storybook", found) == {}


def test_folders_are_read_from_the_files_place(file: Path) -> None:
    folders = Configuration.read().folders
    assert folders.loras == (Path("/home/me/loras"), file.parent / "more")
    assert folders.models == (Path("/models"),)
    assert folders.downloads == Path("/big")


def test_the_environment_comes_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFGEN_LORAS", "/a:/b")
    monkeypatch.setenv("DIFFGEN_MODEL", "sd15")
    monkeypatch.setenv("DIFFGEN_STEPS", "7")
    monkeypatch.setenv("DIFFGEN_GUIDANCE", "3")
    monkeypatch.setenv("DIFFGEN_ZERO_SNR", "no")
    monkeypatch.setenv("DIFFGEN_KERNELS", "torch")  # no setting
    found = Configuration.read()
    assert found.folders.loras == (Path("/a"), Path("/b"))
    assert found.folders.models == (Path("/models"),)
    assert default_model(found).source == "DIFFGEN_MODEL"
    steps = settings_for("sdxl", found)["steps"]
    assert (steps.value, steps.source) == (7, "DIFFGEN_STEPS")
    assert values("sdxl", found)["guidance_scale"] == 3.0
    assert values("sdxl", found)["zero_snr"] is False


def test_settings_of_a_model_come_before_those_of_all(file: Path) -> None:
    found = Configuration.read()
    assert values("sdxl", found)["steps"] == 30
    assert values("other", found)["steps"] == 20
    for name in ("dreamshaper_8", "/x/DreamShaper_8.safetensors", "DREAMSHAPER_8"):
        assert values(name, found)["clip_skip"] == 2
    assert values("other", found)["guidance_interval"] == (0.3, 5.0)
    assert values("other", found)["guidance_scale"] == 6.0
    assert values("dreamshaper_8", found)["sigmas"] == (14.6, 5.0, 1.0)


def test_the_command_line_comes_first(file: Path) -> None:
    found = with_configuration({"steps": 4}, Configuration.read())
    assert (found["model"], found["steps"], found["guidance_scale"]) == ("sdxl", 4, 6.0)
    assert with_configuration({"model": "m"}, Configuration.read())["steps"] == 20


def test_what_was_typed_puts_aside_what_says_the_same_otherwise(file: Path) -> None:
    found = Configuration.read()
    typed = with_configuration({"model": "dreamshaper_8", "steps": 4}, found)
    assert "sigmas" not in typed
    assert "steps" not in with_configuration({"sigmas": (3.0, 1.0)}, found)


def test_a_user_without_a_home_has_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that no user has."""
    pwd = pytest.importorskip("pwd")

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DIFFGEN_CONFIG", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Configuration.read({}).folders == Folders()
    assert hub_cache({}) == Path("~/.cache/huggingface/hub")
    with pytest.raises(UsageError, match="~/a: your home is not known; set HOME"):
        expanded("~/a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 3\n", r'config\.toml: "model" should be a name, not 3'),
        ("modle = 'x'\n", r'unknown key "modle"\. Did you mean "model"\?'),
        ("[folders\n", r"config\.toml: not valid TOML: .*line 1"),
        ("folders = 3\n", '"folders" should be a table, not 3'),
        ("[folders]\nlora = 'x'\n", r'\[folders\]: unknown key "lora"\. Did you mean "loras"\?'),
        ("[folders]\nloras = 3\n", r'\[folders\]: "loras" should be a list of folders'),
        ("[folders]\nloras = [3]\n", r'\[folders\]: "loras" should be a list of folders'),
        ("[folders]\nloras = '~nobody-here/x'\n", "~nobody-here/x: there is no user nobody-here"),
        (
            "[settings]\nstepz = 3\n",
            r'\[settings\]: unknown setting "stepz"\. Did you mean "steps"',
        ),
        ("[settings]\nsteps = 0\n", r'\[settings\]: "steps" must be at least 1, got 0'),
        ("[settings]\nsteps = 'many'\n", r'\[settings\]: "steps" takes a whole number, not "many"'),
        ("[settings]\nsampler = 'eulr'\n", r'config\.toml \[settings\].*Did you mean "euler"'),
        ("[settings]\ndevice = 'gpu'\n", r'\[settings\]: "device" takes auto, cpu'),
        ("[settings]\nfast = 3\n", r'\[settings\]: "fast" takes true or false, not 3'),
        ("[models.x]\nsteps = nan\n", r"\[models\.x\]: \"steps\" takes a whole number"),
        ("[models]\nx = 3\n", r"\[models\.x\] should be a table of settings, not 3"),
    ],
)
def test_mistakes_in_the_file_name_file_table_and_key(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        all_tables(Configuration.read())


def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path) -> None:
    found = Configuration.read({"DIFFGEN_CONFIG": str(tmp_path / "x"), "DIFFGEN_STEPS": "many"})
    with pytest.raises(UsageError, match='DIFFGEN_STEPS takes a whole number, not "many"'):
        settings_for("m", found)


def test_loras_of_a_model(file: Path) -> None:
    file.write_text('[models.x]\nlora = ["cut:0.5", "~/fold.safetensors"]\n')
    assert values("x", Configuration.read())["loras"] == (
        LoraRef(Path("cut"), 0.5),
        LoraRef(Path("/home/me/fold.safetensors"), 1.0),
    )


def test_home_is_expanded_in_paths_of_the_file(file: Path) -> None:
    file.write_text('[settings]\nvae = "~/v.safetensors"\n')
    assert values("x", Configuration.read())["vae"] == Path("/home/me/v.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("model", "sd-turbo", 'model = "sd-turbo"'),
        ("folders.loras", "/x:/y", 'loras = ["/x", "/y"]'),
        ("folders.downloads", "/x", 'downloads = "/x"'),
        ("settings.steps", "12", "steps = 12"),
        ("settings.negative", 'a "b"', 'negative = "a \\"b\\""'),
        ("settings.fast", "yes", "fast = true"),
        ("models.sdxl.guidance", "4.5", "guidance = 4.5"),
        ("models.sd-2.1.steps", "9", "steps = 9"),
    ],
)
def test_a_value_is_written_and_the_rest_stays(file: Path, key: str, value: str, line: str) -> None:
    file.write_text(f"# mine\n{FILE}")
    write_value(key, value)
    text = file.read_text()
    assert line in text.splitlines()
    assert text.startswith("# mine\n")
    gone = [each for each in FILE.splitlines() if each not in text.splitlines()]
    assert len(gone) <= 1
    all_tables(Configuration.read())


def test_writing_makes_the_file_and_replaces_the_value(file: Path) -> None:
    file.unlink()
    write_value("settings.steps", "12")
    write_value("model", "x")
    write_value("settings.steps", "13")
    write_value("models.sd-2.1.steps", "9")
    text = 'model = "x"\n[settings]\nsteps = 13\n\n[models."sd-2.1"]\nsteps = 9\n'
    assert file.read_text() == text
    assert values("sd-2.1", Configuration.read())["steps"] == 9


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", "3", r'there is no key "steps": it is model, folders\.NAME'),
        ("settings.stepz", "3", r'no setting "stepz"\. Did you mean "steps"\?'),
        ("settings.qqqq", "3", r'no setting "qqqq"$'),
        ("settings.steps", "0", "steps must be at least 1, got 0"),
        ("folders.lora", "x", r'no folder "lora"\. Did you mean "loras"\?'),
    ],
)
def test_what_is_not_understood_is_not_written(
    file: Path, key: str, value: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_value(key, value)
    assert file.read_text() == FILE


def test_a_file_that_cannot_be_changed_by_lines_is_left_alone(file: Path) -> None:
    text = '[folders]\nloras = [\n  "/a",\n]\n'
    file.write_text(text)
    with pytest.raises(UsageError, match=r"cannot be changed line by line .*edit it"):
        write_value("folders.loras", "/b")
    assert file.read_text() == text


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False))
def test_mutations_of_the_file_are_understood_or_one_line(random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(damaged_bytes(FILE.encode(), random))
        refusal = refusal_of(path)
        assert refusal is None or (str(path) in refusal and "\n" not in refusal)


def refusal_of(path: Path) -> str | None:
    try:
        found = Configuration.read({"DIFFGEN_CONFIG": str(path)})
        all_tables(found)
        with_configuration({"steps": 3}, found)
    except ConfigError as error:
        return str(error)
    return None


def test_another_file_can_be_named(tmp_path: Path) -> None:
    assert config_path({"DIFFGEN_CONFIG": str(tmp_path / "c.toml")}) == tmp_path / "c.toml"
    (tmp_path / "c.toml").mkdir()
    with pytest.raises(DiffgenError, match=r"c\.toml cannot be read: Is a directory"):
        Configuration.read({"DIFFGEN_CONFIG": str(tmp_path / "c.toml")})
    assert math.isinf(
        values("x", Configuration(tmp_path, {"settings": {"guidance-interval": "0.3,"}}))[
            "guidance_interval"
        ][1]
    )
