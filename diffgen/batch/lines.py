"""A line of a prompt file: the prompt, then options as diffgen or another program spells them.

    a red barn --negative blurry, dark --steps 30
    "a sign that says --steps" --seed 5
    --prompt "a red barn" --negative_prompt "blurry" --cfg_scale 7

An option begins with two hyphens and a letter behind a blank. Its value, like the prompt, ends at
the next option, or is in double quotes; a value also in single ones. ` \\--word` in a prompt is
text.
"""

from __future__ import annotations

import re

from diffgen.errors import UsageError

OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)(?:=|\s+|$)")
ESCAPED = re.compile(r"(^|\s)\\(--[A-Za-z])")
# Of an option only: prompts may begin and end with an apostrophe.
SINGLY_QUOTED = re.compile(r"'([^'\\]*)'(?=\s*$|\s+--[A-Za-z])")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s*$|\s+--[A-Za-z])')
# sd-scripts' letters, which are other options of diffgen or none.
SD_SCRIPTS = {
    "n": "negative",
    "s": "steps",
    "l": "guidance",
    "d": "seed",
    "w": "width",
    "h": "height",
    "ss": "sampler",
}


def parse_line(line: str) -> dict[str, str | list[str]]:
    """A line's values by their names there; `prompt` is the text outside of options.

    An option without a value has "", a repeated one has a list. Raises UsageError for a line
    without a prompt.
    """
    position, name = 0, "prompt"
    found: dict[str, str | list[str]] = {}
    while True:
        value, position, following = _value(line, position)
        if value is not None or name != "prompt":
            _add(found, name, value or "")
        if following is None:
            break
        name = SD_SCRIPTS.get(following, following)
    if "prompt" not in found:
        raise UsageError("there is no prompt before the options")
    if isinstance(found["prompt"], list):
        raise UsageError("two prompts")
    return found


def _value(line: str, position: int) -> tuple[str | None, int, str | None]:
    """A value, the start of the next one, and the name of its option."""
    start = len(line) - len(line[position:].lstrip())
    quoted = QUOTED.match(line, start) or (SINGLY_QUOTED.match(line, start) if position else None)
    option = OPTION.search(line, quoted.end() if quoted else max(position - 1, 0))
    end = option.start() if option else len(line)
    if quoted:
        value: str | None = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        value = ESCAPED.sub(r"\1\2", line[position:end].strip()) or None
    return (value, option.end(), option[1]) if option else (value, len(line), None)


def _add(found: dict[str, str | list[str]], name: str, value: str) -> None:
    before = found.get(name)
    if before is None:
        found[name] = value
    else:
        found[name] = [*([before] if isinstance(before, str) else before), value]
