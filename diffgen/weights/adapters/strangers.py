"""Models of other architectures, by the names of the layers that their LoRAs change."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffgen.weights.adapters.names import flat, split
from diffgen.weights.files import Shape

_HEAD = r"(?:lora_unet_|diffusion_model_|transformer_|lora_transformer_|lycoris_)?"
# In this order: the first whose pattern begins some flat name.
ARCHITECTURES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(f"{_HEAD}(?:{pattern})")
    for name, pattern in {
        "Chroma": r"distilled_guidance_layer_",
        "Hunyuan Video": r"(?:txt_in|context_embedder)_(?:individual_)?token_refiner|double_blocks_19_",
        "Qwen-Image": r"transformer_blocks_\d+_(?:img|txt)_m(?:lp|od)_",
        "Flux": r"(?:double_blocks|single_blocks|single_transformer_blocks)_\d+_",
        "Stable Diffusion 3": r"joint_blocks_\d+_",
        "Hunyuan-DiT": r"blocks_\d+_attn\d_Wqkv",
        "Wan": r"blocks_\d+_(?:self_attn|cross_attn|attn[12])_",
        "Lumina or Z-Image": r"(?:layers|context_refiner|noise_refiner)_\d+_(?:attention|feed_forward)_",
        "Stable Cascade": r"(?:down|up)_blocks_\d+_\d+_attention_",
        "AuraFlow": r"(?:double_layers|single_layers|joint_transformer_blocks)_\d+_",
    }.items()
}
JOINT = re.compile(_HEAD + r"transformer_blocks_\d+_attn_")  # text and picture attend together
PLAIN = re.compile(_HEAD + r"transformer_blocks_\d+_attn[12]_")
WIDTHS = {1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3", 1152: "PixArt", 2240: "Sana"}
T5 = re.compile(r"lora_te\d?_encoder_block_\d+_layer_\d+_(?:SelfAttention|DenseReluDense)_.+")


def architecture_of(shapes: Mapping[str, Shape]) -> str | None:
    """What a LoRA file is for that is for no U-Net of text and pictures; None if not known."""
    names: dict[str, int] = {}  # and the width of what goes in
    for key, shape in shapes.items():
        name, part = split(key) or ("", "")
        width = shape[1] if part == "down" and len(shape) > 1 else 0
        names[flat(name)] = max(width, names.get(flat(name), 0))
    for architecture, pattern in ARCHITECTURES.items():
        if any(map(pattern.match, names)):
            return architecture
    for name, width in names.items():
        if JOINT.match(name) or PLAIN.match(name):
            other = "Flux or Qwen-Image" if JOINT.match(name) else "a diffusion transformer"
            return WIDTHS.get(width, other)
    if any(map(T5.fullmatch, names)):
        return "a model with a T5 text encoder"
    return None
