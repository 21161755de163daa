"""The `autoencoder` target: pixels to latents and back (arXiv:2112.10752, section 3.1).

Absolute, squared and edge errors, a small KL term and, late, an adversarial one if asked for. The
paper's perceptual term is left out. With a teacher, encoder and decoder learn side by side: the
encoder to give the teacher's latents of a smaller picture, the decoder to draw from those. Latent channels
beyond the teacher's learn as without one, and hold what those leave out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.device import send
from diffgen.engine.images import to_images
from diffgen.errors import ConfigError
from diffgen.models.layers import ResnetBlock, Upsample
from diffgen.models.vae import Autoencoder
from diffgen.train.data.dataset import Batch, as_pixels
from diffgen.train.draws import Draws
from diffgen.train.export import save_component, save_grid
from diffgen.train.recipe.checks import check_factor
from diffgen.train.recipe.recipe import AutoencoderRecipe, Recipe
from diffgen.train.targets import objectives
from diffgen.train.targets.adversarial import Adversary
from diffgen.train.targets.networks import checkpoint_gradients, load_autoencoder
from diffgen.train.targets.target import Target
from diffgen.weights.diffusers.layout import vae_json, write_json

SHOWN = 8  # held-out pictures in a preview
LATENT_SCALE = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
# Layers of latent channels, and how many numbers of each channel they give (rows of their weights)
# and take (columns); None where these are other channels.
LATENT_LAYERS = {
    "encoder.conv_out": (2, None),  # means, then log variances
    "quant_conv": (2, 2),
    "post_quant_conv": (1, 1),
    "decoder.conv_in": (None, 1),
}
STATISTICS = 0.02  # weight of each new batch in the running variance of z


@dataclass(frozen=True, slots=True)
class AutoencoderInputs:
    """Pixels (B, 3, H, W), and the noise (B, C, h, w) that samples z.

    `teacher` holds mean and log variance of the teacher's z, both (B, at most C, h, w).
    """

    pixels: Tensor
    noise: Tensor
    teacher: tuple[Tensor, Tensor] | None = None


class AutoencoderModule(nn.Module):
    """The autoencoder, its loss, and the running second moments of z that latents are scaled by."""

    moments: Tensor

    def __init__(
        self, vae: Autoencoder, weights: AutoencoderRecipe, adversary: Adversary | None
    ) -> None:
        super().__init__()
        self.vae, self.weights, self.adversary = vae, weights, adversary
        self.register_buffer("moments", torch.zeros(3))  # of 1, z and z^2

    def forward(self, inputs: AutoencoderInputs) -> dict[str, Tensor]:
        """The weighted sum of all terms, and each of them."""
        mean, logvar = (moment.float() for moment in self.vae.encode(inputs.pixels))
        if inputs.teacher is None:
            kl = objectives.kl_to_unit(mean, logvar)
        else:
            kl = objectives.kl_between(mean, logvar, *_padded(inputs.teacher, mean.shape[1]))
            mean, logvar = (
                torch.cat([theirs, ours[:, theirs.shape[1] :]], dim=1)
                for theirs, ours in zip(inputs.teacher, (mean, logvar), strict=True)
            )
        z = mean + (0.5 * logvar).exp() * inputs.noise
        output = self.vae.decode(self.vae.to_latents(z)).float()
        if self.training:
            self._observe(z.detach())
        error = output - inputs.pixels
        terms = {
            "l1": error.abs().mean(),
            "l2": error.square().mean(),
            "edge": objectives.edge_error(output, inputs.pixels).mean(),
            "kl": kl.mean(),
        }
        loss = sum(
            (getattr(self.weights, k) * v for k, v in terms.items()), inputs.noise.new_zeros(())
        )
        if self.training and self.adversary:
            last = self.vae.decoder.conv_out.weight
            terms["adversarial"] = self.adversary.term(loss, output, inputs.pixels, last)
            loss = loss + terms["adversarial"]
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def _observe(self, z: Tensor) -> None:
        seen = torch.stack([z.new_ones(()), z.mean(), z.square().mean()])
        self.moments.lerp_(seen, STATISTICS)

    @property
    def scaling_factor(self) -> float:
        """1 / std of z, so that latents have about unit variance (arXiv:2112.10752, eq. 4)."""
        weight, first, second = self.moments.double().tolist()
        if weight == 0.0:
            return self.vae.config.scaling_factor
        return float((second / weight - (first / weight) ** 2) ** -0.5)


def pieces(pixels: Tensor, side: int, draws: Draws) -> Tensor:
    """A square piece of each picture, anywhere in it: (B, 3, H, W) -> (B, 3, side, side)."""
    height, width = pixels.shape[-2:]
    tops = (draws.shares() * (height - side + 1)).long().tolist()
    lefts = (draws.shares() * (width - side + 1)).long().tolist()
    cut = [
        picture[:, top : top + side, left : left + side]
        for picture, top, left in zip(pixels, tops, lefts, strict=True)
    ]
    return torch.stack(cut)


class AutoencoderBatches:
    """Pixels of a batch or pieces of them, and noise of the size of their latents."""

    def __init__(
        self, recipe: Recipe, vae: Autoencoder, teacher: Autoencoder | None, device: torch.device
    ) -> None:
        self.patch, self.config, self.device = recipe.autoencoder.patch, vae.config, device
        self.teacher = teacher

    def __call__(self, batch: Batch, draws: Draws) -> AutoencoderInputs:
        """Pixels, noise and what the teacher says of them."""
        levels, config = batch.whole_levels, self.config
        if self.patch:  # cut before they travel
            levels = pieces(levels, self.patch, draws)
        pixels = as_pixels(send(levels, self.device))
        height, width = (side // config.factor for side in pixels.shape[-2:])
        noise = draws.normal((config.latent_channels, height, width))
        return AutoencoderInputs(pixels, noise, self._taught(pixels, (height, width)))

    @torch.no_grad()
    def _taught(self, pixels: Tensor, latents: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        if self.teacher is None:
            return None
        height, width = (side * self.teacher.config.factor for side in latents)
        mean, logvar = self.teacher.encode(F.interpolate(pixels, (height, width), mode="area"))
        return mean.float(), logvar.float()


class AutoencoderExporter:
    """Writes `vae/` in diffusers layout, its scaling factor measured while training."""

    def __init__(self, recipe: Recipe, module: AutoencoderModule) -> None:
        self.module = module
        self.measures = recipe.model.base is None and recipe.autoencoder.teacher is None

    def __call__(self, folder: Path, dtype: torch.dtype) -> None:
        """Write config and weights."""
        config = self.module.vae.config
        if self.measures:
            config = replace(config, scaling_factor=self.module.scaling_factor)
        write_json(folder / "vae" / "config.json", vae_json(config))
        save_component(folder, "vae", self.module.vae, dtype)


class ReconstructionPreviewer:
    """Draws held-out pictures above their reconstructions."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @torch.no_grad()
    def __call__(self, model: Path, picture: Path, held_out: Iterator[Batch]) -> None:
        """Draw with the exported model, as the one that learns may be sharded."""
        batch = next(held_out, None)
        if batch is None:
            return
        pixels = as_pixels(send(batch.whole_levels[:SHOWN], self.device))
        vae = load_autoencoder(str(model.resolve())).to(self.device)
        mean, _ = vae.encode(pixels)
        made = vae.decode(vae.to_latents(mean))
        save_grid([*to_images(pixels), *to_images(made)], picture, columns=len(pixels))


def autoencoder_target(recipe: Recipe, device: torch.device) -> Target:
    """Train an autoencoder; the result is a folder with `vae/` that a diffusion recipe can name.

    Raises what `load_autoencoder` raises, and ConfigError for a teacher that does not fit.
    """
    torch.manual_seed(recipe.run.seed)
    teacher, weights = _teacher(recipe, device), recipe.autoencoder
    vae = _autoencoder(recipe, teacher).to(device)
    adversary = Adversary(weights, device) if weights.adversarial else None
    module = AutoencoderModule(vae, weights, adversary).to(device)
    if weights.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    if recipe.run.compile:
        vae.encoder.compile()
        vae.decoder.compile()
    return Target(
        module=module,
        inputs=AutoencoderBatches(recipe, vae, teacher, device),
        export=AutoencoderExporter(recipe, module),
        preview=ReconstructionPreviewer(device),
        discriminator=adversary,
    )


def _teacher(recipe: Recipe, device: torch.device) -> Autoencoder | None:
    if recipe.autoencoder.teacher is None:
        return None
    return load_autoencoder(recipe.autoencoder.teacher).requires_grad_(False).to(device)


def _autoencoder(recipe: Recipe, teacher: Autoencoder | None) -> Autoencoder:
    """The autoencoder of `model.base`, or a new one, which begins with what fits of its teacher."""
    if recipe.model.base:
        vae = load_autoencoder(recipe.model.base).requires_grad_(True)
    else:
        assert recipe.model.vae is not None
        vae = Autoencoder(recipe.model.vae)
    check_factor(recipe, vae.config.factor, str(recipe.model.base or "recipe"))
    if teacher:
        vae = _pupil(vae, teacher, new=recipe.model.base is None)
    if recipe.run.gradient_checkpointing:
        checkpoint_gradients(vae)
    return vae


def _pupil(vae: Autoencoder, teacher: Autoencoder, *, new: bool) -> Autoencoder:
    """`vae` with the teacher's scale of latents. A new one takes over the tensors that fit.

    Raises ConfigError where the two have latents of different kinds.
    """
    ours, theirs = vae.config, teacher.config
    if ours.latent_channels < theirs.latent_channels or ours.factor < theirs.factor:
        raise ConfigError(
            f"autoencoder.teacher has {theirs.latent_channels} latent channels and factor "
            f"{theirs.factor}; the new autoencoder needs no fewer channels and no smaller factor, "
            f"but has {ours.latent_channels} and {ours.factor}"
        )
    scale = {name: getattr(theirs, name) for name in LATENT_SCALE}
    vae.config = replace(ours, **scale)
    if new:
        _take_over(vae, teacher)
    return vae


def _take_over(vae: Autoencoder, teacher: Autoencoder) -> None:
    """Copy the teacher's tensors that fit; let the decoder's other parts begin as enlargement."""
    mine = vae.state_dict()
    count = vae.config.latent_channels
    theirs = with_more_latents(teacher.state_dict(), mine, teacher.config.latent_channels, count)
    fitting = {
        name: tensor
        for name, tensor in theirs.items()
        if name in mine and mine[name].shape == tensor.shape
    }
    for name, module in vae.decoder.named_modules(prefix="decoder"):
        if isinstance(module, ResnetBlock) and f"{name}.conv2.weight" not in fitting:
            for parameter in module.conv2.parameters():
                nn.init.zeros_(parameter)
        elif isinstance(module, Upsample) and f"{name}.conv.weight" not in fitting:
            nn.init.dirac_(module.conv.weight)
            module.conv.bias = nn.Parameter(torch.zeros(module.conv.out_channels))
    vae.load_state_dict(vae.state_dict() | fitting)


def _padded(moments: tuple[Tensor, Tensor], channels: int) -> Iterator[Tensor]:
    """Mean and log variance (B, C, h, w) for more channels, of a unit Gaussian in the others."""
    for moment in moments:
        yield F.pad(moment, (0, 0, 0, 0, 0, channels - moment.shape[1]))


def with_more_latents(
    state: Mapping[str, Tensor], initial: Mapping[str, Tensor], few: int, many: int
) -> dict[str, Tensor]:
    """An autoencoder's tensors, for one of `many` latent channels instead of `few`.

    The first channels are what they were, and a decoder draws from them alone. The encoder's part
    for the others is that of `initial`, tensors of the larger one's shapes.
    """
    made = dict(state)
    for layer, groups in LATENT_LAYERS.items() if many > few else ():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in state and name in initial:
                made[name] = _with_more(state[name], initial[name], groups, few, many)
    return made


def _with_more(
    old: Tensor, initial: Tensor, groups: tuple[int | None, int | None], few: int, many: int
) -> Tensor:
    places = []  # of the old rows and columns in the new tensor
    for size, new, group in zip(old.shape, initial.shape, groups, strict=False):
        if group is None and size != new:
            return old  # these layers differ by more than latent channels
        firsts = [torch.arange(few) + many * i for i in range(group or 0)]
        places.append(torch.cat(firsts) if firsts else torch.arange(size))
    made = initial.clone()
    made[places[0]] = 0.0  # the old rows ignore the new columns
    made[places[0] if old.ndim == 1 else (places[0][:, None], places[1])] = old
    return made
