"""diffgen.weights.kinds: files of other kinds are called by their names."""

import pytest

from diffgen.weights.contents import contents_of
from diffgen.weights.kinds import KINDS, foreign_kind, kind_of

# A few names of real files of each kind, as their makers' code writes them.
FILES = {
    "Flux": [
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "single_blocks.0.linear1.weight",
        "img_in.weight",
    ],
    "Flux (in diffusers' names)": [
        "transformer_blocks.0.attn.add_q_proj.weight",
        "single_transformer_blocks.0.attn.to_q.weight",
    ],
    "Stable Diffusion 3": [
        "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
        "model.diffusion_model.pos_embed",
        "first_stage_model.decoder.conv_in.weight",
        "first_stage_model.decoder.conv_out.weight",
    ],
    "PixArt": [
        "blocks.0.scale_shift_table",
        "y_embedder.y_proj.fc1.weight",
    ],
    "Wan": ["blocks.0.cross_attn.norm_k.weight", "patch_embedding.weight"],
    "Qwen-Image": ["transformer_blocks.0.attn.add_q_proj.weight", "txt_norm.weight"],
    "LTX-Video": ["transformer_blocks.0.scale_shift_table", "patchify_proj.weight"],
    "a VeRA": ["base_model.model.x.to_q.vera_lambda_b", "base_model.vera_A"],
    "an IP-Adapter": ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"],
    "a ControlNet": ["input_hint_block.0.weight", "input_blocks.0.0.weight"],
    "an autoencoder; give it with --vae, beside a model": [
        "decoder.conv_in.weight",
        "decoder.conv_out.weight",
        "encoder.conv_in.weight",
    ],
    "a LoRA; give it with --lora, beside the model it is for": [
        "transformer.x.lora_A.weight",
        "transformer.x.lora_B.weight",
    ],
    "an embedding; give it with --embedding, beside a model": ["emb_params"],
    "Flux 2": [
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "double_stream_modulation_img.lin.weight",
        "single_blocks.0.linear1.weight",
    ],
    "Chroma": [
        "distilled_guidance_layer.in_proj.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "single_blocks.0.linear1.weight",
    ],
    "Hunyuan Video": [
        "txt_in.individual_token_refiner.blocks.0.norm1.weight",
        "double_blocks.0.img_attn_qkv.weight",
        "single_blocks.0.linear1.weight",
    ],
    "Wan (in diffusers' names)": [
        "blocks.0.attn1.to_q.weight",
        "condition_embedder.text_embedder.linear_1.weight",
    ],
    "Sana": [
        "transformer_blocks.0.scale_shift_table",
        "caption_norm.weight",
        "caption_projection.linear_1.weight",
    ],
    "Cosmos": ["blocks.0.adaln_modulation_mlp.1.weight", "x_embedder.proj.1.weight"],
    "HiDream": ["double_stream_blocks.0.block.a.weight", "single_stream_blocks.0.block.a.weight"],
    "OmniGen": ["time_caption_embed.caption_embedder.0.weight", "layers.0.attn.to_q.weight"],
    "CogVideoX or CogView": [
        "transformer_blocks.0.attn1.to_q.weight",
        "patch_embed.text_proj.weight",
    ],
    "Mochi": ["blocks.0.attn.qkv_x.weight"],
    "Lumina or Z-Image": ["cap_embedder.0.weight", "layers.0.attention.qkv.weight"],
    "DeepFloyd IF": ["encoder_hid_proj.weight", "add_embedding.norm1.weight"],
    "Kandinsky 2": ["encoder_hid_proj.image_embeds.weight"],
    "Kolors": ["encoder_hid_proj.weight", "add_embedding.linear_1.weight"],
    "an autoencoder for video": ["decoder.conv1.weight", "encoder.downsamples.0.residual.0.gamma"],
    "a hypernetwork": ["768.0.linear.0.weight"],
    "a safety checker": [
        "concept_embeds",
        "special_care_embeds",
        "vision_model.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    ],
    "a language model": ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"],
    "a CLIP image encoder": ["vision_model.encoder.layers.0.self_attn.q_proj.weight"],
    "an OpenCLIP text encoder; it is a part of a model, not a whole one": [
        "transformer.resblocks.0.attn.in_proj_weight",
        "token_embedding.weight",
    ],
    "a T5 text encoder": ["encoder.block.0.layer.0.SelfAttention.q.weight"],
    "a CLIP text encoder; it is a part of a model, not a whole one": [
        "text_model.encoder.layers.0.self_attn.q_proj.weight"
    ],
    "an upscaler": ["model.1.sub.0.RDB1.conv1.0.weight"],
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_called_by_its_name(kind):
    assert kind_of(FILES[kind]) == kind
    if ";" not in kind:
        shapes = dict.fromkeys(FILES[kind], (4, 768))
        assert contents_of(shapes).named == foreign_kind(FILES[kind]) == kind


@pytest.mark.parametrize(
    "names",
    [
        ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.ln_final.bias"],
        ["something.else.weight"],
        [],
    ],
)
def test_what_nobody_knows_has_no_name(names):
    assert kind_of(names) is None


def test_advice_is_given_where_there_is_some():
    assert all(kind[0].isupper() or kind.startswith(("a ", "an ")) for kind in KINDS)
