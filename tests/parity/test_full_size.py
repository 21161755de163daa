"""Models of full size with random weights, in both layouts, compute what diffusers' classes compute.

Slow, and up to 11 GB of memory and 7 GB of disk: run with `pytest -m slow -k sd15`, say. Tiny models
cannot show a table that is one level short, or heads that are counted wrong at 1280 channels.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from pipeline_oracle import numpy_2_warns
from single_files import _clip, _ldm_vae, _open_clip
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffgen.models.build import build_empty
from diffgen.models.clip import ClipTextModel
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Conditioning
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

pytestmark = [pytest.mark.parity, pytest.mark.slow, numpy_2_warns]

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
LEAST_DB = 90.0  # float32 against float32, of the largest value
SIDE = 8  # latents
BLOCK = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
TEXT_ROOTS = {
    "sd15": ("cond_stage_model.transformer.text_model.",),
    "sd21": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."),
}
Made = Callable[[], Tensor]
# torch's name of a number format, the file's, and the bytes of a number.
FORMATS = {torch.float16: ("F16", 2), torch.float32: ("F32", 4), torch.int64: ("I64", 8)}


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random numbers of a weight's size, float16, the same whenever the name is the same."""
    count = torch.Size(shape).numel()
    offset = zlib.crc32(name.encode()) % len(BLOCK)
    tiled = BLOCK.roll(offset).repeat(-(-count // len(BLOCK)))[:count].reshape(shape)
    if len(shape) > 1:
        tiled = tiled / torch.Size(shape[1:]).numel() ** 0.5
    elif name.endswith("weight"):
        tiled = 1.0 + 0.1 * tiled
    else:
        tiled = 0.1 * tiled
    return tiled.half()


def filled(module: nn.Module, part: str, dtype: torch.dtype) -> nn.Module:
    """A module of the meta device with our random numbers."""
    state = {}
    for name, tensor in module.state_dict().items():
        key = f"{part}.{name.removeprefix('text_model.')}"
        state[name] = values(key, tuple(tensor.shape)).to(dtype)
    module.load_state_dict(state, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # position_ids
            owner = module.get_submodule(name.rpartition(".")[0])
            count = buffer.shape[-1]
            owner.register_buffer(name.rpartition(".")[2], torch.arange(count)[None], False)
    return module.eval().requires_grad_(False)


def empty(family: str, part: str) -> nn.Module:
    """diffusers' or transformers' module of a family's component, on the meta device."""
    config = json.loads((CONFIGS / family / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "unet":
            return UNet2DConditionModel.from_config(config)
        if part == "vae":
            return AutoencoderKL.from_config(config)
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        return kind(CLIPTextConfig(**config))


def write(path: Path, tensors: dict[str, tuple[tuple[int, ...], Made]]) -> None:
    """A safetensors file in float16, each tensor made when it is written."""
    header, at = {}, 0
    for name, (shape, _) in tensors.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, made in tensors.values():
            file.write(made().half().contiguous().numpy().tobytes())


def unet_tensors(
    family: str, named: Callable[[str], str]
) -> Iterator[tuple[str, tuple[tuple[int, ...], Made]]]:
    for name, tensor in empty(family, "unet").state_dict().items():
        shape = tuple(tensor.shape)
        yield named(name), (shape, lambda n=name, s=shape: values(f"unet.{n}", s))


def parts_of(family: str) -> list[str]:
    texts = ["text_encoder", "text_encoder_2"][: len(TEXT_ROOTS[family])]
    return ["unet", "vae", *texts]


def in_one_file(family: str, folder: Path, config) -> Path:
    blocks = ldm_blocks(config)
    tensors = dict(
        unet_tensors(family, lambda name: f"model.diffusion_model.{to_ldm(name, blocks)}")
    )
    vae = filled(empty(family, "vae"), "vae", torch.float16)
    others = {f"first_stage_model.{k}": t for k, t in _ldm_vae(vae).items()}
    for root, part in zip(TEXT_ROOTS[family], parts_of(family)[2:], strict=True):
        encoder = filled(empty(family, part), part, torch.float16)
        spare = 1 if family == "sd21" else 0
        names = _open_clip(encoder, spare) if root.endswith(".model.") else _clip(encoder)
        others |= {root + key: tensor for key, tensor in names.items()}
    tensors |= {key: (tuple(t.shape), lambda t=t: t) for key, t in others.items()}
    write(folder / "model.safetensors", tensors)
    return folder / "model.safetensors"


def as_folder(family: str, folder: Path) -> Path:
    import shutil

    shutil.copytree(CONFIGS / family, folder / "model")
    for part in parts_of(family):
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        if part == "unet":
            tensors = dict(unet_tensors(family, str))
        else:
            state = filled(empty(family, part), part, torch.float16).state_dict()
            tensors = {k: (tuple(t.shape), lambda t=t: t) for k, t in state.items()}
        write(folder / "model" / part / f"{stem}.fp16.safetensors", tensors)
    return folder / "model"


def ours(checkpoint: Checkpoint, part: str) -> nn.Module:
    config = checkpoint.config
    texts = dict(zip(("text_encoder", "text_encoder_2"), config.text, strict=False))
    kinds = {"unet": (UNet, config.unet), "vae": (Autoencoder, config.vae)}
    kinds |= {name: (ClipTextModel, text) for name, text in texts.items()}
    module = build_empty(*kinds[part])
    checkpoint.load_into(part, module, dtype=torch.float32)
    return module.eval().requires_grad_(False)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def both_outputs(family: str, part: str, checkpoint: Checkpoint) -> Iterator[tuple[Tensor, Tensor]]:
    """What diffusers and what we compute, one network in memory at a time."""
    config = checkpoint.config
    if part == "unet":
        x, context = draw(1, 4, SIDE, SIDE), draw(1, 77, config.unet.context_dim)
        cond, added = Conditioning(context), None
        if config.is_xl:
            sizes = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]])
            cond = Conditioning(context, pooled=draw(1, 1280), time_ids=sizes)
            added = {"text_embeds": cond.pooled, "time_ids": sizes}
        t = torch.tensor([501.0])
        oracle = filled(empty(family, part), part, torch.float32)
        expected = oracle(x, t, context, added_cond_kwargs=added).sample
        del oracle
        yield ours(checkpoint, part)(x, t, cond), expected
    elif part == "vae":
        z = draw(1, 4, SIDE, SIDE)
        oracle = filled(empty(family, part), part, torch.float32)
        expected = oracle.decode(z).sample
        found = ours(checkpoint, part)
        yield found.decode(config.vae.scaling_factor * z), expected
        mean, _ = found.encode(expected)
        yield mean, oracle.encode(expected).latent_dist.mean
    else:
        ids = torch.tensor([[49406, 320, 736, 8914, *[49407] * 73]])
        oracle = filled(empty(family, part), part, torch.float32)
        said = oracle(ids, output_hidden_states=True)
        found = ours(checkpoint, part)(ids, torch.tensor([4]))
        yield found.context, said.hidden_states[-2] if config.is_xl else said.last_hidden_state
        if part == "text_encoder_2":
            yield found.pooled, said.text_embeds


def decibels(found: Tensor, expected: Tensor) -> float:
    error = (found.double() - expected.double()).square().mean().sqrt()
    return float(20 * torch.log10(expected.abs().max() / error.clamp(min=1e-9)))


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_model_of_full_size(family, layout, tmp_path):
    if layout == "folder":
        path = as_folder(family, tmp_path)
    else:
        from diffgen.weights.diffusers.configs import read_model_config

        path = in_one_file(family, tmp_path, read_model_config(CONFIGS / family).unet)
    checkpoint = Checkpoint.open(path)
    for part in parts_of(family):
        for found, expected in both_outputs(family, part, checkpoint):
            agreed = decibels(found, expected)
            print(f"{family} {layout} {part}: {agreed:.1f} dB")
            assert agreed >= LEAST_DB, part
