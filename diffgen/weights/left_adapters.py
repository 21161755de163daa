"""What PEFT leaves in the files of a model that was saved with an adapter loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from diffgen.errors import some
from diffgen.weights.files import TensorInfo

logger = logging.getLogger("diffgen")
PEFT_KEYS = re.compile(r"\.(lora_(A|B|magnitude_vector|embedding_A|embedding_B)|hada_|lokr_)")


def without_adapters(where: Path, infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """A part's tensors without those of a PEFT adapter that was loaded when it was saved."""
    base = {key: key.replace(".base_layer.", ".") for key in infos if ".base_layer." in key}
    adapters = [key for key in infos if base and PEFT_KEYS.search(key)]
    if adapters:
        logger.warning(
            "%s was saved with an adapter loaded, which is left out: %d tensors (%s); "
            "save it by itself and give it with --lora",
            where,
            len(adapters),
            some(adapters),
        )
    kept = {key: info for key, info in infos.items() if key not in set(adapters)}
    return {base.get(key, key): info for key, info in kept.items()}
