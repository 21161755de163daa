"""The networks a run starts from: those of a model, or new ones of a given architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as rematerialised

from diffgen.device import Precision
from diffgen.engine.model import Model
from diffgen.engine.networks import Networks, load_network, load_networks
from diffgen.errors import ConfigError
from diffgen.jsonfile import JsonObject
from diffgen.models.build import unet_of
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.models.layers import ResnetBlock
from diffgen.models.unet import UNet
from diffgen.models.unet_blocks import SpatialTransformer
from diffgen.models.vae import AnyAutoencoder, Autoencoder, IdentityAutoencoder
from diffgen.settings.model import Source
from diffgen.text.tokenizer import load_tokenizers
from diffgen.train.recipe.checks import check_factor
from diffgen.train.recipe.recipe import Recipe
from diffgen.types import NoiseConfig
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.diffusers.configs import FAMILY_BY_CONTEXT, read_vae_config
from diffgen.weights.diffusers.folder import weight_files
from diffgen.weights.files import LazyTensors, open_tensors
from diffgen.weights.finding import resolve
from diffgen.weights.keymap import FOLDER_RULES, to_canonical

CPU, FULL = torch.device("cpu"), Precision(torch.float32, torch.float32, torch.float32)


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from: `networks` in float32, and where the files beside them come from.

    `vocabularies` are the folders of the tokenizers; `base` is the model that is trained further.
    """

    networks: Networks
    vocabularies: tuple[Path, ...]
    base: Path | None


def build_networks(recipe: Recipe) -> Start:
    """What a diffusion recipe starts from, on the CPU.

    Raises UsageError for an unknown model, ConfigError for parts that do not fit together and
    WeightsError for damaged weights.
    """
    if not recipe.model.base:
        start = _from_nothing(recipe)
        _check_noise(start.networks.config)
        return start
    start = _from_base(open_base(recipe))
    check_factor(recipe, start.networks.config.factor, recipe.model.base)
    _check_noise(start.networks.config)
    return start


def _check_noise(config: ModelConfig) -> None:
    prediction = config.schedule.prediction
    if not config.schedule.on_betas:
        raise ConfigError(
            f'a model that predicts "{prediction}" cannot be trained; models that predict "eps", "v" or '
            '"sample" can'
        )


def open_base(recipe: Recipe) -> Model:
    """`model.base`, with what the recipe chooses instead of its own."""
    chosen = recipe.model
    source = Source(
        model=chosen.base or "",
        vae=vae_path(chosen.autoencoder) if chosen.autoencoder else None,
        prediction=chosen.prediction,
        zero_snr=chosen.zero_snr,
    )
    model = Model.open(source)
    if model.loras:
        raise ConfigError(
            f"model.base {source.model} is a LoRA on another model; name that one"
            + (", and the file as lora.init" if recipe.target == "lora" else "")
        )
    return model


def vae_path(source: str) -> Path:
    """The folder or file of an autoencoder, or of a model that has one. Raises UsageError."""
    path = resolve(source).path
    return path / "vae" if (path / "vae").is_dir() else path


def _from_base(model: Model) -> Start:
    checkpoint = model.checkpoint
    return Start(load_networks(checkpoint, CPU, FULL), checkpoint.tokenizers, checkpoint.source)


def _from_nothing(recipe: Recipe) -> Start:
    model = recipe.model
    assert model.unet is not None
    assert model.text is not None
    vae: AnyAutoencoder = IdentityAutoencoder()
    if model.autoencoder:
        vae = load_autoencoder(model.autoencoder)
    vae_config = vae.config if isinstance(vae, Autoencoder) else None
    config = _new_config(recipe, model.unet, model.text, vae_config)
    vocabulary = vocabulary_path(model.tokenizer)
    tokenizers = load_tokenizers((vocabulary,), config.text)
    torch.manual_seed(recipe.run.seed)
    unet, encoder = unet_of(config), ClipTextModel(model.text)
    initialise_unet(unet)
    initialise_text(encoder)
    networks = Networks(config, unet, vae, (encoder,), tokenizers)
    return Start(networks, (vocabulary,), None)


def _new_config(
    recipe: Recipe, unet: UNetConfig, text: ClipTextConfig, vae: VaeConfig | None
) -> ModelConfig:
    factor = vae.factor if vae else 1
    check_factor(recipe, factor, recipe.model.autoencoder or "recipe")
    channels = vae.latent_channels if vae else 3
    if (unet.in_channels, unet.out_channels) != (channels, channels):
        raise ConfigError(
            f"model.unet.in_channels and out_channels must be {channels}, as the autoencoder's"
        )
    if unet.context_dim != text.width:
        raise ConfigError(
            f"model.unet.context_dim {unet.context_dim} must equal model.text.width {text.width}"
        )
    schedule = recipe.model.schedule or NoiseConfig()
    if vae:
        # What StableDiffusionPipeline makes of any schedule, whatever its JSON says.
        schedule = replace(schedule, steps_offset=1, clip=None)
    return ModelConfig(
        family=FAMILY_BY_CONTEXT.get(unet.context_dim, "custom"),
        text=(text,),
        unet=replace(unet, sample_size=max(recipe.data.shape) // factor),
        vae=vae,
        schedule=schedule,
    )


def vocabulary_path(source: str) -> Path:
    """The folder of a vocabulary, or of a model that has one. Raises UsageError."""
    path = resolve(source).path
    return path / "tokenizer" if (path / "tokenizer").is_dir() else path


def load_autoencoder(source: str) -> Autoencoder:
    """A trained autoencoder: a model's, or that of a folder with config.json.

    Raises UsageError for an unknown model, ConfigError and WeightsError for a damaged one.
    """
    path, folder = resolve(source).path, vae_path(source)
    config = read_vae_config(JsonObject.read(folder / "config.json"))
    infos = open_tensors(weight_files(folder, "vae")).infos
    tensors = LazyTensors(to_canonical(infos, FOLDER_RULES["vae"]))
    # Only the tensors matter here; a checkpoint is what knows how to check and load them.
    model = ModelConfig(
        family="custom", text=(), unet=UNetConfig(), vae=config, schedule=NoiseConfig()
    )
    checkpoint = Checkpoint(model, path, {"vae": tensors}, ())
    return load_network(Autoencoder, config, checkpoint, "vae", CPU, torch.float32)


def initialise_unet(unet: UNet) -> None:
    """Let each residual branch and the output begin at zero (Dhariwal and Nichol, 2105.05233)."""
    nn.init.zeros_(unet.conv_out.weight)
    for module in unet.modules():
        last: nn.Module | None = None
        if isinstance(module, ResnetBlock):
            last = module.conv2
        elif isinstance(module, SpatialTransformer):
            last = module.proj_out
        if last is not None:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)


def initialise_text(encoder: ClipTextModel) -> None:
    """Small embeddings, as CLIP's (arXiv:2103.00020): 0.02 for tokens, 0.01 for positions."""
    for name, parameter in encoder.named_parameters():
        if "embedding.weight" in name:
            nn.init.normal_(parameter, std=0.01 if "position" in name else 0.02)


def place_frozen(networks: Networks, recipe: Recipe, device: torch.device) -> None:
    """Freeze all networks and move them to the device, the U-Net as `[run]` says.

    With sharding the U-Net stays: it is moved block by block, as it may not fit whole.
    """
    if recipe.run.gradient_checkpointing:
        checkpoint_gradients(networks.unet)
    for module in (networks.unet, networks.vae, *networks.encoders):
        module.requires_grad_(False)
        if module is not networks.unet or recipe.run.parallel == "ddp":
            module.to(device)
    if recipe.run.compile:
        networks.unet.compile()


def checkpoint_gradients(network: nn.Module) -> None:
    """Recompute activations on the way back instead of keeping them (arXiv:1604.06174)."""
    for module in network.modules():
        if isinstance(module, ResnetBlock | SpatialTransformer):
            lean = partial(rematerialised, module.forward, use_reentrant=False)
            setattr(module, "forward", lean)  # noqa: B010 - mypy refuses the plain assignment
