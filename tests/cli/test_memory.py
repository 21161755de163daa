"""diffgen.cli.memory: freed memory is kept, and what is loaded is never looked at again."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffgen.cli.memory import keep_from_first_step, loading_to_stay
from diffgen.types import StepInfo

PREPARE = """
from diffgen.cli.memory import keep_freed_memory
keep_freed_memory()
"""
COMMAND = """
import gc, sys
from diffgen import cli
sys.argv = ["diffgen", "generate", "a barn", "--steps", "1", "-q", "-o", "{path}"]
try:
    cli.main()
except SystemExit as exit:
    assert not exit.code
assert gc.isenabled() and gc.get_freeze_count() > 100_000  # torch alone makes more
"""
COUNT = """
import resource
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def blocks():
    for _ in range(20):
        {block}
blocks()  # until the heap has settled where such a block lies
before = faults()
blocks()
print(faults() - before)
"""
PLAIN = "bytearray(16 << 20)"
PAGES = 20 * (16 << 20) // os.sysconf("SC_PAGE_SIZE")


def page_faults(before: str, block: str = PLAIN, **environment: str) -> int:
    """Page faults while 20 blocks of 16 MiB are made and freed, one after the other."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", before + COUNT.replace("{block}", block)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_memory_that_was_freed_is_used_again() -> None:
    assert page_faults(PREPARE) < PAGES / 4


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_what_a_user_settled_stays() -> None:
    settled = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert page_faults(PREPARE, **settled) > PAGES / 2


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_memory_goes_back_while_weights_are_loaded() -> None:
    kept_after_all = PREPARE + "from diffgen.cli.memory import return_freed_memory\n"
    assert page_faults(kept_after_all + "return_freed_memory()\n") > PAGES / 2


def test_memory_is_kept_from_the_first_step_on(monkeypatch) -> None:
    log: list[str] = []
    monkeypatch.setattr("diffgen.cli.memory.keep_freed_memory", lambda: log.append("keep"))
    report = keep_from_first_step(lambda info: log.append(f"step {info.index}"))
    for index in range(3):
        report(StepInfo(index, 3, 1.0, torch.zeros(1), torch.zeros(1)))
    assert log == ["keep", "step 0", "step 1", "step 2"]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_generate_keeps_both(tmp_path: Path) -> None:
    command = COMMAND.format(path=tmp_path / "barn.png") + "import torch\n"
    assert page_faults(command, block="torch.ones(4 << 20)") < PAGES / 4


def test_what_is_loaded_is_out_of_the_collectors_sight() -> None:
    before = gc.get_freeze_count()
    try:
        with loading_to_stay():
            kept = [[] for _ in range(1000)]
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()


def test_what_failed_to_load_can_be_collected() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ValueError, match="damaged"), loading_to_stay():
        raise ValueError("damaged")
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with pytest.raises(ValueError, match="damaged"), loading_to_stay():
            raise ValueError("damaged")
        assert not gc.isenabled()
    finally:
        gc.enable()
