"""When weights are packed; that packed ones compute the same is in tests/models/test_pack.py."""

import torch

from diffgen.kernels.packed import can_pack


def test_only_bfloat16_on_the_cpu_is_packed() -> None:
    cpu = torch.device("cpu")
    assert not can_pack(cpu, torch.float32)
    assert not can_pack(cpu, torch.float16)
    assert not can_pack(torch.device("cuda"), torch.bfloat16)
