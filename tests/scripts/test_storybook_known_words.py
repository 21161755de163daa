"""The list of words that storybook's model folder ships is that of its captions."""

import json
from pathlib import Path

from scripts.storybook.known_words import known_words, near_words, things
from scripts.storybook.words import PLACES, TIMES

WORDS = Path(__file__).parents[2] / "diffgen" / "assets" / "storybook" / "words.json"


def test_the_shipped_list_has_every_word_of_the_captions() -> None:
    shipped = set(json.loads(WORDS.read_text())["words"])
    assert set(known_words(scenes=300)) <= shipped
    vocabulary = json.loads((WORDS.parent / "tokenizer" / "vocab.json").read_text())
    spelled = {token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")}
    # Each is one token of its own, but for those too rare among the captions.
    assert len(shipped - spelled) < 10


def test_the_shipped_list_has_every_thing_and_no_place() -> None:
    shipped = json.loads(WORDS.read_text())
    assert shipped["things"] == things()
    assert set(shipped["things"]) <= set(shipped["words"])
    assert {"barn", "barns", "mouse", "mice", "balloon", "plane"} <= set(shipped["things"])
    said = [text for place in PLACES.values() for text in (*place.land, *place.air, *place.water)]
    said += [text for texts in TIMES.values() for text in texts]
    assert not set(shipped["things"]) & set(" ".join(said).split())


def test_near_words_are_listed_by_what_was_not_learned() -> None:
    assert near_words(["ship: yacht", "sailboat: yacht dinghy"]) == {
        "yacht": ["ship", "sailboat"],
        "dinghy": ["sailboat"],
    }
