"""LoRAs and embeddings asked for in prompts: found before drawing, and applied batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.errors import UsageError
from diffgen.text.embeddings import ENDS, asked_for
from diffgen.text.prompt import LoraTag
from diffgen.types import EmbeddingRef, LoraRef
from diffgen.weights.few_steps import known_kind, lora_names
from diffgen.weights.finding import find_file
from diffgen.weights.textual_inversion import names_of

if TYPE_CHECKING:
    from diffgen.engine.model import Model

logger = logging.getLogger("diffgen")


@dataclass(frozen=True, slots=True)
class Tags:
    """What one prompt asks for, with its negative prompt."""

    loras: tuple[LoraRef, ...] = ()
    embeddings: tuple[EmbeddingRef, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.loras or self.embeddings)


NONE = Tags()
Tagged = Mapping[str, Tags]
Known = Callable[[], Collection[str]]


def known_words(
    model: Model, loras: Sequence[LoraRef], embeddings: Sequence[EmbeddingRef]
) -> set[str]:
    """The names of the words of `read_words`, casefolded, from headers. Raises WeightsError."""
    return names_of(embeddings, [lora.path for lora in (*model.loras, *loras)])


class Finder:
    """Finds what prompts ask for; each name is looked for once, as folders may hold thousands."""

    def __init__(self) -> None:
        self._find = cache(find_file)
        self._told: set[Path] = set()

    def tags(self, plan: GeneratePlan, known: Known = frozenset) -> Tagged:
        """What each prompt asks for, except words that are `known`.

        Raises UsageError for an unknown name, with similar names.
        """
        request = plan.request
        second = request.prompt_2
        everywhere = plan.understood(second).loras if second is not None else ()
        other = request.between[0] if request.between else None
        others = [second, request.negative, request.negative_2, other]
        found = {}
        for prompt in dict.fromkeys(request.prompts):
            loras = tuple(map(self._lora, (*plan.understood(prompt).loras, *everywhere)))
            asked = [name for text in (prompt, *others) for name in asked_for(text or "")]
            names = {name.casefold(): name for name in asked}
            learned = self._learned(plan, names, loras, known) if names else ()
            found[prompt] = Tags(loras, learned)
        return found

    def tell(self, plan: GeneratePlan, tagged: Tagged) -> None:
        """Log, once, how a LoRA of few steps is to be sampled, which prompts cannot set."""
        if plan.request.steps is not None or plan.request.sampler is not None:
            return
        files = [lora.path for tags in tagged.values() for lora in tags.loras]
        for path in dict.fromkeys(path for path in files if path not in self._told):
            self._told.add(path)
            if kind := known_kind(lora_names(path)):
                logger.warning(
                    "%s is taken for %s, but a prompt sets no sampler: give --steps %d --sampler %s "
                    "--guidance-scale %g, or the LoRA with --lora",
                    path.name,
                    kind.name,
                    kind.steps,
                    kind.sampler,
                    kind.guidance,
                )

    def _lora(self, tag: LoraTag) -> LoraRef:
        path = self._find(tag.name, "lora", option=f"<lora:{tag.name}>")
        told = {name: getattr(tag, name) for name in ("unet", "lbw", "start", "stop")}
        return LoraRef(path, tag.weight, **told)

    def _learned(
        self,
        plan: GeneratePlan,
        names: Mapping[str, str],
        loras: Sequence[LoraRef],
        known: Known,
    ) -> tuple[EmbeddingRef, ...]:
        """The embeddings of names that are not known.

        In the style `plain` names are words where there is no embedding at all.
        """
        given = {*known(), *names_of((), [lora.path for lora in loras])}
        found, error = [], None
        for folded, name in names.items():
            if given.isdisjoint((folded, folded.rstrip(ENDS))):
                try:
                    found.append(self._embedding(name))
                except UsageError as missing:
                    error = error or missing
        if error and (plan.prompt_style != "plain" or given or found):
            raise error
        return tuple(found)

    def _embedding(self, name: str) -> EmbeddingRef:
        """One whose name may have the end of a sentence behind it."""
        plain = name.rstrip(ENDS)
        option = f"embedding:{plain}"
        if plain not in ("", name):
            with suppress(UsageError):
                return EmbeddingRef(self._find(name, "embedding", option=option), name)
        return EmbeddingRef(self._find(plain, "embedding", option=option), plain)


def split(batches: Iterable[Sequence[Picture]], tagged: Tagged) -> Iterator[tuple[Picture, ...]]:
    """Split batches until all pictures of each ask for the same."""
    for batch in batches:
        for _, group in groupby(batch, key=lambda picture: tagged[picture.prompt]):
            yield tuple(group)


def parted(origin: Mapping[str, Any], tags: Tags) -> dict[str, Any]:
    """An Origin's record with the prompt's LoRAs and embeddings, the last ones, listed apart.

    A replay of the prompt asks for them again.
    """
    told = dict(origin)
    for name, asked in (("loras", tags.loras), ("embeddings", tags.embeddings)):
        if asked:
            everything = origin[name]
            told |= {name: everything[: -len(asked)], f"prompt_{name}": everything[-len(asked) :]}
    return told
