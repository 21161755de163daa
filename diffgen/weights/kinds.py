"""Recognise unsupported files by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

A_PART = "it is a part of a model, not a whole one"
# In this order: the first whose names are all present. Names have no whole-file prefixes.
KINDS: Mapping[str, tuple[str, ...]] = {
    "a LoRA; give it with --lora, beside the model it is for": (
        r".+\.(lora_(A|B|up|down)|hada_w1_a|lokr_w1(_a)?|dora_scale)\b",
    ),
    "a VeRA": (r".+\.vera_lambda_[bd]\b",),
    "an IP-Adapter": (r"(image_proj|ip_adapter)\..+",),
    "a ControlNet": (r"(control_model\.)?(input_hint_block|controlnet_cond_embedding)\..+",),
    "a T2I-Adapter": (r"(adapter\.)?body\.0\.(resnets|block1)\..+",),
    "a motion module (AnimateDiff)": (r".*motion_modules\..+",),
    "Stable Video Diffusion": (r".*(time_stack|temporal_transformer_blocks)\..+",),
    "Chroma": (r"distilled_guidance_layer\..+",),
    "Hunyuan Video": (r"txt_in\.individual_token_refiner\..+",),
    "Flux 2": (r"double_blocks\.\d+\.img_.+", r"double_stream_modulation_img\..+"),
    "Flux": (r"double_blocks\.\d+\.img_.+", r"single_blocks\.\d+\..+"),
    "Flux (in diffusers' names)": (
        r"transformer_blocks\.\d+\.attn\.add_q_proj\.weight",
        r"single_transformer_blocks\.\d+\..+",
    ),
    "Qwen-Image": (r"transformer_blocks\.\d+\.attn\.add_q_proj\.weight", r"txt_norm\.weight"),
    "Stable Diffusion 3": (r"joint_blocks\.\d+\..+",),
    "Stable Diffusion 3 (in diffusers' names)": (
        r"transformer_blocks\.\d+\.attn\.add_q_proj\.weight",
        r"pos_embed\.proj\.weight",
    ),
    "LTX-Video": (r"transformer_blocks\.\d+\.scale_shift_table", r"patchify_proj\.weight"),
    "Sana": (r"transformer_blocks\.\d+\.scale_shift_table", r"caption_norm\..+"),
    "PixArt": (
        r"(transformer_)?blocks\.\d+\.scale_shift_table",
        r"(y_embedder\.y_proj|caption_projection)\..+",
    ),
    "Wan": (r"blocks\.\d+\.cross_attn\.norm_k\.weight", r"patch_embedding\.weight"),
    "Wan (in diffusers' names)": (
        r"blocks\.\d+\.attn[12]\..+",
        r"condition_embedder\.text_embedder\..+",
    ),
    "Cosmos": (
        r"(net\.)?blocks\.(block)?\d+\.(adaln_modulation_|blocks\.\d+\.).+",
        r"(net\.)?x_embedder\.proj\.1\.weight",
    ),
    "HiDream": (r"double_stream_blocks\.\d+\..+", r"single_stream_blocks\.\d+\..+"),
    "OmniGen": (r"time_caption_embed\..+", r"(layers|noise_refiner)\.\d+\..+"),
    "CogVideoX or CogView": (r"transformer_blocks\.\d+\..+", r"patch_embed\.text_proj\..+"),
    "Mochi": (r"blocks\.\d+\.attn\.qkv_x\.weight",),
    "Hunyuan-DiT": (r"mlp_t5\.0\.weight",),
    "AuraFlow": (r"double_layers\.\d+\..+", r"init_x_linear\..+"),
    "Lumina or Z-Image": (r"cap_embedder\.\d+\.weight",),
    "Stable Cascade": (r"(clip_txt_mapper|clip_mapper|clf\.1)\..+",),
    "Kandinsky 2": (r"encoder_hid_proj\.(image_embeds|image_proj)\..+",),
    "DeepFloyd IF": (r"encoder_hid_proj\.weight", r"add_embedding\.(norm1|pool)\..+"),
    "Kolors": (r"encoder_hid_proj\.weight",),
    "an upscaler": (r"(model\.1\.sub\.0|RDB1|body\.0\.rdb1|conv_first)\..*",),
    "an autoencoder for video": (
        r"(en|de)coder\.(conv_in\.conv|conv1|downsamples\.\d+|upsamples\.\d+)\..+",
    ),
    "a hypernetwork": (r"(768|320|640|1024|1280)\.[01]\.(linear\.)?\d*\.?(weight|bias)",),
    "a safety checker": (r"concept_embeds", r"special_care_embeds"),
    "a language model": (r"(language_model\.)?layers\.\d+\.self_attn\.q_proj\..+",),
    "a tiny decoder (TAESD); give it with --decoder": (
        r"(taesd_)?(decoder\.)?(layers\.)?\d+\.conv\.\d+\.weight",
    ),
    "an autoencoder; give it with --vae, beside a model": (
        r"decoder\.conv_in\.weight",
        r"decoder\.conv_out\.weight",
    ),
    "an embedding; give it with --embedding, beside a model": (
        r"emb_params|string_to_param.*|clip_l|clip_g|<.+>",
    ),
    "a T5 text encoder": (r"(encoder\.)?block\.0\.layer\.0\.SelfAttention\.q\.weight",),
    f"a CLIP text encoder; {A_PART}": (
        r"(text_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight",
    ),
    f"an OpenCLIP text encoder; {A_PART}": (
        r"transformer\.resblocks\.0\..+",
        r"token_embedding\..+",
    ),
    "a CLIP image encoder": (r"(vision_model\..+|(visual\.)?transformer\.resblocks\.0\..+)",),
}
PREFIXES = re.compile(r"^(model\.diffusion_model|diffusion_model|first_stage_model|vae|model)\.")


def foreign_kind(keys: Iterable[str]) -> str | None:
    """The same for what is for other programs, without advice; None for what is for diffgen."""
    kind = kind_of(keys)
    return None if kind is None or ";" in kind else kind


def kind_of(keys: Iterable[str]) -> str | None:
    """The kind of a file, for an error line; None if it is unknown."""
    names = [*keys]
    bare = {*names, *(PREFIXES.sub("", name) for name in names)}
    for kind, patterns in KINDS.items():
        tests = map(re.compile, patterns)
        if all(any(map(test.match, bare)) for test in tests):
            return kind
    return None
