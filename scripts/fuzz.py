"""Open, load and draw from damaged models: every end but a picture or one clear line is a fault.

    python scripts/fuzz.py --cases 10000 --seed 1
    python scripts/fuzz.py --seed 1 --only 4711 --keep /tmp/case

Small models of each layout (folders, single files, with a LoRA or a VAE from elsewhere) are copied, damaged in one place and
used in a process of their own with limits of time and memory. A fault is an exception that is no
DiffgenError, an error of more than one line or that names no file, a time over `--seconds`, or
memory beyond the files' own size and `--memory`. Needs the `test` extra; made for every night.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from mutations import damaged_bytes, damaged_json, damaged_safetensors  # noqa: E402
from small_models import LORA, VAE, make_models  # noqa: E402

from diffgen.errors import DiffgenError  # noqa: E402

GIB = 1 << 30
LONGEST_LINE = 2000
PROMPT = "a red barn, at sunset"


@dataclass(frozen=True)
class Outcome:
    """How a case ended: `kind` is drawn, refused or fault."""

    kind: str
    stage: str
    text: str
    seconds: float = 0.0
    memory: int = 0


# Damage.


def damage(model: Path, rng: Random) -> str:
    """Harm one file of a model, or its place in the folder. What was done, in words."""
    extra = [model / name for name in (LORA, VAE) if (model / name).exists()]
    file = rng.choice(extra or sorted(path for path in model.rglob("*") if path.is_file()))
    name = file.relative_to(model).as_posix()
    if rng.random() < 0.08:
        harm = rng.choice((_removed, _emptied, _piped, _looped, _made_folder, _grown))
        harm(file)
        return f"{name} {harm.__name__.strip('_')}"
    data = file.read_bytes()
    if file.suffix == ".safetensors":
        file.write_bytes(damaged_safetensors(data, rng))
    elif file.suffix == ".json":
        file.write_bytes(damaged_json(data.decode(), rng))
    else:
        file.write_bytes(damaged_bytes(data, rng))
    return f"{name} damaged"


def _removed(file: Path) -> None:
    file.unlink()


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _looped(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _made_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _grown(file: Path) -> None:
    os.truncate(file, 64 * GIB)  # sparse


# One case.


def use(model: Path, stage: Callable[[str], None]) -> None:
    """Open a model, plan a request, load it and draw a small picture."""
    from diffgen.engine.engine import Engine
    from diffgen.engine.model import Model
    from diffgen.engine.request import GenerateRequest
    from diffgen.settings.model import Source
    from diffgen.types import LoraRef

    file, lora, vae = model / "model.safetensors", model / LORA, model / VAE
    stage("open")
    asked = Source(model=str(file if file.exists() else model))
    opened = Model.open(replace(asked, vae=vae) if os.path.lexists(vae) else asked)
    stage("plan")
    plan = opened.plan(GenerateRequest(prompts=[PROMPT]))
    size = 8 * opened.checkpoint.config.factor
    small = GenerateRequest(prompts=[PROMPT], steps=2, width=size, height=size)
    stage("load")
    loras = [LoraRef(lora)] if os.path.lexists(lora) else []
    engine = Engine.load(opened, device="cpu", dtype="fp32", loras=loras)
    stage("draw")
    engine.guides(plan, plan.request.prompts)
    if size <= 128:
        list(engine.generate(small))


def tried(model: Path) -> Outcome:
    """Use a model in this process."""
    stages = ["start"]
    try:
        use(model, stages.append)
    except DiffgenError as error:
        return Outcome(*_judged(str(error), model, stages[-1]))
    except BaseException:
        return Outcome("fault", stages[-1], traceback.format_exc(limit=-4)[:LONGEST_LINE])
    return Outcome("drawn", stages[-1], "")


def _judged(line: str, model: Path, stage: str) -> tuple[str, str, str]:
    if "\n" in line or len(line) > LONGEST_LINE:
        return "fault", stage, f"more than a line: {line[:LONGEST_LINE]}"
    if stage in ("open", "load") and str(model) not in line:
        return "fault", stage, f"names no file: {line}"
    return "refused", stage, line.replace(str(model), "MODEL")


def run_apart(model: Path, limits: argparse.Namespace) -> Outcome:
    """The outcome of a case in a process of its own, whatever becomes of that."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if not child:
        _in_child(model, writer, int(limits.memory * GIB))
    os.close(writer)
    status = _wait(child, start + limits.seconds)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    seconds = time.perf_counter() - start
    if status is None:
        return Outcome("fault", "?", f"did not end in {limits.seconds:g} s", seconds)
    if not text:
        return Outcome("fault", "?", f"killed: {os.waitstatus_to_exitcode(status)}", seconds)
    return Outcome(**json.loads(text) | {"seconds": seconds})


def _in_child(model: Path, writer: int, memory: int) -> NoReturn:
    before = _memory("VmRSS")
    try:
        _limit_memory(_size(model) + memory)
        data = asdict(tried(model)) | {"memory": _memory("VmHWM") - before}
        os.write(writer, json.dumps(data).encode())  # a pipe takes 64 KiB
    finally:
        os._exit(0)


def _wait(child: int, until: float) -> int | None:
    """The status of a child process, None if it had to be ended at a time."""
    while time.perf_counter() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _limit_memory(more: int) -> None:
    limit = _memory("VmSize") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _size(model: Path) -> int:
    """The bytes of a model on disk; holes in files do not count."""
    return sum(path.lstat().st_blocks * 512 for path in model.rglob("*"))


# All cases.


def all_cases(models: Path, place: Path, args: argparse.Namespace) -> Iterator[tuple[str, Outcome]]:
    kinds = sorted(path.name for path in models.iterdir())
    for index in [args.only] if args.only is not None else range(args.cases):
        rng = Random(f"{args.seed}:{index}")
        kind = kinds[index % len(kinds)]
        model = place / kind
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(models / kind, model)
        name = f"{index} {kind}: {damage(model, rng)}"
        yield name, run_apart(model, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case to do again")
    parser.add_argument("--keep", type=Path, help="where its files stay")
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest a case may take")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB beyond the files' own")
    parser.add_argument("--log", type=Path, help="a file for the outcome of every case, as JSONL")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    ends: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        models = Path(folder) / "models"
        models.mkdir()
        make_models(models)
        use(models / "sd1-folder", lambda stage: None)  # imports are done once, before forking
        for name, outcome in all_cases(models, args.keep or Path(folder), args):
            ends[outcome.kind] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
            if outcome.kind == "fault" or args.only is not None:
                print(f"{outcome.kind} {name} ({outcome.stage})\n{outcome.text}\n", flush=True)
            if args.log:
                with args.log.open("a") as log:
                    log.write(json.dumps({"case": name, **asdict(outcome)}) + "\n")
    figures = ", ".join(f"{count} {kind}" for kind, count in ends.most_common())
    print(f"{figures}; slowest {slowest:.1f} s, most memory {largest >> 20} MiB")
    return 1 if ends["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
