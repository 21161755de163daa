"""The config of LDM or SGM under a model's name, as A1111 looks for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, shown
from diffgen.types import Prediction
from diffgen.weights.ldm.spellings import (
    V_FLAGS,
    ZERO_SNR,
    Parser,
    as_number,
    as_prediction,
    as_truth,
    as_v,
    as_whole,
    parsed,
)
from diffgen.weights.ldm.yaml_text import text_claims

logger = logging.getLogger("diffgen")

SUFFIXES = (".yaml", ".yml")
MAX_YAML = 1 << 20  # bytes; the real ones have 2000
MAX_BETAS = 100_000
LDM_MODELS = ("LatentDiffusion", "LatentInpaintDiffusion")  # which predict noise by default
# Of SGM's classes what the network predicts, and the noise that samplers step over.
SCALINGS: Mapping[str, Prediction] = {
    "EpsScaling": "eps",
    "VScaling": "v",
    "EDMScaling": "edm",
    "VScalingWithEDMcNoise": "edm_v",
}
DISCRETIZATIONS: Mapping[str, Mapping[str, Any]] = {
    "LegacyDDPMDiscretization": {},
    "ZeroSNRDDPMDiscretization": {"zero_snr": True},
    "EDMDiscretization": {},
}
# LDM's names; its "linear" is a straight line of square roots.
BETA_SCHEDULES = {
    "linear": "scaled_linear",
    "sqrt_linear": "linear",
    "cosine": "squaredcos_cap_v2",
}


def yamls_of(path: Path) -> Iterator[Path]:
    """The YAMLs that have a model's name, in any case of their suffix."""
    if path.parent.is_dir():
        names = {f"{base}{suffix}" for base in (path.stem, path.name) for suffix in SUFFIXES}
        found = (
            each
            for each in path.parent.iterdir()
            if each.suffix.lower() in SUFFIXES and each.stem + each.suffix.lower() in names
        )
        yield from (each for each in sorted(found) if each.is_file())


def read_yaml(path: Path, asked: Collection[str] = ()) -> dict[str, Any]:
    """What a YAML says of a model, by field. Raises as `read_claims` does."""
    root = _parse(path)
    model = _table(root, "model")
    params = _table(model, "params")
    denoiser = _table(_table(params, "denoiser_config"), "params")
    sampler = _table(_table(params, "sampler_config"), "params")
    noise = [_table(each, "discretization_config") for each in (sampler, denoiser)]
    scaling = _table(denoiser, "scaling_config")
    found = _of_classes(path, model, scaling, noise, asked)
    inner = [params, denoiser, *(_table(each, "params") for each in (*noise, scaling))]
    for key, (name, parse) in KEYS.items():
        for table in [*inner, model, root] if name in FLAGS else inner:
            lower = {str(each).lower(): value for each, value in table.items()}
            value = parsed(f"{path.name}: {key}", name, parse, lower.get(key), asked)
            if value is not None:
                found[name] = value
                break
    found |= text_claims(path, params)
    if "betas" in found:
        found.setdefault("num_train_timesteps", len(found["betas"]))
    return found


def _of_classes(
    path: Path,
    model: Mapping[str, Any],
    scaling: Mapping[str, Any],
    noise: list[Mapping[str, Any]],
    asked: Collection[str],
) -> dict[str, Any]:
    """What the names of classes say."""
    found: dict[str, Any] = {}
    for each in noise:
        kind = _class_name(each)
        found |= DISCRETIZATIONS.get(kind, {})
        if kind and kind not in DISCRETIZATIONS:
            logger.warning("%s: the discretization %s is not known and not read", path, kind)
    kind = _class_name(scaling)
    if kind and "prediction" not in asked:
        found["prediction"] = parsed(
            f"{path.name}: scaling_config", "prediction", _scaling, kind, asked
        )
    elif _class_name(model) in LDM_MODELS:
        found["prediction"] = "eps"
    return found


def _parse(path: Path) -> Mapping[str, Any]:
    """The first document of a YAML. Raises ConfigError."""
    import yaml  # type: ignore[import-untyped]  # only where there is such a file

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen and key.value != "<<":
                    line = key.start_mark.line + 1
                    raise ConfigError(
                        f"{path}:{line}: the key {shown(key.value)} is there twice; keep one"
                    )
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        if path.stat().st_size > MAX_YAML:
            raise ConfigError(f"{path} is too large for a model's config; move it away")
        loader = Loader(path.read_bytes())
        found = loader.get_data() if loader.check_data() else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(
            f"{where}: beside the model, and not valid YAML{_problem(error)}; repair it or move it "
            "away"
        ) from error
    return found if isinstance(found, dict) else {}


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None)
    return f" ({problem})" if isinstance(problem, str) else ""


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _class_name(table: Mapping[str, Any]) -> str:
    return str(table.get("target") or "").rpartition(".")[2]


def _scaling(value: object) -> Prediction:
    return SCALINGS[str(value)]


def _betas(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_BETAS:
        raise ValueError
    return tuple(float(str(beta)) for beta in value)


def _beta_schedule(value: object) -> str:
    return BETA_SCHEDULES[str(value).strip().lower()]


FLAGS = ("prediction", "zero_snr")  # which people also write where no program looks
# The later of two keys for one field counts.
KEYS: Mapping[str, tuple[str, Parser]] = {
    **dict.fromkeys(V_FLAGS, ("prediction", as_v)),
    "prediction_type": ("prediction", as_prediction),
    "parameterization": ("prediction", as_prediction),
    **dict.fromkeys(ZERO_SNR, ("zero_snr", as_truth)),
    "beta_schedule": ("beta_schedule", _beta_schedule),
    "given_betas": ("betas", _betas),
    "linear_start": ("beta_start", as_number),
    "linear_end": ("beta_end", as_number),
    "timesteps": ("num_train_timesteps", as_whole),
    "num_timesteps": ("num_train_timesteps", as_whole),
    "scale_factor": ("scaling_factor", as_number),
    **{name: (name, as_number) for name in ("sigma_min", "sigma_max", "sigma_data")},
}
