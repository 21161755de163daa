"""`diffgen models` and the names of models on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from terminals import in_terminal
from torch import zeros
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.errors import UsageError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ComfyUI folder with a model, a LoRA and a file that is none."""
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "empty"))
    monkeypatch.setenv("DIFFGEN_PROGRAMS", str(tmp_path / "ComfyUI"))
    models = tmp_path / "ComfyUI" / "models"
    for kind in ("checkpoints", "loras", "vae", "embeddings"):
        (models / kind).mkdir(parents=True)
    (models / "embeddings" / "word.pt").write_bytes(b"PK\x03\x04")
    block = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    whole = {
        f"model.diffusion_model.{block}": zeros(320, 1024),
        "cond_stage_model.model.ln_final.weight": zeros(4),
    }
    save_file(whole, models / "checkpoints" / "mine_v2.safetensors")
    lora = {"lora_unet_down_blocks_0_attentions_0_attn2_to_k.lora_down.weight": zeros(4, 768)}
    save_file(lora, models / "loras" / "cut.safetensors")
    (models / "vae" / "page.safetensors").write_text("<html>")
    return tmp_path


def listed(*arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, ["models", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)["models"]
    return found


def test_known_models_are_listed_with_size_family_and_licence(shelf: Path) -> None:
    rows = {row["name"]: row for row in listed()}
    sdxl = rows["sdxl"]
    assert (sdxl["size"], sdxl["family"], sdxl["path"]) == (6938078334, "sdxl", None)
    assert sdxl["license"] == "CreativeML OpenRAIL++-M"
    assert str(rows["storybook"]["path"]).endswith("storybook")


def test_what_is_in_the_folders_is_listed_for_what_it_is(shelf: Path) -> None:
    rows = {row["name"]: row for row in listed("--here")}
    assert set(rows) == {"storybook", "storybook-turbo", "mine_v2", "cut", "page", "word"}
    assert (rows["mine_v2"]["kind"], rows["mine_v2"]["family"]) == ("model", "sd2")
    assert (rows["cut"]["kind"], rows["cut"]["family"]) == ("lora", "sd1")
    assert (rows["word"]["kind"], rows["word"]["trouble"]) == ("embedding", None)
    assert rows["page"]["kind"] == "vae"
    assert "cut off" in str(rows["page"]["trouble"])


def test_one_kind_at_a_time(shelf: Path) -> None:
    assert {row["kind"] for row in listed("--kind", "lora")} == {"lora"}
    assert [row["name"] for row in listed("--kind", "loras", "--here")] == ["cut"]
    result = CliRunner().invoke(app, ["models", "--kind", "lorra"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).endswith('not lorra. Did you mean "lora"?')


def test_the_table_fits_the_terminal(shelf: Path) -> None:
    wide, narrow = (
        in_terminal(["models", "--here"], cwd=shelf, columns=columns)[0] for columns in (200, 50)
    )
    assert wide.code == narrow.code == 0
    assert wide.screen[0].split() == ["name", "here", "size", "family", "kind", "licence", "about"]
    (row,) = [line for line in wide.screen if line.startswith("mine_v2")]
    assert row.split()[:2] == ["mine_v2", "yes"]
    assert all(len(line) <= 50 for line in narrow.screen if not line.startswith("note:"))
    assert narrow.screen[0].split() == ["name", "here", "size", "family", "kind"]


def test_a_missing_model_names_the_command_that_fetches_it(shelf: Path) -> None:
    result = CliRunner().invoke(app, ["generate", "x", "-m", "sd-turbo"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).endswith("to fetch it, 5.21 GB: diffgen pull sd-turbo")
