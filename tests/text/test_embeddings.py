"""diffgen.text.embeddings: where names of learned embeddings stand in prompts."""

import pytest
import torch

from diffgen.errors import UsageError
from diffgen.text.embeddings import Embeddings
from diffgen.text.prompt import Piece

KNOWN = Embeddings(
    {name: [torch.ones(2, 4)] for name in ("easy-neg", "easy", "<cat-toy>", "v1.5_style")}
)


def split(text: str, weight: float = 1.0) -> list[tuple[str, bool]]:
    ((pieces),) = KNOWN.split(((Piece(text, weight),),))
    assert all(piece.weight == weight for piece in pieces)
    return [(piece.text, piece.embedding) for piece in pieces]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a barn", [("a barn", False)]),
        ("easy-neg", [("easy-neg", True)]),
        ("a EASY-NEG, barn", [("a ", False), ("EASY-NEG", True), (", barn", False)]),
        ("a <cat-toy>", [("a ", False), ("<cat-toy>", True)]),
        ("embedding:easy.", [("easy", True), (".", False)]),
        ("a embedding:v1.5_style!", [("a ", False), ("v1.5_style", True), ("!", False)]),
        ("embedding:easy-neg easy", [("easy-neg", True), (" ", False), ("easy", True)]),
        ("uneasy easygoing easy-going", [("uneasy easygoing easy-going", False)]),
        ("", []),
    ],
)
def test_names_in_texts(text: str, expected: list[tuple[str, bool]]) -> None:
    assert split(text, 1.3) == expected


def test_a_name_is_found_in_any_case() -> None:
    assert torch.equal(KNOWN("Easy-Neg")[0], torch.ones(2, 4))


def test_an_unknown_name_brings_near_ones() -> None:
    assert split("embedding:easy-nig") == [("easy-nig", True)]
    with pytest.raises(UsageError, match=r'there is no embedding "easy-nig".*easy-neg'):
        KNOWN("easy-nig")


def test_without_embeddings_nothing_is_divided() -> None:
    wording = ((Piece("embedding:easy"),),)
    assert Embeddings({}).split(wording) is wording
