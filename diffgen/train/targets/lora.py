"""The `lora` target: low-rank adapters for a frozen model (Hu et al., arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffgen import __version__
from diffgen.engine.engine import Engine
from diffgen.engine.plan import GeneratePlan
from diffgen.errors import ConfigError, did_you_mean
from diffgen.files import expanded
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.models.lora import Adapter, LoraDelta, add_lora, continue_lora
from diffgen.train.recipe.recipe import LoraRecipe, Recipe
from diffgen.train.targets.diffusion import DiffusionBatches, DiffusionModule
from diffgen.train.targets.encoding import Latents
from diffgen.train.targets.networks import build_networks, open_base, place_frozen
from diffgen.train.targets.previewer import PromptPreviewer, preview_request
from diffgen.train.targets.target import Target
from diffgen.types import Component, LoraRef
from diffgen.weights.adapters.files import read_lora
from diffgen.weights.adapters.lora import save_lora

FILE = "lora.safetensors"
UNET: Component = "unet"

Adapters: TypeAlias = Mapping[Component, Mapping[str, Adapter]]  # by the names of their layers

# Layers inside the blocks of U-Nets and text encoders, by canonical name.
PARTS: Mapping[str, tuple[str, ...]] = {
    "attention": ("*.to_[qkv]", "*.to_out.0", "*.[qkv]_proj", "*.out_proj"),
    "feed_forward": ("*.ff.net.0.proj", "*.ff.net.2", "*.mlp.fc[12]"),
    "projection": ("*.proj_in", "*.proj_out"),
    "convolution": ("*.conv[12]", "*.conv_shortcut", "*.time_emb_proj", "*samplers.0.conv"),
}
GROUPS = {**PARTS, "all": tuple(pattern for part in PARTS.values() for pattern in part)}

# What kohya's scripts and Stability AI's model spec call the models that they know.
BASE_VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
ARCHITECTURES = {
    ("sd1", "eps"): "stable-diffusion-v1/lora",
    ("sd2", "eps"): "stable-diffusion-v2-512/lora",
    ("sd2", "v"): "stable-diffusion-v2-768-v/lora",
    ("sdxl", "eps"): "stable-diffusion-xl-v1-base/lora",
}


class AdapterModule(nn.Module):
    """Adapters, and the loss of the networks they sit in, which are no part of its state."""

    def __init__(self, adapters: Iterable[Adapter], networks: nn.Module) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)
        # In a tuple nothing is registered: checkpoints and the optimizer see adapters only.
        self._networks = (networks,)

    @property
    def networks(self) -> nn.Module:
        """The networks with their loss."""
        return self._networks[0]

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """As the module of the networks."""
        losses: dict[str, Tensor] = self.networks(inputs)
        return losses


class AdapterExporter:
    """Writes adapters as one safetensors file for `diffgen generate --lora`."""

    def __init__(self, recipe: Recipe, config: ModelConfig, adapters: Adapters) -> None:
        self.recipe, self.config, self.adapters = recipe, config, adapters

    def __call__(self, folder: Path, dtype: torch.dtype) -> None:
        """Write `FILE`."""
        deltas = {
            component: {layer: adapter.delta() for layer, adapter in named.items()}
            for component, named in self.adapters.items()
        }
        everything = [delta for named in deltas.values() for delta in named.values()]
        save_lora(
            folder / FILE,
            deltas,
            self.config,
            layout=self.recipe.lora.layout,
            dtype=dtype,
            metadata=_metadata(self.recipe, self.config, everything),
        )


def lora_target(recipe: Recipe, device: torch.device) -> Target:
    """Train adapters for `model.base`; the result is one file.

    Raises what `build_networks` and `adapt` raise, and what the preview would raise in the end.
    """
    networks, request = build_networks(recipe).networks, preview_request(recipe)
    GeneratePlan.make(request, networks.config)
    place_frozen(networks, recipe, device)
    learns_text = recipe.lora.text_encoder
    adapted = networks.adaptable if learns_text else {UNET: networks.unet}
    adapters = adapt(recipe, adapted)
    use_channels_last(recipe, networks.unet)
    latents = Latents(recipe, networks, device)
    frozen = DiffusionModule(networks, recipe.objective, with_text=learns_text)
    return Target(
        module=AdapterModule(all_adapters(adapters), frozen),
        inputs=DiffusionBatches(recipe, networks, latents, learns_text=learns_text),
        export=AdapterExporter(recipe, networks.config, adapters),
        preview=PromptPreviewer(recipe, request, adapted_engine(recipe)),
        tokenizers=networks.tokenizers,
        latent_encoder=latents,
    )


def use_channels_last(recipe: Recipe, module: nn.Module) -> None:
    """Store the weights of a frozen network channels-last if the recipe says so."""
    if recipe.run.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it


def all_adapters(adapters: Adapters) -> list[Adapter]:
    """The adapters of all components, in order."""
    return [adapter for named in adapters.values() for adapter in named.values()]


def adapt(recipe: Recipe, networks: Mapping[Component, nn.Module]) -> Adapters:
    """Put the adapters of `[lora]` into the networks.

    Raises ConfigError for `lora.modules` that name nothing and for a `lora.init` of other networks,
    and what `read_lora` raises.
    """
    lora = recipe.lora
    if lora.init:
        return _continued(recipe, networks, expanded(lora.init))
    _check_modules(lora, networks.values())
    torch.manual_seed(recipe.run.seed)
    assert lora.rank is not None
    rank = lora.rank
    alpha = float(rank) if lora.alpha is None else lora.alpha
    return {
        component: add_lora(network, _selects(lora, network), rank=rank, alpha=alpha)
        for component, network in networks.items()
    }


def _continued(recipe: Recipe, networks: Mapping[Component, nn.Module], file: Path) -> Adapters:
    """The adapters in a file, its ranks, alphas and layers."""
    deltas = read_lora(file, open_base(recipe).checkpoint)
    for component, named in deltas.items():
        if named and component not in networks:
            key = "unset distill.as_lora" if recipe.target == "distill" else "set lora.text_encoder"
            raise ConfigError(f"lora.init {file} changes the {component} as well; {key}")
    if idle := [component for component in networks if not deltas.get(component)]:
        raise ConfigError(
            f"lora.init {file} has nothing for the {idle[0]}; unset lora.text_encoder"
        )
    plain = {
        component: {layer: delta for layer, delta in named.items() if isinstance(delta, LoraDelta)}
        for component, named in deltas.items()
    }
    if plain != deltas:
        raise ConfigError(
            f"lora.init {file} holds other adapters than plain LoRA; train cannot go on"
        )
    return {name: continue_lora(network, plain[name]) for name, network in networks.items()}


def adapted_engine(recipe: Recipe) -> Callable[[Path], Engine]:
    """Load the base with the adapters in a folder."""

    def engine(folder: Path) -> Engine:
        loras = [LoraRef(folder / FILE)]
        return Engine.load(open_base(recipe), device=recipe.run.device, loras=loras)

    return engine


def matches(name: str, wanted: str) -> bool:
    """Whether a layer belongs to a group, or fits a pattern."""
    return any(fnmatchcase(name, pattern) for pattern in GROUPS.get(wanted, (wanted,)))


def _selects(lora: LoraRecipe, network: nn.Module) -> Callable[[str], bool]:
    """The layers of a network to adapt."""
    idle = None
    if isinstance(network, ClipTextModel):
        config = network.config
        if config.hidden == "penultimate" and config.projection is None:
            # Nobody reads the output of the last layer: it would never learn.
            idle = f"text_model.encoder.layers.{config.layers - 1}."

    def select(name: str) -> bool:
        wanted = any(matches(name, module) for module in lora.modules or ())
        return wanted and not (idle and name.startswith(idle))

    return select


def _check_modules(lora: LoraRecipe, networks: Iterable[nn.Module]) -> None:
    names = [
        name
        for network in networks
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not lora.modules:
        raise ConfigError(f'"lora.modules" is empty; the groups are {", ".join(GROUPS)}')
    for wanted in lora.modules:
        if not any(matches(name, wanted) for name in names):
            raise ConfigError(
                f'"lora.modules": "{wanted}" matches no layer of this model; the groups are '
                f"{', '.join(GROUPS)}{did_you_mean(wanted, GROUPS)}"
            )


def _metadata(recipe: Recipe, config: ModelConfig, deltas: Sequence[LoraDelta]) -> dict[str, str]:
    """The metadata of the file, under the keys of kohya's scripts and of modelspec."""
    family, prediction = config.family, config.schedule.prediction
    known = {}
    if family in BASE_VERSIONS:
        suffix = "_v" if prediction == "v" else ""
        known["ss_base_model_version"] = BASE_VERSIONS[family] + suffix
    if (family, prediction) in ARCHITECTURES:
        known["modelspec.sai_model_spec"] = "1.0.0"
        known["modelspec.architecture"] = ARCHITECTURES[family, prediction]
        known["modelspec.title"] = recipe.name
    return known | {
        "ss_network_module": "networks.lora",
        "ss_network_dim": _common([delta.rank for delta in deltas]),
        "ss_network_alpha": _common([delta.alpha for delta in deltas]),
        "ss_sd_model_name": Path(recipe.model.base or "").name,
        "ss_output_name": recipe.name,
        "ss_max_train_steps": str(recipe.run.steps),
        "ss_learning_rate": str(recipe.optimizer.lr),
        "ss_seed": str(recipe.run.seed),
        "diffgen_version": __version__,
    }


def _common(values: Sequence[float]) -> str:
    """The number that all layers share, or "Dynamic", as kohya's scripts write."""
    return str(values[0]) if len(set(values)) == 1 else "Dynamic"
