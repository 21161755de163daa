"""What models of each task support: text, masks and instructions about pictures."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from diffgen.engine.edits import Edits
from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.files import expanded
from diffgen.models.config import ModelConfig

if TYPE_CHECKING:
    from diffgen.engine.model import Model
    from diffgen.engine.plan import GeneratePlan
    from diffgen.engine.request import GenerateRequest

WHOLE, PART = 0.75, 1.0  # strength without and with a mask
ENLARGERS = ("latent", "lanczos")  # any other upscaler is a file
REPEATING = 2.0  # times the area that a model learned, from which on it composes several pictures


def strength_of(request: GenerateRequest, edits: Edits | None, config: ModelConfig) -> float:
    """The share of the steps that is run."""
    if edits is None:
        return 1.0
    if request.strength is not None:
        return request.strength
    return WHOLE if config.task == "text" and edits[0].mask is None else PART


def check_task(request: GenerateRequest, config: ModelConfig) -> None:
    """Raise UnsupportedCheckpoint for U-Nets of other channels, UsageError for other tasks."""
    latent = config.latent_channels
    if config.task == "other":
        raise UnsupportedCheckpoint(
            f"this U-Net takes {latent + config.extra_channels} input channels where its latents have "
            f"{latent}: neither for text, nor for masks, nor for instructions"
        )
    if config.output_channels != latent:
        raise UnsupportedCheckpoint(
            f"this U-Net gives {config.output_channels} channels for latents of "
            f"{latent}: learned variances are not supported"
        )
    if config.task != "edit":
        return
    if request.init is None:
        raise UsageError("this model changes a picture as the prompt says; give one with --init")
    tricks = (request.guidance_method != "cfg", request.pag, request.guidance_schedule)
    if any(tricks) or request.guidance_rescale:
        raise UsageError("this model is guided by --guidance and --image-guidance alone")


def check_hires(request: GenerateRequest, edits: Edits | None, config: ModelConfig) -> None:
    """Raise UsageError for an impossible second pass, before anything is drawn."""
    if (edits and edits[0].mask is not None) or config.task != "text":
        raise UsageError("--hires draws whole pictures: no masks, and no models that edit")
    upscaler = request.hires_upscaler
    if upscaler == "latent" and config.vae is None:
        raise UsageError("--hires-upscaler latent: this model works on pixels; use lanczos")
    if upscaler in ENLARGERS:
        return
    if not expanded(upscaler).is_file():
        raise UsageError(
            f"--hires-upscaler takes latent, lanczos or a file; there is no file {upscaler}"
        )
    if find_spec("spandrel") is None:
        raise UsageError(
            "the spandrel package reads upscaling models, and is missing: pip install spandrel"
        )


def check_size(name: str, pixels: int | None, config: ModelConfig) -> int:
    """A side in pixels, by default the model's. Raises UsageError unless the factor divides it."""
    pixels = config.native_size if pixels is None else pixels
    factor = config.factor
    if pixels % factor:
        below = pixels // factor * factor
        near = f"{below} or {below + factor}" if below else f"{factor}"
        raise UsageError(
            f"{name} {pixels} does not divide by {factor}, the factor of this model; take {near}"
        )
    return pixels


def too_large(plan: GeneratePlan, model: Model) -> str | None:
    """A note on a size far above the model's own, where no init picture says what goes where."""
    side, (width, height) = model.checkpoint.config.native_size, (plan.width, plan.height)
    if plan.edits is not None or width * height < REPEATING * side**2:
        return None
    return (
        f"{model.name} is for pictures of {side} x {side}: at {width} x {height} things may repeat; "
        f"draw smaller ones, and enlarge those with --hires"
    )


def check_timesteps(request: GenerateRequest, config: ModelConfig) -> None:
    """Raise UsageError for timesteps outside the model's training range."""
    last = config.schedule.num_train_timesteps - 1
    if request.timesteps and request.timesteps[0] > last:
        raise UsageError(f"timesteps run from 0 to {last}, got {request.timesteps[0]:g}")


def check_clip_skip(layer: int | None, config: ModelConfig) -> int:
    """The layer of the text encoders to read. Raises UsageError if they have fewer."""
    layer = config.text_layer if layer is None else layer
    layers = min(encoder.layers for encoder in config.text)
    if layer > layers:
        raise UsageError(f"clip skip {layer}: this model's text encoder has {layers} layers")
    return layer
