"""What `diffgen show` tells of a prompt."""

from __future__ import annotations

from small_encoder import tokenizer

from diffgen.text.explain import explain
from diffgen.text.grammar import parse

TOKENIZER = tokenizer()


def test_terms_steps_chunks_and_weights() -> None:
    prompt = parse("a (red:1.2) [barn|sea] BREAK cat AND embedding:x dog:0.5 <lora:y:0.3>(")
    told = explain(prompt, TOKENIZER, 3)
    first, second = told["terms"]
    assert [stage["steps"] for stage in first["stages"]] == [[1, 3], [2]]
    chunk, after = first["stages"][0]["chunks"]
    assert chunk["pieces"] == [
        {"text": "a", "weight": 1.0},
        {"text": "red", "weight": 1.2},
        {"text": "barn", "weight": 1.0},
    ]
    assert chunk["tokens"] == 3 == len(chunk["ids"])
    assert chunk["ids"] == TOKENIZER.ids("a red barn")
    assert after["pieces"] == [{"text": "cat", "weight": 1.0}]
    assert second["weight"] == 1.0  # the tag stands between the number and the end
    (chunk,) = second["stages"][0]["chunks"]
    assert chunk["pieces"][0]["text"].startswith("embedding:x dog")
    assert chunk["ids"][0] is None
    (lora,) = told["loras"]
    assert (lora["name"], lora["weight"], lora["unet"], lora["lbw"]) == ("y", 0.3, None, None)
    assert told["notes"] == ['unbalanced brackets, "(" at character 70']


def test_letters_of_several_tokens_are_whole() -> None:
    told = explain(parse("W\u00fcrfel \U0001f431"), TOKENIZER, 1)
    assert (
        told["terms"][0]["stages"][0]["chunks"][0]["pieces"][0]["text"] == "w\u00fcrfel \U0001f431"
    )


def test_an_empty_prompt() -> None:
    told = explain(parse(""), TOKENIZER, 2)
    ((chunk,),) = (stage["chunks"] for stage in told["terms"][0]["stages"])
    assert chunk == {"tokens": 0, "ids": [], "pieces": []}


def test_a_plain_prompt_says_what_is_cut() -> None:
    told = explain(parse("barn " * 76, "plain"), TOKENIZER, 2)
    assert told["cut"] == "barn"
    assert told["terms"][0]["stages"][0]["chunks"][0]["tokens"] == 75
