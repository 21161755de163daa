"""diffgen.device: where to run, and in which formats."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from diffgen.device import (
    Precision,
    available_memory,
    memory_errors,
    multiplies_bf16,
    peak_memory,
    pick_device,
    reset_peak_memory,
    send,
    synchronize,
)
from diffgen.errors import DeviceError, DeviceLost

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_available_memory_is_part_of_what_there_is() -> None:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory() <= there


def test_auto_takes_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda is not available here; use one of: cpu"):
        pick_device("cuda")


@pytest.mark.parametrize(("there", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision(monkeypatch: pytest.MonkeyPatch, there: bool, name: str) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: there)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert Precision.pick("auto", CPU).name == name
    assert Precision.pick("auto", CUDA).name == "fp16"


def test_bf16_products_need_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert multiplies_bf16(CPU)
    assert not multiplies_bf16(CUDA)
    try:
        torch.backends.mkldnn.enabled = False
        assert not multiplies_bf16(CPU)
    finally:
        torch.backends.mkldnn.enabled = True


@pytest.mark.parametrize(
    ("name", "vae"), [("fp32", torch.float32), ("fp16", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_decoder_that_overflows_is_spared_fp16(name: str, vae: torch.dtype) -> None:
    precision = Precision.pick(name, CPU, vae_overflows=True)
    assert (precision.name, precision.vae) == (name, vae)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("x: can't allocate memory: y")],
)
def test_running_out_of_memory_is_one_line(error: Exception) -> None:
    with (
        pytest.raises(DeviceError, match="out of memory; try a smaller --batch-size"),
        memory_errors(),
    ):
        raise error


def test_a_gpu_that_crashed_is_told_from_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA does it: every call fails once a kernel has."""

    def fail() -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with (
        pytest.raises(DeviceLost, match=r"no more: CUDA error: an illegal access; give the same"),
        memory_errors(),
    ):
        raise RuntimeError("CUDA error: an illegal access\nCompile with TORCH_USE_CUDA_DSA")
    with pytest.raises(DeviceError, match="out of memory"), memory_errors():
        raise RuntimeError("CUDA error: out of memory")


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's compiler's own
def test_a_compiler_that_fails_is_one_line() -> None:
    """Found on a processor for which g++ 12 refused what torch wrote."""
    doubled = torch.compile(lambda x: (x * 2).sin())
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",), "force_disable_caches": True}),
        pytest.raises(DeviceError, match=r"torch.compile fails on .*; do without run.compile$"),
        memory_errors(),
    ):
        doubled(torch.ones(3))


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not fit")


class Sent:
    """Writes down how a tensor is moved."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.log: list[object] = []

    def pin_memory(self) -> "Sent":
        self.log.append("pinned")
        return self

    def to(self, *args: object, **options: object) -> "Sent":
        self.log.append((args, options))
        return self


def test_a_gpu_fetches_page_locked_memory_and_converts_it_itself() -> None:
    sent = Sent()
    send(sent, CUDA, torch.float16)  # type: ignore[arg-type]
    copied = ((CUDA,), {"non_blocking": True})
    assert sent.log == ["pinned", copied, ((torch.float16,), {})]


def test_a_cpu_keeps_what_needs_no_change() -> None:
    tensor = torch.ones(3)
    assert send(tensor, CPU) is tensor
    assert send(tensor, "cpu", torch.bfloat16).dtype == torch.bfloat16


def test_each_device_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cpu", "cuda", "mps"):
        synchronize(torch.device(name))
    assert waited == [CUDA, "mps"]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    resource = pytest.importorskip("resource")
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda _who: usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory(CPU) == 7 * unit


def test_a_system_without_a_count_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory(CPU) is None


def test_a_gpu_counts_from_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", told.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    reset_peak_memory(CUDA)
    reset_peak_memory(CPU)
    assert told == [CUDA]
    assert peak_memory(CUDA) == 5
