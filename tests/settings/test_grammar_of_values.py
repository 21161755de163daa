"""Sizes, points and scales for shares of the steps, as users write them."""

import pytest

from diffgen.errors import UsageError
from diffgen.settings.grammar import (
    parse_enlargement,
    parse_guidance,
    parse_point,
    parse_size,
    parse_stretches,
)
from diffgen.settings.picture import Size
from diffgen.settings.sampling import Guidance
from diffgen.settings.setting import plain, rows
from diffgen.types import Stretch


def test_scales_for_shares_of_the_steps() -> None:
    given = (Stretch(7.0, 0.0, 0.6), Stretch(1.5, 0.6, 1.0))
    assert parse_stretches("-g", "7@0-0.6,1.5@0.6-1") == given
    assert parse_stretches("-g", " 1.5@0.6-1, 7@0-.6 ") == given
    assert parse_guidance("-g", "7@0-0.6,1.5@0.6-1") == given
    assert parse_guidance("-g", "7.5") == 7.5


@pytest.mark.parametrize(
    "text",
    [
        "7@",
        "7@0.5",
        "7@0.6-0.2",
        "7@0-1.5",
        "x@0-1",
        "7@0-1,3@0.5-1",
        "7@0-0.6;1@0.6-1",
        "1.2.3@0-1",
    ],
)
def test_other_schedules_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^-g"):
        parse_guidance("-g", text)
    with pytest.raises(UsageError, match=r"takes a number or 7@0-0\.6,1@0\.6-1"):
        parse_guidance("-g", "much")


def test_sizes_and_points() -> None:
    assert parse_size("--s", "1024x768") == parse_size("--s", "1024,768") == (1024, 768)
    assert parse_point("--c", "0, 8") == (0, 8)
    for text in ("1024", "0x5", "-1x5", "axb", "1x2x3"):
        with pytest.raises(UsageError, match="takes a size such as 1024x768"):
            parse_size("--s", text)
    with pytest.raises(UsageError, match="takes X,Y in pixels"):
        parse_point("--c", "8")


def test_enlargements() -> None:
    given = ("2x", "2X", "1.5x", "12x", "2", "1.5", "1024x768")
    read = ["2x", "2x", "1.5x", "12x", "2x", "1.5x", "1024x768"]
    assert [parse_enlargement("--hires", text) for text in given] == read
    for text in ("", "x", "512", "-2", "2.5.1", "2 x"):
        with pytest.raises(UsageError, match="takes a factor such as 2x, or a size"):
            parse_enlargement("--hires", text)


def test_they_come_back_from_records() -> None:
    for group in (
        Guidance(guidance_schedule=(Stretch(7.0, 0.0, 0.6), Stretch(1.5, 0.6, 1.0))),
        Size(original_size=(64, 40), crop=(0, 8)),
    ):
        told = plain(group)
        read = {name: row.read(told[name]) for name, row in rows(type(group)).items()}
        assert type(group)(**read) == group
