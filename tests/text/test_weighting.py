"""Weights against each program's rule written out in double precision, and against compel itself."""

from __future__ import annotations

import pytest
import torch
from compel import EmbeddingsProvider
from compel.embeddings_provider import SplitLongTextMode
from small_encoder import conditioner, their_encoder, their_tokenizer
from torch import Tensor
from transformers import CLIPTextModel

from diffgen.diffusion.course import Guide
from diffgen.errors import UsageError
from diffgen.text.conditioner import Conditioner, Sizes, TextSettings
from diffgen.text.embeddings import Embeddings
from diffgen.text.grammar import parse
from diffgen.types import PromptStyle

STYLES: tuple[PromptStyle, ...] = ("a1111", "comfy", "compel", "plain")
REQUEST = TextSettings(sigmas=(10.0, 5.0, 2.0, 0.0), sizes=Sizes.uncropped(32, 32))
WEIGHTED = "a red (barn at sunset:1.4), [[a cat]] on (the (beach:0.6), by:1.2) the sea"
LONG = "a (red:1.3) barn, " * 30


@pytest.fixture(scope="module")
def theirs() -> CLIPTextModel:
    return their_encoder()


@pytest.fixture(scope="module")
def ours(theirs: CLIPTextModel) -> Conditioner:
    return conditioner(theirs)


@torch.no_grad()
def context(ours: Conditioner, text: str, style: PromptStyle) -> Tensor:
    guide: Guide = ours.guide([parse(text, style)], None, REQUEST)
    return guide.cond[0].stages[0][1].context


@torch.no_grad()
def encoded(theirs: CLIPTextModel, ids: tuple[int, ...]) -> Tensor:
    return theirs(torch.tensor([ids])).last_hidden_state


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def chunks(ours: Conditioner, text: str, style: PromptStyle):
    (term,) = parse(text, style).terms
    return ours.chunks((term.at(0, 1),), style)[0]


@pytest.mark.parity
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text", ["", "a red barn at sunset", "A cat! On the beach, by the sea"])
def test_weight_1_is_transformers(ours, theirs, style: PromptStyle, text: str) -> None:
    ids = their_tokenizer()(text, padding="max_length", truncation=True).input_ids
    close(context(ours, text, style), encoded(theirs, ids))
    weighed = f"({text}:1.0)" if style != "plain" else text
    assert torch.equal(context(ours, weighed, style), context(ours, text, style))


@pytest.mark.parity
@pytest.mark.parametrize("style", ["a1111", "comfy", "compel"])
@pytest.mark.parametrize("count", [75, 76, 150, 151])
def test_long_prompts_are_chunks_beside_each_other(ours, theirs, style, count: int) -> None:
    text = "barn " * count
    ids = their_tokenizer()(text, add_special_tokens=False).input_ids
    assert len(ids) == count
    pieces = [ids[i : i + 75] for i in range(0, len(ids), 75)]
    rows = [(948, *piece, *[949] * (76 - len(piece))) for piece in pieces]
    close(context(ours, text, style), torch.cat([encoded(theirs, row) for row in rows], dim=1))


@pytest.mark.parametrize("text", [WEIGHTED, LONG, "(a barn:0)", "(a:-1) barn", "[a:b:2] ((barn))"])
def test_a1111_restores_the_mean(ours, theirs, text: str) -> None:
    expected = []
    for chunk in chunks(ours, text, "a1111"):
        z = encoded(theirs, chunk.ids).double()
        w = z * torch.tensor(chunk.weights, dtype=torch.float64)[:, None]
        expected.append(w * (z.mean() / w.mean()))
    close(context(ours, text, "a1111").double(), torch.cat(expected, dim=1), 2e-5)


@pytest.mark.parametrize("text", [WEIGHTED, LONG, "(a barn:0)", "(a:-1) barn", "[a:b:2] ((barn))"])
def test_comfy_weighs_the_way_from_the_empty_prompt(ours, theirs, text: str) -> None:
    empty = encoded(theirs, (948, *[949] * 76)).double()
    expected = []
    for chunk in chunks(ours, text, "comfy"):
        z = encoded(theirs, chunk.ids).double()
        weights = torch.tensor(chunk.weights, dtype=torch.float64)[:, None]
        expected.append(empty + weights * (z - empty))
    close(context(ours, text, "comfy").double(), torch.cat(expected, dim=1))


@pytest.mark.parity
@pytest.mark.parametrize(
    "fragments",
    [
        [("a red ", 1.0), ("barn", 1.4), (" at sunset", 1.0)],
        [("a red ", 1.0), ("barn", 0.5), (" at sunset", 1.0)],
        [("a red barn", 0.3), (" at sunset", 1.7)],
        [("a ", 0.9), ("red barn", 0.2), (" by the sea", 1.0), (" cat", 0.0)],
        [("a red barn, ", 1.0), ("by the sea, " * 10, 0.6), ("a cat, " * 30, 1.2)],
        [("a cat, " * 40, 1.0), ("a red barn", 0.4)],
    ],
)
def test_compel_is_compel(ours, theirs, fragments: list[tuple[str, float]]) -> None:
    provider = EmbeddingsProvider(
        their_tokenizer(),
        theirs,
        truncate=False,
        split_long_text_mode=SplitLongTextMode.BRUTAL,
        model_max_length=77,
    )
    words, weights = (list(column) for column in zip(*fragments, strict=True))
    with torch.no_grad():
        expected = provider.get_embeddings_for_weighted_prompt_fragments([words], [weights])
    text = "".join(f"({piece}:{weight})" for piece, weight in fragments)
    close(context(ours, text, "compel"), expected, 5e-6)


def test_styles_differ(ours) -> None:
    a, b, c, plain = (context(ours, WEIGHTED, style) for style in STYLES)
    for one, other in ((a, b), (b, c), (a, c)):
        assert (one - other).norm() > 0.01 * one.norm()
    assert plain.shape == a.shape


def test_weights_that_leave_no_mean_are_refused(ours, theirs) -> None:
    """A mean of 0 cannot be restored."""
    broken = conditioner(theirs)
    norm = broken.encoders[0].text_model.final_layer_norm
    norm.weight.data.zero_()
    norm.bias.data.zero_()
    with pytest.raises(UsageError, match="cancel each other"):
        context(broken, "(a:1.5) barn", "a1111")


def test_a_learned_embedding_takes_the_place_of_tokens(ours, theirs) -> None:
    table = ours.encoders[0].text_model.embeddings.token_embedding.weight
    red, barn = ours.tokenizers[0].ids("red barn")
    known = {"red-barn": [table[[red, barn]]], "new": [torch.full((1, 32), 0.5)]}
    learned = conditioner(theirs, embeddings=Embeddings(known))
    for style in STYLES[:3]:
        assert torch.equal(
            context(learned, "a embedding:red-barn at sunset", style),
            context(learned, "a red barn at sunset", style),
        )
        other = context(learned, "a embedding:new barn at sunset", style)
        assert not torch.allclose(other, context(learned, "a red barn at sunset", style))
