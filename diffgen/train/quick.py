"""The recipe of `diffgen train --lora`."""

from __future__ import annotations

from diffgen.engine.model import Model
from diffgen.files import expanded
from diffgen.train.data.dataset import find_entries
from diffgen.train.recipe.tables import Table
from diffgen.types import Prediction

STEPS_PER_PICTURE = 100
STEPS = (500, 5000)  # at least and at most
BUCKETED = 512  # pixels from which pictures are sorted by aspect ratio
PREVIEWS = 4


def lora_table(
    data: str,
    model: str,
    name: str,
    *,
    caption: str | None = None,
    vae: str | None = None,
    prediction: Prediction | None = None,
    zero_snr: bool | None = None,
) -> Table:
    """A recipe as a table: the pictures in `data`, at the native size of `model`.

    `caption` is that of the pictures without one; `vae`, `prediction` and `zero_snr` are taken
    instead of the model's own. Raises UsageError and ConfigError for data or a model that cannot be used.
    """
    other = expanded(vae) if vae else None
    config = Model.open(
        model, vae=other, prediction=prediction, zero_snr=zero_snr
    ).checkpoint.config
    entries = find_entries(data).entries
    least, most = STEPS
    steps = min(max(STEPS_PER_PICTURE * len(entries), least), most)
    texts = [text for entry in entries for text in entry.captions or (caption or "",)]
    words = {"caption": caption} if caption is not None else {}
    chosen = {"autoencoder": vae, "prediction": prediction, "zero_snr": zero_snr}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    return {
        "target": "lora",
        "name": name,
        "data": {
            "path": data,
            **words,
            "size": config.native_size,
            "buckets": config.native_size >= BUCKETED,
        },
        "model": {"base": model, **chosen},
        "optimizer": {"lr": 1e-4, "warmup": steps // 20},
        # SDXL fits a 24 GB card only if activations are recomputed.
        "run": {"steps": steps, "gradient_checkpointing": config.is_xl},
        "samples": {
            "prompts": list(dict.fromkeys(filter(None, texts)))[:PREVIEWS],
            "every": steps // 4,
        },
    }
