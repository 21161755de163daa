"""diffgen.text.tokenizer: id for id what transformers' CLIPTokenizer gives."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import ConfigError, UsageError
from diffgen.text.tokenizer import Tokenizer

VOCABULARY = Path(__file__).parents[1] / "vocabulary"
START, END = 948, 949

PROMPTS = [
    "",
    " ",
    "a red barn at sunset",
    "A RED BARN, at Sunset!",
    "it's the dog's bone; they've won't can't I'm you're he'd she'll DON'T",
    "  leading,  inner\t\ttabs\nnewlines \r\n and trailing  ",
    "numbers 1234567890 3.14 1/2 2nd x4",
    "\"double\" 'single' `back` \u201csmart\u201d \u2018quotes\u2019",
    "(((masterpiece:1.3))), [x|y] {z} <lora:a:1> a_b-c",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul \u00df \u1e9e",
    "cafe\u0301 A\u030a \u1e9b\u0323",
    "\u4f60\u597d \u3053\u3093\u306b\u3061\u306f \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1fa\U0001f1e6 \u2764\ufe0f",
    "\u00a0non\u2003breaking\u3000spaces\u2028lines\x0b\x0c\x1c",
    "\x00 nul \x07 bell",
    "\ufb01ne \u00bd \u2163 \u33a5 \uff21\uff22",
    "<|endoftext|> a <|startoftext|>b <|ENDOFTEXT|> <|end",
    "! hello! !!! a!b",
    "x" * 300,
    "word " * 60,
    "!" * 90,
]


def random_prompts() -> list[str]:
    rng = random.Random(0)
    letters = [chr(code) for code in range(1, 0x180)]
    letters += list(" '!<|>,.") * 10 + list("\u2019\u3042\u4e00\u0300\U0001f600")
    return ["".join(rng.choices(letters, k=rng.randrange(1, 80))) for _ in range(200)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VOCABULARY, tmp_path / "tokenizer"))


def change(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def assert_parity(folder: Path) -> None:
    from transformers import CLIPTokenizer

    theirs, ours = CLIPTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    for prompt in PROMPTS + random_prompts():
        expected = theirs(prompt, padding="max_length", max_length=32, truncation=True).input_ids
        assert list(ours.encode(prompt).ids) == expected, prompt


@pytest.mark.parity
def test_same_ids() -> None:
    assert_parity(VOCABULARY)


@pytest.mark.parity
def test_same_ids_with_another_padding(folder: Path) -> None:
    """SD 2 and SDXL's second encoder pad with "!", which they also find inside prompts."""
    change(folder, "special_tokens_map.json", pad_token="!")
    assert_parity(folder)
    assert set(Tokenizer.from_folder(folder).encode("").ids[2:]) == {0}


@pytest.mark.parity
def test_same_ids_with_tokens_written_out(folder: Path) -> None:
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False}
    change(folder, "special_tokens_map.json", eos_token=token, pad_token=token, unk_token=token)
    assert_parity(folder)


@pytest.mark.parity
def test_same_ids_with_a_list_of_tokens(folder: Path) -> None:
    """The newer layout: flags in tokenizer_config.json, whose word then is the last."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "special": True}
    listed = {"0": "!", str(START): "<|startoftext|>", str(END): "<|endoftext|>"}
    decoder = {id_: {"content": content, **flags} for id_, content in listed.items()}
    change(folder, "tokenizer_config.json", added_tokens_decoder=decoder, pad_token="!")
    assert_parity(folder)
    assert Tokenizer.from_folder(folder).encode("").ids[-1] == 0


@pytest.mark.parity
def test_same_ids_from_tokenizer_json(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(VOCABULARY).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    assert_parity(tmp_path)


def test_an_empty_prompt_is_start_end_and_padding() -> None:
    tokens = Tokenizer.from_folder(VOCABULARY).encode("")
    assert tokens.ids == (START, *[END] * 31)
    assert (tokens.end, tokens.cut) == (1, "")


def test_a_folder_of_bare_vocabulary(folder: Path) -> None:
    expected = Tokenizer.from_folder(folder).encode("a red barn")
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    assert Tokenizer.from_folder(folder, max_tokens=32).encode("a red barn") == expected


@pytest.mark.parametrize(("declared", "encoder", "length"), [(32, 77, 32), (10**30, 16, 16)])
def test_length(folder: Path, declared: int, encoder: int, length: int) -> None:
    change(folder, "tokenizer_config.json", model_max_length=declared)
    tokenizer = Tokenizer.from_folder(folder, max_tokens=encoder)
    assert tokenizer.max_tokens == length
    assert len(tokenizer.encode("word " * 50).ids) == length


def test_the_end_is_the_first_end_token() -> None:
    tokens = Tokenizer.from_folder(VOCABULARY).encode("a<|endoftext|>b")
    assert tokens.ids[tokens.end] == END
    assert tokens.ids.index(END) == tokens.end == 2


def test_a_prompt_that_just_fits_is_not_cut() -> None:
    tokenizer = Tokenizer.from_folder(VOCABULARY)
    assert tokenizer.encode("a " * 30).cut == ""
    assert tokenizer.encode("a " * 31).cut == "a"


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("a " * 30 + "Red  Barn, at SUNSET ", "Red  Barn, at SUNSET"),
        ("a " * 29 + "cat, a dog", ", a dog"),
        # Three tokens, of which two would have fitted: half a word says nothing.
        ("a " * 28 + "zqx end", "zqx end"),
        ("a " * 30 + "\U0001f600 caf\u00e9", "\U0001f600 caf\u00e9"),
        ("a " * 30 + "<|endoftext|> b", "<|endoftext|> b"),
    ],
)
def test_what_is_cut_is_told_in_the_words_of_the_prompt(prompt: str, cut: str) -> None:
    assert Tokenizer.from_folder(VOCABULARY).encode(prompt).cut == cut


def test_one_endless_word_is_cut_inside() -> None:
    cut = Tokenizer.from_folder(VOCABULARY).encode("zq" * 40).cut
    assert cut
    assert ("zq" * 40).endswith(cut)
    assert len(cut) < 80


def test_bytes_that_are_no_text() -> None:
    prompt = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python passes on such arguments
    with pytest.raises(UsageError, match=r"'caf\\udce9' is not valid Unicode"):
        Tokenizer.from_folder(VOCABULARY).encode(prompt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token": 7}, r'"pad_token" should hold a token or its "content"'),
        ({"pad_token": {"lstrip": False}}, r'"pad_token" should hold a token'),
        ({"pad_token": "<pad>"}, r'the vocabulary lacks "<pad>"'),
        ({"pad_token": ["!"]}, r'"pad_token" should hold a token'),
        ({"pad_token": False}, r'"pad_token" should hold a token'),
        ({"unk_token": "x" * 10_000}, r'the vocabulary lacks "x{59}\.\.\.$'),
        ({"eos_token": {"content": "\ud800"}}, r"a token has half a character, U\+D800"),
    ],
)
def test_malformed_special_tokens(folder: Path, changes: dict[str, Any], message: str) -> None:
    change(folder, "special_tokens_map.json", **changes)
    with pytest.raises(ConfigError, match=rf"/(special_tokens_map\.json|tokenizer): .*{message}"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"added_tokens_decoder": [{"content": "!"}]},
            '"added_tokens_decoder" should be an object',
        ),
        ({"added_tokens_decoder": {"0": "!"}}, '"added_tokens_decoder" should hold a token'),
        (
            {"added_tokens_decoder": {"0": {"content": 7}}},
            '"added_tokens_decoder" should hold a to',
        ),
        ({"model_max_length": "32"}, '"model_max_length" should be a whole number, not "32"'),
        ({"model_max_length": 1e30}, '"model_max_length" should be a whole number, not 1e'),
        ({"model_max_length": 2}, '"model_max_length" must be at least 3, not 2'),
        ({"model_max_length": -(10**30)}, '"model_max_length" must be at least 3, not -1000'),
    ],
)
def test_malformed_options(folder: Path, changes: dict[str, Any], message: str) -> None:
    change(folder, "tokenizer_config.json", **changes)
    with pytest.raises(ConfigError, match=rf"tokenizer_config\.json: {message}"):
        Tokenizer.from_folder(folder)


def test_a_vocabulary_smaller_than_the_encoder_is_noticed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Tokenizer.from_folder(folder, vocab_size=1738)
    assert "has 950 tokens, where the text encoder knows 1738" in caplog.text
    caplog.clear()
    Tokenizer.from_folder(folder, vocab_size=950)
    assert not caplog.text


def test_a_vocabulary_larger_than_the_encoder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"ids up to 949, where the text encoder knows 949 tok"):
        Tokenizer.from_folder(folder, vocab_size=949)


PLACES = ["added_tokens.json", "tokenizer.json", "added_tokens_decoder"]


def list_tokens(folder: Path, place: str, ids: dict[str, int], **flags: object) -> None:
    """Add tokens to a vocabulary as transformers' versions write them."""
    if place == "added_tokens.json":
        (folder / place).write_text(json.dumps(ids))
    elif place == "tokenizer.json":
        entries = [{"id": number, "content": name, **flags} for name, number in ids.items()]
        (folder / place).write_text(json.dumps({"added_tokens": entries}))
    else:
        listed = {str(number): {"content": name, **flags} for name, number in ids.items()}
        change(folder, "tokenizer_config.json", added_tokens_decoder=listed)


@pytest.mark.parametrize("place", PLACES)
def test_added_tokens_keep_the_ids_of_wherever_they_are_listed(place: str, folder: Path) -> None:
    list_tokens(folder, place, {"<b>": 955, "<a>": 951}, special=False)
    assert Tokenizer.from_folder(folder).encode("the <a> <b>").ids[2:4] == (951, 955)


ADDED_PROMPTS = ["a <Cat-Toy> on", "a <cat-toy>b", "A <CAT-TOY>, x", "SKS dog", "asks for sks"]


@pytest.mark.parity
@pytest.mark.parametrize("place", ["added_tokens.json", "added_tokens_decoder", "saved by 5"])
@pytest.mark.parametrize("special", [False, True])
def test_same_ids_with_added_tokens(place: str, special: bool, folder: Path) -> None:
    """Tokens that are not special are found in any case, as transformers finds them."""
    from transformers import CLIPTokenizer

    if place == "saved by 5":
        made = CLIPTokenizer.from_pretrained(folder)
        made.add_tokens(["<Cat-Toy>", "sks"], special_tokens=special)
        shutil.rmtree(folder)
        made.save_pretrained(folder)
    else:
        flags = {"special": special, "normalized": not special}
        list_tokens(folder, place, {"sks": 951, "<Cat-Toy>": 950}, **flags)
        if special:
            change(folder, "special_tokens_map.json", additional_special_tokens=["<Cat-Toy>"])
    theirs, ours = CLIPTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    for prompt in ADDED_PROMPTS:
        assert ours.ids(prompt) == theirs(prompt, add_special_tokens=False).input_ids, prompt
    assert 950 in ours.ids("a <Cat-Toy> on")


@pytest.mark.parity
@pytest.mark.parametrize("file", ["special_tokens_map.json", "tokenizer_config.json"])
def test_special_tokens_without_an_id_come_last(file: str, folder: Path) -> None:
    from transformers import CLIPTokenizer

    list_tokens(folder, "added_tokens.json", {"sks": 950})
    change(folder, file, additional_special_tokens=["<a>"])
    ours = Tokenizer.from_folder(folder, vocab_size=952).ids("a <a> sks")
    assert ours == CLIPTokenizer.from_pretrained(folder)("a <a> sks").input_ids[1:-1]
    assert ours[-2:] == [951, 950]


@pytest.mark.parametrize("place", PLACES)
def test_a_padding_that_was_added(place: str, folder: Path) -> None:
    list_tokens(folder, place, {"[PAD]": 950}, special=True)
    change(folder, "special_tokens_map.json", pad_token="[PAD]")
    change(folder, "tokenizer_config.json", pad_token="[PAD]")
    assert Tokenizer.from_folder(folder).encode("").ids[2] == 950
    with pytest.raises(ConfigError, match=r'id of "\[PAD\]" is too large.* knows 950 tokens'):
        Tokenizer.from_folder(folder, vocab_size=950)


@pytest.mark.parametrize("place", PLACES)
def test_an_added_token_without_a_vector_is_told(
    place: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Tokenizer.from_folder(folder).ids("a <cat-toy>")
    list_tokens(folder, place, {"<cat-toy>": 950})
    assert Tokenizer.from_folder(folder, vocab_size=950).ids("a <cat-toy>") == plain
    assert (
        "knows 950 tokens (vocab_size), and none of them is among those: <cat-toy>" in caplog.text
    )


@pytest.mark.parametrize(
    ("place", "ids", "message"),
    [
        ("added_tokens.json", {"<a>": 5}, 'two tokens have the id 5: "&", "<a>"'),
        ("added_tokens.json", {"<a>": -1}, "should be an id from 0 to"),
        ("added_tokens.json", {"<a>": "5"}, 'should be a whole number, not "5"'),
        ("tokenizer.json", {"<a>": 10**9}, '"id" should be an id from 0 to'),
        ("added_tokens_decoder", {"<a>": "x"}, 'should be a whole number, not "x"'),
        ("added_tokens_decoder", {"<a>": 10**400}, "should be"),
    ],
)
def test_added_ids_that_cannot_be(
    place: str, ids: dict[str, Any], message: str, folder: Path
) -> None:
    list_tokens(folder, place, ids)
    with pytest.raises(ConfigError, match=message):
        Tokenizer.from_folder(folder)


@pytest.mark.parity
def test_words_of_several_vectors_are_written_out(folder: Path) -> None:
    """diffusers adds `<cat>_1` ... for the further vectors of a textual inversion."""
    from diffusers.loaders import TextualInversionLoaderMixin
    from transformers import CLIPTokenizer

    list_tokens(folder, "added_tokens.json", {"<cat>": 950, "<cat>_1": 951, "<cat>_2": 952})
    theirs, ours = CLIPTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    for prompt in ["a <cat> on a mat", "<cat>, <cat>", "no animal"]:
        whole = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, theirs)
        assert ours.ids(prompt) == theirs(whole, add_special_tokens=False).input_ids
    assert ours.ids("<cat> <cat>_1 <cat>_2") == [950, 951, 952]
    assert ours.encode("<cat>").ids[1:4] == (950, 951, 952)
