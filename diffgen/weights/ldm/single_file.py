"""A whole model in one file, the common layout: LDM's (Stable Diffusion 1 and 2) or SGM's (XL)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from diffgen.errors import UnsupportedCheckpoint, some
from diffgen.models.config import ClipTextConfig, ModelConfig
from diffgen.types import TEXT_ENCODERS, Component, NoiseConfig
from diffgen.weights.few_steps import as_distilled
from diffgen.weights.files import LazyTensors, TensorInfo, read_header, read_metadata
from diffgen.weights.gguf import is_gguf, read_gguf
from diffgen.weights.keymap import IGNORED, TEXT_RULES, to_canonical
from diffgen.weights.kinds import foreign_kind, kind_of
from diffgen.weights.ldm import detect
from diffgen.weights.ldm.averages import only_averaged
from diffgen.weights.ldm.claims import Claim, read_claims, settle
from diffgen.weights.ldm.configs import EDM_STATISTICS, config_on_base, whole_config
from diffgen.weights.ldm.detect import SingleFamily
from diffgen.weights.ldm.names import canonical_vae, open_clip_rules, unet_rules
from diffgen.weights.ldm.noise_tables import table_claims
from diffgen.weights.ldm.parts import (
    CLIP,
    LEFT_OVER,
    OPEN_CLIP,
    SECOND,
    UNET,
    VAE,
    Infos,
    below,
    encoder_prefixes,
    named_by_open_clip,
    twice,
)
from diffgen.weights.ldm.roots import rooted
from diffgen.weights.left_adapters import without_adapters
from diffgen.weights.quantised import refuse_packed, unscaled
from diffgen.weights.spread import spread

logger = logging.getLogger("diffgen")

FAMILY_OF_CONTEXT: Final = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
    1280: "the refiner of Stable Diffusion XL",
}
NOT_RUN: Final = "which diffgen does not run"
LORA: Final = r"lora_|lycoris_|.+\.lora_(A|B|up|down)\."
UP: Final = f"{UNET[0]}output_blocks.0.0.in_layers.0.weight"
# Training for v spreads this bias: 0.09 separates all known Stable Diffusion 2 models, by ComfyUI's
# finding. Nothing in a name or a shape tells.
TELLS_V: Final = f"{UNET[0]}output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD: Final = 0.09
SECOND_OF_SDCPP: Final = "cond_stage_model.1."


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A file's contents: the model's config, and its tensors under canonical names."""

    config: ModelConfig
    tensors: Mapping[Component, LazyTensors]


def open_single_file(
    path: Path,
    *,
    needs_vae: bool = True,
    asked: Mapping[str, object] | None = None,
    base: ModelConfig | None = None,
) -> SingleFile:
    """Read a file's header, and complete it by what its family has in common.

    An autoencoder may be missing where none is needed, and text encoders if `base`, the config of
    another model, has them: then `tensors` lack them, too. `asked` are the user's own claims, which
    win. Raises WeightsError for a file that is no complete safetensors or GGUF file, ConfigError
    for an unreadable YAML beside it, UnsupportedCheckpoint for an unknown kind of model.
    """
    infos, metadata = read_any(path)
    infos = without_adapters(path, infos)
    with detect.unusable(f"{path} cannot be used as a model"):
        refuse_packed(infos)
        claims = [*_asked(asked), *read_claims(path, metadata, asked or ())]
        opened = _opened(unscaled(_rooted(infos)), claims, needs_vae=needs_vae, base=base)
    _report_strangers(path, rooted(infos))
    if only_averaged(infos):
        logger.warning("%s has its U-Net's averaged weights (EMA) alone, which are used", path)
    names = [path.stem, metadata.get("modelspec.title", "")]
    config = as_distilled(opened.config, names, asked or {}, path.name, file=path)
    return replace(opened, config=config)


def _rooted(infos: Infos) -> dict[str, TensorInfo]:
    """As `rooted`; half a U-Net, as a ControlNet has it, is called by its name."""
    try:
        found = rooted(infos)
        problem = None
    except UnsupportedCheckpoint as error:
        found, problem = {}, error
    kind = None if UP in found else foreign_kind(infos)
    if kind:
        raise UnsupportedCheckpoint(f"it is {kind}, {NOT_RUN}")
    if problem:
        raise problem
    return found


def read_any(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors and texts of a safetensors or GGUF file. Raises WeightsError."""
    return read_gguf(path) if is_gguf(path) else (read_header(path), read_metadata(path))


def _asked(values: Mapping[str, object] | None) -> list[Claim]:
    return [Claim("the command line", values)] if values else []


def _report_strangers(path: Path, infos: Infos) -> None:
    """Log the tensors of no known part; unknown ones inside a part are errors later."""
    parts = (*UNET, *VAE, *CLIP, *OPEN_CLIP, *SECOND)
    strangers = [
        key
        for key in infos
        if not (key.startswith(parts) or LEFT_OVER.fullmatch(key) or IGNORED.fullmatch(key))
    ]
    for first, other in twice(infos):
        logger.warning("%s has both %s* and %s*: the first are used", path, first, other)
    if strangers:
        logger.warning(
            "%s has %d tensors that are not read: %s", path, len(strangers), some(strangers)
        )


def _opened(
    infos: Infos, claims: list[Claim], *, needs_vae: bool, base: ModelConfig | None
) -> SingleFile:
    family = _family(infos, base)
    vae = canonical_vae(below(infos, VAE))
    told = settle([*claims, *_marks(infos, family)])
    of_flow = base is not None and base.schedule.prediction == "flow"
    if told.get("prediction") == "flow" and "shift" not in told and not of_flow:
        logger.warning(
            "nothing says the shift of its flow: %g is taken; --shift says another",
            base.schedule.shift if base else NoiseConfig().shift,
        )
    if encoder_prefixes(infos):
        config = whole_config(infos, family, vae, told)
        config = replace(config, vae=config.vae or (base.vae if base else None))
        texts = zip(TEXT_ENCODERS, encoder_prefixes(infos), config.text, strict=False)
    else:
        assert base is not None
        config = config_on_base(infos, family, vae, told, base)
        texts = zip((), (), (), strict=True)
    unet = to_canonical(below(infos, UNET), unet_rules(config.unet))
    tensors: dict[Component, LazyTensors] = {"unet": LazyTensors(unet)}
    if vae:
        tensors["vae"] = LazyTensors(vae)
    elif needs_vae and not (base and base.vae):
        raise UnsupportedCheckpoint("it has no autoencoder; give one with --vae")
    for part, prefixes, text in texts:
        tensors[part] = LazyTensors(_text(below(infos, prefixes), text))
    return SingleFile(config, tensors)


def _family(infos: Infos, base: ModelConfig | None) -> SingleFamily:
    """The family of a file. Raises UnsupportedCheckpoint, naming its kind, for others."""
    if UP not in infos and any(re.match(LORA, key) for key in infos):
        raise UnsupportedCheckpoint("it is a LoRA; give it with --lora, beside the model it is for")
    unet = below(infos, UNET)
    context = next((info for key, info in unet.items() if key.endswith("attn2.to_k.weight")), None)
    if "input_blocks.0.0.weight" not in unet or context is None:
        raise UnsupportedCheckpoint(_without_unet(infos))
    label = "label_emb.0.0.weight" in unet
    if below(infos, SECOND) or (label and below(infos, (OPEN_CLIP[1],))):
        return "sdxl"
    clip = below(infos, CLIP)
    if not clip and not below(infos, OPEN_CLIP):
        return _family_alone(context.shape[1], label, base)
    name = "embeddings.token_embedding.weight"
    table = clip.get(f"text_model.{name}") or clip.get(name)
    width = table.shape[1] if table else None
    if label and width == context.shape[1]:
        return "sdxl"  # a refiner, its encoder under transformers' names
    if label:
        raise UnsupportedCheckpoint(_without_second(infos))
    # Programs that use transformers' names for encoders use them for that of 2 as well.
    return "sd1" if clip and width != detect.SD2_WIDTH else "sd2"


def _without_second(infos: Infos) -> str:
    if any(key.startswith(OPEN_CLIP[0]) for key in infos):
        return "its U-Net is told more than text (label_emb), as that of Stable unCLIP"
    if any(key.startswith(SECOND_OF_SDCPP) for key in infos):
        return (
            f"its second text encoder has stable-diffusion.cpp's names ({SECOND_OF_SDCPP}*), which "
            "do not tell how its projection lies; take the file that this one was made of"
        )
    return f"it lacks the second text encoder of Stable Diffusion XL ({SECOND[0]}*)"


def _without_unet(infos: Infos) -> str:
    whole = below(infos, (*CLIP, *OPEN_CLIP)) and below(infos, VAE)
    kind = None if whole else kind_of(infos)
    if kind:
        return f"it is {kind}" + ("" if ";" in kind else f", {NOT_RUN}")
    if not infos:
        return "it has no tensors"
    return (
        f"it has no U-Net ({UNET[0]}*) of Stable Diffusion 1, 2 or XL; its tensors are "
        f"{some(list(infos))}"
    )


def _family_alone(context: int, label: bool, base: ModelConfig | None) -> SingleFamily:
    """The family of a U-Net that comes without text encoders."""
    if base is None:
        name = FAMILY_OF_CONTEXT.get(context, "of none of the families")
        raise UnsupportedCheckpoint(
            f"it has no text encoder: it is a U-Net alone, for text of width {context} ({name}); "
            "name a model that has the rest with --base"
        )
    if label:
        return "sdxl"
    return "sd2" if base.family == "sd2" else "sd1"


def _text(infos: Infos, config: ClipTextConfig) -> Infos:
    """An encoder's tensors, without the layer behind those in use that Stable Diffusion 2 has."""
    spare = re.compile(rf"(.*\.)?(resblocks|encoder\.layers)\.{config.layers}\..+")
    kept = {key: info for key, info in infos.items() if not spare.fullmatch(key)}
    open_clip = named_by_open_clip(infos)
    return to_canonical(kept, open_clip_rules(config.layers) if open_clip else TEXT_RULES)


def _marks(infos: Infos, family: SingleFamily) -> Iterator[Claim]:
    """Facts that single tensors mark."""
    if "edm_vpred.sigma_max" in infos:
        ends = {"sigma_max": "edm_vpred.sigma_max", "sigma_min": "edm_vpred.sigma_min"}
        values = {name: _number(infos, key) for name, key in ends.items() if key in infos}
        yield Claim("the tensor edm_vpred.sigma_max", {"prediction": "edm_v", **values})
    elif all(key in infos for key in EDM_STATISTICS):
        yield Claim(f"the tensor {EDM_STATISTICS[0]}", {"prediction": "edm"})
    if "v_pred" in infos:
        yield Claim("the tensor v_pred", {"prediction": "v"})
    if "ztsnr" in infos:
        yield Claim("the tensor ztsnr", {"zero_snr": True})
    yield from table_claims(infos)
    if family == "sd2" and TELLS_V in infos:
        kind = "v" if spread(infos[TELLS_V]) > V_SPREAD else "eps"
        yield Claim(f"the spread of {TELLS_V}", {"prediction": kind})


def _number(infos: Infos, key: str) -> float:
    return float(LazyTensors(infos)[key].float().mean())
