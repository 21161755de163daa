"""`diffgen show`: the settings of a picture, or the meaning of a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from diffgen.cli.console import logged_notes, print_error, print_json, print_note, print_result
from diffgen.cli.signature import with_settings
from diffgen.errors import NAME_AT_MOST, DiffgenError, OutputError, UsageError, one_line
from diffgen.settings.model import ModelName
from diffgen.settings.prompting import Prompting
from diffgen.settings.sampling import Sampling

PLAIN_WEIGHT = 1.0


@with_settings(Prompting, Sampling, ModelName)
def show(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Pictures to read.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="A prompt to explain.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    given: dict[str, Any],
) -> int:
    """Show how pictures were made, or what is understood of a prompt.

    Of pictures: their settings, whichever program wrote them. Of a prompt: terms, steps, chunks,
    weights and tokens, as `generate` would draw it with the same model and options.
    """
    if prompt is None and not files:
        raise UsageError('nothing to show: give a picture, or --prompt "a (red:1.2) barn"')
    worst = max((_shown(file, as_json=as_json) for file in files or ()), default=0)
    if prompt is not None:
        model, texts = _explained(prompt, given)
        if as_json:
            print_json({"model": model, "texts": texts})
        else:
            for text in texts:
                _print(text)
    return worst


def _shown(file: Path, *, as_json: bool) -> int:
    """Show a picture, or say why not; returns the exit code."""
    try:
        _show_picture(file, as_json=as_json)
    except OutputError:
        raise  # nobody reads any more
    except DiffgenError as error:
        print_error(str(error))
        return error.exit_code
    return 0


def _explained(prompt: str, given: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The model's name, and the meaning of each text as it reads it."""
    from diffgen.engine.model import Model
    from diffgen.engine.request import GenerateRequest
    from diffgen.text.explain import explain
    from diffgen.text.tokenizer import load_tokenizers

    with logged_notes(False):
        opened = Model.open(ModelName.of(given).model)
    asked = {name: value for name, value in given.items() if name != "model"}
    plan = opened.plan(GenerateRequest(prompts=[prompt], **asked))
    checkpoint = opened.checkpoint
    tokenizers = load_tokenizers(checkpoint.tokenizers, checkpoint.config.text)
    steps = max(plan.sampling.steps_run, 1)
    positive, negative = plan.texts(prompt)
    texts = [("prompt", text, tokenizers[i]) for i, text in enumerate(positive)]
    texts += [("negative", text, tokenizers[i]) for i, text in enumerate(negative or [])]
    found = [{"kind": kind, **explain(text, tokens, steps)} for kind, text, tokens in texts]
    return opened.name, found


def _show_picture(file: Path, *, as_json: bool) -> None:
    from diffgen.engine.reading import read_settings

    found = read_settings(file)
    settings = dict(found.named if found.record is None else found.record)
    said = {"prompt": found.prompt, "negative": found.negative} | settings
    if as_json:
        print_json({"path": str(file), "source": found.source, **said})
        return
    print_result(one_line(f"{file}: made by {found.source}"))
    for name, value in said.items():
        if value not in (None, "", {}, []):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print_result(f"  {one_line(str(name), 60)}: {one_line(text)}")


def _print(text: dict[str, Any]) -> None:
    terms = text["terms"]
    print_result(f"{text['kind']}, in the style of {text['style']}, {text['steps']} steps")
    for number, term in enumerate(terms, 1):
        if len(terms) > 1:
            print_result(f"{text['kind']} {number} of {len(terms)}, weight {term['weight']:g}")
        for stage in term["stages"]:
            for index, chunk in enumerate(stage["chunks"], 1):
                where = f"steps {_ranges(stage['steps'])}, chunk {index} of {len(stage['chunks'])}"
                count = f"{chunk['tokens']} token{'s' * (chunk['tokens'] != 1)}"
                print_result(f"  {where}, {count}: {_weighed(chunk['pieces'])}")
    for lora in text["loras"]:
        unet = "" if lora["unet"] is None else f", {lora['unet']:g} in the U-Net"
        print_result(f"  LoRA {lora['name']}, weight {lora['weight']:g}{unet}")
    if text["cut"]:
        first = one_line(text["cut"], NAME_AT_MOST)
        print_note(f'too long for this model, ignored from: "{first}"')
    for note in text["notes"]:
        print_note(f"drawn as plain words: {note}")


def _weighed(pieces: Sequence[dict[str, Any]]) -> str:
    words = [
        piece["text"]
        if piece["weight"] == PLAIN_WEIGHT
        else f"({piece['text']}:{piece['weight']:.4g})"
        for piece in pieces
    ]
    return " ".join(words) or "(no words)"


def _ranges(steps: Sequence[int]) -> str:
    """`1-10,15`: consecutive numbers become ranges."""
    runs = groupby(enumerate(steps), key=lambda pair: pair[1] - pair[0])
    ends = [[step for _, step in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)
