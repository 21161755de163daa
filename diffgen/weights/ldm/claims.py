"""What is said of a one-file model's training, besides its weights: a YAML beside it, its metadata.

The YAML is the config of LDM or SGM under the model's name, as A1111 looks for it. The metadata are
the header's: ModelSpec (https://github.com/Stability-AI/ModelSpec) and sd-scripts' `ss_` keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from diffgen.errors import ConfigError, UnsupportedCheckpoint, shown
from diffgen.types import Prediction

logger = logging.getLogger("diffgen")

Parser: TypeAlias = Callable[[object], Any]
MAX_YAML = 1 << 20  # bytes; the real ones have 2000
PREDICTIONS: Mapping[str, Prediction] = {
    "eps": "eps",
    "epsilon": "eps",
    "v": "v",
    "v_prediction": "v",
    "vpred": "v",
    "x0": "sample",
    "sample": "sample",
    "flow": "flow",
    "flow_matching": "flow",
    "rectified_flow": "flow",
    "rf": "flow",
    "edm": "edm",
    "edm_v": "edm_v",
}
SGM_SCALINGS: Mapping[str, Prediction] = {"EpsScaling": "eps", "VScaling": "v"}
LDM_MODELS = ("LatentDiffusion", "LatentInpaintDiffusion")  # which predict noise by default
ZERO_SNR = (
    "zero_snr",
    "ztsnr",
    "zsnr",
    "zero_terminal_snr",
    "enforce_zero_terminal_snr",
    "rescale_betas_zero_snr",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Values of `prediction`, `zero_snr`, `clip_skip` or fields of the schedule, and who says so."""

    source: str
    values: Mapping[str, Any]


def settle(claims: Sequence[Claim]) -> dict[str, Any]:
    """One value for each field: the first claim's. Claims that contradict it are warned of."""
    settled: dict[str, Any] = {}
    by: dict[str, str] = {}
    for claim in claims:
        for name, value in claim.values.items():
            if name not in settled:
                settled[name], by[name] = value, claim.source
                logger.info("%s is %s, by %s", name, value, claim.source)
            elif value != settled[name]:
                logger.warning(
                    "%s says that %s is %s, %s that it is %s, which is taken",
                    claim.source,
                    name,
                    value,
                    by[name],
                    settled[name],
                )
    return settled


def read_claims(path: Path, metadata: Mapping[str, str]) -> Iterator[Claim]:
    """What the YAML beside a model and the model's metadata say.

    Raises ConfigError for a YAML that cannot be read, UnsupportedCheckpoint for a kind of
    prediction that is none of ours.
    """
    for suffix in (".yaml", ".yml"):
        yaml = path.with_suffix(suffix)
        if yaml.is_file():
            yield Claim(yaml.name, _of_yaml(yaml))
    for key, (name, parse) in METADATA.items():
        text = metadata.get(key)
        if text and text != "None":
            value = _parsed(f"its metadata: {key}", parse, text)
            if value is not None:
                yield Claim(f"the file's {key}", {name: value})


def _of_yaml(path: Path) -> dict[str, Any]:
    model = _table(_read_yaml(path), "model")
    params, target = _table(model, "params"), _class_name(model)
    found: dict[str, Any] = {}
    scaling = _table(_table(_table(params, "denoiser_config"), "params"), "scaling_config")
    sgm = _class_name(scaling)
    if "parameterization" in params:
        where = f"{path.name}: parameterization"
        found["prediction"] = _parsed(where, _prediction, params["parameterization"])
    elif sgm in SGM_SCALINGS:
        found["prediction"] = SGM_SCALINGS[sgm]
    elif target in LDM_MODELS:
        found["prediction"] = "eps"
    if stated := [params[key] for key in ZERO_SNR if key in params]:
        found["zero_snr"] = _truth(stated[0])
    for key, name in YAML_NUMBERS.items():
        if key in params:
            found[name] = _parsed(f"{path.name}: {key}", NUMBERS[name], params[key])
    return found


def _read_yaml(path: Path) -> object:
    import yaml  # type: ignore[import-untyped]  # only where there is such a file

    try:
        if path.stat().st_size > MAX_YAML:
            raise ConfigError(f"{path} is too large for a model's config; move it away")
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}, beside the model, is not valid YAML; repair it or move it away"
        ) from error


def _table(value: object, key: str) -> Mapping[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _class_name(table: Mapping[str, Any]) -> str:
    return str(table.get("target", "")).rpartition(".")[2]


def _parsed(where: str, parse: Parser, value: object) -> Any:
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError):
        raise UnsupportedCheckpoint(f"{where} is {shown(value)}, which is not known") from None


def _prediction(value: object) -> Prediction:
    return PREDICTIONS[str(value).strip().lower().replace("-", "_")]


def _truth(value: object) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).strip().lower()]


def _v_or_not(value: object) -> Prediction:
    return "v" if _truth(value) else "eps"


def _architecture(value: object) -> Prediction | None:
    name = str(value)
    if name.startswith("stable-diffusion-v2-768-v"):
        return "v"
    return "eps" if name.startswith("stable-diffusion-v2-512") else None


def _whole(value: object) -> int:
    number = int(str(value))
    if number < 1:
        raise ValueError
    return number


METADATA: Mapping[str, tuple[str, Parser]] = {
    "modelspec.prediction_type": ("prediction", _prediction),
    "modelspec.predict_key": ("prediction", _prediction),
    "prediction_type": ("prediction", _prediction),
    "ss_v_parameterization": ("prediction", _v_or_not),
    "v_parameterization": ("prediction", _v_or_not),
    "modelspec.architecture": ("prediction", _architecture),
    **{
        f"{prefix}{key}": ("zero_snr", _truth)
        for prefix in ("", "ss_", "modelspec.")
        for key in ZERO_SNR
    },
    "modelspec.encoder_layer": ("clip_skip", _whole),
    "ss_clip_skip": ("clip_skip", _whole),
    "clip_skip": ("clip_skip", _whole),
}
NUMBERS: Mapping[str, Parser] = {
    "beta_start": lambda value: float(str(value)),
    "beta_end": lambda value: float(str(value)),
    "num_train_timesteps": _whole,
}
YAML_NUMBERS = {
    "linear_start": "beta_start",
    "linear_end": "beta_end",
    "timesteps": "num_train_timesteps",
}
