from diffgen.text.tokenizer import Tokenizer
from scripts.storybook.vocabulary import main


def test_its_words_are_single_tokens(tmp_path):
    assert main(["--out", str(tmp_path), "--world", "narrow", "--count", "300"]) == 0
    tokens = Tokenizer.from_folder(tmp_path, max_tokens=16).encode("a red barn at sunset")
    assert tokens.end == 6  # after the start and five words
