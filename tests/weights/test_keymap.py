"""diffgen.weights.keymap: names in files -> canonical names."""

from pathlib import Path

import pytest
import torch

from diffgen.errors import WeightsError
from diffgen.types import Component
from diffgen.weights.files import Place, TensorInfo
from diffgen.weights.keymap import FOLDER_RULES, to_canonical


def renamed(component: Component, shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    infos = {
        k: TensorInfo(Path("file"), k, shape, "F32", Place(0, shape, (), "F32"))
        for k, shape in shapes.items()
    }
    return to_canonical(infos, FOLDER_RULES[component])


@pytest.mark.parametrize(
    ("old", "new"),
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")],
)
def test_old_attention_names_of_the_vae(old: str, new: str) -> None:
    attention = "decoder.mid_block.attentions.0"
    infos = renamed("vae", {f"{attention}.{old}.weight": (8, 8), f"{attention}.{old}.bias": (8,)})
    assert set(infos) == {f"{attention}.{new}.weight", f"{attention}.{new}.bias"}
    assert infos[f"{attention}.{new}.bias"].key == f"{attention}.{old}.bias"


@pytest.mark.parametrize("name", ["query", "to_q"])
def test_attention_stored_as_convolution_becomes_a_matrix(name: str) -> None:
    infos = renamed("vae", {f"encoder.mid_block.attentions.0.{name}.weight": (2, 3, 1, 1)})
    (info,) = infos.values()
    assert info.shape == (2, 3)
    assert info.op is not None
    weight = torch.arange(6.0).reshape(2, 3, 1, 1)
    assert torch.equal(info.op.apply(weight), weight[:, :, 0, 0])


def test_other_names_of_the_vae_stay() -> None:
    shapes = {
        "decoder.mid_block.attentions.0.group_norm.weight": (8,),
        "decoder.conv_in.weight": (8, 4, 3, 3),
        "quant_conv.weight": (8, 8, 1, 1),
    }
    assert {name: info.shape for name, info in renamed("vae", shapes).items()} == shapes


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_with_and_without_prefix(prefix: str) -> None:
    names = ["embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.bias"]
    names.append("final_layer_norm.weight")
    infos = renamed("text_encoder", {prefix + name: (1,) for name in names})
    assert list(infos) == [f"text_model.{name}" for name in names]


def test_what_is_no_weight_is_left_out() -> None:
    names = ["text_model.embeddings.position_ids", "embeddings.position_ids", "position_ids"]
    infos = renamed(
        "text_encoder", dict.fromkeys([*names, "logit_scale", "text_projection.weight"], ())
    )
    assert list(infos) == ["text_projection.weight"]


def test_two_tensors_for_one_name_are_refused() -> None:
    attention = "decoder.mid_block.attentions.0"
    with pytest.raises(WeightsError, match=r"two tensors for .*to_q\.bias"):
        renamed("vae", {f"{attention}.query.bias": (8,), f"{attention}.to_q.bias": (8,)})
