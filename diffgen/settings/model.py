"""Which model, what is taken instead of its own, and what is merged into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from diffgen.settings.grammar import parse_path
from diffgen.settings.loras import parse_embedding, parse_lora
from diffgen.settings.setting import Group, Setting
from diffgen.types import EmbeddingRef, LoraRef, Prediction

DEFAULT_MODEL = "storybook"


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
            "U-Net's blocks), lbw (of each, as A1111's LoRA Block Weight), steps=0-0.6 (part of "
            "the run), start, stop (steps); repeatable",
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
