"""A GGUF file of one packed tensor, written by the `gguf` package."""

from pathlib import Path

import gguf
import numpy as np

KIND = gguf.GGMLQuantizationType.Q8_0
NAME = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def write_gguf(path: Path) -> np.ndarray:
    """Write it; returns the numbers that the packed ones stand for, (64, 768) float32."""
    data = np.random.default_rng(0).standard_normal((64, 768)).astype(np.float32)
    packed = gguf.quants.quantize(data, KIND)
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_tensor(NAME, packed, raw_dtype=KIND)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(packed, KIND)
