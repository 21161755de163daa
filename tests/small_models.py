"""Small models in every layout that is read, for scripts/fuzz.py to damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import single_files
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from diffgen.models.lora import LoraDelta
from diffgen.weights.adapters.lora import save_lora
from diffgen.weights.checkpoint import Checkpoint

LORA, VAE = "lora.safetensors", "vae.safetensors"


def make_models(folder: Path) -> None:
    """Tiny random models in every layout that is read, and LoRA and VAE files for the first."""
    for family in ("sd1", "sdxl"):
        getattr(tiny_models, f"tiny_{family}")(folder / f"{family}-folder")
        place = folder / f"{family}-file"
        place.mkdir()
        pipeline = single_files.make_pipeline(family)
        single_files.write_single_file(place / "model.safetensors", pipeline, family)
    _shard(folder / "sd1-folder", folder / "sd1-shards")
    _copy_vae(folder)
    for layout in ("kohya", "peft"):
        shutil.copytree(folder / "sd1-folder", folder / f"lora-{layout}")
        metadata = {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": 2}'}
        place = folder / f"lora-{layout}"
        make_lora(place / LORA, place, rank=2, share=0.01, layout=layout, metadata=metadata)


def _shard(source: Path, folder: Path) -> None:
    """The same model with its U-Net in two files and an index, and a tokenizer.json."""
    shutil.copytree(source, folder)
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    parts = {"1.safetensors": names[::2], "2.safetensors": names[1::2]}
    for part, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / "unet" / part)
    index = {"weight_map": {name: part for part, some in parts.items() for name in some}}
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps(index))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")


def _copy_vae(folder: Path) -> None:

    shutil.copytree(folder / "sd1-folder", folder / "vae-ldm")
    tensors = load_file(folder / "sd1-file" / "model.safetensors")
    vae = {name: t for name, t in tensors.items() if name.startswith("first_stage_model.")}
    save_file(vae, folder / "vae-ldm" / "vae.safetensors")


def make_lora(
    path: Path,
    model: Path,
    *,
    rank: int,
    share: float,
    layout: str = "kohya",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A random LoRA of all queries and values of a model's U-Net, its up part scaled by `share`."""
    checkpoint, deltas = Checkpoint.open(model), {}
    for name, info in checkpoint.tensors["unet"].infos.items():
        if name.endswith(("to_q.weight", "to_v.weight")):
            out, into = info.shape
            layer = LoraDelta(torch.randn(rank, into), share * torch.randn(out, rank), float(rank))
            deltas[name.removesuffix(".weight")] = layer
    save_lora(
        path,
        {"unet": deltas},
        checkpoint.config,
        layout=layout,
        dtype=torch.float32,
        metadata=dict(metadata),
    )
    return path
