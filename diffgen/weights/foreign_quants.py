"""Weights in packed formats of other programs, recognised by the tensors beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffgen.errors import UnsupportedCheckpoint
from diffgen.weights.files import TensorInfo

# Names beside a packed weight, and the format; the first match counts.
MARKS: Mapping[str, re.Pattern[str]] = {
    "4 bits of bitsandbytes": re.compile(r".+\.quant_state\.bitsandbytes__(nf4|fp4)"),
    "8 bits of bitsandbytes": re.compile(r".+\.SCB"),
    "4 bits of NVIDIA's NVFP4": re.compile(r".+\.weight_scale_2"),
    "4 bits of SVDQuant (Nunchaku)": re.compile(r".+\.(wscales|smooth_factor|wtscale)"),
    "integers of GPTQ or AWQ": re.compile(r".+\.(qweight|qzeros)"),
    "integers of SD.Next (SDNQ)": re.compile(r".+\.(zero_point|svd_up)"),
    "integers of Quanto": re.compile(r".+\._(data|scale)"),
}
INTEGERS = ("I8", "U8", "I4", "F4")
TAKE = "take the model in fp16, bf16, fp8 or GGUF"


def refuse_packed(infos: Mapping[str, TensorInfo]) -> None:
    """Raise UnsupportedCheckpoint, naming the format, for packed weights."""
    for name, pattern in MARKS.items():
        if found := next((key for key in infos if pattern.fullmatch(key)), None):
            raise UnsupportedCheckpoint(
                f"its weights are packed in {name} ({found}), which diffgen does not read; {TAKE}"
            )
    for key, info in infos.items():
        if key.endswith(".weight") and info.place.packed is None and info.dtype in INTEGERS:
            raise UnsupportedCheckpoint(
                f"its weights are integers ({key} {info.dtype}), which diffgen does not read; {TAKE}"
            )
