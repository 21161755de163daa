"""diffgen.weights.ldm.single_file and detect: whole models in one file, told apart by their names.

That they make diffusers' pictures is tested in tests/parity/test_single_file_parity.py.
"""

import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from single_files import V_BIAS, make_pipeline, single_file_tensors, write_single_file

from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UnsupportedCheckpoint, WeightsError
from diffgen.models.build import build_empty
from diffgen.models.clip import ClipTextModel
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import NoiseConfig
from diffgen.weights.checkpoint import CLIP_TOKENIZER, Checkpoint
from diffgen.weights.contents import contents_of
from diffgen.weights.files import read_header
from diffgen.weights.ldm.detect import SD2_WIDTH, read_clip, read_open_clip
from diffgen.weights.ldm.single_file import TELLS_V, open_single_file
from diffgen.weights.ldm.single_file import _family as family_of

FAMILIES = ["sd1", "sd2", "sdxl"]
UNET, CLIP = "model.diffusion_model.", "cond_stage_model.transformer."


@pytest.fixture(scope="module")
def pipelines():
    return {family: make_pipeline(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def files(pipelines, tmp_path_factory):
    place = tmp_path_factory.mktemp("single")
    return {f: write_single_file(place / f"{f}.safetensors", p, f) for f, p in pipelines.items()}


@pytest.fixture
def changed(pipelines, tmp_path):
    """changed(family, change): a file whose tensors were changed in place."""

    def write(family, change) -> Path:
        tensors = single_file_tensors(pipelines[family], family)
        change(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


def loaded(checkpoint, component):
    config = checkpoint.config
    texts = dict(zip(("text_encoder", "text_encoder_2"), config.text, strict=False))
    kinds = {"unet": (UNet, config.unet), "vae": (Autoencoder, config.vae)}
    kinds |= {name: (ClipTextModel, text) for name, text in texts.items()}
    module = build_empty(*kinds[component])
    checkpoint.load_into(component, module, dtype=torch.float32)
    return module.state_dict()


@pytest.mark.parity
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_lands_where_diffusers_has_it(pipelines, files, family):
    checkpoint = Checkpoint.open(files[family])
    for component in checkpoint.tensors:
        oracle = getattr(pipelines[family], component).state_dict()
        if component.startswith("text"):
            oracle = {
                key if key.startswith("text_") else f"text_model.{key}": tensor
                for key, tensor in oracle.items()
            }
        ours = loaded(checkpoint, component)
        assert ours.keys() == oracle.keys()
        assert all(torch.equal(ours[key], oracle[key]) for key in ours), component


@pytest.mark.parity
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_the_same_from_these_files(pipelines, family):
    """Else a wrong idea of the layout, in the writer and the reader, would pass every test."""
    pipeline = pipelines[family]
    tensors = single_file_tensors(pipeline, family)
    unet = convert_ldm_unet_checkpoint(dict(tensors), pipeline.unet.config)
    vae = convert_ldm_vae_checkpoint(dict(tensors), pipeline.vae.config)
    pairs = [(unet, pipeline.unet), (vae, pipeline.vae)]
    if family == "sdxl":
        prefix = "conditioner.embedders.1.model."
        text = convert_open_clip_checkpoint(pipeline.text_encoder_2, dict(tensors), prefix)
        text.pop("text_model.embeddings.position_ids", None)
        pairs.append((text, pipeline.text_encoder_2))
    for read, module in pairs:
        expected = module.state_dict()
        assert read.keys() == expected.keys()
        assert all(torch.equal(read[key].squeeze(), expected[key].squeeze()) for key in read)


def test_the_family_decides_what_names_do_not_say(files):
    sd1, sd2, sdxl = (open_single_file(files[family]).config for family in FAMILIES)
    assert [c.family for c in (sd1, sd2, sdxl)] == FAMILIES
    assert [c.unet.num_heads for c in (sd1, sd2, sdxl)] == [(8, 8), (1, 1, 1, 1), (1, 2)]
    assert [c.schedule.prediction for c in (sd1, sd2, sdxl)] == ["eps", "v", "eps"]
    assert [c.schedule.sampler for c in (sd1, sd2, sdxl)] == ["plms", "ddim", "euler"]
    assert [c.unet.sample_size for c in (sd1, sd2, sdxl)] == [64, 96, 128]
    assert [c.vae.scaling_factor for c in (sd1, sd2, sdxl)] == [0.18215, 0.18215, 0.13025]
    assert [c.vae.force_upcast for c in (sd1, sd2, sdxl)] == [False, False, True]
    assert [[t.pad for t in c.text] for c in (sd1, sd2, sdxl)] == [[None], ["!"], [None, "!"]]
    assert [c.zero_empty_prompt for c in (sd1, sd2, sdxl)] == [False, False, True]
    assert sdxl.unet.time_ids_dim == 8
    assert (sd2.text[0].layers, sd2.text[0].hidden) == (3, "final")  # of four in the file


def test_tokenizers_are_clips(files):
    assert Checkpoint.open(files["sdxl"]).tokenizers == (CLIP_TOKENIZER, CLIP_TOKENIZER)


def test_a_bias_of_little_spread_tells_noise_prediction(changed):
    file = changed("sd2", lambda tensors: tensors[TELLS_V].mul_(0.3))
    config = open_single_file(file).config
    assert config.schedule.prediction == "eps"
    assert (config.unet.sample_size, config.unet.upcast_attention) == (64, False)
    assert V_BIAS.startswith("up_blocks.3.attentions.2")  # is what TELLS_V calls output_blocks.11.1


def test_marks_of_sdxl_models_trained_for_v(changed):
    mark = torch.zeros(0)
    file = changed("sdxl", lambda tensors: tensors.update(v_pred=mark, ztsnr=mark))
    schedule = open_single_file(file).config.schedule
    assert (schedule.prediction, schedule.zero_snr) == ("v", True)


def test_turbo_is_sampled_as_its_makers_do(changed):
    def turn(tensors):
        for key in [key for key in tensors if key.startswith("cond_stage_model.model.")]:
            tensors[key.replace("cond_stage_model", "conditioner.embedders.0")] = tensors.pop(key)
        tensors["denoiser.sigmas"] = torch.linspace(0.03, 14.6, 1000)
        tensors[TELLS_V].mul_(0.3)

    config = open_single_file(changed("sd2", turn)).config
    assert (config.family, config.schedule.prediction) == ("sd2", "eps")
    assert (config.schedule.sampler, config.schedule.spacing) == ("euler", "trailing")


def test_the_same_sigmas_make_no_turbo_of_sdxl(changed):
    file = changed("sdxl", lambda t: t.update({"denoiser.sigmas": torch.linspace(0.03, 14.6, 9)}))
    schedule = open_single_file(file).config.schedule
    assert (schedule.sampler, schedule.spacing) == ("euler", "leading")


def test_files_of_2022_lack_a_prefix_and_bring_tables(changed, files):
    def age(tensors):
        for key in [key for key in tensors if key.startswith(f"{CLIP}text_model.")]:
            tensors[key.replace("text_model.", "")] = tensors.pop(key)
        tensors["betas"] = torch.zeros(1000)
        tensors["model_ema.decay"] = torch.tensor(0.999)
        tensors[f"{CLIP}embeddings.position_ids"] = torch.arange(77)[None]

    checkpoint, plain = Checkpoint.open(changed("sd1", age)), Checkpoint.open(files["sd1"])
    assert checkpoint.config == plain.config
    ours, expected = loaded(checkpoint, "text_encoder"), loaded(plain, "text_encoder")
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def drop(prefix):
    def change(tensors):
        for key in [key for key in tensors if key.startswith(prefix)]:
            del tensors[key]

    return change


def add(**shapes):
    return lambda tensors: tensors.update(
        {key.replace("__", "."): torch.zeros(shape) for key, shape in shapes.items()}
    )


def only_a_lora(tensors):
    tensors.clear()
    tensors["lora_unet_x.alpha"] = torch.ones(())


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("sd1", drop("first_stage_model."), "it has no autoencoder; give one with --vae"),
        ("sd1", drop(UNET), r"it has no U-Net"),
        ("sd1", drop("cond_stage_model."), "it is a U-Net alone, .* with --base"),
        ("sd1", drop(f"{UNET}input_blocks.0."), "it has no U-Net"),
        ("sd1", only_a_lora, "it is a LoRA; give it with --lora"),
        ("sdxl", add(edm_mean=(1, 4, 1, 1)), "edm_mean without the other"),
        ("sd1", add(first_stage_model__decoder__conv_in__weight=(4,)), "other shapes than Stable"),
        (
            "sd1",
            add(
                cond_stage_model__transformer__text_model__embeddings__token_embedding__weight=(4,)
            ),
            "other shapes than Stable",
        ),
        ("sd2", add(model__diffusion_model__label_emb__0__0__weight=(4, 4)), "Stable unCLIP"),
        ("sdxl", drop("conditioner.embedders.1."), "lacks the second text encoder"),
    ],
)
def test_what_is_no_model_of_ours_is_refused_in_a_line(changed, family, change, message):
    file = changed(family, change)
    with pytest.raises(UnsupportedCheckpoint, match=message) as caught:
        open_single_file(file)
    assert str(caught.value).startswith(f"{file} cannot be used as a model: ")


def test_blocks_of_one_level_may_differ_in_depth(changed):
    lean = changed("sdxl", drop(f"{UNET}output_blocks.0.1.transformer_blocks.1."))
    checkpoint = Checkpoint.open(lean)
    assert checkpoint.config.unet.up_depth == (0, (1, 2))
    assert "up_blocks.0.attentions.0.transformer_blocks.1.norm1.weight" not in loaded(
        checkpoint, "unet"
    )


def test_encoders_must_be_the_u_nets(pipelines, changed):
    def widen(tensors):
        for key, tensor in tensors.items():
            if ".attn2.to_k." in key:
                tensors[key] = torch.zeros(tensor.shape[0], 96)

    with pytest.raises(UnsupportedCheckpoint, match="text of width 96, its encoders write 64"):
        open_single_file(changed("sd1", widen))


def test_a_tensor_that_is_missing_is_named_with_the_file(changed):
    file = changed("sd1", drop(f"{UNET}out.0.weight"))
    with pytest.raises(WeightsError, match=r"1 missing \(conv_norm_out\.weight\)") as caught:
        loaded(Checkpoint.open(file), "unet")
    assert str(file) in str(caught.value)


def unspare(tensors):
    """As trainers save Stable Diffusion 2: its layers in use, and nothing behind them."""
    for key in [key for key in tensors if ".resblocks.3." in key or "logit_scale" in key]:
        del tensors[key]


def test_layers_are_counted_not_assumed(changed, files):
    ours, plain = Checkpoint.open(changed("sd2", unspare)), Checkpoint.open(files["sd2"])
    assert ours.config == plain.config
    expected = loaded(plain, "text_encoder")
    assert all(torch.equal(t, expected[k]) for k, t in loaded(ours, "text_encoder").items())


@pytest.mark.parametrize(
    ("family", "width", "layers", "used"),
    [
        ("sd2", 1024, 24, 23),
        ("sd2", 1024, 23, 23),
        ("sd2", 1024, 22, None),
        ("sd2", 1024, 12, None),
        ("sdxl", 1280, 32, 32),
        ("sdxl", 1280, 31, None),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_layers_of_the_real_encoders(family, width, layers, used, marked):
    """Whether the projection was kept or not: the count tells."""
    shapes = {
        "token_embedding.weight": (49408, width),
        "positional_embedding": (77, width),
        **{f"transformer.resblocks.{n}.mlp.c_fc.weight": (4 * width, width) for n in range(layers)},
    }
    if marked or family == "sdxl":
        shapes["text_projection"] = (width, width)
    if used:
        assert read_open_clip(shapes, family).layers == used
    else:
        with pytest.raises(UnsupportedCheckpoint, match=f"has {layers} layers where that of"):
            read_open_clip(shapes, family)


def rename(*pairs):
    def change(tensors):
        for key in list(tensors):
            new = key
            for old, other in pairs:
                new = re.sub(old, other, new)
            tensors[new] = tensors.pop(key)

    return change


def transpose_projection(tensors):
    key = "conditioner.embedders.1.model.text_projection"
    tensors[f"{key}.weight"] = tensors.pop(key).T.contiguous()


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("sd1", rename((r"attn_1\.([qkv])\.", r"attn_1.to_\1."), ("1.proj_out", "1.to_out.0"))),
        (
            "sd1",
            rename(
                (r"attn_1\.q\.", "attn_1.query."),
                (r"attn_1\.k\.", "attn_1.key."),
                (r"attn_1\.v\.", "attn_1.value."),
                (r"attn_1\.proj_out\.", "attn_1.proj_attn."),
                (r"attn_1\.norm\.", "attn_1.group_norm."),
            ),
        ),
        ("sdxl", rename(("^first_stage_model", "vae"))),
        ("sdxl", transpose_projection),
    ],
)
def test_other_spellings_of_the_same_tensors(changed, files, family, change):
    ours, plain = Checkpoint.open(changed(family, change)), Checkpoint.open(files[family])
    assert ours.config == plain.config
    for component in ("vae", "text_encoder", *["text_encoder_2"][: len(plain.config.text) - 1]):
        expected = loaded(plain, component)
        assert all(torch.equal(t, expected[k]) for k, t in loaded(ours, component).items())


def test_what_training_leaves_behind_is_skipped_and_strangers_are_named(changed, files, caplog):
    def leave(tensors):
        tensors["model_ema.diffusion_modelout0weight"] = torch.zeros(2)
        tensors["first_stage_model.loss.logvar"] = torch.zeros(())
        tensors["first_stage_model.model_ema.decay"] = torch.zeros(())
        tensors["sqrt_alphas_cumprod"] = torch.zeros(2)
        tensors["posterior_mean_coef1"] = torch.zeros(2)

    ours = Checkpoint.open(changed("sd1", leave))
    assert ours.config == Checkpoint.open(files["sd1"]).config
    assert loaded(ours, "vae")
    assert not caplog.records
    Checkpoint.open(changed("sd1", add(control_model__x=(1,))))
    assert "has 1 tensors that are not read: control_model.x" in caplog.text


def test_a_stray_tensor_of_a_lora_makes_no_lora_of_a_model(changed, caplog):
    """Merging tools leave some behind."""
    path = changed("sd1", lambda tensors: tensors.update({"lora_unet_x.alpha": torch.ones(())}))
    assert set(open_single_file(path).tensors) == {"unet", "vae", "text_encoder"}
    assert "1 tensors that are not read: lora_unet_x.alpha" in caplog.text
    assert (
        contents_of({key: info.shape for key, info in read_header(path).items()}).holds == "model"
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scaled", [False, True])
def test_weights_in_8_bits(changed, dtype, scaled):
    expected = {}

    def shrink(tensors):
        for key in [k for k in tensors if k.startswith(UNET) and tensors[k].ndim > 1]:
            name, whole = key.removeprefix(UNET), tensors[key]
            scale = whole.abs().max() / 100 if scaled else torch.tensor(1.0)
            tensors[key] = (whole / scale).to(dtype)
            expected[name] = tensors[key].float() * scale
            if scaled:
                tensors[key.removesuffix("weight") + "scale_weight"] = scale
        if scaled:
            tensors["scaled_fp8"] = torch.zeros(2)

    ours = loaded(Checkpoint.open(changed("sd1", shrink)), "unet")
    for name, tensor in expected.items():
        if name in {"input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight"}:
            key = {"i": "conv_in", "o": "conv_out", "t": "time_embedding.linear_1"}[name[0]]
            assert torch.equal(ours[f"{key}.weight"], tensor)
    assert ours["conv_in.weight"].dtype == torch.float32


def test_a_flow_without_a_shift_is_told(files, tmp_path, caplog):
    tensors = load_file(files["sdxl"])
    told = {"modelspec.prediction_type": "flow"}
    save_file(tensors, tmp_path / "a.safetensors", told)
    assert Checkpoint.open(tmp_path / "a.safetensors").config.schedule.shift == 3.0
    assert "nothing says the shift of its flow: 3 is taken" in caplog.text
    caplog.clear()
    save_file(tensors, tmp_path / "a.safetensors", told | {"ss_discrete_flow_shift": "2"})
    assert Checkpoint.open(tmp_path / "a.safetensors").config.schedule.shift == 2.0
    assert Checkpoint.open(tmp_path / "a.safetensors", shift=4.0).config.schedule.shift == 4.0
    assert "nothing says" not in caplog.text


def test_the_scale_of_latents_in_a_yaml(files, tmp_path):
    shutil.copy(files["sd1"], tmp_path / "a.safetensors")
    (tmp_path / "a.yaml").write_text("model: {params: {scale_factor: 0.25}}")
    assert Checkpoint.open(tmp_path / "a.safetensors").config.vae.scaling_factor == 0.25


def test_blocks_of_a_unet_that_is_no_model_are_called_by_their_name(tmp_path):
    names = ["down_blocks.0.resnets.0.conv1.weight", "controlnet_cond_embedding.conv_in.weight"]
    file = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(1, 1) for name in names}, file)
    with pytest.raises(UnsupportedCheckpoint, match="it is a ControlNet, which diffgen does not"):
        Checkpoint.open(file)
    save_file({}, file)
    with pytest.raises(UnsupportedCheckpoint, match=r"it has no tensors$"):
        Checkpoint.open(file)


def table_of(**noise):
    return torch.tensor(NoiseSchedule.from_config(NoiseConfig(**noise)).alphas_cumprod)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("sigmas", [False, True])
def test_a_table_of_noise_tells_zero_snr(changed, files, dtype, zero_snr, sigmas):
    """Whether it is LDM's of alpha_bar or SGM's of sigma, infinite at the end."""
    alphas = table_of(zero_snr=zero_snr)
    if zero_snr:
        alphas[-1] = 0.0
    key = "denoiser.sigmas" if sigmas else "alphas_cumprod"
    table = ((1 - alphas) / alphas).sqrt() if sigmas else alphas
    file = changed("sdxl", lambda tensors: tensors.update({key: table.to(dtype)}))
    found, plain = open_single_file(file).config.schedule, open_single_file(files["sdxl"]).config
    assert found.zero_snr == zero_snr
    assert found.betas is None
    assert zero_snr or found == plain.schedule


def test_a_table_of_other_noise_is_taken(changed, caplog):
    """Beginning and end of LDM's first models, which the families' are not."""
    alphas = table_of(beta_start=0.0015, beta_end=0.0195)
    file = changed("sd1", lambda tensors: tensors.update(alphas_cumprod=alphas.float()))
    found = NoiseSchedule.from_config(open_single_file(file).config.schedule).alphas_cumprod
    torch.testing.assert_close(torch.tensor(found), alphas, rtol=1e-4, atol=1e-6)
    assert not caplog.records
    file = changed("sd1", lambda tensors: tensors.update(alphas_cumprod=alphas.half()))
    assert open_single_file(file).config.schedule.betas is None
    assert "alphas_cumprod is another table of noise" in caplog.text


@pytest.mark.parametrize("table", [torch.zeros(1000), torch.ones(1000), torch.rand(1000)])
def test_what_is_no_table_of_noise_says_nothing(changed, files, caplog, table):
    file = changed("sd1", lambda tensors: tensors.update(alphas_cumprod=table))
    assert open_single_file(file).config == open_single_file(files["sd1"]).config
    assert not caplog.records


@pytest.mark.parametrize(("layers", "used"), [(24, 23), (23, 23), (22, None)])
def test_sd_2s_encoder_under_transformers_names(layers, used):
    shapes = {
        "embeddings.token_embedding.weight": (49408, 1024),
        "embeddings.position_embedding.weight": (77, 1024),
        **{f"encoder.layers.{n}.mlp.fc1.weight": (4096, 1024) for n in range(layers)},
    }
    if used is None:
        with pytest.raises(UnsupportedCheckpoint, match=f"has {layers} layers where that of"):
            read_clip(shapes, "sd2")
        return
    config = read_clip(shapes, "sd2")
    assert (config.layers, config.activation, config.pad) == (used, "gelu", "!")


def test_families_whose_encoders_have_transformers_names(changed, files):
    """Without the inner prefix as well: heads, activation and padding go by the family."""

    def shorten(tensors):
        for key in [key for key in tensors if key.startswith(CLIP)]:
            tensors[key.replace("text_model.", "")] = tensors.pop(key)
        key = f"{CLIP}embeddings.token_embedding.weight"
        tensors[key] = torch.zeros(8, SD2_WIDTH)

    with pytest.raises(UnsupportedCheckpoint, match="that of Stable Diffusion 2 has 23"):
        open_single_file(changed("sd1", shorten))
    infos = read_header(changed("sd1", shorten))
    assert family_of(infos, None) == "sd2"


def test_a_first_encoder_that_is_missing_is_named(changed):
    file = changed("sdxl", drop("conditioner.embedders.0."))
    with pytest.raises(UnsupportedCheckpoint, match=r"lacks the first text encoder .*embedders\.0"):
        open_single_file(file)


@pytest.mark.parametrize("place", ["conditioner.embedders.0.transformer.", "text_encoder_2."])
def test_a_refiner_under_transformers_names(pipelines, changed, place):
    def refine(tensors):
        drop("conditioner.")(tensors)
        encoder = pipelines["sdxl"].text_encoder_2.state_dict()
        tensors.update({place + key: t.clone() for key, t in encoder.items()})
        for key in [key for key in tensors if re.search(r"attn2\.to_[kv]\.weight$", key)]:
            tensors[key] = tensors[key][:, :64].contiguous()
        label = f"{UNET}label_emb.0.0.weight"
        tensors[label] = tensors[label][:, : 64 + 5 * 8].contiguous()

    file = changed("sdxl", refine)
    config = Checkpoint.open(file).config
    assert (config.is_refiner, config.conditioning) == (True, "score")
    assert (config.text[0].projection, config.text[0].pad) == (64, "!")
    encoder = pipelines["sdxl"].text_encoder_2.state_dict()["text_projection.weight"]
    assert torch.equal(
        loaded(Checkpoint.open(file), "text_encoder")["text_projection.weight"], encoder
    )


def test_of_two_autoencoders_the_first_is_used_and_told(changed, files, caplog):
    def double(tensors):
        for key in [key for key in tensors if key.startswith("first_stage_model.")]:
            tensors[key.replace("first_stage_model", "vae")] = tensors[key] + 1

    ours = loaded(Checkpoint.open(changed("sd1", double)), "vae")
    plain = loaded(Checkpoint.open(files["sd1"]), "vae")
    assert all(torch.equal(ours[key], plain[key]) for key in plain)
    assert "has both first_stage_model.* and vae.*: the first are used" in caplog.text


@pytest.mark.parametrize(("layers", "used"), [(12, 12), (11, None)])
def test_sd_1s_encoder_has_all_its_layers(layers, used):
    shapes = {
        "embeddings.token_embedding.weight": (49408, 768),
        "embeddings.position_embedding.weight": (77, 768),
        **{f"encoder.layers.{n}.mlp.fc1.weight": (3072, 768) for n in range(layers)},
    }
    if used:
        assert read_clip(shapes, "sd1").layers == used
    else:
        with pytest.raises(UnsupportedCheckpoint, match="has 11 layers where that of"):
            read_clip(shapes, "sd1")


def test_a_middle_block_that_is_missing_is_no_family(changed):
    """BK-SDM's small models have none, and one block per level."""
    file = changed("sd2", drop(f"{UNET}middle_block."))
    with pytest.raises(UnsupportedCheckpoint, match=r"it has no middle_block\.\*"):
        open_single_file(file)


def test_an_adapter_that_was_left_in_a_file_is_told(changed, files, caplog):
    def adapt(tensors):
        key = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_q"
        tensors[f"{key}.base_layer.weight"] = tensors.pop(f"{key}.weight")
        tensors[f"{key}.lora_A.default.weight"] = torch.zeros(2, 64)
        tensors[f"{key}.lora_B.default.weight"] = torch.zeros(64, 2)

    ours, plain = Checkpoint.open(changed("sd1", adapt)), Checkpoint.open(files["sd1"])
    assert "was saved with an adapter loaded, which is left out: 2 tensors" in caplog.text
    assert ours.tensors["unet"].keys() == plain.tensors["unet"].keys()


def test_a_clip_skip_beyond_the_layers_is_left_out(files, tmp_path, caplog):
    tensors = load_file(files["sd1"])
    for noted, taken in (("2", 2), ("99", None)):
        save_file(tensors, tmp_path / "a.safetensors", {"ss_clip_skip": noted})
        assert Checkpoint.open(tmp_path / "a.safetensors").config.clip_skip == taken
    assert "note a clip skip of 99, where the text encoder has" in caplog.text
