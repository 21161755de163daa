"""Tiny random models as one file, in the layouts of LDM and SGM, and diffusers' pipelines of them.

What a file does not say is as in the real families (8 heads, or 64 channels to a head; 32 groups;
CLIP's vocabulary), so they are a little larger than those of `tiny_models`. diffusers' converters
read the files in tests/weights/test_single_file.py, so the layout here is not only our own idea.
"""

import re
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file
from tiny_models import SD_NOISE, XL_UNET, random_unet, random_vae, randomized, text_config
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffgen.models.config import UNetConfig
from diffgen.weights.checkpoint import CLIP_TOKENIZER
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

V_BIAS = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
SD_STEPS = {"set_alpha_to_one": False, "steps_offset": 1}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}


def make_pipeline(family: str) -> DiffusionPipeline:
    """`sd1`, `sd2` (v-prediction) or `sdxl`."""
    pipeline = {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl}[family]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sd1() -> StableDiffusionPipeline:
    torch.manual_seed(11)
    unet = random_unet(
        block_out_channels=(64, 128),
        norm_num_groups=32,
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    scheduler = PNDMScheduler(**SD_NOISE, **SD_STEPS, skip_prk_steps=True)
    return _plain(unet, randomized(CLIPTextModel(text_config(**TEXT))), _tokenizer(), scheduler)


def _sd2() -> StableDiffusionPipeline:
    torch.manual_seed(12)
    unet = random_unet(
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=2,
        norm_num_groups=32,
        cross_attention_dim=64,
        attention_head_dim=[1, 1, 1, 1],
        use_linear_projection=True,
        upcast_attention=True,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    spread = unet.get_parameter(V_BIAS)
    spread.data *= 0.2 / spread.data.std()
    text = randomized(CLIPTextModel(text_config(**TEXT, hidden_act="gelu")))
    scheduler = DDIMScheduler(
        **SD_NOISE, **SD_STEPS, prediction_type="v_prediction", clip_sample=False
    )
    return _plain(unet, text, _tokenizer("!"), scheduler)


def _plain(unet, text_encoder, tokenizer, scheduler) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=random_vae(scaling_factor=0.18215, channels=(32, 64, 64), groups=32),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> StableDiffusionXLPipeline:
    torch.manual_seed(13)
    second = text_config(**TEXT, hidden_act="gelu", projection_dim=64)
    return StableDiffusionXLPipeline(
        vae=random_vae(scaling_factor=0.13025, channels=(32, 64, 64), groups=32),
        text_encoder=randomized(CLIPTextModel(text_config(**TEXT))),
        text_encoder_2=randomized(CLIPTextModelWithProjection(second)),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer("!"),
        unet=random_unet(
            block_out_channels=(64, 128),
            norm_num_groups=32,
            cross_attention_dim=128,
            attention_head_dim=[1, 2],
            **XL_UNET,
            projection_class_embeddings_input_dim=64 + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(**SD_NOISE, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def _tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER, pad_token=pad, model_max_length=77)


def single_file_tensors(pipeline: DiffusionPipeline, family: str) -> dict[str, Tensor]:
    """The pipeline's weights under the names of the family's original files."""
    tensors = {
        f"model.diffusion_model.{key}": tensor for key, tensor in _ldm_unet(pipeline.unet).items()
    }
    tensors |= {f"first_stage_model.{key}": t for key, t in _ldm_vae(pipeline.vae).items()}
    if family == "sd1":
        tensors |= _under("cond_stage_model.transformer.text_model.", _clip(pipeline.text_encoder))
    elif family == "sd2":
        tensors |= _under("cond_stage_model.model.", _open_clip(pipeline.text_encoder, spare=1))
    else:
        first = "conditioner.embedders.0.transformer.text_model."
        tensors |= _under(first, _clip(pipeline.text_encoder))
        tensors |= _under("conditioner.embedders.1.model.", _open_clip(pipeline.text_encoder_2))
    return {key: tensor.contiguous().clone() for key, tensor in tensors.items()}


def write_single_file(path: Path, pipeline: DiffusionPipeline, family: str) -> Path:
    save_file(single_file_tensors(pipeline, family), path)
    return path


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _ldm_unet(unet) -> dict[str, Tensor]:
    given = unet.config
    attends = [
        n if "Cross" in kind else 0
        for n, kind in zip(_layers(given), given.down_block_types, strict=True)
    ]
    config = UNetConfig(
        channels=tuple(given.block_out_channels),
        blocks=(given.layers_per_block,) * len(given.block_out_channels),
        depth=tuple(attends),
    )
    blocks = ldm_blocks(config)
    return {to_ldm(key, blocks): tensor for key, tensor in unet.state_dict().items()}


def _layers(given) -> list[int]:
    layers = given.transformer_layers_per_block
    return list(layers) if not isinstance(layers, int) else [layers] * len(given.block_out_channels)


def _ldm_vae(vae) -> dict[str, Tensor]:
    """By plain replacement; the decoder's levels are counted from the other end."""
    last = len(vae.config.block_out_channels) - 1
    renamed = {}
    for key, tensor in vae.state_dict().items():
        name = re.sub(r"decoder\.up_blocks\.(\d)", lambda m: f"decoder.up.{last - int(m[1])}", key)
        for ours, theirs in (
            ("down_blocks", "down"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("resnets", "block"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            name = name.replace(ours, theirs)
        convolves = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        renamed[name] = tensor[:, :, None, None] if convolves else tensor
    return renamed


def _clip(encoder) -> dict[str, Tensor]:
    return {key.removeprefix("text_model."): tensor for key, tensor in encoder.state_dict().items()}


def _open_clip(encoder, spare: int = 0) -> dict[str, Tensor]:
    """With `spare` layers at the end that nobody uses."""
    state = _clip(encoder)
    made = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        made["text_projection"] = state["text_projection.weight"].T
    layers = encoder.config.num_hidden_layers
    for n in range(layers + spare):
        theirs, ours = f"transformer.resblocks.{n}", f"encoder.layers.{min(n, layers - 1)}"
        for kind in ("weight", "bias"):
            made[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            for a, b in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                made[f"{theirs}.{a}.{kind}"] = state[f"{ours}.{b}.{kind}"]
    return made
