"""diffgen.device: where to run, and in which formats."""

import os
import sys

import pytest
import torch

from diffgen.device import (
    Precision,
    available_memory,
    memory_errors,
    multiplies_bf16,
    pick_device,
    send,
)
from diffgen.errors import DeviceError

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
