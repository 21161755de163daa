"""The few types every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from diffgen.limits import within

if TYPE_CHECKING:
    from torch import Tensor

Prediction: TypeAlias = Literal["eps", "v", "sample", "flow", "edm", "edm_v"]
Size: TypeAlias = tuple[int, int]  # (width, height) in pixels
Component: TypeAlias = Literal["unet", "vae", "text_encoder", "text_encoder_2"]
TEXT_ENCODERS: tuple[Component, ...] = ("text_encoder", "text_encoder_2")
GuidanceName: TypeAlias = Literal["cfg", "cfg++", "apg"]
# Whose way of weighing words and of dividing long prompts; `plain` does neither.
PromptStyle: TypeAlias = Literal["a1111", "comfy", "compel", "plain"]

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
DtypeName: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]

SamplerName: TypeAlias = Literal[
    "ddpm",
    "ddim",
    "plms",
    "ipndm",
    "euler",
    "euler_a",
    "heun",
    "dpm2",
    "dpm2_a",
    "lms",
    "dpmpp_2s_a",
    "dpmpp_2m",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "dpm_fast",
    "dpm_adaptive",
    "deis",
    "unipc",
    "unipc_bh1",
    "lcm",
    "tcd",
    "restart",
    "er_sde",
    "sa_solver",
]
SpacingName: TypeAlias = Literal[
    "leading",
    "trailing",
    "linspace",
    "normal",
    "simple",
    "sgm_uniform",
    "ddim_uniform",
    "karras",
    "exponential",
    "polyexponential",
    "beta",
    "ays",
    "kl_optimal",
    "lcm",
]
AysName: TypeAlias = Literal["sd15", "sdxl"]  # families with a list of Align Your Steps

PictureFormat: TypeAlias = Literal["png", "jpeg", "webp", "avif"]
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
# How far a run is: a bar on a terminal and lines elsewhere, one of these, JSON events, or nothing.
ProgressKind: TypeAlias = Literal["auto", "bar", "plain", "json", "none"]
# Whose numbers the noise is: torch's on a CPU (as diffusers), on a GPU (as A1111), or ComfyUI's.
RngName: TypeAlias = Literal["cpu", "a1111-gpu", "comfy"]


# The blocks of a U-Net: 0 down, 1 the middle, 2 up.
BLOCKS: Mapping[str, int] = {
    "conv_in": 0,
    "down_blocks": 0,
    "mid_block": 1,
    "up_blocks": 2,
    "conv_norm_out": 2,
    "conv_out": 2,
}


# Of LDM's three lists the places among 26 factors, of which the first is for text encoders.
FIRST_DOWN, MIDDLE, FIRST_UP, ENTRIES = 1, 13, 14, 12
EXACT = 1e-9  # of a run; tolerance at the start of a LoRA's part


def place_of(layer: str, unet: Sequence[int]) -> int | None:
    """The place of a U-Net's layer among 26 factors; None for one in no entry of LDM's lists.

    `unet` are the residual blocks of its levels on the way down; up there is one more.
    """
    head, *path = layer.split(".")
    if head in ("conv_in", "mid_block"):
        return FIRST_DOWN if head == "conv_in" else MIDDLE
    if head not in ("down_blocks", "up_blocks"):
        return None
    level, kind, index = int(path[0]), path[1], int(path[2])
    down = head == "down_blocks"
    counts = list(unet) if down else list(reversed(unet))
    # The change of size is an entry of its own on the way down, and in the last one on the way up.
    inside = index if kind in ("resnets", "attentions") else counts[level]
    entry = sum(counts[:level]) + level + inside + down
    return (FIRST_DOWN if down else FIRST_UP) + entry if entry < ENTRIES else None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A guidance scale for a share of the steps, from `start` up to `end`; 0 is all noise."""

    scale: float
    start: float = 0.0
    end: float = 1.0

    def __str__(self) -> str:
        return f"{self.scale:.15g}@{self.start:.15g}-{self.end:.15g}"


@dataclass(frozen=True, slots=True)
class LoraRef:
    """A LoRA file, and how much of it to apply: 1 as it was trained, 0 nothing.

    `weight` is for all networks; `unet`, `te` (the text encoders) and `te2` (the second of them)
    are for one instead. `blocks` are factors for the U-Net's way down, middle and way up. `steps`
    is the part of a run, from 0 to 1, in which the U-Net has the LoRA; prompts are read with it in
    any case; `start` and `stop` say the same by numbers of steps. `lbw` are factors for the text
    encoders and each entry of LDM's lists, as `diffgen.settings.block_weights` names them.
    `partial` lets tensors that fit no layer of the model be left out.
    """

    path: Path
    weight: float = 1.0
    unet: float | None = None
    te: float | None = None
    te2: float | None = None
    blocks: tuple[float, float, float] = (1.0, 1.0, 1.0)
    steps: tuple[float, float] = (0.0, 1.0)
    start: int = 0
    stop: int | None = None
    lbw: tuple[float, ...] | None = None
    partial: bool = False

    def strength(self, component: Component, layer: str, unet: Sequence[int]) -> float:
        """How much of its delta a layer gets; `unet` are the residual blocks of its levels."""
        own = {"unet": self.unet, "text_encoder": self.te}.get(component, self.te2)
        if own is None:
            own = self.te if component != "unet" and self.te is not None else self.weight
        if component == "unet":
            block = BLOCKS.get(layer.partition(".")[0])
            own *= 1.0 if block is None else self.blocks[block]
        return own * self._of_block(place_of(layer, unet) if component == "unet" else 0)

    def _of_block(self, place: int | None) -> float:
        return 1.0 if self.lbw is None or place is None else self.lbw[place]

    @property
    def always(self) -> bool:
        """Whether it is there in every step of a run."""
        return self.steps == (0.0, 1.0) and (self.start, self.stop) == (0, None)

    def active(self, step: int, total: int) -> bool:
        """Whether the U-Net has it in a step, counted from 0."""
        part = step / total + EXACT
        stops = total if self.stop is None else self.stop
        return self.steps[0] <= part < self.steps[1] and self.start <= step < stops

    @property
    def settings(self) -> str:
        """The weight and what else is set, as `--lora` takes it behind the file's name."""
        single = {"unet": self.unet, "te": self.te, "te2": self.te2}
        told = [f"{name}={value:.15g}" for name, value in single.items() if value is not None]
        factors = zip(("in", "mid", "out"), self.blocks, strict=True)
        told += [f"{name}={factor:.15g}" for name, factor in factors if factor != 1.0]
        if self.steps != (0.0, 1.0):
            told.append(f"steps={self.steps[0]:.15g}-{self.steps[1]:.15g}")
        told += [f"start={self.start}"] if self.start else []
        told += [] if self.stop is None else [f"stop={self.stop}"]
        if self.lbw is not None:
            told.append("lbw=" + ",".join(f"{factor:.15g}" for factor in self.lbw))
        return ",".join([f"{self.weight:.15g}", *told])


@dataclass(frozen=True, slots=True)
class EmbeddingRef:
    """A file with a learned embedding, and the word for it in prompts, by default the file's."""

    path: Path
    name: str | None = None


class Denoiser(Protocol):
    """Any callable `(x, sigma) -> x0 estimate`; what every sampler is written against.

    x and result: (B, C, h, w) float32. Noise levels are plain floats: solver coefficients are
    computed in double precision on the host, and no loop ever waits for a device to read one.
    """

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


class NoiseSource(Protocol):
    """Unit Gaussian noise, (B, C, h, w) float32, for the step from `sigma` to `sigma_next`."""

    def __call__(self, sigma: float, sigma_next: float) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a sampler reports after each step: for progress, previews and cancelling.

    `x` is the state at `sigma` after the step (sigma space), `denoised` the x0 estimate that led
    there. `total` is 0 where the sampler decides on its number of steps while it runs.
    """

    index: int
    total: int
    sigma: float
    x: Tensor
    denoised: Tensor


StepCallback: TypeAlias = Callable[[StepInfo], None]
# What a sampler yields after each step: (sigma, x, denoised) as in StepInfo.
Steps: TypeAlias = Iterator["tuple[float, Tensor, Tensor]"]


def ignore(info: StepInfo) -> None:
    """A callback that does nothing."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The U-Net's inputs besides x and t; all tensors share the batch dimension B."""

    context: Tensor  # (B, tokens, D) cross-attention text
    pooled: Tensor | None = None  # (B, P) SDXL's pooled text
    time_ids: Tensor | None = None  # (B, 6) SDXL sizes and crops, in pixels
    concat: Tensor | None = None  # (B, C', h, w) extra input channels of 8- and 9-channel U-Nets
    guidance: Tensor | None = None  # (B,) guidance scale for U-Nets distilled with one (LCM)
    perturbed: Tensor | None = None  # (B,) bool: without self-attention in the mid block (PAG)

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same function applied to every tensor present."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in tensors.items() if v is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseConfig:
    """The noise a model was trained with, and how its makers sample it.

    `betas` overrides the named beta schedule; `sampler` and `spacing` are the checkpoint's own
    defaults. Models of "flow", "edm" and "edm_v" know no betas: their noise runs over `shift`, or from
    `sigma_min` to `sigma_max` on data of deviation `sigma_data` (None: as their first authors have it).
    `distilled_steps` is the size of the grid that lcm picks its steps from.
    `final_alpha_one=False` lets DDIM and PLMS stop at the first table entry, True lets
    them go on to 0; where the checkpoint does not say, each does as its authors do. `unsupported`
    says why the checkpoint's own sampler cannot be had here, if so; another can be named.
    """

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    beta_start: float = within(0.00085, 1e-8, 0.9999)
    beta_end: float = within(0.012, 1e-8, 0.9999)
    betas: Sequence[float] | None = within(None, 1e-8, 0.9999)
    num_train_timesteps: int = within(1000, 2, 100_000)
    prediction: Prediction = "eps"
    shift: float = within(3.0, 1e-3, 1e3)
    sigma_min: float | None = within(None, 1e-6, 1e6)
    sigma_max: float | None = within(None, 1e-6, 1e6)
    sigma_data: float | None = within(None, 1e-6, 1e6)
    zero_snr: bool = False
    steps_offset: int = within(0, 0, 100_000)
    final_alpha_one: bool | None = None
    clip: float | None = within(
        None, 1e-6, 1e6
    )  # clamp the x0 estimate to +-clip (pixel-space models)
    sampler: SamplerName = "ddim"
    spacing: SpacingName = "leading"
    distilled_steps: int = within(50, 1, 100_000)
    unsupported: str | None = None

    @property
    def on_betas(self) -> bool:
        """Whether the noise is that of DDPM, on a table of betas."""
        return self.prediction in ("eps", "v", "sample")
