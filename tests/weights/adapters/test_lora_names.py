"""diffgen.weights.adapters.lora and ldm: names in LoRA files, written, read back and refused.

That diffusers reads the same from them is tested in tests/parity/test_lora_parity.py.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.errors import DiffgenError, UnsupportedCheckpoint, WeightsError
from diffgen.models.config import UNetConfig
from diffgen.models.lora import LoraDelta
from diffgen.weights.adapters.files import Deltas, layers_of, read_lora
from diffgen.weights.adapters.layer import AdapterOfLayer
from diffgen.weights.adapters.lora import Layout, save_lora
from diffgen.weights.adapters.names import flat, layer_table
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

if TYPE_CHECKING:
    from tiny_models import TinyModel

RANK = 2
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KERNEL = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.0.self_attn.out_proj"
SDXL = UNetConfig(channels=(320, 640, 1280), blocks=(2, 2, 2), depth=(0, 2, 10))


@pytest.fixture
def sd1_checkpoint(sd1: "TinyModel") -> Checkpoint:
    return Checkpoint.open(sd1.folder)


@pytest.fixture
def sdxl_checkpoint(sdxl: "TinyModel") -> Checkpoint:
    return Checkpoint.open(sdxl.folder)


def delta(checkpoint: Checkpoint, component: str, layer: str, alpha: float = 3.0) -> LoraDelta:
    out, *rest = checkpoint.tensors[component].infos[f"{layer}.weight"].shape
    up = torch.randn(out, RANK, *[1] * len(rest[1:]))
    return LoraDelta(torch.randn(RANK, *rest), up, alpha)


def some_deltas(checkpoint: Checkpoint) -> Deltas:
    components = [name for name in checkpoint.tensors if name.startswith("text")]
    texts = {name: {TEXT: delta(checkpoint, name, TEXT)} for name in components}
    unet = {layer: delta(checkpoint, "unet", layer) for layer in (QUERY, KERNEL)}
    return {"unet": unet, **texts}


def write(path: Path, checkpoint: Checkpoint, layout: Layout, **changes: torch.Tensor) -> Path:
    """Some deltas as a file; `changes` replace tensors by name, or take them out."""
    config = checkpoint.config
    save_lora(
        path, some_deltas(checkpoint), config, layout=layout, dtype=torch.float32, metadata={}
    )
    tensors = load_file(path) | changes
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    return path


def test_kohya_names(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    names = set(load_file(write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya")))
    query = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    text = "lora_te_text_model_encoder_layers_0_self_attn_out_proj"
    kernel = "lora_unet_down_blocks_0_resnets_0_conv1"
    suffixes = ("lora_down.weight", "lora_up.weight", "alpha")
    assert names == {f"{stem}.{suffix}" for stem in (query, kernel, text) for suffix in suffixes}


def test_sdxls_kohya_names(sdxl_checkpoint: Checkpoint, tmp_path: Path) -> None:
    names = load_file(write(tmp_path / "x.safetensors", sdxl_checkpoint, "kohya"))
    assert {name.split(".")[0] for name in names} == {
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
    }


def test_peft_names(sdxl_checkpoint: Checkpoint, tmp_path: Path) -> None:
    names = set(load_file(write(tmp_path / "x.safetensors", sdxl_checkpoint, "peft")))
    texts = (f"text_encoder.{TEXT}", f"text_encoder_2.{TEXT}")
    stems = (f"unet.{QUERY}", f"unet.{KERNEL}", *texts)
    assert names == {f"{stem}.lora_{part}.weight" for stem in stems for part in "AB"}


@pytest.mark.parametrize(
    ("canonical", "ldm"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
            "input_blocks.8.1.transformer_blocks.9.attn2.to_out.0",
        ),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("mid_block.attentions.0.norm", "middle_block.1.norm"),
        ("up_blocks.0.attentions.0.proj_out", "output_blocks.0.1.proj_out"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("up_blocks.2.resnets.2.norm1", "output_blocks.8.0.in_layers.0"),
    ],
)
def test_ldm_names_of_sdxl(canonical: str, ldm: str) -> None:
    assert to_ldm(canonical, ldm_blocks(SDXL)) == ldm


def test_an_upsampler_without_attention_before_it() -> None:
    """SD 1's lowest level has none."""
    assert (
        to_ldm("up_blocks.0.upsamplers.0.conv", ldm_blocks(UNetConfig()))
        == "output_blocks.2.1.conv"
    )


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_what_is_written_is_read_back(
    family: str, layout: Layout, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(f"{family}_checkpoint")
    deltas, path = some_deltas(checkpoint), tmp_path / "x.safetensors"
    save_lora(
        path, deltas, checkpoint.config, layout=layout, dtype=torch.float32, metadata={"a": "b"}
    )
    back = read_lora(path, checkpoint)
    assert {k: set(v) for k, v in back.items()} == {k: set(v) for k, v in deltas.items()}
    for component, layers in deltas.items():
        for layer, written in layers.items():
            read, expected = back[component][layer].weight(), written.weight()
            # kohya keeps every bit; PEFT's B takes up alpha / rank, 1.5, which rounds once more.
            least = 0.0 if layout == "kohya" else 1e-6
            assert (read - expected).norm() <= least * expected.norm()


def test_nothing_is_tried_out_for_a_plain_lora(
    sd1_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arithmetic on shapes alone takes torch seconds to begin with."""
    monkeypatch.delattr(AdapterOfLayer, "_tried_out")
    assert read_lora(write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya"), sd1_checkpoint)


def test_a_missing_alpha_is_the_rank(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    gone = {f"lora_unet_{KERNEL.replace('.', '_')}.alpha": None}
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **gone)
    unet = read_lora(path, sd1_checkpoint)["unet"]
    assert (unet[KERNEL].alpha, unet[QUERY].alpha) == (RANK, 3.0)


STEM = "lora_unet_down_blocks_0_resnets_0_conv1"


def test_an_alpha_that_scales_nothing_is_a_note(
    sd1_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = {"lora_unet_conv_in.alpha": torch.ones(())}
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **stray)
    assert set(read_lora(path, sd1_checkpoint)["unet"]) == {QUERY, KERNEL}
    assert "not read: lora_unet_conv_in.alpha" in caplog.text


def test_factors_of_rank_1_may_be_vectors(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    out, into = sd1_checkpoint.tensors["unet"].infos[f"{QUERY}.weight"].shape
    down, up = torch.randn(into), torch.randn(out)
    parts = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
    save_file(parts, tmp_path / "x.safetensors")
    delta = read_lora(tmp_path / "x.safetensors", sd1_checkpoint)["unet"][QUERY]
    torch.testing.assert_close(delta.change(torch.zeros(out, into)), torch.outer(up, down))


def test_a_kernel_may_lie_flat(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    shape = sd1_checkpoint.tensors["unet"].infos[f"{KERNEL}.weight"].shape
    out, into, high, wide = shape
    down, up = torch.randn(RANK, into * high * wide), torch.randn(out, RANK)
    parts = {f"{STEM}.lora_down.weight": down, f"{STEM}.lora_up.weight": up}
    save_file(parts, tmp_path / "x.safetensors")
    delta = read_lora(tmp_path / "x.safetensors", sd1_checkpoint)["unet"][KERNEL]
    torch.testing.assert_close(delta.change(torch.zeros(shape)), (up @ down).reshape(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_unet_nowhere.alpha": torch.ones(())}, "does not fit .*: lora_unet_nowhere"),
        ({f"{STEM}.dora_scale": torch.ones(2)}, "does not fit this model"),
        ({f"unet.{QUERY}.lora_A.weight": torch.ones(2, 2)}, "are the same; keep one"),
        ({f"{STEM}.lora_up.weight": None}, f"half of the adapter of {KERNEL} is missing"),
        ({f"{STEM}.lora_down.weight": torch.ones(2, 9, 3, 3)}, f"{KERNEL} is .* are .2, 9, 3, 3."),
        ({f"{STEM}.lora_up.weight": torch.ones(32, 4, 1, 1)}, "does not fit this model"),
        ({f"{STEM}.lora_down.weight": torch.ones(())}, "does not fit this model"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, torch.Tensor], message: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        read_lora(path, sd1_checkpoint)
    assert str(path) in str(caught.value)


NORM = "unet.mid_block.resnets.0.norm1"


@pytest.mark.parametrize(
    "shapes",
    [
        {"lokr_w1": (4, 4), "lokr_w2": ()},
        {"lokr_w1": (64, 32), "lokr_w2": (64, 64), "lokr_t2": (32, 64)},
        {"hada_w1_a": (), "hada_w1_b": (), "hada_w2_a": (), "hada_w2_b": ()},
        {"oft_blocks": ()},
        {"lora_down.weight": (), "lora_up.weight": (), "lora_B.bias": (64,)},
        {"hada_w1_a": (4, 4), "lora_B.bias": (64,), "alpha": ()},
    ],
)
def test_absurd_shapes_are_refused(
    shapes: dict[str, tuple[int, ...]], sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"{NORM}.{part}": torch.ones(shape) for part, shape in shapes.items()}, path)
    with pytest.raises(WeightsError, match=str(path)):
        read_lora(path, sd1_checkpoint)


def test_a_file_for_another_model_is_refused(
    sd1_checkpoint: Checkpoint, sdxl_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.safetensors", sdxl_checkpoint, "kohya")
    with pytest.raises(WeightsError, match=r"is a LoRA for .* and does not fit this model: "):
        read_lora(path, sd1_checkpoint)
    save_file({}, path)
    with pytest.raises(WeightsError, match="is no LoRA that is known"):
        read_lora(path, sd1_checkpoint)


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"lora_alpha": RANK}, 1.0),
        ({"lora_alpha": 7}, 7 / RANK),
        ({"lora_alpha": 7, "use_rslora": True}, 7 / RANK**0.5),
        ({"lora_alpha": 7, "alpha_pattern": {"to_q": 3}}, 3 / RANK),
        ({"lora_alpha": 7, "r": 64, "rank_pattern": {"to_q": RANK}}, 7 / RANK),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_scales_in_pefts_options(
    options: dict[str, object],
    scale: float,
    beside: bool,
    sd1_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    """diffusers writes them into the metadata, PEFT beside the file."""
    path = write(tmp_path / "adapter_model.safetensors", sd1_checkpoint, "peft")
    said = json.dumps({f"unet.{name}": value for name, value in options.items()})
    if beside:
        (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    metadata = {} if beside else {"lora_adapter_metadata": said}
    save_file(load_file(path), path, metadata=metadata)
    read = read_lora(path, sd1_checkpoint)["unet"][QUERY]
    assert read.alpha / read.rank == pytest.approx(scale)


def processor(name: str) -> str:
    """An attention's layer as diffusers named it before 0.21."""
    head, _, last = name.removesuffix(".0").rpartition(".")
    return f"{head}.processor.{last}_lora"


OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
SPELLINGS = {
    "kohya": lambda n: (f"lora_unet_{n.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
    "bare PEFT": lambda n: (n, "lora_A.weight", "lora_B.weight"),
    "PEFT's model": lambda n: (f"base_model.model.{n}", "lora_A.weight", "lora_B.weight"),
    "named": lambda n: (f"unet.{n}", "lora_A.default.weight", "lora_B.default.weight"),
    "0.21": lambda n: (f"unet.{n}", "lora.down.weight", "lora.up.weight"),
    "0.20": lambda n: (f"unet.{processor(n)}", "down.weight", "up.weight"),
    "0.18, U-Net alone": lambda n: (processor(n), "down.weight", "up.weight"),
    "SimpleTuner": lambda n: (
        f"lycoris_{n.replace('.', '_')}",
        "lora_down.weight",
        "lora_up.weight",
    ),
    "ComfyUI": lambda n: (f"diffusion_model.{n}", "lora_down.weight", "lora_up.weight"),
    "OMI": lambda n: (f"unet.{n}", "lora_down.weight", "lora_up.weight"),
    "OneTrainer": lambda n: (f"lora_unet.{n}", "lora_down.weight", "lora_up.weight"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("ldm", [False, True])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_spelling_of_a_layer(
    spelling: str, ldm: bool, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if ldm and spelling.startswith("0."):
        pytest.skip("diffusers never used LDM's names")
    checkpoint: Checkpoint = request.getfixturevalue(f"{family}_checkpoint")
    blocks = ldm_blocks(checkpoint.config.unet)
    deltas = {name: delta(checkpoint, "unet", name) for name in (QUERY, OUT)}
    tensors = {}
    for name, made in deltas.items():
        stem, down, up = SPELLINGS[spelling](to_ldm(name, blocks) if ldm else name)
        tensors |= {f"{stem}.{down}": made.down, f"{stem}.{up}": made.up}
    save_file(tensors, tmp_path / "x.safetensors")
    read = read_lora(tmp_path / "x.safetensors", checkpoint)
    assert {k: set(v) for k, v in read.items()} == {"unet": {QUERY, OUT}}
    for name, made in deltas.items():
        assert torch.equal(read["unet"][name].down, made.down)


@pytest.mark.parametrize(
    "stem",
    [
        f"text_encoder.{TEXT}",
        f"text_encoder.{TEXT.removeprefix('text_model.')}",
        f"lora_te_{TEXT.replace('.', '_')}",
        f"lora_te1_{TEXT.replace('.', '_')}",
        f"lora_te_{TEXT.removeprefix('text_model.').replace('.', '_')}",
        f"text_encoder.{TEXT}.lora_linear_layer",
        f"text_encoder.{TEXT.replace('out_proj', 'to_out_lora')}",
        f"base_model.model.{TEXT}",
        f"clip_l.{TEXT}",
        f"clip.{TEXT}",
        "lora_te_transformer_resblocks_0_attn_out_proj",
        "lora_te_model_transformer_resblocks_0_attn_out_proj",
        "cond_stage_model.model.transformer.resblocks.0.attn.out_proj",
    ],
)
def test_every_spelling_of_a_text_encoders_layer(
    stem: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = delta(sd1_checkpoint, "text_encoder", TEXT)
    inner = "" if stem.endswith(("_layer", "_lora")) else "lora_"
    tensors = {f"{stem}.{inner}down.weight": made.down, f"{stem}.{inner}up.weight": made.up}
    save_file(tensors, tmp_path / "x.safetensors")
    assert set(read_lora(tmp_path / "x.safetensors", sd1_checkpoint)["text_encoder"]) == {TEXT}


def test_open_clips_queries_keys_and_values_are_one(
    sdxl_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Rows of B are for the queries first, then the keys, then the values."""
    stem, width = "lora_te2_transformer_resblocks_1_attn_in_proj", 48
    down, up = torch.randn(RANK, width), torch.randn(3 * width, RANK)
    file = tmp_path / "x.safetensors"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    save_file(tensors | {f"{stem}.alpha": torch.tensor(3.0)}, file)
    read = read_lora(file, sdxl_checkpoint)["text_encoder_2"]
    for part, rows in zip("qkv", up.chunk(3), strict=True):
        delta = read[f"text_model.encoder.layers.1.self_attn.{part}_proj"]
        torch.testing.assert_close(delta.weight(), 3.0 / RANK * rows @ down)
    save_file(tensors | {f"{stem}.lora_up.weight": torch.randn(3 * width + 1, RANK)}, file)
    with pytest.raises(WeightsError, match=r"self_attn.q_proj is \(48, 48\), and .* \(145, 2\)"):
        read_lora(file, sdxl_checkpoint)


def test_onetrainers_name_of_sd_1s_lowest_upsampler(
    sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """It counts an attention there that SD 1 does not have."""
    made = delta(sd1_checkpoint, "unet", "up_blocks.0.upsamplers.0.conv")
    stem = "unet.output_blocks.1.2.conv"
    save_file(
        {f"{stem}.lora_down.weight": made.down, f"{stem}.lora_up.weight": made.up},
        tmp_path / "x.safetensors",
    )
    assert set(read_lora(tmp_path / "x.safetensors", sd1_checkpoint)["unet"]) == {
        "up_blocks.0.upsamplers.0.conv"
    }


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_no_name_is_two_layers(family: str, request: pytest.FixtureRequest) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(f"{family}_checkpoint")
    layers, _ = layers_of(checkpoint)
    table = layer_table(layers, checkpoint.config)
    for layer in layers:
        found = {table.get(flat(".".join(layer))), table.get(flat(layer[1])) or (layer,)}
        assert found - {(layer,)} <= ({None} if layer[0] != "unet" else set())


def test_what_is_no_delta_is_a_note(
    sd1_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = {"bundle_emb.word.t5": torch.ones(1, 32)}
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **stray)
    assert read_lora(path, sd1_checkpoint)
    assert "not read: bundle_emb.word" in caplog.text


def test_a_part_of_a_file_on_request(
    sd1_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = {"lora_unet_nowhere.lora_up.weight": torch.ones(3, 2)}
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **strange)
    said = (
        r"is a LoRA for another model and does not fit this model: 9 of its 10 tensors have "
        r"a layer there, others do not: lora_unet_nowhere.*; --lora-partial uses those that fit$"
    )
    with pytest.raises(WeightsError, match=said):
        read_lora(path, sd1_checkpoint)
    whole = read_lora(write(tmp_path / "y.safetensors", sd1_checkpoint, "kohya"), sd1_checkpoint)
    part = read_lora(path, sd1_checkpoint, partial=True)
    assert {k: set(v) for k, v in part.items()} == {k: set(v) for k, v in whole.items()}
    assert (
        "1 of its 10 tensors have no layer here and are left out: lora_unet_nowhere" in caplog.text
    )


def test_nothing_that_fits_is_no_part(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    stem = "lora_unet_nowhere_attn2_to_k"
    lost = {
        f"{stem}.lora_down.weight": torch.ones(2, 2048),
        f"{stem}.lora_up.weight": torch.ones(9, 2),
    }
    save_file(lost, tmp_path / "x.safetensors")
    said = "is a LoRA for Stable Diffusion XL and does not fit this model: 0 of its 2 .*_k.l"
    with pytest.raises(WeightsError, match=said) as caught:
        read_lora(tmp_path / "x.safetensors", sd1_checkpoint, partial=True)
    assert "--lora-partial" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"base_model.model.{QUERY}.oft_r", "an OFT of PEFT before version 0.16"),
        ("base_model.vera_A", "a VeRA"),
        ("lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight", "LLLite"),
        ("image_proj.proj.weight", "an IP-Adapter"),
        ("lora_controlnet", "a Control-LoRA"),
        (f"text_encoder.{TEXT}.lora_embedding_A", r"a LoRA of a vocabulary \(lora_embedding\)"),
        (f"lora_unet_{QUERY.replace('.', '_')}.bias_indices", "a LyCORIS with sparse biases"),
        (f"lora_unet_{QUERY.replace('.', '_')}.scalar", "a LyCORIS with learned scalars"),
        ("768.0.linear.0.weight", "a hypernetwork"),
        ("0.to_q_lora.down.weight", r"LoRA of an IP-Adapter \(FaceID\)"),
        ("unet.x.processor.to_k_custom_diffusion.weight", "a Custom Diffusion"),
        ("input_blocks.1.1.transformer_blocks.0.fuser.attn.to_q.weight", "a GLIGEN"),
        ("down_blocks.0.motion_modules.0.to_q_lora.down.weight", r"a motion LoRA \(AnimateDiff\)"),
    ],
)
def test_methods_that_are_not_read_are_named(
    key: str, kind: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_file({key: torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=rf"is .*{kind}, which diffgen does not read"):
        read_lora(tmp_path / "x.safetensors", sd1_checkpoint)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(
    number: float, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    key = f"{STEM}.lora_up.weight"
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya")
    save_file(load_file(path) | {key: torch.full((32, RANK, 1, 1), number)}, path)
    with pytest.raises(WeightsError, match=f"{key} has numbers that are not finite"):
        read_lora(path, sd1_checkpoint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"lora_adapter_metadata:1: not valid JSON"),
        ("[" * 10_000, "lora_adapter_metadata:1: not usable JSON: it is nested too deeply"),
        ("[]", "lora_adapter_metadata should hold a JSON object"),
    ],
)
def test_damaged_metadata(
    text: str, message: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "peft")
    save_file(load_file(path), path, metadata={"lora_adapter_metadata": text})
    with pytest.raises(DiffgenError, match=rf"x\.safetensors: {message}"):
        read_lora(path, sd1_checkpoint)


def test_an_alpha_is_one_number(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya")
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith(".alpha"))
    save_file(tensors | {key: torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"the alpha of .* should be one number, not \(3,\)"):
        read_lora(path, sd1_checkpoint)


@pytest.fixture
def refiner(sdxl_checkpoint: Checkpoint) -> Checkpoint:
    """Of the two encoders the second alone, which is told a score."""
    config = sdxl_checkpoint.config
    second = config.text[1]
    ids = 5 * (config.unet.time_ids_dim or 0) + (second.projection or 0)
    unet = replace(config.unet, added_dim=ids)
    tensors = {
        "unet": sdxl_checkpoint.tensors["unet"],
        "text_encoder": sdxl_checkpoint.tensors["text_encoder_2"],
    }
    changed = replace(config, text=(second,), unet=unet)
    return replace(sdxl_checkpoint, config=changed, tensors=tensors)


@pytest.mark.parametrize(
    "stem",
    [
        f"lora_te2_{TEXT.replace('.', '_')}",
        f"lora_te_{TEXT.replace('.', '_')}",
        f"text_encoder_2.{TEXT}",
        f"clip_g.{TEXT}",
        "conditioner.embedders.0.model.transformer.resblocks.0.attn.out_proj",
    ],
)
def test_the_refiners_encoder_is_the_second_of_others(
    stem: str, refiner: Checkpoint, tmp_path: Path
) -> None:
    made = delta(refiner, "text_encoder", TEXT)
    tensors = {f"{stem}.lora_down.weight": made.down, f"{stem}.lora_up.weight": made.up}
    save_file(tensors, tmp_path / "x.safetensors")
    assert set(read_lora(tmp_path / "x.safetensors", refiner)["text_encoder"]) == {TEXT}


@pytest.mark.parametrize(("width", "made_for"), [(1280, "the refiner of S"), (2048, "Stable Diff")])
def test_refiner_and_base_are_told_apart(
    width: int, made_for: str, refiner: Checkpoint, tmp_path: Path
) -> None:
    stem = "lora_unet_input_blocks_8_1_transformer_blocks_3_attn2_to_k"
    parts = {f"{stem}.lora_down.weight": torch.ones(2, width)}
    parts |= {f"lora_te1_{TEXT.replace('.', '_')}.lora_up.weight": torch.ones(9, 2)}
    save_file(parts, tmp_path / "x.safetensors")
    said = rf"is a LoRA for {made_for}.* and does not fit the refiner of Stable Diffusion XL: 0 of"
    with pytest.raises(WeightsError, match=said):
        read_lora(tmp_path / "x.safetensors", refiner)


@pytest.mark.parametrize(
    "stem", [f"unet.unet.{QUERY}", f"unet.base_model.model.{QUERY}", f"lora_unet.unet.{QUERY}"]
)
def test_prefixes_that_programs_wrote_twice(
    stem: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = delta(sd1_checkpoint, "unet", QUERY)
    tensors = {f"{stem}.lora_A.weight": made.down, f"{stem}.lora_B.weight": made.up}
    save_file(tensors, tmp_path / "x.safetensors")
    assert set(read_lora(tmp_path / "x.safetensors", sd1_checkpoint)["unet"]) == {QUERY}


@pytest.mark.parametrize(
    "stem", ["lora_vae_decoder_conv_in", "vae.decoder.conv_in", "first_stage_model.decoder.conv_in"]
)
def test_a_lora_of_the_autoencoder_is_named(
    stem: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    of_vae = {f"{stem}.lora_down.weight": torch.ones(2, 4, 3, 3)}
    save_file(of_vae, tmp_path / "x.safetensors")
    said = (
        rf"changes the autoencoder, whose adapters diffgen does not read: {stem}.lora_down.weight"
    )
    with pytest.raises(UnsupportedCheckpoint, match=f"{said}$"):
        read_lora(tmp_path / "x.safetensors", sd1_checkpoint)
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "kohya", **of_vae)
    with pytest.raises(UnsupportedCheckpoint, match=f"{said}; --lora-partial uses those that fit"):
        read_lora(path, sd1_checkpoint)
    assert set(read_lora(path, sd1_checkpoint, partial=True)) == {"unet", "text_encoder"}


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.conv_in.weight",
        "base_model.model.conv_in.modules_to_save.default.weight",
        "diffusion_model.conv_in.set_weight",
    ],
)
def test_whole_weights_take_the_place_of_the_models(
    key: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = sd1_checkpoint.tensors["unet"]["conv_in.weight"]
    new = torch.randn(base.shape)
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "peft", **{key: new})
    change = read_lora(path, sd1_checkpoint)["unet"]["conv_in"].change(base)
    torch.testing.assert_close(base + change, new)


def test_whole_weights_in_other_names_are_named(sd1_checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = {"unet.conv_in.weight": torch.ones(32, 4, 3, 3)}
    path = write(tmp_path / "x.safetensors", sd1_checkpoint, "peft", **whole)
    said = r"has whole weights beside its adapters \(PEFT's modules_to_save\).*conv_in\.weight"
    with pytest.raises(UnsupportedCheckpoint, match=said):
        read_lora(path, sd1_checkpoint)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "a U-Net; give it with -m"),
        ("first_stage_model.decoder.conv_in.weight", "an autoencoder; give it with --vae"),
        ("emb_params", "an embedding; give it with --embedding"),
    ],
)
def test_what_is_given_in_a_loras_place(
    key: str, kind: str, sd1_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_file({key: torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"is no LoRA but {kind}"):
        read_lora(tmp_path / "x.safetensors", sd1_checkpoint)
