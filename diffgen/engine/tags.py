"""LoRAs that prompts ask for: found before anything is drawn, and drawn with batch by batch."""

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
    """The LoRAs of each prompt. Raises UsageError for one that is nowhere, naming near ones."""
    second = plan.request.prompt_2
    everywhere = plan.understood(second).loras if second is not None else ()
    return {
        prompt: tuple(map(_found, (*plan.understood(prompt).loras, *everywhere)))
        for prompt in dict.fromkeys(plan.request.prompts)
    }


def split(batches: Iterable[Sequence[Picture]], tagged: Tagged) -> Iterator[tuple[Picture, ...]]:
    """Batches in which all pictures have the same LoRAs."""
    for batch in batches:
        for _, group in groupby(batch, key=lambda picture: tagged[picture.prompt]):
            yield tuple(group)


def parted(origin: Mapping[str, Any], tags: int) -> dict[str, Any]:
    """An Origin's record with the last LoRAs, those of the prompt, by themselves.

    The prompt asks for them again when the picture is made again.
    """
    if not tags:
        return dict(origin)
    loras = origin["loras"]
    return {**origin, "loras": loras[:-tags], "prompt_loras": loras[-tags:]}


def _found(tag: LoraTag) -> LoraRef:
    path = find_file(tag.name, "lora", option=f"<lora:{tag.name}>")
    return LoraRef(path, tag.weight, unet=tag.unet)
