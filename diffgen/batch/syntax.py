"""Foreign syntax in prompts, taken as plain words."""

from __future__ import annotations

from diffgen.engine.plan import GeneratePlan
from diffgen.text.foreign_syntax import find_foreign


def unread_syntax(plan: GeneratePlan, *, embeddings: bool = False) -> list[str]:
    """Each kind with its first occurrence, as in `choices, "[a|b]"`.

    With `embeddings`, their names are known.
    """
    request = plan.request
    drawn = [text for text in (*request.prompts, request.prompt_2) if text is not None]
    drawn += [request.between[0]] if request.between else []
    negative = [text for text in (request.negative, request.negative_2) if text is not None]
    found = find_foreign([*drawn, *negative], plan.prompt_style)
    if embeddings:
        found.pop("embeddings", None)
    pieces = [f"{kind}, {piece}" for kind, piece in found.items()]
    for text in drawn:
        pieces += plan.understood(text).notes
    for text in negative:
        pieces += plan.understood(text, negative=True).notes
    return list(dict.fromkeys(pieces))
