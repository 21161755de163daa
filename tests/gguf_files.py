"""GGUF files, written by the `gguf` package: of one packed tensor, or of plain numbers."""

from collections.abc import Mapping
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


def write_plain_gguf(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Tensors as they are."""
    writer = gguf.GGUFWriter(path, "sd1")
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
