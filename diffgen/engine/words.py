"""Warnings about the words of prompts: cut off, or unknown to the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Self

from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan
from diffgen.engine.request import GenerateRequest
from diffgen.errors import NAME_AT_MOST, one_line, some
from diffgen.text.conditioner import Conditioner
from diffgen.text.embeddings import Embeddings
from diffgen.text.unknown_words import KnownWords
from diffgen.types import EmbeddingRef, LoraRef
from diffgen.weights.textual_inversion import read_embeddings

NOTHING = "%s draws a thing into every picture; none that it learned is in %s"

logger = logging.getLogger("diffgen")


def read_words(
    model: Model,
    loras: Sequence[LoraRef],
    embeddings: Sequence[EmbeddingRef],
    asked: Sequence[EmbeddingRef] = (),
) -> Embeddings:
    """Read textual inversion words, from files and from LoRAs that bundle them.

    Those that a prompt `asked` for are no words elsewhere. Raises WeightsError for files that do
    not fit the model.
    """
    files, config = [lora.path for lora in (*model.loras, *loras)], model.checkpoint.config
    return Embeddings(
        read_embeddings(embeddings, files, config), read_embeddings(asked, (), config)
    )


class WordReport:
    """Log warnings about prompts, each once per loaded model."""

    def __init__(self, model: str, conditioner: Conditioner, known: KnownWords | None) -> None:
        self._model, self._conditioner, self._known = model, conditioner, known
        self._reported: set[str] = set()

    @classmethod
    def of(cls, model: Model, conditioner: Conditioner, *, taught: bool) -> Self:
        """A report for a model; silent about unlearned words where others may be `taught`."""
        known = None if taught else KnownWords.read(model.checkpoint.source)
        return cls(model.name, conditioner, known)

    def report(self, plan: GeneratePlan, own: Iterable[GenerateRequest] = ()) -> dict[str, str]:
        """Log the warnings for a plan's texts and those of pictures' `own` requests.

        Returns the words that no encoder has room for, by prompt.
        """
        requests = [plan.request, *own]
        others = [each.between[0] for each in requests if each.between]
        against = [each.negative or "" for each in requests]
        texts = list(dict.fromkeys([*plan.request.prompts, *others, *against]))
        # The other styles divide long prompts.
        plain = texts if plan.prompt_style == "plain" else []
        cut = {text: words for text in plain if (words := self._conditioner.cut(text))}
        for text, words in cut.items():
            if self._is_new(text):
                first = one_line(words, NAME_AT_MOST)
                logger.warning('prompt too long for this model, ignored from: "%s"', first)
        unspelled = self._unspelled(texts)
        if new := [text for text in unspelled if self._is_new(text)]:
            quoted = some([f'"{text}"' for text in new])
            logger.warning("this model's vocabulary has no word of %s", quoted)
        if self._known:
            spelled = [text for text in texts if text not in unspelled]
            self._report_unlearned(spelled, self._known)
            drawn = [text for each in requests if each.init is None for text in each.prompts]
            self._report_nothing(dict.fromkeys(drawn), self._known)
        return cut

    def _is_new(self, text: str) -> bool:
        known = text in self._reported
        self._reported.add(text)
        return not known

    def _unspelled(self, texts: list[str]) -> list[str]:
        tokenizers = self._conditioner.tokenizers
        return [text for text in texts if all(each.spells(text) for each in tokenizers)]

    def _report_unlearned(self, texts: list[str], known: KnownWords) -> None:
        unknown = [word for word in known.unknown(texts) if word not in self._reported]
        self._reported.update(unknown)
        if unknown:
            said = some([known.described(word) for word in unknown])
            logger.warning("%s never learned %s", self._model, said)

    def _report_nothing(self, prompts: Iterable[str], known: KnownWords) -> None:
        """Say once that the model draws a thing even where a prompt names none."""
        if NOTHING in self._reported:
            return
        nothing = [f'"{one_line(text)}"' for text in prompts if known.names_nothing(text)]
        if nothing:
            self._reported.add(NOTHING)
            logger.warning(NOTHING, self._model, some(nothing))
