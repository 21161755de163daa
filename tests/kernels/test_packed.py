"""When weights are packed; that packed ones compute the same is in tests/models/test_pack.py."""

import platform

import pytest
import torch
from torch.backends import mkldnn

from diffgen.kernels.packed import can_pack

CPU = torch.device("cpu")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="nothing is packed here")
def test_what_onednn_multiplies_is_packed(monkeypatch) -> None:
    assert can_pack(CPU, torch.float32)
    monkeypatch.setattr(mkldnn, "is_available", lambda: False)
    assert not can_pack(CPU, torch.float32)
    monkeypatch.undo()
    for yes in (True, False):
        monkeypatch.setattr("diffgen.kernels.packed.multiplies_bf16", lambda _, yes=yes: yes)
        assert can_pack(CPU, torch.bfloat16) == yes


def test_what_it_does_not_is_left_alone(monkeypatch) -> None:
    assert not can_pack(CPU, torch.float16)
    assert not can_pack(CPU, torch.float64)
    assert not can_pack(torch.device("cuda"), torch.float32)
    assert not can_pack(torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not can_pack(CPU, torch.float32)
