"""Facts about a one-file model's training, from a YAML beside it and its metadata.

The metadata are the header's: ModelSpec (https://github.com/Stability-AI/ModelSpec) and sd-scripts'
`ss_` keys; `yaml_beside` reads the YAML.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.weights.ldm.spellings import (
    V_FLAGS,
    ZERO_SNR,
    Parser,
    as_clip_skip,
    as_number,
    as_prediction,
    as_truth,
    as_v,
    parsed,
)
from diffgen.weights.ldm.yaml_beside import read_yaml, yamls_of

logger = logging.getLogger("diffgen")


@dataclass(frozen=True, slots=True)
class Claim:
    """Values of `prediction`, `zero_snr`, `clip_skip` or schedule fields, and their source."""

    source: str
    values: Mapping[str, Any]


def settle(claims: Sequence[Claim]) -> dict[str, Any]:
    """One value for each field, the first claim's. Logs contradicting claims as warnings."""
    settled: dict[str, Any] = {}
    by: dict[str, str] = {}
    for claim in claims:
        for name, value in claim.values.items():
            if name not in settled:
                settled[name], by[name] = value, claim.source
                logger.info("%s is %s, by %s", name, _said(value), claim.source)
            elif value != settled[name]:
                logger.warning(
                    "%s says that %s is %s, %s that it is %s, which is taken",
                    claim.source,
                    name,
                    _said(value),
                    by[name],
                    _said(settled[name]),
                )
    return settled


def _said(value: object) -> object:
    return f"a table of {len(value)} numbers" if isinstance(value, tuple) else value


def read_claims(
    path: Path, metadata: Mapping[str, str], asked: Collection[str] = ()
) -> Iterator[Claim]:
    """What the YAMLs beside a model and the model's metadata say, but for what the user `asked`.

    Raises ConfigError for a YAML that cannot be read, UnsupportedCheckpoint for a kind of
    prediction or a schedule that is none of ours.
    """
    for yaml in yamls_of(path):
        yield Claim(yaml.name, read_yaml(yaml, asked))
    said = {key.lower(): text for key, text in metadata.items()}
    for key, (name, parse) in METADATA.items():
        value = parsed(f"its metadata: {key}", name, parse, said.get(key), asked)
        if value is not None:
            yield Claim(f"the file's {key}", {name: value})


def _of_architecture(value: object) -> str | None:
    name = str(value).replace("sd_", "stable-diffusion-").replace("_", "-")
    if name.startswith("stable-diffusion-v2-768-v"):
        return "v"
    return "eps" if name.startswith("stable-diffusion-v2-512") else None


PREFIXES = ("modelspec.", "ss_", "")
PREDICTION = ("prediction_type", "predict_key", "parameterization")
SHIFT = ("discrete_flow_shift", "flow_shift")
METADATA: Mapping[str, tuple[str, Parser]] = {
    **{f"{each}{key}": ("prediction", as_prediction) for key in PREDICTION for each in PREFIXES},
    **{f"{each}{key}": ("prediction", as_v) for key in V_FLAGS for each in PREFIXES},
    "modelspec.architecture": ("prediction", _of_architecture),
    "ss_base_model_version": ("prediction", _of_architecture),
    **{f"{each}{key}": ("zero_snr", as_truth) for key in ZERO_SNR for each in PREFIXES},
    **{f"{each}{key}": ("shift", as_number) for key in SHIFT for each in PREFIXES},
    "modelspec.encoder_layer": ("clip_skip", as_clip_skip),
    "ss_clip_skip": ("clip_skip", as_clip_skip),
    "clip_skip": ("clip_skip", as_clip_skip),
}
