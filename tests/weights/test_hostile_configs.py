"""Configs that parse but make no network are refused by file and key before anything is built."""

import json
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import ConfigError, UnsupportedCheckpoint
from diffgen.models.checks import check_model
from diffgen.weights.diffusers.configs import read_model_config

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
UNET, VAE, TEXT, NOISE = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)


def opened(folder: Path, model: str, changes: dict[str, dict[str, Any]]) -> None:
    """Read the config of a public model with some values replaced."""
    shutil.copytree(CONFIGS / model, folder)
    for file, values in changes.items():
        data = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(data))
    check_model(read_model_config(folder), str(folder))


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        (UNET, "in_channels", 0, "must be from 1 to 1024, not 0"),
        (UNET, "out_channels", -4, "must be from 1 to 1024, not -4"),
        (UNET, "out_channels", [4], r"should be a whole number, not \[4\]"),
        (UNET, "sample_size", 2**63, "must be from 1 to 4096, not 9223372036854775808"),
        (UNET, "block_out_channels", [], "is empty"),
        (UNET, "block_out_channels", [320] * 11, "has 4 entries where .* has 11"),
        (UNET, "cross_attention_dim", [], "is missing or empty"),
        (UNET, "attention_head_dim", [], 'has 0 entries where "block_out_channels" has 4'),
        (UNET, "down_block_types", [], 'has 0 entries where "block_out_channels" has 4'),
        (UNET, "block_out_channels", [0, 0, 0, 0], "must be from 1 to 65536, not 0"),
        (UNET, "block_out_channels", [320, 640, 1280, 2**40], "must be from 1 to 65536"),
        (UNET, "block_out_channels", [320, 640, "1280", 1280], 'a whole number, not "1280"'),
        (UNET, "layers_per_block", 0, "must be from 1 to 64, not 0"),
        (UNET, "layers_per_block", 10**9, "must be from 1 to 64, not 1000000000"),
        (UNET, "transformer_layers_per_block", 10**9, "must be from 0 to 256"),
        (UNET, "transformer_layers_per_block", 200, "make 3200 transformer layers; at most 1000"),
        (UNET, "transformer_layers_per_block", -1, "must be from 0 to 256, not -1"),
        (UNET, "attention_head_dim", 0, "must be from 1 to 65536, not 0"),
        (UNET, "attention_head_dim", 7, "is 7, which does not divide 320 channels"),
        (UNET, "num_attention_heads", 9, "is 9, which does not divide 320 channels"),
        (UNET, "cross_attention_dim", 0, "must be from 1 to 65536"),
        (UNET, "norm_num_groups", 0, "must be from 1 to 65536"),
        (UNET, "norm_num_groups", 7, "is 7, which does not divide 320 channels"),
        (UNET, "norm_eps", -1e-5, "must be from 0 to 1, not -1e-05"),
        (UNET, "norm_eps", float("nan"), "must be a finite number, not nan"),
        (UNET, "freq_shift", 160, "must be from 0 to 1, not 160"),
        (UNET, "time_cond_proj_dim", 255, "must be an even number, not 255"),
        (UNET, "time_cond_proj_dim", 0, "must be from 4 to 65536, not 0"),
        (UNET, "addition_embed_type", "text_time", "addition_embed_type"),
        (VAE, "in_channels", 1, "must be 3, not 1"),
        (VAE, "out_channels", 4, "must be 3, not 4"),
        (VAE, "latent_channels", 0, "must be from 1 to 1024, not 0"),
        (VAE, "block_out_channels", [128, 250, 512, 512], "norm_num_groups"),
        (VAE, "layers_per_block", 2**63, "must be from 1 to 64"),
        (VAE, "norm_num_groups", 48, "is 48, which does not divide 128 channels"),
        (VAE, "scaling_factor", 0, "must be from 1e-06 to 1e"),
        (VAE, "scaling_factor", float("inf"), "must be a finite number"),
        (VAE, "latents_std", [1, 1, 0, 1], "must be from 1e-06"),
        (VAE, "latents_mean", [0, 0, 0], "has 3 entries for 4 channels of latents"),
        (TEXT, "vocab_size", -1, "must be from 1 to 10000000, not -1"),
        (TEXT, "hidden_size", 0, "must be from 1 to 65536"),
        (TEXT, "num_hidden_layers", 10**9, "must be from 1 to 256, not 1000000000"),
        (TEXT, "num_attention_heads", 11, "is 11, which does not divide the width, 768"),
        (TEXT, "intermediate_size", 0, "must be from 1"),
        (TEXT, "max_position_embeddings", 2, "must be from 3 to 32768, not 2"),
        (TEXT, "layer_norm_eps", 2.0, "must be from 0 to 1, not 2"),
        (NOISE, "beta_start", 0.0, "must be from 1e-08 to 0.9999, not 0"),
        (NOISE, "beta_end", 1.5, "must be from 1e-08 to 0.9999, not 1.5"),
        (NOISE, "beta_end", float("nan"), "must be a finite number"),
        (NOISE, "beta_end", 0.9, "leaves nothing of a picture long before step 1000"),
        (NOISE, "num_train_timesteps", 0, "must be from 2 to 100000, not 0"),
        (NOISE, "num_train_timesteps", 10**9, "must be from 2 to 100000, not 1000000000"),
        (NOISE, "num_train_timesteps", 10.5, "should be a whole number, not 10.5"),
        (NOISE, "trained_betas", [], "has 0 entries for the 1000"),
        (NOISE, "trained_betas", [0.1] * 999, "has 999 entries for the 1000"),
        (NOISE, "trained_betas", [0.1] * 999 + [1.0], "must be from 1e-08 to 0.9999, not 1"),
        (NOISE, "trained_betas", [[0.1]], r"should be a number, not \[0.1\]"),
    ],
)
def test_numbers_that_make_no_network(
    tmp_path: Path, file: str, key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        opened(tmp_path / "model", "sd15", {file: {key: value}})
    assert f"model/{file}: " in str(caught.value)
    assert f'"{key}"' in str(caught.value) or "norm_num_groups" in message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (
            "sd15",
            {UNET: {"cross_attention_dim": 1024}},
            "its U-Net reads text of width 1024, its encoders 768",
        ),
        (
            "sdxl",
            {"text_encoder_2/config.json": {"hidden_size": 1024, "num_attention_heads": 16}},
            "its U-Net reads text of width 2048, its encoders 1792",
        ),
        (
            "sdxl",
            {"text_encoder_2/config.json": {"projection_dim": 1024}},
            "its U-Net is told 2816 numbers, its encoders 2560",
        ),
        (
            "sdxl",
            {UNET: {"addition_time_embed_dim": 128}},
            "its U-Net is told 2816 numbers, its encoders 2048",
        ),
        (
            "sdxl",
            {TEXT: {"max_position_embeddings": 248}},
            "prompts of different length, 248 and 77",
        ),
        (
            "sd15",
            {VAE: {"latent_channels": 16}},
            "its U-Net takes 4 channels and gives 4, its pictures 16",
        ),
        (
            "sd15",
            {UNET: {"out_channels": 5}},
            "its U-Net takes 4 channels and gives 5, its pictures 4",
        ),
        ("sd15", {UNET: {"sample_size": 4096}}, "its pictures would be 32768 pixels wide"),
    ],
)
def test_parts_that_do_not_belong_together(
    tmp_path: Path, model: str, changes: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        opened(tmp_path / "model", model, changes)
    assert str(tmp_path / "model") in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "attention_head_dim",
        "cross_attention_dim",
        "layers_per_block",
        "num_attention_heads",
        "sample_size",
    ],
)
def test_lists_in_lists_are_another_network_not_a_mistake(tmp_path: Path, key: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=rf'{UNET}: "{key}" is \[\[2, 2\], .* not supp'):
        opened(tmp_path / "model", "sd15", {UNET: {key: [[2, 2], [2, 2], [2, 2], [2, 2]]}})


def test_a_conditioning_without_its_sizes_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"addition_time_embed_dim" is missing'):
        opened(tmp_path / "model", "sdxl", {UNET: {"addition_time_embed_dim": None}})


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (TEXT, {"num_hidden_layers": 10**9}),
        (UNET, {"layers_per_block": 10**9}),
        (UNET, {"block_out_channels": [320] * 100_000}),
        (VAE, {"layers_per_block": 10**9}),
        (NOISE, {"num_train_timesteps": 10**9}),
    ],
)
def test_a_model_of_a_billion_layers_costs_no_time_and_no_memory(
    tmp_path: Path, file: str, changes: dict[str, Any]
) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ConfigError):
        opened(tmp_path / "model", "sd15", {file: changes})
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 2  # of a cold start; after it, it is some milliseconds
    assert peak < 64 << 20
