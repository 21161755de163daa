"""What to train, on what and how: a TOML file as a frozen `Recipe`.

Importing this module does not import torch. `diffgen train RECIPE.toml --set run.steps=100` and the
file saved with each run go through the same checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from diffgen.errors import ConfigError
from diffgen.limits import required, within
from diffgen.models.checks import check_networks
from diffgen.models.config import ClipTextConfig, UNetConfig, VaeConfig
from diffgen.train.checks import (
    check_autoencoder,
    check_optimizer,
    check_parallel,
    check_vocabulary,
    settled_lora,
)
from diffgen.train.tables import build, override, read_toml
from diffgen.types import Prediction, ScheduleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """The pictures and captions to learn from, and how they become batches.

    `size` is the side of square pictures in pixels; `width` and `height` override it. `buckets`
    sorts pictures by aspect ratio into sizes that are multiples of `bucket_step` with about as many
    pixels. `validation` is the part held out: a share below 1, or a number of pictures. `caption`
    is that of pictures without one. `captions` says whether each line of a caption file is a
    caption or the whole of it one; "auto" takes what has blank lines inside for paragraphs of one.
    """

    path: str
    size: int = within(512, 8)
    width: int | None = within(None, 8)
    height: int | None = within(None, 8)
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    buckets: bool = False
    bucket_step: int = within(64, 8)
    caption: str | None = None
    captions: Literal["auto", "lines", "whole"] = "auto"
    caption_dropout: float = within(0.1, 0.0, 1.0)
    validation: int | float = within(0.02, 0.0)
    workers: int = within(0, 0)
    cache: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(width, height) in pixels, of every picture where there are no buckets."""
        return self.width or self.size, self.height or self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """The model to start from: a `base` to fine-tune, or an architecture to begin from nothing.

    For a base: `prediction` is what its U-Net predicts and `zero_snr` whether it was trained with
    zero terminal SNR, where its files do not say or are wrong, and `autoencoder` a file or folder to
    use instead of its own.

    Without a base: `unet` and `text` describe new networks, `autoencoder` is a folder with a
    trained one (none means that the U-Net works on pixels) and `tokenizer` is a model's name or a
    folder with a vocabulary; "captions" learns one of `text.vocab_size` tokens from the data's.
    `vae` is the architecture of the autoencoder target.
    """

    base: str | None = None
    prediction: Prediction | None = None
    zero_snr: bool | None = None
    autoencoder: str | None = None
    tokenizer: str = "storybook"
    train_text_encoder: bool = False
    unet: UNetConfig | None = None
    vae: VaeConfig | None = None
    text: ClipTextConfig | None = None
    schedule: ScheduleConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveRecipe:
    """The diffusion loss. What is predicted, and the noise, are in `model.schedule`.

    `huber_c` is the width of the pseudo-Huber loss where it is quadratic. `logit_mean` and
    `logit_std` shape the logit-normal distribution of t / T.
    """

    loss: Literal["mse", "huber"] = "mse"
    huber_c: float = within(0.1, 1e-6)
    min_snr_gamma: float | None = within(None, 1e-6)
    noise_offset: float = within(0.0, 0.0, 1.0)
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: float = 0.0
    logit_std: float = within(1.0, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderRecipe:
    """Weights of the terms of the autoencoder's loss.

    `patch` is the side in pixels of the square piece of each picture that a step learns from: an
    autoencoder without attention sees only a neighbourhood, so pieces teach it whole pictures.
    `adversarial` is the weight of a discriminator's opinion, from step `adversarial_start` on.
    `decoder_only` leaves the latents of `model.base` as they are, so that a U-Net trained on them
    can take the new decoder.
    """

    patch: int | None = within(None, 8)
    decoder_only: bool = False
    l1: float = within(1.0, 0.0)
    l2: float = within(1.0, 0.0)
    edge: float = within(1.0, 0.0)
    kl: float = within(1e-6, 0.0)
    adversarial: float = within(0.0, 0.0)
    adversarial_start: int = within(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillRecipe:
    """How the student learns from `model.base` (latent consistency distillation).

    `guidance` is the teacher's scale: one number, which the student takes in for good and is then
    sampled without guidance, or [low, high], between which it is told a scale each time. The
    teacher's trajectories have `ddim_steps`. `huber_c` is the root mean square error up to which
    the pseudo-Huber loss is quadratic. `target_decay` is that of the average that the student
    learns from; 0 is the student itself, without another network in memory. With `as_lora` the
    student is what `[lora]` says, beside the frozen base, and the run makes its file.
    """

    guidance: float | tuple[float, ...] = within(4.0, 1.0)
    ddim_steps: int = within(50, 1)
    loss: Literal["huber", "mse"] = "huber"
    huber_c: float = within(0.001, 1e-6)
    target_decay: float = within(0.95, 0.0, 0.9999)
    as_lora: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRecipe:
    """Low-rank adapters for `model.base`, of rank 16 unless told; without `alpha`, it is the rank.

    `modules` are groups (attention, feed_forward, projection, convolution, all) or patterns of
    names such as "mid_block.*.to_q"; without any they are those of attention. With `text_encoder`,
    layers of the text encoders are adapted as well. `init` is a LoRA file to begin from, which
    brings its own rank, alpha and layers. `layout` is how the finished file names its tensors.
    """

    init: str | None = None
    rank: int | None = within(None, 1)
    alpha: float | None = within(None, 1e-3)
    modules: tuple[str, ...] | None = None
    text_encoder: bool = False
    layout: Literal["kohya", "peft"] = "kohya"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRecipe:
    """AdamW (arXiv:1711.05101) or Muon (`train/muon.py`), and the learning rate over time.

    The rate rises linearly for `warmup` steps to `lr`, then falls to `final` times that. `clip` is
    the largest norm of all gradients together; 0 means no clipping.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = within(1e-4, 0.0)
    beta1: float = within(0.9, 0.0, 1.0)
    beta2: float = within(0.999, 0.0, 1.0)
    eps: float = within(1e-8, 0.0)
    weight_decay: float = within(0.01, 0.0)
    warmup: int = within(0, 0)
    decay: Literal["constant", "linear", "cosine"] = "cosine"
    final: float = within(0.0, 0.0, 1.0)
    clip: float = within(1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    """The loop. A step learns from batch_size * accumulate * processes pictures.

    A checkpoint is written every `checkpoint_every` steps and every `checkpoint_minutes` (0: by steps
    only). `keep_last` checkpoints are kept, and every one whose step divides by `keep_every` (0: none
    besides). `save_dtype` is the number format of the finished model. `parallel` is how several
    processes work together: "ddp" gives each a copy of all, "fsdp" a share of the weights that
    learn, of their gradients, averages and optimizer, for models that do not fit one device.
    """

    steps: int = required(1)
    batch_size: int = within(1, 1)
    accumulate: int = within(1, 1)
    seed: int = within(0, 0, 2**31)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    ema: float = within(0.999, 0.0, 1.0)
    log_every: int = within(10, 1)
    checkpoint_every: int = within(500, 1)
    checkpoint_minutes: float = within(10.0, 0.0)
    validate_every: int = within(500, 1)
    keep_last: int = within(2, 1)
    keep_every: int = within(0, 0)
    compile: bool = False
    channels_last: bool = False
    gradient_checkpointing: bool = False
    save_dtype: Literal["fp32", "fp16", "bf16"] = "fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesRecipe:
    """Pictures drawn on the way, each `every` steps, from the averaged weights.

    Without `steps` they are as many as the model's sampler takes by itself: 20, or 4 with lcm. The
    autoencoder target shows reconstructions of held-out pictures instead of prompts, and a student
    distilled at one guidance scale is drawn from without `guidance`.
    """

    prompts: tuple[str, ...] = ()
    every: int = within(1000, 1)
    steps: int | None = within(None, 1)
    guidance: float = within(4.0, 0.0)
    seed: int = within(7, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about one training run. `name` and `license` go into the model card."""

    target: Literal["diffusion", "autoencoder", "contrastive", "distill", "lora"]
    name: str = "model"
    license: str = "unknown"
    data: DataRecipe
    run: RunRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    objective: ObjectiveRecipe = field(default_factory=ObjectiveRecipe)
    autoencoder: AutoencoderRecipe = field(default_factory=AutoencoderRecipe)
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    samples: SamplesRecipe = field(default_factory=SamplesRecipe)

    @classmethod
    def load(cls, path: Path, assignments: Sequence[str] = ()) -> Self:
        """Read a file, with `key=value` overrides. Raises ConfigError, naming file and key."""
        return cls.parse(override(read_toml(path), assignments), str(path))

    @classmethod
    def parse(cls, table: dict[str, Any], where: str) -> Self:
        """Check a parsed table; `where` names it in errors."""
        recipe = build(cls, table, where)
        recipe = replace(recipe, lora=settled_lora(recipe, where))
        if recipe.target == "distill":
            _check_distill(recipe, where)
        _check_model(recipe, where)
        model = recipe.model
        texts = (model.text,) if model.text else ()
        check_networks(
            model.unet, model.vae, texts, model.schedule, lambda key: f'{where}: "model.{key}"'
        )
        check_optimizer(recipe, where)
        check_parallel(recipe, where)
        check_autoencoder(recipe, where)
        check_vocabulary(recipe, where)
        return recipe


def _check_model(recipe: Recipe, where: str) -> None:
    model = recipe.model
    new = [name for name in ("unet", "text", "schedule") if getattr(model, name)]
    chosen = [name for name in ("prediction", "zero_snr") if getattr(model, name) is not None]
    if chosen and (not model.base or recipe.target == "autoencoder"):
        raise ConfigError(
            f"{where}: model.{chosen[0]} is for the U-Net of a model.base; a new one has it in "
            "[model.schedule]"
        )
    if recipe.target == "autoencoder":
        if (model.base is None) == (model.vae is None):
            raise ConfigError(f"{where}: the autoencoder target needs model.base or [model.vae].")
        return
    if model.vae is not None:
        raise ConfigError(
            f"{where}: [model.vae] belongs to the autoencoder target; "
            "model.autoencoder names the folder of a trained one."
        )
    if model.base and new:
        raise ConfigError(f"{where}: model.base brings its own {new[0]}; drop model.{new[0]}.")
    if model.base is None and not (model.unet and model.text):
        raise ConfigError(
            f"{where}: give model.base to fine-tune, or [model.unet] and [model.text] for new ones."
        )


def _check_distill(recipe: Recipe, where: str) -> None:
    guidance = recipe.distill.guidance
    if recipe.model.base is None:
        raise ConfigError(f"{where}: the distill target needs model.base, the model to distil.")
    if recipe.model.train_text_encoder:
        raise ConfigError(
            f"{where}: distillation trains the U-Net alone; drop model.train_text_encoder."
        )
    if recipe.objective != ObjectiveRecipe():
        raise ConfigError(
            f"{where}: [objective] is the loss of the diffusion target; that of distillation is in "
            "[distill]."
        )
    if isinstance(guidance, tuple) and (len(guidance) != 2 or guidance[0] >= guidance[1]):
        raise ConfigError(
            f'{where}: "distill.guidance" should be a number or [low, high] with low < high, not '
            f"{list(guidance)}."
        )
    if recipe.distill.as_lora and isinstance(guidance, tuple):
        raise ConfigError(
            f"{where}: adapters cannot be told a guidance scale; distill.as_lora needs one number "
            "for distill.guidance."
        )
    if recipe.distill.as_lora and recipe.lora.text_encoder:
        raise ConfigError(f"{where}: distillation trains the U-Net alone; drop lora.text_encoder.")
