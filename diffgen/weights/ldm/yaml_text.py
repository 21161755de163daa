"""What a YAML says of text encoders: the layer that is read, where shapes cannot tell it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffgen.errors import shown

logger = logging.getLogger("diffgen")

CLIP, OPEN_CLIP = "FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder"
# What the families' own files say, and what they leave out.
USUAL = {CLIP: ("", "last"), OPEN_CLIP: ("", "penultimate")}
OF_XL = ("hidden", "11")  # of twelve layers: the last but one
ARCHITECTURES = ("ViT-H-14", "ViT-bigG-14", "ViT-L-14")


def text_claims(path: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """The clip skip that a YAML asks for; another layer, or another encoder, is warned of."""
    found: dict[str, Any] = {}
    for kind, given in _encoders(params):
        layer = str(given.get("layer") or "").lower()
        index = str(given.get("layer_idx"))
        if kind == CLIP and layer == "penultimate":
            found["clip_skip"] = 2
        elif layer not in USUAL[kind] and (kind != CLIP or (layer, index) != OF_XL):
            logger.warning(
                "%s: the text encoder's layer %s is not read as it says; --clip-skip names a layer "
                "from the end",
                path,
                shown(f"{layer} {index}" if "layer_idx" in given else layer),
            )
        arch = given.get("arch")
        if kind == OPEN_CLIP and arch is not None and arch not in ARCHITECTURES:
            logger.warning(
                "%s: the text encoder %s is not known, and read as one of %s",
                path,
                shown(arch),
                ", ".join(ARCHITECTURES),
            )
    return found


def _encoders(params: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The class and the parameters of each text encoder, in the YAMLs of LDM and SGM."""
    conditioner = params.get("conditioner_config")
    inner = conditioner.get("params") if isinstance(conditioner, dict) else None
    several = inner.get("emb_models") if isinstance(inner, dict) else None
    for each in [params.get("cond_stage_config"), *(several if isinstance(several, list) else [])]:
        if isinstance(each, dict):
            name = str(each.get("target") or "").rpartition(".")[2].removesuffix("2")
            given = each.get("params")
            if name in USUAL and isinstance(given, dict):
                yield name, given
