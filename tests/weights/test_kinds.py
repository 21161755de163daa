"""diffgen.weights.kinds: files of other kinds are called by their names."""

import pytest

from diffgen.weights.kinds import KINDS, kind_of

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
    "a T5 text encoder": ["encoder.block.0.layer.0.SelfAttention.q.weight"],
    "a CLIP text encoder": ["text_model.encoder.layers.0.self_attn.q_proj.weight"],
    "an upscaler": ["model.1.sub.0.RDB1.conv1.0.weight"],
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_called_by_its_name(kind):
    assert kind_of(FILES[kind]) == kind


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
