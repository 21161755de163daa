"""diffgen.weights.diffusers.configs and unet_config: real JSON files, and what they may get wrong.

tests/data/configs holds the configs of public models.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_unets import REAL

from diffgen.errors import ConfigError, UnsupportedCheckpoint, WeightsError
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.layout import unet_json
from diffgen.weights.diffusers.unet_config import read_unet_config

CONFIGS = Path(__file__).parents[2] / "data" / "configs"

SDXL_UNET = replace(REAL["sdxl"], sample_size=128)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """edited(model, file, **changes): a copy of a model's configs with one file changed."""

    def edit(model: str, file: str, **changes: Any) -> Path:
        folder = tmp_path / model
        shutil.copytree(CONFIGS / model, folder)
        data = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps(data))
        return folder

    return edit


def unet_config(**options: Any) -> UNetConfig:
    return read_unet_config(JsonObject(Path("unet/config.json"), {"sample_size": 64} | options))


def test_sd15() -> None:
    assert read_model_config(CONFIGS / "sd15") == ModelConfig(
        family="sd1",
        text=(ClipTextConfig(),),
        unet=UNetConfig(),
        vae=VaeConfig(),
        schedule=NoiseConfig(final_alpha_one=False, steps_offset=1, sampler="plms"),
    )


def test_sd21() -> None:
    encoder = ClipTextConfig(width=1024, layers=23, num_heads=16, mlp_width=4096, activation="gelu")
    assert read_model_config(CONFIGS / "sd21") == ModelConfig(
        family="sd2",
        text=(encoder,),
        unet=UNetConfig(
            sample_size=96,
            num_heads=(5, 10, 20, 20),
            context_dim=1024,
            linear_projection=True,
            upcast_attention=True,
        ),
        vae=VaeConfig(),
        schedule=NoiseConfig(prediction="v", final_alpha_one=False, steps_offset=1),
    )


def test_sdxl() -> None:
    second = ClipTextConfig(
        width=1280,
        layers=32,
        num_heads=20,
        mlp_width=5120,
        activation="gelu",
        hidden="penultimate",
        projection=1280,
    )
    assert read_model_config(CONFIGS / "sdxl") == ModelConfig(
        family="sdxl",
        text=(ClipTextConfig(hidden="penultimate"), second),
        unet=SDXL_UNET,
        vae=VaeConfig(scaling_factor=0.13025, force_upcast=True),
        schedule=NoiseConfig(final_alpha_one=False, steps_offset=1, sampler="euler"),
        zero_empty_prompt=True,
    )


def test_a_unet_without_mid_block() -> None:
    config = read_unet_config(JsonObject.read(CONFIGS / "bk-sdm-tiny" / "unet.json"))
    assert config == UNetConfig(
        channels=(320, 640, 1280),
        blocks=(1, 1, 1),
        depth=(1, 1, 1),
        mid_depth=None,
        num_heads=(8, 8, 8),
    )


def test_attention_in_the_middle_levels_only() -> None:
    config = read_unet_config(JsonObject.read(CONFIGS / "sdxl-refiner" / "unet.json"))
    assert (config.depth, config.up_depth, config.mid_depth) == ((0, 4, 4, 0), None, 4)
    assert config.num_heads == (6, 12, 24, 24)


def test_defaults_of_the_unet_class() -> None:
    assert unet_config() == UNetConfig(context_dim=1280)


def test_up_path_with_depths_of_its_own() -> None:
    config = unet_config(
        block_out_channels=[32, 64],
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        transformer_layers_per_block=[1, 2],
        reverse_transformer_layers_per_block=[3, 4],
    )
    assert (config.depth, config.up_depth) == ((1, 0), (4, 3))


def test_head_counts() -> None:
    assert unet_config(attention_head_dim=5).num_heads == (5, 5, 5, 5)
    both = unet_config(attention_head_dim=5, num_attention_heads=[1, 2, 4, 8])
    assert both.num_heads == (1, 2, 4, 8)


def test_mid_block_without_attention() -> None:
    assert unet_config(mid_block_type="UNetMidBlock2D").mid_depth == 0


def test_guidance_embedding() -> None:
    assert unet_config(time_cond_proj_dim=256).guidance_dim == 256


def test_one_number_written_as_a_list() -> None:
    config = unet_config(sample_size=[64, 64], cross_attention_dim=[768] * 4)
    assert (config.sample_size, config.context_dim) == (64, 768)


@pytest.mark.parametrize(("size", "taken"), [([64, 96], 64), ([96, 64], 64), (None, 64)])
def test_a_size_that_only_recommends_is_never_refused(size: object, taken: int) -> None:
    assert unet_config(sample_size=size).sample_size == taken


def test_one_choice_written_for_each_level() -> None:
    assert unet_config(only_cross_attention=[False] * 4) == unet_config()


def test_the_config_of_both_halves_of_clip(edited: Callable[..., Path]) -> None:
    text = json.loads((CONFIGS / "sd15" / "text_encoder" / "config.json").read_text())
    folder = edited(
        "sd15", "text_encoder/config.json", model_type="clip", hidden_size=1, text_config=text
    )
    assert read_model_config(folder) == read_model_config(CONFIGS / "sd15")


@pytest.mark.parametrize(
    "option",
    [
        {"class_embed_type": "timestep"},
        {"encoder_hid_dim": 1024},
        {"addition_embed_type": "image"},
        {"resnet_time_scale_shift": "scale_shift"},
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"down_block_types": ["AttnDownBlock2D"] * 4},
        {"up_block_types": ["AttnUpBlock2D"] * 4},
        {"only_cross_attention": True},
        {"cross_attention_dim": [768, 768, 768, 1024]},
        {"only_cross_attention": [False, True, False, False]},
    ],
)
def test_networks_that_ours_is_not(option: dict[str, Any]) -> None:
    (key,) = option
    with pytest.raises(UnsupportedCheckpoint, match=f'unet/config.json: "{key}" is .* not support'):
        unet_config(**option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"layers_per_block": [1, 2]}, '"layers_per_block" has 2 entries where .* has 4'),
        ({"down_block_types": ["DownBlock2D"]}, '"down_block_types" has 1 entries'),
        ({"in_channels": "4"}, '"in_channels" should be a whole number, not "4"'),
        ({"in_channels": True}, '"in_channels" should be a whole number, not true'),
        ({"use_linear_projection": 1}, '"use_linear_projection" should be true or false, not 1'),
        ({"norm_eps": "tiny"}, '"norm_eps" should be a number'),
    ],
)
def test_malformed_options(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unet_config(**option)


def test_a_model_of_no_known_family(edited: Callable[..., Path]) -> None:
    folder = edited("sd15", "unet/config.json", cross_attention_dim=256)
    assert read_model_config(folder).family == "custom"


@pytest.mark.parametrize("entry", [None, [None, None]])
def test_no_vae_means_pixels(edited: Callable[..., Path], entry: object) -> None:
    folder = edited("sd15", "model_index.json", vae=entry)
    scheduler = {"_class_name": "DDPMScheduler", "prediction_type": "epsilon"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDPMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))

    config = read_model_config(folder)
    assert config.vae is None
    assert config.factor == 1
    assert config.schedule.clip == 1.0
    assert config.schedule.steps_offset == 0


def test_stable_diffusion_pipelines_override_clip_and_offset(edited: Callable[..., Path]) -> None:
    """diffusers' StableDiffusionPipeline repairs the first schedulers; SDXL's does not."""
    old = {"clip_sample": True, "steps_offset": 0}
    schedule = read_model_config(edited("sd21", "scheduler/scheduler_config.json", **old)).schedule
    assert (schedule.clip, schedule.steps_offset) == (None, 1)
    sdxl = edited("sdxl", "scheduler/scheduler_config.json", **old)
    assert read_model_config(sdxl).schedule.steps_offset == 0


def test_force_upcast_is_believed_for_sdxl_only(edited: Callable[..., Path]) -> None:
    sd15 = read_model_config(edited("sd15", "vae/config.json", force_upcast=True))
    assert sd15.vae == VaeConfig(force_upcast=False)
    fixed = read_model_config(edited("sdxl", "vae/config.json", force_upcast=False))
    assert fixed.vae == VaeConfig(scaling_factor=0.13025, force_upcast=False)


def test_options_of_newer_vaes(edited: Callable[..., Path]) -> None:
    folder = edited(
        "sdxl",
        "vae/config.json",
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        latents_mean=[0, 1.5, 2, 3],
        latents_std=[1, 1, 1, 1],
    )
    vae = read_model_config(folder).vae
    assert vae == VaeConfig(
        mid_attention=False,
        quant_conv=False,
        post_quant_conv=False,
        scaling_factor=0.13025,
        shift_factor=0.1,
        latents_mean=(0.0, 1.5, 2.0, 3.0),
        latents_std=(1.0, 1.0, 1.0, 1.0),
        force_upcast=True,
    )


def test_empty_negative_prompts_of_sdxl(edited: Callable[..., Path]) -> None:
    folder = edited("sdxl", "model_index.json", force_zeros_for_empty_prompt=False)
    base = read_model_config(CONFIGS / "sdxl")
    assert read_model_config(folder) == replace(base, zero_empty_prompt=False)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, '"_class_name" is "FluxPipeline"'),
        ("model_index.json", {"requires_aesthetics_score": True}, '"requires_aesthetics_score"'),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "T5EncoderM"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "AutoencoderTiny"),
        ("vae/config.json", {"down_block_types": ["DownEncoderBlock2D"]}, '"down_block_types"'),
        ("vae/config.json", {"act_fn": "relu"}, '"act_fn" is "relu"'),
        ("text_encoder/config.json", {"hidden_act": "relu"}, '"hidden_act" is "relu"'),
        ("unet/config.json", {"class_embed_type": "identity"}, '"class_embed_type"'),
    ],
)
def test_models_of_another_kind(
    edited: Callable[..., Path], file: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=rf"sdxl/{file}: .*{message}"):
        read_model_config(edited("sdxl", file, **change))


def test_a_malformed_entry_of_the_index(edited: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r'"vae" should be \["library", "class"\]'):
        read_model_config(edited("sd15", "model_index.json", vae="AutoencoderKL"))


def test_malformed_json_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{\n "_class_name":\n}')
    with pytest.raises(ConfigError, match=r"model_index\.json:3: not valid JSON"):
        read_model_config(tmp_path)


def test_a_missing_component(edited: Callable[..., Path]) -> None:
    folder = edited("sd15", "model_index.json")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"vae/config\.json is missing"):
        read_model_config(folder)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model_index\.json; a model folder .* holds"):
        read_model_config(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none does not exist"):
        read_model_config(tmp_path / "none")


def test_a_folder_around_a_single_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "v1-5-pruned.safetensors").touch()
    with pytest.raises(WeightsError, match=r"if v1-5-pruned\.safetensors is the model, name it"):
        read_model_config(tmp_path)


def test_a_single_pickle(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(WeightsError, match=r"model\.ckpt is a pickle"):
        read_model_config(tmp_path / "model.ckpt")


SSD_1B = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}


def test_blocks_of_one_level_may_differ_in_depth(tmp_path) -> None:
    config = unet_config(**SSD_1B)
    assert config.depth == (0, (2, 2), (4, 4))
    assert config.up_depth == (0, (2, 1, 1), (4, 4, 10))
    assert config.mid_depth == 0
    (tmp_path / "config.json").write_text(json.dumps(unet_json(config)))
    assert read_unet_config(JsonObject.read(tmp_path / "config.json")) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reverse_transformer_layers_per_block": None}, '"reverse_trans.*" is missing'),
        ({"transformer_layers_per_block": [1, [2, 2, 2], [4, 4]]}, "3 entries for 2 blocks"),
        ({"transformer_layers_per_block": [1, [2, 0], [4, 4]]}, "0 beside others"),
        ({"transformer_layers_per_block": [1, [2, "x"], [4, 4]]}, "should be whole numbers"),
        ({"transformer_layers_per_block": [1, [2, 999], [4, 4]]}, "from 0 to 256"),
    ],
)
def test_uneven_depths_that_make_no_network(change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        unet_config(**{**SSD_1B, **change})


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("sd15", "StableDiffusionControlNetPipeline"),
        ("sd15", "StableDiffusionControlNetImg2ImgPipeline"),
        ("sdxl", "StableDiffusionXLControlNetUnionInpaintPipeline"),
        ("sdxl", "StableDiffusionXLPAGPipeline"),
        ("sd15", "StableDiffusionPipelineSafe"),
        ("sd15", "StableDiffusionLongPromptWeightingPipeline"),
        ("sdxl", "StableDiffusionXLDifferentialImg2ImgPipeline"),
    ],
)
def test_pipelines_with_networks_beside(edited, caplog, base: str, name: str) -> None:
    folder = edited(base, "model_index.json", _class_name=name)
    assert read_model_config(folder) == read_model_config(CONFIGS / base)
    assert f"is a {name}: only its text encoders, U-Net" in caplog.text


def test_a_pipeline_with_code_of_its_own(edited) -> None:
    folder = edited("sdxl", "model_index.json", _class_name=["mine", "StableDiffusionXLPipeline"])
    assert read_model_config(folder) == read_model_config(CONFIGS / "sdxl")


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusion3Pipeline",
        "StableDiffusionXLFooPipeline",
        "StableDiffusionUpscalePipeline",
        "StableDiffusionLDM3DPipeline",
        ["mine", "MyPipeline"],
        "",
    ],
)
def test_pipelines_that_nobody_knows(edited, name: str | list[str]) -> None:
    with pytest.raises(UnsupportedCheckpoint, match='"_class_name"'):
        read_model_config(edited("sd15", "model_index.json", _class_name=name))
