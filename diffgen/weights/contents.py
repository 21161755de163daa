"""What a weights file holds, by the names and shapes of its tensors alone.

For listings and reports: it classifies every file, also files that cannot be opened as models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffgen.errors import UnsupportedCheckpoint
from diffgen.weights.files import Shape
from diffgen.weights.kinds import foreign_kind, kind_of
from diffgen.weights.ldm.roots import rooted

Shapes: TypeAlias = Mapping[str, Shape]
# What an error line says of a file given in another's place, with the option for it.
CALLED = {
    "model": "a whole model; give it with -m",
    "unet": "a U-Net; give it with -m, beside a --base",
    "text encoder": "a text encoder",
    "vae": "an autoencoder; give it with --vae",
    "decoder": "a tiny decoder; give it with --decoder",
    "lora": "a LoRA; give it with --lora",
    "embedding": "an embedding; give it with --embedding",
}
Holds: TypeAlias = Literal[
    "model", "unet", "text encoder", "vae", "decoder", "lora", "embedding", "unknown"
]

# Width of the text that a U-Net of each family reads; 1280 is the refiner's.
CONTEXT: Mapping[int, str] = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl"}
LORA = re.compile(
    r"(lora|lycoris|oft|hada|lokr)_.+|.+\.(lora[._].+|hada_.+|lokr_.+|b?oft_.+|ia3_l.*|dora_scale|alpha"
    r"|set_weight|diff|diff_b|w_norm|b_norm|on_input)"
)
ATTENTION = re.compile(r".*attn2[._]to_k(\.lora[._](?:down|A)|_lora\.down)?(\.\w+)?(\.weight)")
EMBEDDING = re.compile(r"emb_params|string_to_param.*|clip_[lg]|<.+>")
UNET = re.compile(r"(model\.diffusion_model\.|unet\.)?(input_blocks|down_blocks)\..+")
ENCODER = re.compile(
    r"(cond_stage_model|conditioner|text_encoders?|text_model|transformer|embeddings)\..+"
)
AUTOENCODER = re.compile(
    r"(first_stage_model\.|vae\.)?(en|de)coder\.(conv_in|down|mid|up|norm_out).*"
)
UP = "model.diffusion_model.output_blocks.0.0.in_layers.0.weight"  # ControlNets have none
TINY = re.compile(r"(taesd_)?((en|de)coder\.layers\.)?\d+\.(conv\.\d+\.)?(weight|bias)")


@dataclass(frozen=True, slots=True)
class Contents:
    """The kind of a file, and its family; `named` names a kind that diffgen does not run."""

    holds: Holds
    family: str | None = None
    layout: str | None = None
    named: str | None = None

    @property
    def called(self) -> str | None:
        """Its name in error lines; None if it is unknown."""
        return self.named or CALLED.get(self.holds)


def contents_of(shapes: Shapes) -> Contents:
    """Classify a file by the names and shapes of its tensors."""
    whole = _as_whole_models(shapes)
    holds = _holds(whole)
    if holds != "lora" and UP not in whole and (kind := foreign_kind(shapes)):
        return Contents("unknown", named=kind)
    if holds == "unknown":
        kind = kind_of(shapes)
        return Contents(holds, named=kind and kind.partition(";")[0])
    return Contents(holds, _family(shapes, holds), _layout(shapes, holds))


def _as_whole_models(shapes: Shapes) -> Shapes:
    try:
        return rooted(shapes)
    except UnsupportedCheckpoint:  # opening it will report the error
        return shapes


def _holds(shapes: Shapes) -> Holds:
    if UP not in shapes and any(LORA.fullmatch(key) for key in shapes):
        return "lora"
    found = {
        "unet": any(UNET.fullmatch(key) for key in shapes),
        "text encoder": any(ENCODER.fullmatch(key) for key in shapes),
        "vae": any(AUTOENCODER.fullmatch(key) for key in shapes),
    }
    if found["unet"]:
        return "model" if found["text encoder"] or found["vae"] else "unet"
    if found["vae"] or found["text encoder"]:
        return "vae" if found["vae"] else "text encoder"
    if shapes and all(TINY.fullmatch(key) for key in shapes):
        return "decoder"
    small = len(shapes) == 1 and all(len(shape) <= 2 for shape in shapes.values())
    return "embedding" if small or any(map(EMBEDDING.fullmatch, shapes)) else "unknown"


def _family(shapes: Shapes, holds: Holds) -> str | None:
    if holds == "embedding":
        widths = {shape[-1] for shape in shapes.values() if shape}
        return "sdxl" if "clip_g" in shapes else CONTEXT.get(max(widths, default=0))
    for key, shape in shapes.items():
        if ATTENTION.fullmatch(key) and len(shape) > 1 and shape[1] in CONTEXT:
            return CONTEXT[shape[1]]
    second = any(key.startswith(("conditioner.embedders.1.", "lora_te2_")) for key in shapes)
    return "sdxl" if second else None


def _layout(shapes: Shapes, holds: Holds) -> str | None:
    if holds == "lora":
        kohya = any(key.startswith(("lora_unet_", "lora_te")) for key in shapes)
        return "kohya" if kohya else "diffusers"
    if holds not in ("model", "unet", "vae"):
        return None
    if any(key.startswith("conditioner.") for key in shapes):
        return "SGM"
    old = ("model.diffusion_model.", "input_blocks.", "first_stage_model.", "encoder.down.")
    return "LDM" if any(key.startswith(old) for key in shapes) else "diffusers"
