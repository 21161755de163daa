"""Names of weights in files, mapped to canonical names: the keys of diffgen's modules.

Canonical names are those of current diffusers folders, so a folder needs few rules. A layout is a
table of `Rule`s per component.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from diffgen.errors import WeightsError
from diffgen.types import Component
from diffgen.weights.files import Shape, TensorInfo, TensorOp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """Rename a tensor whose whole key matches `pattern` to `name`: a template, or a function.

    A tensor that several rules match becomes several tensors.
    """

    pattern: re.Pattern[str]
    name: str | Callable[[re.Match[str]], str]
    op: TensorOp | None = None


def _matrix_shape(shape: Shape) -> Shape:
    return shape[:2] if set(shape[2:]) == {1} else shape


# A 1x1 convolution is a linear layer with two dimensions of size 1.
AS_MATRIX = TensorOp(shape=_matrix_shape, apply=lambda t: t.reshape(_matrix_shape(tuple(t.shape))))

# Not weights: position ids and CLIP's training temperature.
IGNORED = re.compile(
    r"(.*\.)?(position_ids|logit_scale|vision_model\..+|visual_projection\.weight)"
)

# Saved with some encoders that do not use it.
SPARE = frozenset({"text_projection.weight"})

# Names of an autoencoder's attention layers: canonical, in LDM, in diffusers of 2022.
VAE_ATTENTION: Mapping[str, tuple[str, ...]] = {
    "to_q": ("to_q", "q", "query"),
    "to_k": ("to_k", "k", "key"),
    "to_v": ("to_v", "v", "value"),
    "to_out.0": ("to_out.0", "proj_out", "proj_attn"),
}


def attention_rules(block: str, ours: str) -> tuple[Rule, ...]:
    """Rules for the attention blocks that a pattern matches, under all names of its layers."""
    return tuple(
        Rule(
            re.compile(rf"{block}\.(?:{'|'.join(map(re.escape, spellings))})\.(weight|bias)"),
            rf"{ours}.{name}.\2",
            AS_MATRIX,
        )
        for name, spellings in VAE_ATTENTION.items()
    )


TEXT_RULES = (
    Rule(
        re.compile(r"(?:text_model\.)?((?:embeddings|encoder|final_layer_norm)\..+)"),
        r"text_model.\1",
    ),
)

# diffusers folders: the VAEs of SD 1 and 2 have the attention names of 2022, and transformers 5
# saves text encoders without their prefix.
FOLDER_RULES: Mapping[Component, Sequence[Rule]] = {
    "unet": (),
    "vae": attention_rules(r"(.+\.attentions\.\d+)", r"\1"),
    "text_encoder": TEXT_RULES,
    "text_encoder_2": TEXT_RULES,
}


# A name that every component has, for what programs write before all names (`module.`).
ANCHORS: Mapping[Component, str] = {
    "unet": "conv_in.weight",
    "vae": "encoder.conv_in.weight",
    "text_encoder": "embeddings.token_embedding.weight",
    "text_encoder_2": "embeddings.token_embedding.weight",
}
COMPILED = "_orig_mod."  # what torch.compile writes before the names of a module


def unwrapped(infos: Mapping[str, T], component: Component) -> dict[str, T]:
    """A component's tensors without a prefix that all their names have."""
    plain = {key.replace(COMPILED, ""): info for key, info in infos.items()}
    anchor = ANCHORS[component]
    heads = [key.removesuffix(anchor) for key in plain if key.endswith(f".{anchor}")]
    head = min(heads, key=len, default="")
    whole = anchor not in plain and all(key.startswith(head) for key in plain)
    return {key.removeprefix(head): info for key, info in plain.items()} if whole else plain


def to_canonical(infos: Mapping[str, TensorInfo], rules: Sequence[Rule]) -> dict[str, TensorInfo]:
    """The tensors under canonical names; a key that no rule matches keeps its name.

    Raises WeightsError if two tensors get one name.
    """
    renamed: dict[str, TensorInfo] = {}
    for key, info in infos.items():
        for name, new in _targets(key, info, rules):
            if name in renamed:
                raise WeightsError(
                    f"{info.file} has two tensors for {name}: {renamed[name].key} and {key}; "
                    "use a copy of the model that was not merged by hand"
                )
            renamed[name] = new
    return renamed


def _targets(key: str, info: TensorInfo, rules: Sequence[Rule]) -> Iterator[tuple[str, TensorInfo]]:
    if IGNORED.fullmatch(key):
        return
    matches = [(rule, match) for rule in rules if (match := rule.pattern.fullmatch(key))]
    if not matches:
        yield key, info
    for rule, match in matches:
        name = match.expand(rule.name) if isinstance(rule.name, str) else rule.name(match)
        yield name, info.after(rule.op) if rule.op else info
