"""What to train, on what and how: a TOML file as a frozen `Recipe`.

The keys of the file are the fields of these dataclasses; `read.py` reads and checks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffgen.limits import required, within
from diffgen.models.config import ClipTextConfig, UNetConfig, VaeConfig
from diffgen.settings.picture import MAX_SEED
from diffgen.types import NoiseConfig, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """The pictures and captions to learn from, and how they become batches.

    `size` is the side of square pictures in pixels; `width` and `height` override it. `buckets`
    sorts pictures by aspect ratio into sizes that are multiples of `bucket_step` with about as many
    pixels; without `enlarge`, smaller pictures make buckets of their own size. `validation` is the
    part held out: a share below 1, or a number of pictures. `caption` is that of pictures without
    one. `captions` says whether each line of a caption file is a caption or the whole of it one;
    "auto" takes what has blank lines inside for paragraphs of one.
    """

    path: str
    size: int = within(512, 8)
    width: int | None = within(None, 8)
    height: int | None = within(None, 8)
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    buckets: bool = False
    bucket_step: int = within(64, 8)
    enlarge: bool = True
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
    schedule: NoiseConfig | None = None


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
    `adversarial` is the weight of a discriminator's loss, from step `adversarial_start` on.
    `decoder_only` leaves the latents of `model.base` as they are, so that a U-Net trained on them
    can take the new decoder. With a `teacher`, a model or the folder of its autoencoder, the new
    encoder learns the teacher's latents of the picture shrunk to the teacher's size, and `kl` is
    the weight of the divergence from them: a U-Net keeps its latents and draws larger pictures.
    Latent channels beyond the teacher's are free, and `kl` holds them near a unit Gaussian.
    """

    patch: int | None = within(None, 8)
    decoder_only: bool = False
    teacher: str | None = None
    l1: float = within(1.0, 0.0)
    l2: float = within(1.0, 0.0)
    edge: float = within(1.0, 0.0)
    kl: float = within(1e-6, 0.0)
    adversarial: float = within(0.0, 0.0)
    adversarial_start: int = within(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillRecipe:
    """How the student learns from `model.base` (latent consistency distillation).

    `guidance` is the teacher's scale: one number, which is distilled into the student (then
    sampled without guidance), or [low, high], a range of scales that the student takes as an input. The
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
    """Low-rank adapters for `model.base`, of rank 16 by default; `alpha` is the rank by default.

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
    seed: int = within(0, 0, MAX_SEED)
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
    """Pictures drawn every `every` steps from the averaged weights.

    Without `steps` they are as many as the model's sampler takes by itself: 20, or 4 with lcm. The
    autoencoder target shows reconstructions of held-out pictures instead of prompts, and a student
    distilled at one guidance scale is drawn from without `guidance`.
    """

    prompts: tuple[str, ...] = ()
    every: int = within(1000, 1)
    steps: int | None = within(None, 1)
    guidance: float = within(4.0, 0.0)
    seed: int = within(7, 0, MAX_SEED)


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
