"""diffgen.settings.block_weights: presets and lists, spread over LDM's entries."""

from __future__ import annotations

import pytest

from diffgen.errors import UsageError
from diffgen.models.config import UNetConfig
from diffgen.settings.block_weights import BLOCKS, PRESETS, parse_blocks
from diffgen.types import place_of
from diffgen.weights.ldm.names import ldm_blocks

XL = UNetConfig(
    channels=(320, 640, 1280), blocks=(2, 2, 2), depth=(0, 2, 10), num_heads=(5, 10, 20)
)
HEADS = {"input_blocks": "IN{:02}", "output_blocks": "OUT{:02}", "middle_block": "M00"}


def named(text: str) -> dict[str, float]:
    """The factors that are not 0."""
    factors = zip(BLOCKS, parse_blocks("--lora x", text), strict=True)
    return {name: factor for name, factor in factors if factor}


def test_presets_say_what_the_extensions_page_says() -> None:
    assert named("INS") == dict.fromkeys(("BASE", "IN01", "IN02", "IN04"), 1.0)
    assert named("OUTD") == dict.fromkeys(("BASE", "OUT03", "OUT04", "OUT05", "OUT06"), 1.0)
    middle = ("IN07", "IN08", "IN05", "M00", "OUT03", "OUT04", "OUT05", "OUT06")
    assert named("MIDD") == dict.fromkeys(("BASE", *middle), 1.0)
    assert named("NONE") == {}
    assert set(named("ALL0.5").values()) == {0.5}
    assert len(named("ALL")) == 17


@pytest.mark.parametrize(
    ("count", "last", "fourth"),
    [(12, "OUT05", "IN07"), (17, "OUT11", "IN04"), (20, "OUT08", "IN02"), (26, "OUT11", "IN02")],
)
def test_lists_of_each_length(count: int, last: str, fourth: str) -> None:
    numbers = [0.0] * count
    numbers[3], numbers[-1] = 0.5, -2.0
    text = ", ".join(map(str, numbers))
    assert named(text) == {fourth: 0.5, last: -2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MINE", 'lbw has no preset "MINE"; there are NONE, ALL,'),
        ("outall", 'no preset "outall". Did you mean "OUTALL"'),
        ("1,0,1", "lbw takes 12, 17, 20 or 26 numbers, not 3"),
        (",".join("1" * 61), "not 61, which are for Flux"),
        (",".join(["1"] * 11 + ["R"]), "lbw's R is a number drawn or given elsewhere"),
        (",".join(["1"] * 11 + ["nan"]), "lbw takes numbers from -100 to 100, not"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_blocks("--lora x", text)
    assert message in str(caught.value)


@pytest.mark.parametrize("config", [UNetConfig(), XL], ids=["sd1", "sdxl"])
def test_layers_are_in_the_entries_of_their_ldm_names(config: UNetConfig) -> None:
    for ours, theirs in ldm_blocks(config).items():
        head, *rest = theirs.split(".")
        if head not in HEADS or (head == "input_blocks" and int(rest[0]) > 11):
            assert place_of(f"{ours}.x", config.blocks) is None
            continue
        name = HEADS[head].format(int(rest[0]))
        place = place_of(f"{ours}.x", config.blocks)
        assert place is not None
        assert BLOCKS[place] == name
    assert set(map(len, PRESETS.values())) == {len(BLOCKS)}
