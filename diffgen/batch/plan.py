"""The plan of a file: each picture resolved and checked before a model is loaded.

Pictures that may share a network call are grouped, and so are each model's, so that it is loaded
once; neither changes a picture. A plan holds a few numbers for each picture; their settings are in
a temporary file.
"""

from __future__ import annotations

import json
import math
import tempfile
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from diffgen.batch.expansion import Expander
from diffgen.batch.files import Entry, Problem, Record, check_all, logged_reason
from diffgen.batch.journal import key_of
from diffgen.batch.requests import GROUPS, Given, Variant, variants
from diffgen.batch.stock import Stock, files_of, stamps
from diffgen.engine.model import Model
from diffgen.engine.named_files import with_paths
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.engine.steering import unread_syntax
from diffgen.engine.tags import Finder
from diffgen.engine.tasks import ENLARGERS, too_large
from diffgen.errors import UnreadSyntax
from diffgen.files import expanded
from diffgen.jsonfile import parse_json
from diffgen.settings.model import Adapters, Source
from diffgen.settings.setting import as_text, rows
from diffgen.types import Size

PLANS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to make."""

    key: str
    line: int
    template: str
    plan: GeneratePlan  # index within its line
    picture: Picture
    model: str

    @property
    def prompt(self) -> str:
        return self.picture.prompt

    @property
    def seed(self) -> int:
        return self.picture.seed

    @property
    def group(self) -> Hashable:
        """A key, equal for pictures that may share network calls."""
        return self.plan.group, self.picture.init


class Settler:
    """Resolves requests against models, which are opened once and never loaded."""

    def __init__(self, seed: int) -> None:
        self.seed = seed  # default of pictures that name none
        self.finder = Finder()
        self._stocks: dict[str, Stock] = {}
        self._plans: OrderedDict[str, GeneratePlan] = OrderedDict()
        self._files: dict[Path, set[Path]] = {}  # of models that refine, by their source

    def stock(self, given: Given) -> tuple[str, Stock]:
        """The stock for a variant's settings, and its name. Raises DiffgenError."""
        name = json.dumps([_texts(given, Source), _texts(given, Adapters)])
        if name not in self._stocks:
            self._stocks[name] = _open(given)
        return name, self._stocks[name]

    def files_of(self, model: Model) -> set[Path]:
        """The weights of a model, listed once."""
        source = model.checkpoint.source
        return self._files.get(source) or self._files.setdefault(source, files_of(model))

    def plan(self, given: Given, prompt: str) -> GeneratePlan:
        """A variant's settings resolved for one prompt. Raises DiffgenError."""
        name, stock = self.stock(given)
        own = {key: given[key] for key in rows(GenerateRequest) if key in given}
        own.setdefault("seed", self.seed)
        free = {"seed", "count", "negative"}
        key = name + json.dumps({n: as_text(v) for n, v in sorted(own.items()) if n not in free})
        if (kept := self._plans.get(key)) is None:
            kept = stock.model.plan(GenerateRequest(prompts=[prompt], **own))
            self._plans[key] = kept
            if len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        changed = {"count": 1, "negative": None} | {n: own[n] for n in free if n in own}
        return replace(kept, request=replace(kept.request, prompts=(prompt,), **changed))


class BatchPlan:
    """The pictures of a run, in the order of drawing."""

    def __init__(
        self,
        *,
        seed: int,
        batch_size: int = 1,
        expander: Expander | None = None,
        all_combinations: bool = False,
        salt: str = "",
        strict: bool = False,
    ) -> None:
        """`salt` distinguishes files by anything else: format, name. `strict` refuses syntax that
        would be drawn as plain words.
        """
        self.settler = Settler(seed)
        self.count = 0  # of pictures
        self.evaluations = 0  # of networks, without adaptive samplers
        self.adaptive = False  # whether a sampler is adaptive
        self.steps = 0  # of the samplers, likewise
        self.unread: dict[str, str] = {}  # foreign syntax taken as words, by kind
        self.too_large: dict[Size, str] = {}  # notes on sizes that models did not learn
        self._expander = expander or Expander()
        self._salt = salt
        self._all = all_combinations
        self._batch_size, self._strict = batch_size, strict
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115  as long as the plan
        weakref.finalize(self, self._spool.close)
        self._offsets, self._groups = array("q"), array("q")
        self._group_numbers: dict[tuple[str, Hashable], int] = {}
        self._seen: dict[bytes, int] = {}

    def __len__(self) -> int:
        """The number of variants."""
        return len(self._offsets)

    def read(self, entries: Iterable[Entry], base: Mapping[str, Sequence[Any]], name: str) -> None:
        """Check every entry, and add the good ones. Raises BadFile if one is not."""
        check_all(
            (e if isinstance(e, Problem) else self.add_record(e, base) for e in entries), name
        )

    def add(self, line: int, settings: Given, base: Mapping[str, Sequence[Any]]) -> Problem | None:
        """Resolve settings; returns their fault, if any."""
        return self.add_record(Record(line, settings), base)

    def add_record(self, record: Record, base: Mapping[str, Sequence[Any]]) -> Problem | None:
        """Resolve a record of a file; returns its fault, if any."""
        line = record.line
        try:
            for variant in variants(line, record.settings, base):
                for prompt in self._prompts(variant.prompt):
                    self._keep(replace(variant, prompt=prompt), record)
        except Exception as error:
            return Problem(line, logged_reason(error), error)
        return None

    def another(self) -> BatchPlan:
        """An empty plan that shares this one's opened models."""
        plan = BatchPlan(
            seed=self.settler.seed,
            batch_size=self._batch_size,
            expander=self._expander,
            all_combinations=self._all,
            salt=self._salt,
            strict=self._strict,
        )
        plan.settler, plan.unread = self.settler, self.unread
        plan.too_large = self.too_large
        return plan

    def _prompts(self, template: str) -> Iterable[str]:
        if self._all:
            return self._expander.combinations(template)
        self._expander.check(template)
        return [template]

    def _keep(self, variant: Variant, record: Record) -> None:
        plan = self.settler.plan(variant.given, variant.prompt)
        name, stock = self.settler.stock(variant.given)
        self._expander.refuse(plan.request.towards)
        prompt = self._expander.choose(variant.prompt, plan.request.seed)
        drawn = plan
        if prompt != variant.prompt:
            drawn = replace(plan, request=replace(plan.request, prompts=(prompt,)))
        asked = self.settler.finder.tags(drawn, lambda: stock.words)
        self.settler.finder.tell(drawn, asked)
        learned = bool(stock.words) or any(each.embeddings for each in asked.values())
        self._note_unread(unread_syntax(drawn, embeddings=learned, parameters=record.options_read))
        if note := too_large(plan, stock.model):
            self.too_large.setdefault((plan.width, plan.height), note)
        self._count(plan)
        group = (name, plan.group)
        self._groups.append(self._group_numbers.setdefault(group, len(self._group_numbers)))
        self._offsets.append(self._spool.seek(0, 2))
        line = [variant.line, variant.prompt, _texts(variant.given, *GROUPS)]
        self._spool.write(json.dumps(line).encode() + b"\n")

    def _note_unread(self, pieces: Sequence[str]) -> None:
        if pieces and self._strict:
            raise UnreadSyntax(pieces)
        for piece in pieces:
            self.unread.setdefault(piece.partition(",")[0], piece)

    def _count(self, plan: GeneratePlan) -> None:
        self.count += plan.count
        if (nfe := plan.evaluations) is not None:
            self.evaluations += nfe * plan.count
            self.steps += plan.steps * plan.count
        else:
            self.adaptive = True

    def variant(self, index: int) -> Variant:
        """One of the variants, read back."""
        self._spool.seek(self._offsets[index])
        line, prompt, texts = parse_json(self._spool.readline().decode(), "the plan")
        table = {name: row for group in GROUPS for name, row in rows(group).items()}
        return Variant(line, prompt, {n: table[n].read(text) for n, text in texts.items()})

    def stocks(self) -> Iterator[tuple[Stock, Iterator[list[Job]]]]:
        """Each model once, with its pictures in batches."""
        self._seen.clear()
        names = list(dict.fromkeys(name for name, _ in self._group_numbers))
        of_stock = {name: i for i, name in enumerate(names)}
        places = {n: (of_stock[name], n) for (name, _), n in self._group_numbers.items()}
        together = self._batch_size > 1
        order = sorted(
            range(len(self)),
            key=lambda i: places[self._groups[i]] if together else places[self._groups[i]][:1],
        )
        for name in names:
            mine = [i for i in order if places[self._groups[i]][0] == of_stock[name]]
            stock = self.settler.stock(self.variant(mine[0]).given)[1]
            yield stock, self._batches(mine)

    def jobs(self, index: int) -> Iterator[Job]:
        """The pictures of one variant."""
        variant = self.variant(index)
        stock = self.settler.stock(variant.given)[1]
        plan = self.settler.plan(variant.given, variant.prompt)
        for init, seed in product(range(len(plan.edits or "1")), plan.seeds):
            prompt = variant.prompt if self._all else self._expander.choose(variant.prompt, seed)
            settings = _texts(variant.given, *GROUPS) | {"count": 1}
            settings |= {"init content": plan.edits.contents[init]} if plan.edits else {}
            settings |= {"prompt": prompt, "seed": seed, "files": stock.stamp, "salt": self._salt}
            if others := self._other_files(plan, prompt, stock):
                settings["other files"] = stamps(others)
            key = self._unique(key_of(settings))
            picture = Picture(prompt, seed, init)
            yield Job(key, variant.line, variant.prompt, plan, picture, stock.model.name)

    def _other_files(self, plan: GeneratePlan, prompt: str, stock: Stock) -> set[Path]:
        """Files outside the stock: the refiner's, the upscaler's, and those a prompt asks for."""
        request, files = plan.request, set[Path]()
        if plan.refined:
            files |= self.settler.files_of(plan.refined[0])
        if request.hires and request.hires_upscaler not in ENLARGERS:
            files.add(expanded(request.hires_upscaler))
        texts = (prompt, request.prompt_2, request.negative, request.negative_2, request.towards)
        if any("<" in text or "embedding:" in text.casefold() for text in filter(None, texts)):
            asking = replace(plan, request=replace(request, prompts=(prompt,)))
            for tags in self.settler.finder.tags(asking, lambda: stock.words).values():
                files |= {f.path for f in tags.loras} | {f.path for f in tags.embeddings}
        return files

    def _unique(self, key: str) -> str:
        """A repeated line makes a picture of its own."""
        short = bytes.fromhex(key)[:8]
        number = self._seen[short] = self._seen.get(short, 0) + 1
        return key if number == 1 else f"{key}-{number}"

    def _batches(self, indices: Sequence[int]) -> Iterator[list[Job]]:
        batch: list[Job] = []
        for index in indices:
            for job in self.jobs(index):
                # An adaptive solver measures the whole state: a batch would couple its images.
                size = 1 if job.plan.sampling.nfe is None else self._batch_size
                if batch and (len(batch) >= size or batch[0].group != job.group):
                    yield batch
                    batch = []
                batch.append(job)
        if batch:
            yield batch


def _open(given: Given) -> Stock:
    """The model and the LoRAs of some settings. Raises DiffgenError."""
    found = with_paths(given)
    adapters = Adapters.of(found)
    base = json.dumps([_texts(given, Source), [as_text(each) for each in adapters.embeddings]])
    model = Model.open(Source.of(found)).sampled_with(adapters.loras)
    return Stock.of(model, adapters, base)


def _texts(given: Given, *groups: type) -> dict[str, Any]:
    """Settings in the form that `Row.read` takes, as JSON."""
    table = {name: row for group in groups for name, row in rows(group).items()}
    return {
        name: _text(given[name], many=row.setting.repeat)
        for name, row in table.items()
        if given.get(name) is not None
    }


def _text(value: Any, *, many: bool) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    if many:
        return [as_text(each) for each in value]
    numbers = isinstance(value, tuple) and all(
        isinstance(each, int | float) and math.isfinite(each) for each in value
    )
    return list(value) if numbers else as_text(value)
