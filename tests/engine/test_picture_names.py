"""diffgen.engine.names: templates, and names that every system takes."""

import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.engine.names import FIELDS, NameTemplate
from diffgen.errors import UsageError

RECORD = {
    "prompt": "A red barn, at sunset!",
    "negative": None,
    "seed": 7,
    "line": 3,
    "sampler": "dpmpp_2m",
    "schedule": "karras",
    "steps": 20,
    "guidance_scale": 7.5,
    "width": 64,
    "height": 128,
    "model": "storybook",
}
WINDOWS_KEEPS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
WINDOWS_FORBIDS = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{line:03}-{seed}-{sampler}-{prompt:40}.{ext}", "003-7-dpmpp-2m-a-red-barn-at-sunset"),
        ("{prompt:5}_{width}x{height}", "a-red_64x128"),
        ("{seed}", "7"),
        ("{seed:05}.png", "00007"),
        (
            "{model} {schedule} {steps} g{guidance} {negative}{seed}",
            "storybook karras 20 g7.5 none7",
        ),
        ("{{{seed}}}", "{7}"),
        (" .{seed}. ", "7"),
    ],
)
def test_templates(template: str, name: str) -> None:
    assert NameTemplate.parse(template, suffixes=("png",)).stem(RECORD) == name


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{sead}", r'no "{sead}"\. Did you mean "seed"\?'),
        ("{zzz}", r"there are {prompt}, {negative}"),
        ("{seed", "expected '}'"),
        ("../{seed}", r'"/" cannot be in a name; -o FOLDER says where'),
        ("a\\{seed}", "cannot be in a name"),
        ("a\x1b{seed}", r'"\\u001b" cannot be in a name'),
        ("picture", "gives every picture one name"),
        ("{ext}", "gives every picture one name"),
        ("{prompt:x}", "how many characters"),
        ("{seed:999999999}", "how many characters"),
        ("{seed.__class__}", 'no "{seed.__class__}"'),
        ("{ext}-{seed}", "stands at the end"),
        ("{0}", 'no "{0}"'),
        ("{}", 'no "{}"'),
        ("{seed!r}", '"{seed!r}": fields have no conversions; leave out !r'),
        ("{prompt!z:40}-{seed}", "leave out !z"),
    ],
)
def test_templates_that_cannot_be_used(template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NameTemplate.parse(template, suffixes=("png",))


def test_names_in_a_locale_of_few_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> bytes:
        return name.encode("ascii")

    monkeypatch.setattr(os, "fsencode", refuse)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    template = NameTemplate.parse("{prompt}-{seed}")
    assert template.stem(RECORD | {"prompt": "Gem\u00e4lde \u732b"}) == "gem_lde-_-7"
    assert template.stem(RECORD | {"prompt": "a barn"}) == "a-barn-7"


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "lpt9"])
def test_devices_of_windows(name: str) -> None:
    assert NameTemplate.parse("{prompt}").stem(RECORD | {"prompt": name}) == f"_{name.lower()}"


@given(texts=st.lists(st.text(), min_size=3, max_size=3), plain=st.text(max_size=9))
def test_no_value_leaves_the_folder(texts: list[str], plain: str) -> None:
    record = RECORD | dict(zip(("prompt", "model", "negative"), texts, strict=True))
    template = "".join(f"{{{name}}}" for name in FIELDS) + "{prompt}" * 5
    name = NameTemplate.parse(template).stem(record)
    assert name
    assert len(name.encode()) <= 200
    assert not WINDOWS_KEEPS.fullmatch(name)
    assert not WINDOWS_FORBIDS.search(name)
    assert not name.startswith(".")
