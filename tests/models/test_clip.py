"""The text encoder against transformers' CLIP on tiny random models."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ClipTextConfig

EOS = 49

SD1 = ClipTextConfig(
    vocab_size=50, width=32, layers=3, num_heads=4, mlp_width=48, max_tokens=12, norm_eps=1e-3
)
CASES = {
    "sd1": SD1,
    "sd2": replace(SD1, activation="gelu", num_heads=2),
    "sdxl-first": replace(SD1, hidden="penultimate"),
    "sdxl-second": replace(SD1, activation="gelu", hidden="penultimate", projection=20),
}
REAL = {
    "sd1": ClipTextConfig(),
    "sd2": ClipTextConfig(width=1024, layers=23, num_heads=16, mlp_width=4096, activation="gelu"),
    "sdxl-second": ClipTextConfig(
        width=1280,
        layers=32,
        num_heads=20,
        mlp_width=5120,
        activation="gelu",
        hidden="penultimate",
        projection=1280,
    ),
}


def reference_clip(config: ClipTextConfig) -> CLIPTextModel | CLIPTextModelWithProjection:
    """The transformers model that a config describes."""
    kind = CLIPTextModel if config.projection is None else CLIPTextModelWithProjection
    return kind(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            max_position_embeddings=config.max_tokens,
            hidden_act=config.activation,
            layer_norm_eps=config.norm_eps,
            projection_dim=config.projection or 512,
            bos_token_id=0,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
    ).eval()


def file_key(key: str) -> str:
    """transformers 5 drops a prefix in one of its two classes; the files on disk have it."""
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"


def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts of 4 and 12 tokens, padded with the end token, and where each one ends."""
    ids = torch.randint(1, EOS, (2, 12), generator=torch.Generator().manual_seed(1))
    end = torch.tensor([3, 11])
    return ids.where(torch.arange(12) < end[:, None], EOS), end


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_matches_transformers(case, copy_random_weights, assert_close):
    config = CASES[case]
    reference = reference_clip(config)
    with torch.device("meta"):
        ours = ClipTextModel(config)
    copy_random_weights(reference, ours, rename=file_key)
    ids, end = prompts()

    context, pooled = ours(ids, end)
    expected = reference(ids, output_hidden_states=True)

    penultimate = config.hidden == "penultimate"
    assert_close(context, expected.hidden_states[-2] if penultimate else expected.last_hidden_state)
    assert_close(
        pooled, expected.pooler_output if config.projection is None else expected.text_embeds
    )


@pytest.mark.parity
@pytest.mark.parametrize("name", REAL)
def test_real_models_have_the_layout_of_transformers(name, assert_same_layout):
    with torch.device("meta"):
        ours, reference = ClipTextModel(REAL[name]), reference_clip(REAL[name])

    assert_same_layout(ours, reference, rename=file_key)


@torch.no_grad()
def test_a_token_does_not_see_those_after_it():
    torch.manual_seed(0)
    model = ClipTextModel(SD1)
    ids, end = prompts()
    changed = ids.clone()
    changed[:, 6:] = 1

    before, after = model(ids, end).context, model(changed, end).context
    # The same sums over the same tokens, so only the order of additions could differ.
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@torch.no_grad()
def test_fewer_tokens_than_the_model_has_positions():
    torch.manual_seed(0)
    model = ClipTextModel(SD1)
    ids, _ = prompts()

    short = model(ids[:, :5], torch.tensor([4, 4])).context
    torch.testing.assert_close(short, model(ids, torch.tensor([4, 4])).context[:, :5])


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case, assert_gradients_flow):
    model = ClipTextModel(CASES[case])
    context, pooled = model(*prompts())

    assert_gradients_flow(model, torch.cat([context.flatten(), pooled.flatten()]))
