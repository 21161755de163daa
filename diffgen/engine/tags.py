"""LoRAs asked for in prompts: found before drawing, and applied batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.text.prompt import LoraTag
from diffgen.types import LoraRef
from diffgen.weights.finding import find_file

Tagged = Mapping[str, tuple[LoraRef, ...]]


def find_tags(plan: GeneratePlan) -> Tagged:
    """The LoRAs of each prompt. Raises UsageError for an unknown one, with similar names."""
    second = plan.request.prompt_2
    everywhere = plan.understood(second).loras if second is not None else ()
    return {
        prompt: tuple(map(_found, (*plan.understood(prompt).loras, *everywhere)))
        for prompt in dict.fromkeys(plan.request.prompts)
    }


def split(batches: Iterable[Sequence[Picture]], tagged: Tagged) -> Iterator[tuple[Picture, ...]]:
    """Split batches until all pictures of each have the same LoRAs."""
    for batch in batches:
        for _, group in groupby(batch, key=lambda picture: tagged[picture.prompt]):
            yield tuple(group)


def parted(origin: Mapping[str, Any], tags: int) -> dict[str, Any]:
    """An Origin's record with the prompt's LoRAs, the last ones, listed apart.

    A replay of the prompt asks for them again.
    """
    if not tags:
        return dict(origin)
    loras = origin["loras"]
    return {**origin, "loras": loras[:-tags], "prompt_loras": loras[-tags:]}


def _found(tag: LoraTag) -> LoraRef:
    path = find_file(tag.name, "lora", option=f"<lora:{tag.name}>")
    return LoraRef(path, tag.weight, unet=tag.unet)
