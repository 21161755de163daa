"""Find prompt syntax of other programs that is plain text here.

In every style: dynamic prompts, wildcards, Midjourney's parameters, and tables or JSON given as a
prompt. In the style `plain`, also the syntax of the other styles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from diffgen.errors import ConfigError
from diffgen.jsonfile import parse_json
from diffgen.types import PromptStyle

SHOWN = 40  # characters

PARAMETERS = "parameters (give options instead)"  # Midjourney's
_NUMBER = r"\s{0,3}[-+]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})\s{0,3}"
# Repetitions are bounded, so that matching takes time linear in the prompt.
# What the grammar of `text.prompt` reads.
READ = {
    "weights": rf"\([^()]{{1,300}}:{_NUMBER}\)|\(\([^()]{{1,300}}\)\)|\[\[[^\[\]]{{1,300}}\]\]",
    "LoRA tags (--lora takes files)": r"<(?:lora|lyco):[^<>]{0,300}>",
    "embeddings": r"\bembedding:[\w.-]{1,300}",
    "alternation": r"\[[^\[\]|]{1,300}\|[^\[\]]{1,300}\]",
    "prompt editing": rf"\[[^\[\]:]{{0,300}}:(?:[^\[\]:]{{0,300}}:)?{_NUMBER}\]",
    "BREAK": r"(?<!\S)BREAK(?!\S)",
}
UNREAD = {
    "choices": r"\{[^{}|]{0,300}\|[^{}]{0,300}\}",
    "a choice that is cut": r"\{[^{}|]{0,300}\|[^{}]{0,300}$|^[^{}|]{0,300}\|[^{}]{0,300}\}",
    "variables": r"\$\{\w{1,60}(?:\s{0,3}=[^{}]{0,300})?(?:\}|\{)",
    "wildcards": r"(?<!\w)__[\w/*-]{0,100}?[^\W_]__(?!\w)",
    "hypernetworks": r"<hypernet:[^<>]{0,300}>",
    PARAMETERS: r"(?<!\S)--[a-z][a-z-]{0,30}(?:[ =]\S{1,30}|$)",
    # The dash that word processors make of two, and the single one of InvokeAI's old lines.
    "parameters behind one dash (give options instead)": (
        rf"(?<!\S)[\u2013\u2014](?:steps|seed|cfg|guidance|width|height)[ =]{_NUMBER}"
        r"|(?<!\S)-[sSWHC] ?\d{1,9}"
    ),
}
# Of compel, by the styles in which it is plain text; "c++" is a word.
COMPEL = {
    "compel's weights (--prompt-style compel reads them)": (
        r"[^\W\d_]{2,40}+(?:\+{2,9}|-{2,9})(?=[\s,.)]|$)|\)(?:\+{1,9}|-{1,9})(?=[\s,.)]|$)"
        r"|\)\d{1,9}\.\d{1,9}(?=[\s,)]|$)"
    ),
}
BLENDS = {"compel's blends": r"\)\.(?:blend|and|add|swap|attend)\(|\bwithLora\(|\w\.swap\("}
TABLE, JSON = "a table's heading", "JSON"
_PATTERNS = {
    kind: re.compile(pattern) for kind, pattern in (READ | UNREAD | COMPEL | BLENDS).items()
}


def find_foreign(prompts: Iterable[str], style: PromptStyle = "plain") -> dict[str, str]:
    """The kinds of syntax that a style ignores, each with its first occurrence in quotes."""
    kinds = UNREAD | BLENDS | (READ if style == "plain" else {})
    kinds |= COMPEL if style != "compel" else {}
    found: dict[str, str] = {}
    for prompt in prompts:
        for kind, is_of in ((JSON, _is_json), (TABLE, _is_heading)):
            if kind not in found and is_of(prompt):
                found[kind] = _quoted(prompt)
        for kind in kinds:
            if kind not in found and (match := _PATTERNS[kind].search(prompt)):
                found[kind] = _quoted(match[0].strip())
    return found


def _is_json(prompt: str) -> bool:
    if not prompt.lstrip().startswith(("{", "[")):
        return False
    try:
        return isinstance(parse_json(prompt, "the prompt"), dict | list)
    except ConfigError:
        return False


def _is_heading(prompt: str) -> bool:
    """Whether a line is a header of column names, `prompt` or `caption` among them."""
    cells = [cell.strip().strip('"') for cell in re.split(r"[,;\t]", prompt)]
    names = all(re.fullmatch(r"[\w-]+", cell) for cell in cells)
    return names and len(cells) > 1 and not {"prompt", "caption"}.isdisjoint(cells)


def _quoted(piece: str) -> str:
    return f'"{piece}"' if len(piece) <= SHOWN else f'"{piece[:SHOWN]}..."'
