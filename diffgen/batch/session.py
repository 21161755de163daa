"""A parsed command: its prompts resolved and checked, its output and journal opened."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.batch.expansion import Expander
from diffgen.batch.files import BadFile, Problem, Record, name_of, read_file
from diffgen.batch.frames import NAMES, Animation, check_alone, each_frame, is_animation
from diffgen.batch.journal import Journal, key_of
from diffgen.batch.plan import BatchPlan, Job
from diffgen.batch.replay import replay
from diffgen.batch.requests import INSTEAD, read_typed
from diffgen.batch.run import name_fields
from diffgen.engine.encoding import SUFFIXES
from diffgen.engine.names import NameTemplate
from diffgen.engine.output import Collision, OutputStyle, PictureOutput
from diffgen.errors import UnreadSyntax, UsageError
from diffgen.files import remove_parts
from diffgen.launch import process_count
from diffgen.settings.output import Output
from diffgen.settings.picture import Number
from diffgen.settings.prompting import Interpolating, Reading

OURS = "diffgen"  # the source of our own pictures
IDLE = 3600.0  # seconds after which a partial picture is nobody's: one is written in an instant
NO_PROMPT = 'no prompt given: try "red barn at sunset"'


@dataclass(frozen=True)
class Session:
    """Everything that is known before a model is loaded."""

    given: Mapping[str, Any]
    reading: Reading
    base: Mapping[str, Sequence[Any]]  # values from the command line for all pictures
    plan: BatchPlan
    output: PictureOutput
    style: OutputStyle
    stream: str | None = None  # prompts read during the run, if any
    notes: tuple[str, ...] = ()  # settings that are not honoured, and prompts without words

    @classmethod
    def open(cls, words: Sequence[str], given: Mapping[str, Any]) -> Session:
        """Parse a command: the words of one prompt, and typed settings by field name.

        Raises UsageError, BadFile for faults in a file's entries, and DiffgenError for a model that
        cannot be opened.
        """
        reading, output = Reading.of(given), Output.of(given)
        if given.get("interpolate") and "template" not in given:
            output = replace(output, template=NAMES)
        style = style_of(output)
        base = read_typed(given)
        plan = empty_plan(given, reading, style)
        prompts = _typed_prompts(words, reading)
        way = Interpolating.of(given)
        check_alone(way, prompts, reading, base)
        streams = reading.prompt_file == "-" and PictureOutput.holds_many(output.output)
        asked = replay(reading.from_picture) if reading.from_picture else None
        frames: list[dict[str, Any]] = [*way.records]
        if asked:
            frames = each_frame(_overridden(asked.settings, base, prompts))
        notes = [*asked.notes] if asked else []
        for line, frame in enumerate(frames, 1):
            foreign = asked is not None and asked.source != OURS
            notes += _add(plan, line, frame, base, foreign=foreign)
        for prompt in prompts if asked is None else ():
            _must(plan.add(1, {"prompt": prompt}, base))
        if any(not prompt.strip() for prompt in prompts):
            notes.append("a prompt is empty: what is drawn is left to the model")
        if reading.prompt_file and not streams:
            before = plan.count
            plan.read(read_file(reading.prompt_file), base, name_of(reading.prompt_file))
            if plan.count == before:
                raise UsageError(f"{name_of(reading.prompt_file)} has no prompts")
        elif not prompts and not streams and not frames:
            raise UsageError(NO_PROMPT)
        sink = _sink(output.output, plan.count, len(frames), style)
        stream = "-" if streams else None
        session = cls(given, reading, base, plan, sink, style, stream, tuple(notes))
        session.check_names()
        return session

    def check_names(self) -> None:
        """Unless taken names are numbered, require different names for all pictures.

        Raises BadFile.
        """
        if self.style.collision == "number" or isinstance(self.output, Animation):
            return
        seen: dict[int, int] = {}
        found: list[str] = []
        name = name_of(self.reading.prompt_file or "the command")
        spared = self.style.collision == "overwrite"  # pictures of one line, which get numbers
        for job in self.jobs():
            path = self.output.name(name_fields(job), line=job.line)
            first = seen.get(hash(path))
            if first is None:
                seen[hash(path)] = job.line
            elif first != job.line or not spared:
                of = f"line {first}" if first != job.line else "another picture of this line"
                found.append(f"{name}:{job.line}: its name is that of {of}: {path.name}")
        if found:
            raise BadFile(found[:50], len(found), name)

    def jobs(self) -> Iterator[Job]:
        """Every picture, in the order of drawing."""
        for _, batches in self.plan.stocks():
            for batch in batches:
                yield from batch

    def journal(self, *, fresh: bool, look: bool = False) -> Journal | None:
        """The journal of a prompt file beside the pictures; it stores the random seed.

        With `look` it is only read. Raises UsageError and OutputError. None if the run is not
        resumable.
        """
        file = self.reading.prompt_file
        if not file or file == "-" or not self.output.is_folder:
            return None
        if fresh and process_count() > 1:
            raise UsageError("--fresh is for one process; remove the journal before torchrun")
        path = self.output.folder / f"{Path(file).name}.journal.jsonl"
        typed = {name: str(value) for name, value in sorted(self.given.items())}
        request = key_of({name: text for name, text in typed.items() if name not in PASSING})
        journal = Journal(
            path, request=request, seed=self.plan.settler.seed, fresh=fresh, look=look
        )
        self.plan.settler.seed = journal.seed
        if not look:
            journal.forget_the_dead()
            remove_parts(path.parent, idle=IDLE)
        return journal

    def arriving(self) -> Iterator[BatchPlan | Problem]:
        """A plan for each line of stdin, as it arrives."""
        for entry in read_file("-"):
            if isinstance(entry, Record):
                plan = self.plan.another()
                problem = plan.add_record(entry, self.base)
                yield problem or plan
            else:
                yield entry


# Options that change neither a picture nor its name, or by rounding only.
PASSING = {
    *("quiet", "verbose", "progress", "as_json", "resume", "stop_on_error", "summary", "threads"),
    *("show", "preview_every"),
    *("dry_run", "strict", "device", "dtype", "overwrite", "skip_existing"),
    *("contact_sheet", "grid", "batch_size", "exact", "output", "prompt_file"),
}


def _sink(target: str | None, pictures: int, frames: int, style: OutputStyle) -> PictureOutput:
    """The output of pictures. Raises UsageError and OutputError."""
    if target is None or not is_animation(target, frames):
        return PictureOutput(target, pictures=pictures, style=style)
    if pictures != frames:
        raise UsageError(
            f"{frames} frames of {pictures // frames} sequences do not fit into {target}; "
            "give a folder"
        )
    return Animation(target, frames=frames, style=style)


def style_of(output: Output) -> OutputStyle:
    """The style of names and files. Raises UsageError."""
    if output.overwrite and output.skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other")
    collision: Collision = "overwrite" if output.overwrite else "number"
    template = NameTemplate.parse(output.template, suffixes=tuple(SUFFIXES))
    suffix = output.template.rpartition(".")[2].lower()
    return OutputStyle(
        template=template,
        form=output.form or SUFFIXES.get(suffix),
        quality=output.quality,
        collision="skip" if output.skip_existing else collision,
        metadata=output.metadata,
    )


def empty_plan(given: Mapping[str, Any], reading: Reading, style: OutputStyle) -> BatchPlan:
    """A plan without pictures."""
    sizes = given.get("batch_size")
    number = Number.of({"batch_size": int(sizes)} if sizes is not None else {})
    written = replace(style, collision="number")
    return BatchPlan(
        seed=secrets.randbelow(2**32),
        batch_size=1 if given.get("exact") else number.batch_size,
        expander=Expander(reading.wildcards),
        all_combinations=reading.all_combinations,
        salt=repr(written) if written != OutputStyle() else "",
        strict=reading.strict,
    )


def _typed_prompts(words: Sequence[str], reading: Reading) -> list[str]:
    """All words form one prompt, as in other programs."""
    if list(words) == ["-"]:
        raise UsageError('"-" is no prompt; --prompts - reads prompts from stdin')
    return [*([" ".join(words)] if words else []), *reading.texts]


def _overridden(
    settings: Mapping[str, Any], base: Mapping[str, Sequence[Any]], prompts: Sequence[str]
) -> dict[str, Any]:
    """A picture's settings where the command line gives none."""
    typed = set(base) | {other for name in base for other in INSTEAD.get(name, ())}
    found = {name: value for name, value in settings.items() if name not in typed}
    return found | ({"prompt": list(prompts)} if prompts else {})


def _add(
    plan: BatchPlan,
    line: int,
    frame: Mapping[str, Any],
    base: Mapping[str, Sequence[Any]],
    *,
    foreign: bool,
) -> list[str]:
    """Plan a frame. Settings of another program that are unsupported here are left out, and noted.

    Raises DiffgenError for any other problem.
    """
    notes: list[str] = []
    problem = plan.add(line, frame, base)
    while problem and foreign and _is_about_settings(problem.error):
        for name in reversed(list(frame)):  # details come behind what they are about
            less = {other: value for other, value in frame.items() if other != name}
            left = plan.add(line, less, base) if name != "prompt" else problem
            if left is None or left.message != problem.message:
                notes.append(f"{name.replace('_', ' ')} is not honoured: {problem.message}")
                frame, problem = less, left
                break
        else:
            break
    _must(problem)
    return notes


def _is_about_settings(error: Exception | None) -> bool:
    return isinstance(error, UsageError) and not isinstance(error, UnreadSyntax)


def _must(problem: Problem | None) -> None:
    if problem:
        raise problem.error or UsageError(problem.message)
