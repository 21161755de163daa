"""A model on disk: its config, and its tensors under canonical names.

Opening a checkpoint reads headers only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffgen.errors import UnsupportedCheckpoint, UsageError, WeightsError, some
from diffgen.models.checks import check_model, check_networks, check_vae
from diffgen.models.config import ModelConfig
from diffgen.types import TEXT_ENCODERS, Component, Prediction
from diffgen.weights.contents import contents_of
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.folder import folder_name, weight_files
from diffgen.weights.few_steps import as_distilled
from diffgen.weights.files import LazyTensors, Shape, TensorInfo, open_tensors
from diffgen.weights.keymap import FOLDER_RULES, SPARE, to_canonical, unwrapped
from diffgen.weights.ldm.single_file import open_single_file
from diffgen.weights.left_adapters import without_adapters
from diffgen.weights.noise import with_noise
from diffgen.weights.quantised import refuse_packed
from diffgen.weights.registry import PACKAGE
from diffgen.weights.vae import open_vae

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

logger = logging.getLogger("diffgen")
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"})
UNEVEN = "; blocks of different depth at one level are supported, but these weights have others"
CLIP_TOKENIZER = PACKAGE / "assets" / "clip_tokenizer"  # no single file contains its own


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened model. `tokenizers` are its vocabulary folders, one per text encoder."""

    config: ModelConfig
    source: Path
    tensors: Mapping[Component, LazyTensors]
    tokenizers: tuple[Path, ...]

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        vae: Path | None = None,
        prediction: Prediction | None = None,
        zero_snr: bool | None = None,
        shift: float | None = None,
        base: Path | None = None,
    ) -> Self:
        """Open a folder in diffusers layout, or one file in that of LDM or SGM.

        `vae`, `prediction`, `zero_snr` (the last noise level has no signal) and `shift` (of a flow)
        override the model's own. `base` is a model that completes a file of a U-Net. Raises
        UnsupportedCheckpoint for another kind of model, ConfigError for a bad JSON file, UsageError
        for a superfluous base or a shift of no flow, WeightsError for missing or damaged weights;
        for `vae` as `open_vae` does.
        """
        given = {"prediction": prediction, "zero_snr": zero_snr, "shift": shift}
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if path.is_file():
            rest = None if base is None else cls.open(base)
            opened = cls._file(path, needs_vae=vae is None, asked=asked, base=rest)
        else:
            opened = cls._folder(path, asked)
            if base is not None and opened.config.text:
                raise UsageError(f"{path} is a whole model: it takes nothing from --base {base}")
        opened = opened if vae is None else opened._with_vae(vae)
        own = opened.config.schedule
        noise = with_noise(own, asked)
        if shift is not None and noise.prediction != "flow":
            raise UsageError(f"{path} is no flow, which a shift is for; add --prediction flow")
        if prediction == "flow" and shift is None and path.is_dir() and own.prediction != "flow":
            logger.warning(
                "%s: a shift of %g is taken for its flow; --shift says another",
                path.name,
                noise.shift,
            )
        config = replace(opened.config, schedule=noise)
        check_model(config, str(path))
        return replace(opened, config=config)

    def _with_vae(self, path: Path) -> Self:
        """This model with another autoencoder."""
        config, tensors = open_vae(path, self.config)
        check_vae(config, lambda name: f"{path}: its vae.{name}")
        changed = replace(self.config, vae=config)
        return replace(self, config=changed, tensors={**self.tensors, "vae": tensors})

    @classmethod
    def _file(
        cls, path: Path, *, needs_vae: bool, asked: Mapping[str, object], base: Self | None
    ) -> Self:
        given = None if base is None else base.config
        single = open_single_file(path, needs_vae=needs_vae, asked=asked, base=given)
        config = single.config
        check_networks(
            config.unet, config.vae, config.text, config.schedule, lambda key: f"{path}: its {key}"
        )
        if base is None:
            vocabularies = (CLIP_TOKENIZER,) * len(single.config.text)
            return cls(single.config, path, single.tensors, vocabularies)
        if "text_encoder" in single.tensors and "vae" in single.tensors:
            raise UsageError(f"{path} is a whole model: it takes nothing from --base {base.source}")
        own = "text_encoder" in single.tensors
        vocabularies = (CLIP_TOKENIZER,) * len(config.text) if own else base.tokenizers
        return cls(config, path, {**base.tensors, **single.tensors}, vocabularies)

    @classmethod
    def _folder(cls, path: Path, asked: Mapping[str, object]) -> Self:
        names = [path.resolve().name, *(part for part in path.parts if part.startswith("models--"))]
        config = read_model_config(path, asked)
        config = as_distilled(config, names, asked, path.name, says_sampler=True)
        refiner = config.is_refiner
        tensors = {
            part: _open_component(path / folder_name(part, is_refiner=refiner), part)
            for part in components(config)
        }
        names = [part.replace("text_encoder", "tokenizer") for part in TEXT_ENCODERS]
        tokenizers = tuple(
            path / folder_name(name, is_refiner=refiner) for name in names[: len(config.text)]
        )
        return cls(config, path, tensors, tokenizers)

    def load_into(
        self,
        component: Component,
        module: nn.Module,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        """Load weights into a module built on the meta device.

        Names and shapes are checked before any data is read. Raises WeightsError.
        """
        from diffgen.device import send

        tensors = self.tensors[component]
        expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
        where = tensors.files[0] if len(tensors.files) == 1 else self.source / component
        uneven = component == "unet" and self.config.unet.is_uneven
        check_fit(where, tensors.infos, expected, hint=UNEVEN if uneven else "")
        state = {name: send(tensor, device, dtype) for name, tensor in tensors.read(expected)}
        module.load_state_dict(state, assign=True)

    def find_not_finite(self, component: Component) -> TensorInfo | None:
        """The first tensor of a component that holds NaN or infinity; None without the component.

        Reads the tensors one by one. Raises WeightsError.
        """
        tensors = self.tensors.get(component)
        if tensors is None:
            return None
        broken = (name for name, tensor in tensors.read(tensors) if not _is_finite(tensor))
        name = next(broken, None)
        return None if name is None else tensors.infos[name]


def components(config: ModelConfig) -> tuple[Component, ...]:
    """The components of a model that have weights."""
    vae: tuple[Component, ...] = ("vae",) if config.vae else ()
    return ("unet", *vae, *TEXT_ENCODERS[: len(config.text)])


def _open_component(folder: Path, component: Component) -> LazyTensors:
    infos = without_adapters(folder, open_tensors(weight_files(folder, component)).infos)
    try:
        refuse_packed(infos)
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{folder} cannot be used: {error}") from error
    return LazyTensors(to_canonical(unwrapped(infos, component), FOLDER_RULES[component]))


def _is_finite(tensor: Tensor) -> bool:
    # float8 formats have no isfinite of their own.
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())


def check_fit(
    where: Path, infos: Mapping[str, TensorInfo], expected: Mapping[str, Shape], *, hint: str = ""
) -> None:
    """Raise WeightsError naming every kind of difference between the files and the module."""
    known = [name for name in infos if name in expected]
    problems = {
        "missing": [name for name in expected if name not in infos],
        "unknown": [name for name in infos if name not in expected and name not in SPARE],
        "of the wrong shape": [
            f"{name} {infos[name].shape} instead of {expected[name]}"
            for name in known
            if infos[name].shape != expected[name]
        ],
        "of an unsupported number format": [
            f"{name} {infos[name].dtype}" for name in known if infos[name].dtype not in FLOATS
        ],
    }
    found = [f"{len(names)} {kind} ({some(names)})" for kind, names in problems.items() if names]
    if found:
        # A file that only lacks tensors was cut off.
        advice = "; download it again, whole" if [*problems.values()][1:] == [[], [], []] else ""
        shapes = {name: info.shape for name, info in infos.items()}
        if not known and (called := contents_of(shapes).called):
            advice = f"; by their names it is {called.partition(';')[0]}"
        advice = hint or advice
        raise WeightsError(f"{where} does not fit its config: tensors {'; '.join(found)}{advice}")
