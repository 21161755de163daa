"""diffgen.batch.lines: options in a line, in four programs' spellings."""

import pytest

from diffgen.batch.lines import parse_line
from diffgen.batch.requests import row_of
from diffgen.errors import UsageError


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a red barn", {"prompt": "a red barn"}),
        ("a red barn --steps 30", {"prompt": "a red barn", "steps": "30"}),
        # sd-scripts
        (
            'a red barn, it\'s old --n blurry, "dark" --s 30 --l 7.5 --d 42 --w 512 --h 768',
            {
                "prompt": "a red barn, it's old",
                "negative": 'blurry, "dark"',
                "steps": "30",
                "guidance": "7.5",
                "seed": "42",
                "width": "512",
                "height": "768",
            },
        ),
        # ai-toolkit
        (
            "a barn --cfg 4 --steps 8 --seed 1",
            {"prompt": "a barn", "cfg": "4", "steps": "8", "seed": "1"},
        ),
        # A1111
        (
            '--prompt "a barn -- old" --negative_prompt "blurry --x" --cfg_scale 7',
            {"prompt": "a barn -- old", "negative_prompt": "blurry --x", "cfg_scale": "7"},
        ),
        ("a barn --fast --steps=8", {"prompt": "a barn", "fast": "", "steps": "8"}),
        (r"a sign \--steps 30", {"prompt": "a sign --steps 30"}),
        ('"a sign --steps 30" --seed 2', {"prompt": "a sign --steps 30", "seed": "2"}),
        (
            "--prompt 'a --wide barn' --negative_prompt 'x'",
            {"prompt": "a --wide barn", "negative_prompt": "x"},
        ),
        ("'tis the season' --seed 2", {"prompt": "'tis the season'", "seed": "2"}),
        (r'"say \"hi\"" --seed 2', {"prompt": 'say "hi"', "seed": "2"}),
        ('"red" barn "blue" --seed 2', {"prompt": '"red" barn "blue"', "seed": "2"}),
        ('"never closed --seed 2', {"prompt": '"never closed', "seed": "2"}),
        ("long-haired --- cat -- 5--6 --7", {"prompt": "long-haired --- cat -- 5--6 --7"}),
        ("a --lora x --lora y", {"prompt": "a", "lora": ["x", "y"]}),
        ('""', {"prompt": ""}),
        ('"" --seed 3', {"prompt": "", "seed": "3"}),
        ("a --negative  ", {"prompt": "a", "negative": ""}),
        ('a --negative "" --seed 1', {"prompt": "a", "negative": "", "seed": "1"}),
    ],
)
def test_lines(line: str, found: dict[str, object]) -> None:
    assert parse_line(line) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps 30", "there is no prompt before the options"),
        ("a barn --prompt another", "two prompts"),
    ],
)
def test_lines_that_cannot_be_read(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_line(line)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("qqqq", 'there is no setting "qqqq"'),
        ("samplr", 'there is no setting "samplr". Did you mean "sampler"?'),
    ],
)
def test_a_setting_that_is_none(word: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        row_of(word)
    assert str(raised.value) == says
