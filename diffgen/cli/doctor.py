"""`diffgen doctor`: devices and number formats of this machine, and what makes it slow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli import machine
from diffgen.cli.console import print_json, print_table
from diffgen.cli.threads import settle_threads
from diffgen.errors import DiffgenError, in_bytes, one_line

if TYPE_CHECKING:
    from rich.table import Table
    from torch import device

    from diffgen.configuration import Configuration, Given

FEW_CORES = 4  # on a CPU, where each picture takes a noticeable time
MUCH = 0.8  # of a speed: measurements on a busy machine differ by less
SDXL = 7 * 10**9  # bytes of its weights in half precision
LARGEST_CELL = 1000  # characters
Rows = list[tuple[str, str]]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Tell what runs on this machine, and what is slow or wrong here."""
    environment = machine.thread_variables()  # before this command adds to it
    configuration, given, troubles = _configuration()
    threads = given.get("threads")
    settle_threads(threads.value if threads else None)
    facts = {
        "versions": machine.versions(),
        **_computing(given, troubles),
        "threads": _threads(environment, threads),
        "memory": asdict(machine.memory()),
        **_places(configuration),
        "trouble": troubles,
    }
    facts["slow"] = list(slow(facts))
    if as_json:
        print_json(facts)
    else:
        print_table(lambda _: _table(_rows(facts)), ())
    return 1 if troubles else 0


def _configuration() -> tuple[Configuration, Mapping[str, Given], list[str]]:
    """The user's configuration, and its unreadable parts."""
    from diffgen.configuration import Configuration, config_path
    from diffgen.configured import default_model, settings_for

    try:
        found = Configuration.read()
        return found, settings_for(str(default_model(found).value), found), []
    except (DiffgenError, OSError) as error:
        return Configuration(config_path()), {}, [str(error)]


def _computing(given: Mapping[str, Given], troubles: list[str]) -> dict[str, Any]:
    """The device and the number format of a run."""
    import torch

    from diffgen.device import Precision, pick_device

    wanted, dtype = given.get("device"), given.get("dtype")
    try:
        chosen = pick_device(wanted.value if wanted else "auto")
    except DiffgenError as error:
        troubles.append(str(error))
        chosen = pick_device()
    fixed = dtype is not None and dtype.value != "auto"
    return {
        "device": chosen.type,
        "hardware": _hardware(chosen),
        "cuda_build": torch.version.cuda or torch.version.hip,
        "nvidia_driver": Path("/proc/driver/nvidia/version").exists(),
        "dtype": Precision.pick(dtype.value if dtype else "auto", chosen).name,
        "dtype_reason": f"{dtype.source} says so" if dtype and fixed else _reason(chosen),
        "products": _products() if chosen.type == "cpu" else {},
    }


def _hardware(chosen: device) -> str:
    import torch

    if chosen.type == "cuda":
        return torch.cuda.get_device_name()
    if chosen.type == "cpu":
        return f"{machine.processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return machine.processor()


def _reason(chosen: device) -> str:
    """Why `auto` chooses its number format."""
    import torch

    from diffgen.device import multiplies_bf16

    if chosen.type != "cpu":
        return "half precision is fast on a GPU"
    if multiplies_bf16(chosen):
        return "this CPU has instructions for products of bfloat16"
    if not torch.backends.mkldnn.enabled:
        return "this torch has no oneDNN, which multiplies bfloat16 on CPUs"
    return "this CPU has no instructions for products of bfloat16 (AVX512-BF16, AMX)"


def _products(side: int = 1024, runs: int = 5) -> dict[str, float]:
    """Operations a second of square matrix products on the CPU, the best of runs by turns."""
    import torch

    matrices = {"fp32": torch.ones(side, side), "bf16": torch.ones(side, side).bfloat16()}
    best = dict.fromkeys(matrices, 0.0)
    for _ in range(runs):
        for name, matrix in matrices.items():
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            best[name] = max(best[name], 2 * side**3 / (time.perf_counter() - start))
    return best


def _threads(environment: Mapping[str, str], given: Given | None) -> dict[str, Any]:
    import torch

    return {
        "used": torch.get_num_threads(),
        "configured_by": given.source if given else None,
        "environment": dict(environment),
        **{f"cores_{name}": value for name, value in asdict(machine.cores()).items()},
    }


def _places(configuration: Configuration) -> dict[str, Any]:
    from diffgen.configuration import Folders
    from diffgen.places import hub_cache
    from diffgen.weights.hashes import cache_folder

    try:
        downloads = configuration.folders.downloads
    except DiffgenError:
        downloads = Folders().downloads
    caches = {"downloads": downloads, "hugging face": hub_cache(), "hashes": cache_folder()}
    disks = {"this folder": Path.cwd(), "downloads": downloads, "hugging face": hub_cache()}
    return {
        "disk": {
            name: {"path": str(path), "free": machine.free_disk(path)}
            for name, path in disks.items()
        },
        "caches": {
            name: {"path": str(path), "size": machine.folder_size(path)}
            for name, path in caches.items()
            if path
        },
        "configuration": {
            "path": str(configuration.path),
            "there": configuration.path.exists(),
        },
    }


def slow(facts: Mapping[str, Any]) -> Iterator[str]:
    """Causes of slow runs among a machine's facts, one line each."""
    if facts["device"] == "cpu":
        yield from _slow_cpu(facts)
    yield from _slow_threads(facts["threads"])
    yield from _short_of_room(facts["memory"], facts["disk"])


def _slow_cpu(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["nvidia_driver"] and not facts["cuda_build"]:
        yield "an NVIDIA GPU is idle: this torch is built without CUDA (https://pytorch.org)"
    else:
        yield "no GPU that torch can use: networks run on the CPU"
    if facts["dtype"] == "fp32":
        yield f"float32: {facts['dtype_reason']}"
    if facts["dtype"] == "bf16" and facts["products"]["bf16"] < MUCH * facts["products"]["fp32"]:
        yield "bfloat16: this CPU multiplies float32 faster (--dtype fp32, at twice the memory)"
    count = facts["threads"]["cores_usable"]
    if count <= FEW_CORES:
        yield f"few cores: {count}"


def _slow_threads(threads: Mapping[str, Any]) -> Iterator[str]:
    used, usable, load = threads["used"], threads["cores_usable"], threads["cores_load"]
    if usable < threads["cores_all"]:
        yield f"this process may use {usable} of {threads['cores_all']} cores"
    if (quota := threads["cores_quota"]) and quota < usable:
        yield f"this container has the time of {quota:g} of {usable} cores"
    if used > usable:
        yield f"{used} threads share {usable} cores"
    elif used < usable and "OMP_NUM_THREADS" in threads["environment"]:
        yield f"OMP_NUM_THREADS leaves {usable - used} of {usable} cores unused"
    if load is not None and load > usable / 2:
        yield f"other processes are busy: a load of {load:.1f} on {usable} cores"


def _short_of_room(memory: Mapping[str, Any], disk: Mapping[str, Any]) -> Iterator[str]:

    free, swapped = memory["free"], memory["swapped"]
    if free is not None and free < SDXL:
        yield f"{in_bytes(free)} of memory free: SDXL alone has {in_bytes(SDXL)} in half precision"
    if swapped and memory["total"] and swapped > memory["total"] / 20:
        yield f"{in_bytes(swapped)} of memory are swapped out to the disk"
    room = disk["downloads"]["free"]
    if room is not None and room < SDXL:
        yield f"{in_bytes(room)} free where models are downloaded to"


def _rows(facts: Mapping[str, Any]) -> Rows:
    """The facts as readable lines."""
    kept = facts["versions"]
    threads = facts["threads"]
    rows: Rows = [(name, found) for name, found in kept.items() if found]
    rows += [
        ("device", f"{facts['device']} ({facts['hardware']})"),
        ("number format", f"{facts['dtype']}: {facts['dtype_reason']}"),
        *(
            (f"products, {name}", f"{speed / 1e9:.0f} billion operations a second")
            for name, speed in facts["products"].items()
        ),
        ("threads", f"{threads['used']} on {threads['cores_usable']} cores{_said(threads)}"),
        ("memory", _memory(facts["memory"])),
    ]
    rows += [
        (f"cache, {name}", f"{each['path']}, {_size(each['size'], 'not there')}")
        for name, each in facts["caches"].items()
    ]
    rows += [
        (f"free, {name}", _size(each["free"], "unknown")) for name, each in facts["disk"].items()
    ]
    there = "" if facts["configuration"]["there"] else " (not there)"
    rows.append(("configuration", f"{facts['configuration']['path']}{there}"))
    rows += [("wrong", line) for line in facts["trouble"]]
    rows += [("slow", line) for line in facts["slow"]]
    return rows


def _said(threads: Mapping[str, Any]) -> str:
    """The source of the number of threads, and the environment's variables."""
    said = [f"{name}={value}" for name, value in threads["environment"].items()]
    if threads["configured_by"]:
        said.insert(0, f"by {threads['configured_by']}")
    return f" ({', '.join(said)})" if said else ""


def _memory(memory: Mapping[str, int | None]) -> str:
    free, total = (_size(memory[name], "unknown") for name in ("free", "total"))
    swapped = f", {_size(memory['swapped'], '')} swapped out" if memory["swapped"] else ""
    return f"{free} free of {total}{swapped}"


def _size(size: int | None, otherwise: str) -> str:

    return otherwise if size is None else in_bytes(size)


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = None
    for name, said in rows:
        table.add_row(Text("" if name == before else name), Text(one_line(said, LARGEST_CELL)))
        before = name
    return table
