"""Every setting that users may choose, in groups; see `diffgen.settings.setting`.

None means: as the model's makers recommend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from diffgen.errors import UsageError
from diffgen.limits import MAX_LAYERS
from diffgen.settings.grammar import (
    as_typed,
    parse_guidance,
    parse_interval,
    parse_numbers,
    parse_path,
    parse_point,
    parse_size,
    parse_stretches,
)
from diffgen.settings.loras import parse_embedding, parse_lora
from diffgen.settings.names import known_sampler, known_schedule, parse_sampler, parse_schedule
from diffgen.settings.setting import Group, Setting
from diffgen.types import (
    DeviceName,
    DtypeName,
    EmbeddingRef,
    GuidanceName,
    LoraRef,
    PictureFormat,
    Prediction,
    ProgressKind,
    PromptStyle,
    RngName,
    SamplerName,
    ScheduleName,
    Stretch,
)

DEFAULT_MODEL = "storybook"
DEFAULT_TEMPLATE = "{prompt:40}-{seed}.{ext}"
MAX_COUNT = 1_000_000_000
MAX_BATCH = 4096
MAX_STEPS = 100_000
MAX_SIDE = 65_536  # pixels
MAX_SEED = 2**64 - 1  # what torch.Generator takes
MAX_THREADS = 1024
EVERYWHERE = (0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Prompting(Group):
    """What to draw, beside the prompt itself."""

    panel: ClassVar[str] = "Prompt"

    negative: Annotated[
        str | None,
        Setting(
            "-n --negative",
            "What not to draw",
            "TEXT",
            peers="negative-prompt neg neg-prompt uc unconditional np",
        ),
    ] = None
    prompt_style: Annotated[
        PromptStyle | None,
        Setting(
            "--prompt-style",
            "Whose weights and long prompts: (x:1.2), BREAK, AND, [x:y:0.5], ... count in all but"
            " plain [default: a1111, or plain where the vocabulary is not CLIP's]",
        ),
    ] = None
    prompt_2: Annotated[
        str | None,
        Setting(
            "--prompt-2",
            "What the second text encoder of SDXL reads [default: the prompt]",
            "TEXT",
            peers="prompt2",
        ),
    ] = None
    negative_2: Annotated[
        str | None,
        Setting(
            "--negative-2",
            "The same for what not to draw [default: the negative]",
            "TEXT",
            peers="negative-prompt-2 negative-prompt2",
        ),
    ] = None
    clip_skip: Annotated[
        int | None,
        Setting(
            "--clip-skip",
            "Layer of the text encoder to read, from the end: 1 the last [default: the model's]",
            "N",
            low=1,
            high=MAX_LAYERS,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Size(Group):
    """How large, in pixels."""

    panel: ClassVar[str] = "Size and number"

    width: Annotated[
        int | None,
        Setting(
            "-W --width",
            "In pixels [default: the model's]",
            low=1,
            high=MAX_SIDE,
            peers="w image-width",
        ),
    ] = None
    height: Annotated[
        int | None,
        Setting(
            "-H --height",
            "In pixels [default: the model's]",
            low=1,
            high=MAX_SIDE,
            peers="h image-height",
        ),
    ] = None
    original_size: Annotated[
        tuple[int, int] | None,
        Setting(
            "--original-size",
            "What SDXL is told of the picture's size before it was cropped [default: its size]",
            "WxH",
            parse=parse_size,
        ),
    ] = None
    crop: Annotated[
        tuple[int, int] | None,
        Setting(
            "--crop",
            "What SDXL is told of where the crop begins, from left and top [default: 0,0]",
            "X,Y",
            parse=parse_point,
            peers="crops-coords-top-left",
        ),
    ] = None
    target_size: Annotated[
        tuple[int, int] | None,
        Setting(
            "--target-size",
            "What SDXL is told of the size it is meant for [default: its size]",
            "WxH",
            parse=parse_size,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Number(Group):
    """How many pictures of a prompt, and from which seed on."""

    panel: ClassVar[str] = "Size and number"

    seed: Annotated[
        int, Setting("--seed", "Seed of the first picture [default: random, as -1]", "N")
    ] = 0
    count: Annotated[
        int,
        Setting(
            "-c --count",
            "Pictures per prompt: seeds S, S+1, ... [default: 1]",
            "N",
            low=1,
            high=MAX_COUNT,
            peers="n-iter n-samples num-images num-images-per-prompt batch-count num-samples "
            "images number repeat images-per-prompt",
        ),
    ] = 1
    batch_size: Annotated[
        int,
        Setting(
            "--batch-size",
            "Pictures made together; never changes them [default: 1]",
            "N",
            low=1,
            high=MAX_BATCH,
            peers="b bs batch",
        ),
    ] = 1


@dataclass(frozen=True, kw_only=True)
class Sampling(Group):
    """How the noise is taken away. `sigmas` or `timesteps` replace `steps` and `schedule`.

    Names of other programs become ours; one that holds a spacing, as "DPM++ 2M Karras" does, sets
    the schedule unless that is given. Of all its steps a run takes the last ones, in a share of
    `last`, and of these the ones that begin in a `stretch` of the model's timesteps, which runs
    from 0, all noise, to 1, none.
    """

    panel: ClassVar[str] = "Sampling"

    sampler: Annotated[
        SamplerName | None,
        Setting(
            "-s --sampler",
            "See `diffgen samplers`; other programs' names work [default: the model's]",
            "NAME",
            parse=known_sampler,
            peers="sampling-method sampler-name sample-method sampler-index scheduler-type solver "
            "method",
        ),
    ] = None
    steps: Annotated[
        int | None,
        Setting(
            "--steps",
            "Sampler steps [default: the model's]",
            "N",
            low=1,
            high=MAX_STEPS,
            peers="num-inference-steps inference-steps ddim-steps sample-steps sampling-steps "
            "num-steps n-steps step",
        ),
    ] = None
    schedule: Annotated[
        ScheduleName | None,
        Setting(
            "--schedule",
            "Spacing of the steps: karras, trailing, ... [default: the model's]",
            "NAME",
            parse=known_schedule,
            peers="schedule-type",
        ),
    ] = None
    sigmas: Annotated[
        tuple[float, ...] | None,
        Setting(
            "--sigmas", "Explicit noise levels, descending: 14.6,5,1", "LIST", parse=parse_numbers
        ),
    ] = None
    timesteps: Annotated[
        tuple[float, ...] | None,
        Setting("--timesteps", "Explicit timesteps: 999,650,300", "LIST", parse=parse_numbers),
    ] = None
    rho: Annotated[
        float | None,
        Setting(
            "--rho",
            "Curvature of karras (7) and polyexponential (1) schedules",
            low=1e-3,
            high=1e3,
        ),
    ] = None
    eta: Annotated[
        float | None,
        Setting(
            "--eta",
            "How stochastic the sampler is, where it can be [default: its own]",
            low=0,
            high=1,  # beyond it a step asks for more noise than the next noise level has room for
            peers="ddim-eta eta-ddim",
        ),
    ] = None
    s_churn: Annotated[
        float | None,
        Setting(
            "--s-churn",
            "Noise added before each step (euler, heun) [default: 0]",
            low=0,
            peers="churn",
        ),
    ] = None
    rng: Annotated[
        RngName,
        Setting(
            "--rng",
            "Whose noise a seed gives: diffusers', A1111's on a GPU, or ComfyUI's [default: cpu]",
            peers="randn-source",
        ),
    ] = "cpu"
    last: float = 1.0
    stretch: tuple[float, float] = (0.0, 1.0)
    fast: Annotated[
        bool,
        Setting("--fast", "Sooner, not exact: on storybook 1.8 times as fast, 27 dB away"),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigmas", "timesteps"):
            if (levels := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(levels))
        if self.sampler:
            name, spacing = parse_sampler(self.sampler)
            object.__setattr__(self, "sampler", name)
            object.__setattr__(self, "schedule", self.schedule or spacing)
        if self.schedule:
            object.__setattr__(self, "schedule", parse_schedule(self.schedule))

    @property
    def options(self) -> Mapping[str, float]:
        """The sampler's own settings that were given."""
        own = {"eta": self.eta, "s_churn": self.s_churn}
        return {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Guidance(Group):
    """How strongly the prompt steers."""

    panel: ClassVar[str] = "Guidance"

    guidance_scale: Annotated[
        float | None,
        Setting(
            "-g --guidance",
            "Guidance scale; 1 or less is none [default: the model's]",
            "X",
            parse=parse_guidance,
            peers="cfg-scale cfg scale cfgscale",
        ),
    ] = None
    guidance_schedule: Annotated[
        tuple[Stretch, ...] | None,
        Setting(
            "--guidance-schedule",
            "Scales for shares of the steps, 7@0-0.6,1@0.6-1; -g takes it too",
            "LIST",
            parse=parse_stretches,
        ),
    ] = None
    guidance_method: Annotated[
        GuidanceName,
        Setting(
            "--guidance-method",
            "How outputs with and without the prompt become one; cfg++ takes scales from 0 to 1"
            " [default: cfg]",
            peers="guider",
        ),
    ] = "cfg"
    pag: Annotated[
        float,
        Setting(
            "--pag",
            "Perturbed-attention guidance, about 3; one more evaluation a step [default: 0]",
            low=0,
            high=1000,
            peers="pag-scale",
        ),
    ] = 0.0
    apg_momentum: Annotated[
        float,
        Setting(
            "--apg-momentum",
            "Of apg: share of the steps before, negative is away from them [default: -0.5]",
            low=-1,
            high=1,
        ),
    ] = -0.5
    apg_norm: Annotated[
        float,
        Setting(
            "--apg-norm",
            "Of apg: the longest step, for 128 x 128 latents [default: 15]",
            low=1e-6,
            high=1e6,
        ),
    ] = 15.0
    apg_parallel: Annotated[
        float,
        Setting(
            "--apg-parallel",
            "Of apg: share of the part along the picture [default: 0]",
            low=0,
            high=1,
        ),
    ] = 0.0
    guidance_rescale: Annotated[
        float,
        Setting(
            "--guidance-rescale",
            "Tame over-exposure by guidance, 0 to 1 [default: 0]",
            low=0,
            high=1,
            peers="cfg-rescale rescale guidance-scale-rescale cfg-rescale-phi",
        ),
    ] = 0.0
    guidance_interval: Annotated[
        tuple[float, float],
        Setting(
            "--guidance-interval",
            "Guide only between these noise levels",
            "LOW,HIGH",
            parse=parse_interval,
            peers="cfg-interval guidance-start guidance-end",
        ),
    ] = EVERYWHERE

    def __post_init__(self) -> None:
        if isinstance(self.guidance_scale, tuple):
            if self.guidance_schedule is not None:
                raise UsageError("give the scales for shares of the steps once")
            object.__setattr__(self, "guidance_schedule", self.guidance_scale)
            object.__setattr__(self, "guidance_scale", None)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Overrides(Group):
    """What is taken instead of what a model's files say."""

    panel: ClassVar[str] = "Model"

    vae: Annotated[
        Path | None,
        Setting(
            "--vae",
            "An autoencoder to use instead of the model's: a .safetensors file or folder",
            "PATH",
            parse=parse_path,
            peers="vae-path vae-dir vae-file autoencoder",
        ),
    ] = None
    prediction: Annotated[
        Prediction | None,
        Setting(
            "--prediction",
            "What the model predicts, where its files say wrong or nothing",
            peers="prediction-type parameterization",
        ),
    ] = None
    zero_snr: Annotated[
        bool | None,
        Setting(
            "--zero-snr/--no-zero-snr",
            "Whether it was trained with zero terminal SNR [default: as its files say]",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelName(Group):
    """Which model."""

    panel: ClassVar[str] = "Model"

    model: Annotated[
        str,
        Setting(
            "-m --model",
            f"A model's name, .safetensors file or folder [default: {DEFAULT_MODEL}]",
            "NAME|PATH",
            peers="ckpt checkpoint model-path model-name model-id diffusion-model "
            "pretrained-model-name-or-path sd-model ckpt-path pretrained-model",
        ),
    ] = DEFAULT_MODEL


@dataclass(frozen=True, kw_only=True)
class Source(Overrides, ModelName):
    """Which model, and what is taken instead of its own."""

    panel: ClassVar[str] = "Model"

    shift: Annotated[
        float | None,
        Setting(
            "--shift",
            "Shift of a flow's noise levels (--prediction flow) [default: the model's, or 3]",
            low=0.01,
            high=100,
            peers="flow-shift time-shift",
        ),
    ] = None
    probe: Annotated[
        bool,
        Setting(
            "--probe", "Ask the model once, at the last timestep, whether it predicts eps or v"
        ),
    ] = False
    decoder: Annotated[
        str | None,
        Setting(
            "--decoder",
            "A tiny decoder (TAESD) for quick pictures: tiny for the usual one of the model's "
            "family, or a file",
            "tiny|NAME|FILE",
            peers="taesd use-tiny-auto-encoder tae",
        ),
    ] = None
    base: Annotated[
        str | None,
        Setting(
            "--base",
            "A model that has the rest, where --model is a file of a U-Net alone",
            "NAME|PATH",
            peers="base-model",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Adapters(Group):
    """What is merged into the model."""

    panel: ClassVar[str] = "Model"

    loras: Annotated[
        tuple[LoraRef, ...],
        Setting(
            "--lora",
            "A LoRA, by its file or its name in the folders of the configuration, at a strength of "
            "WEIGHT [default: 1]; keys: unet, te, te2 (strengths), in, mid, out (factors of the "
            "U-Net's blocks), steps=0-0.6 (part of the run); repeatable",
            "FILE|NAME[:WEIGHT[:TE]][,KEY=VALUE]",
            parse=parse_lora,
            repeat=True,
            peers="lora-path lora-weights network-weights loras lora-file",
        ),
    ] = ()
    embeddings: Annotated[
        tuple[EmbeddingRef, ...],
        Setting(
            "--embedding",
            "A word learned by textual inversion, called in prompts by WORD or its file's name; "
            "repeatable",
            "[WORD=]FILE|NAME",
            parse=parse_embedding,
            repeat=True,
            peers="textual-inversions textual-inversion-embeddings textual-inversion embd",
        ),
    ] = ()
    lora_partial: Annotated[
        bool,
        Setting("--lora-partial", "Leave out what fits no layer of the model in a LoRA's file"),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Machine(Group):
    """Where and in which number format to compute; changes pictures by rounding only."""

    panel: ClassVar[str] = "Machine"

    device: Annotated[DeviceName, Setting("--device", "Where to run [default: auto]")] = "auto"
    dtype: Annotated[
        DtypeName,
        Setting(
            "--dtype",
            "Number format of the networks; auto: half where it is fast [default: auto]",
            peers="precision torch-dtype type weight-type",
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Threads(Group):
    """How many threads compute on the CPU."""

    panel: ClassVar[str] = "Machine"

    threads: Annotated[
        int | None,
        Setting(
            "--threads",
            "Threads on the CPU [default: one a core]",
            "N",
            low=1,
            high=MAX_THREADS,
            peers="t num-threads n-threads cpu-threads",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Output(Group):
    """Where pictures go."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        str | None,
        Setting(
            "-o --output",
            "A .png, .jpg, .webp or .avif file, a folder, or - for stdout [default: this folder]",
            "FILE|DIR",
            peers="out outdir output-dir output-path outpath output-file save outfile "
            "output-folder dest output-name",
        ),
    ] = None
    template: Annotated[
        str,
        Setting(
            "--output-template",
            "Names in a folder, of {line}, {prompt}, {negative}, {seed}, {sampler}, {schedule}, "
            "{steps}, {guidance}, {width}, {height}, {model} and {ext}, as in {line:03}-{prompt:40} "
            f"[default: {DEFAULT_TEMPLATE}]",
            "TEXT",
            peers="output-name-template filename-pattern samples-filename-pattern",
        ),
    ] = DEFAULT_TEMPLATE
    form: Annotated[
        PictureFormat | None,
        Setting(
            "--format",
            "Kind of file [default: by the name, else png]",
            peers="image-format image-type output-format filetype",
        ),
    ] = None
    quality: Annotated[
        int | None,
        Setting(
            "--quality",
            "Of JPEG, WebP and AVIF [default: 90]",
            low=1,
            high=100,
            peers="imagequality",
        ),
    ] = None
    overwrite: Annotated[bool, Setting("--overwrite", "Replace pictures that exist")] = False
    skip_existing: Annotated[
        bool, Setting("--skip-existing", "Make no picture whose name is taken")
    ] = False
    metadata: Annotated[
        bool,
        Setting(
            "--metadata/--no-metadata", "Write into pictures how they were made [default: yes]"
        ),
    ] = True
    as_json: Annotated[bool, Setting("--json", "Print one JSON object per picture")] = False


@dataclass(frozen=True, kw_only=True)
class Reading(Group):
    """Where prompts come from, and how they are read."""

    panel: ClassVar[str] = "Prompt"

    texts: Annotated[
        tuple[str, ...],
        Setting(
            "-p --prompt",
            "A prompt; repeatable",
            "TEXT",
            parse=as_typed,
            repeat=True,
            peers="text caption positive-prompt",
        ),
    ] = ()
    prompt_file: Annotated[
        str | None,
        Setting(
            "--prompts",
            "A file of prompts: text with options in the line, .jsonl, .csv or .toml; - reads stdin",
            "FILE",
            peers="from-file prompts-file prompt-file file prompts-from-file",
        ),
    ] = None
    from_picture: Annotated[
        Path | None,
        Setting(
            "--from",
            "Make a picture again: one of diffgen, A1111, ComfyUI, InvokeAI or NovelAI; options win",
            "FILE",
            parse=parse_path,
            peers="params-from config-from-metadata",
        ),
    ] = None
    wildcards: Annotated[
        Path | None,
        Setting("--wildcards", "Where the files of __wildcards__ are", "DIR", parse=parse_path),
    ] = None
    all_combinations: Annotated[
        bool, Setting("--all-combinations", "Every choice of {a|b} and __wildcards__, not one")
    ] = False
    strict: Annotated[
        bool,
        Setting(
            "--strict", "Refuse prompts in other programs' syntax: (x:1.2), <lora:...>, {a|b}, ..."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Running(Group):
    """How a run of many pictures goes on."""

    panel: ClassVar[str] = "Run"

    dry_run: Annotated[
        bool, Setting("--dry-run", "Check everything, say what would be made, make nothing")
    ] = False
    resume: Annotated[
        bool,
        Setting(
            "--resume/--fresh",
            "Whether a prompt file goes on where it stopped, or starts over [default: go on]",
        ),
    ] = True
    exact: Annotated[
        bool,
        Setting("--exact", "One picture at a time, by deterministic kernels: equal to the bit"),
    ] = False
    stop_on_error: Annotated[
        bool, Setting("--stop-on-error", "Stop at the first picture that fails")
    ] = False
    contact_sheet: Annotated[
        str | None,
        Setting("--contact-sheet", "Draw all pictures of the run, small, into one", "FILE"),
    ] = None
    grid: Annotated[
        str | None,
        Setting("--grid", "The same with a row for each value of a matrix's last list", "FILE"),
    ] = None
    summary: Annotated[
        str | None, Setting("--summary", "Write what the run came to, as JSON", "FILE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Talk(Group):
    """How much is said on stderr."""

    panel: ClassVar[str] = "Output"

    progress: Annotated[
        ProgressKind,
        Setting("--progress", "How the run is reported on stderr [default: auto]"),
    ] = "auto"

    quiet: Annotated[bool, Setting("-q --quiet", "Say nothing but results and errors")] = False
    verbose: Annotated[bool, Setting("-v --verbose", "Say more, and show where errors arise")] = (
        False
    )
