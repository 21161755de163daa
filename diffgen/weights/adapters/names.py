"""Names of layers and adapter parts in LoRA files, mapped to canonical ones.

A key is a layer's name and a part's. Both occur with dots or underscores, with or without a prefix
for the network, under names of several versions of diffusers, of transformers or LDM.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from diffgen.models.config import ModelConfig
from diffgen.types import Component
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

Layer: TypeAlias = tuple[Component, str]  # by its canonical name

PREFIXES: Mapping[Component, tuple[str, ...]] = {
    "unet": (
        *("", "unet", "lora_unet", "lycoris", "lycoris_unet", "diffusion_model", "oft_unet"),
        *("unet_unet", "lora_unet_unet"),  # of a version of diffusers that doubled it
    ),
    "text_encoder": (
        *("text_encoder", "lora_te", "lora_te1", "te", "te1", "lora_text_encoder", "clip_l"),
        *("lycoris_te", "lycoris_te1", "lycoris_text_encoder", "text_encoders_clip_l_transformer"),
        *("text_encoder_1", "lora_clip_l", "clip_h", "lora_clip_h", "oft_te", "oft_te1"),
        *("cond_stage_model_transformer", "cond_stage_model", "conditioner_embedders_0"),
        *("conditioner_embedders_0_transformer", "text_encoders_clip_h_transformer"),
    ),
    "text_encoder_2": (
        *("text_encoder_2", "lora_te2", "te2", "lora_text_encoder_2", "clip_g", "lora_clip_g"),
        *("lycoris_te2", "lycoris_text_encoder_2", "text_encoders_clip_g_transformer"),
        *("conditioner_embedders_1", "conditioner_embedders_1_transformer", "oft_te2"),
        *("cond_stage_model_1", "cond_stage_model_1_transformer"),  # of stable-diffusion.cpp
    ),
}
# A refiner's only encoder is the second one of SDXL.
OF_REFINER = ("", "lora_te", "te", "conditioner_embedders_0", *PREFIXES["text_encoder_2"])
WRAPPERS = re.compile(r"^(?:(?:base_model_)?model_)+")  # of PEFT, and of a whole LDM model

# Suffixes after a layer's name, and the adapter part of each; the first match counts.
_NAMED = r"(?:\.[\w-]+)?"  # PEFT's name of the adapter
PARTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(.+?){pattern}"), part)
    for pattern, part in (
        (rf"\.lora_B{_NAMED}\.bias", "bias"),
        (rf"\.oft_R{_NAMED}(?:\.weight)?", "turns"),
        (rf"\.boft_R{_NAMED}", "butterfly"),
        (rf"\.boft_s{_NAMED}", "rows"),
        (rf"\.ia3_l{_NAMED}", "scales"),
        (r"\.set_weight", "whole"),
        (r"[._]lora(?:_linear_layer)?[._]down(?:\.weight)?", "down"),
        (r"[._]lora(?:_linear_layer)?[._]up(?:\.weight)?", "up"),
        (r"\.lora_mid(?:\.weight)?", "mid"),
        (rf"\.lora_A{_NAMED}(?:\.weight)?", "down"),
        (rf"\.lora_B{_NAMED}(?:\.weight)?", "up"),
        (rf"\.lora_magnitude_vector{_NAMED}(?:\.weight)?", "magnitude"),
        (rf"\.dora_scale{_NAMED}", "dora_scale"),
        (r"(?:[._]lora)?\.alpha", "alpha"),
        *(
            (rf"\.hada_{name}{_NAMED}", name)
            for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
        ),
        *(
            (rf"\.lokr_{name}{_NAMED}", f"lokr_{name}")
            for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        ),
        (r"\.(?:diff|w_norm)", "diff"),
        (r"\.(?:diff_b|b_norm)", "bias"),
        *((rf"\.{name}(?:\.weight)?", name) for name in ("a1", "a2", "b1", "b2")),
        (r"\.oft_blocks", "blocks"),
        (r"\.rescale", "rescale"),
        (r"\.on_input", "on_input"),
    )
)
# Whole weights and biases that PEFT saves beside its adapters (modules_to_save, bias="all").
WHOLE = re.compile(
    r"(base_model\.model\..+?)(?:\.base_layer|\.modules_to_save(?:\.[\w-]+)?)?\.(weight|bias)"
)
IN_PROJ = "attn.in_proj"
# From canonical names of a text encoder's layers to OpenCLIP's.
_LAYER, _BLOCK = r"text_model\.encoder\.layers\.(\d+)", r"transformer.resblocks.\1"
OPEN_CLIP: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (rf"{_LAYER}\.layer_norm([12])", rf"{_BLOCK}.ln_\2"),
        (rf"{_LAYER}\.mlp\.fc1", rf"{_BLOCK}.mlp.c_fc"),
        (rf"{_LAYER}\.mlp\.fc2", rf"{_BLOCK}.mlp.c_proj"),
        (rf"{_LAYER}\.self_attn\.out_proj", rf"{_BLOCK}.attn.out_proj"),
        (rf"{_LAYER}\.self_attn\.q_proj", rf"{_BLOCK}.{IN_PROJ}"),
        (r"text_model\.final_layer_norm", "ln_final"),
    )
)
TO_Q = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
STRAYS = re.compile(r"(?:.*[._])?(?:position_ids|logit_scale)|bundle_emb\..+|emb_params|clip_[lg]")
# Parts of known but unsupported methods, by the names that their programs use.
UNREAD: Mapping[str, re.Pattern[str]] = {
    "an OFT of PEFT before version 0.16": re.compile(r".+\.oft_r(?:\..+)?"),
    "a VeRA": re.compile(r".+\.vera_(?:lambda_[bd]|[AB])(?:\..+)?"),
    "a FourierFT": re.compile(r".+\.fourierft_spectrum(?:\..+)?"),
    "an HRA": re.compile(r".+\.hra_u(?:\..+)?"),
    "a T-LoRA": re.compile(r".+\.(?:[pq]_layer\.weight|lambda_layer)"),
    "a LoRA of a vocabulary (lora_embedding)": re.compile(r".+\.lora_embedding_[AB](?:\..+)?"),
    "a LyCORIS with sparse biases": re.compile(r".+\.bias_(?:indices|values|size)"),
    "a LyCORIS with learned scalars": re.compile(r".+\.scalar"),
    "a motion LoRA (AnimateDiff)": re.compile(r".*motion_modules\..+"),
    "a hypernetwork": re.compile(r"\d+\.\d+\.linear\..+"),
    "the LoRA of an IP-Adapter (FaceID)": re.compile(r"\d+\.to_[a-z]+_lora\..+"),
    "a Custom Diffusion": re.compile(r".+_custom_diffusion\..+"),
    "a GLIGEN": re.compile(r".+\.fuser\..+"),
    "a Control-LoRA": re.compile(r"lora_controlnet"),
    "a ControlNet LLLite": re.compile(r"lllite_.+"),
    "an IP-Adapter": re.compile(r"(?:image_proj|ip_adapter)\..+"),
}


def split(key: str) -> tuple[str, str] | None:
    """Split a key into its layer, as written, and its part; None for other keys."""
    for pattern, part in PARTS:
        if match := pattern.fullmatch(key):
            return match[1], part
    if match := WHOLE.fullmatch(key):
        return match[1], "whole" if match[2] == "weight" else "whole_bias"
    return None


def flat(name: str) -> str:
    """A layer's name without insignificant differences."""
    name = name.replace(".processor.", ".").replace(".base_model.model.", ".")
    name = name.removesuffix(".processor").replace(".", "_")
    return WRAPPERS.sub("", name)


def layer_table(layers: Iterable[Layer], config: ModelConfig) -> dict[str, tuple[Layer, ...]]:
    """The layers of a model by all their flat names; ambiguous names are left out.

    OpenCLIP's joint name for queries, keys and values maps to three layers, in this order.
    """
    blocks, encoders = ldm_blocks(config.unet), len(config.text)
    table: dict[str, tuple[Layer, ...]] = {}
    shared = set()
    for layer in layers:
        component, name = layer
        prefixes = PREFIXES[component]
        if component == "text_encoder" and encoders == 1:
            prefixes = OF_REFINER if config.is_xl else ("", *prefixes, "clip")
        names = _unet_names(name, blocks) if component == "unet" else _text_names(name)
        found: tuple[Layer, ...] = (layer,)
        if name.endswith("self_attn.q_proj"):
            stem = name.removesuffix("q_proj")
            found = tuple((component, f"{stem}{part}_proj") for part in "qkv")
        for other in names:
            for prefix in prefixes:
                key = flat(f"{prefix}.{other}" if prefix else other)
                these = found if other.endswith(IN_PROJ) else (layer,)
                if table.setdefault(key, these) != these:
                    shared.add(key)
    return {key: these for key, these in table.items() if key not in shared}


def _unet_names(name: str, blocks: Mapping[str, str]) -> Iterator[str]:
    for known in (name, to_ldm(name, blocks)):
        yield known
        if known.endswith(".to_out.0"):
            yield known.removesuffix(".0")
        if re.fullmatch(r"output_blocks\.\d+\.1\.conv", known):
            yield f"{known.removesuffix('.1.conv')}.2.conv"  # OneTrainer's, even without attention


def _text_names(name: str) -> Iterator[str]:
    head, _, last = name.rpartition(".")
    for known in (name, f"{head}.{TO_Q[last]}" if last in TO_Q else name):
        yield known
        yield known.removeprefix("text_model.")
    for pattern, other in OPEN_CLIP:
        if match := pattern.fullmatch(name):
            yield match.expand(other)
            yield match.expand(f"model.{other}")
