"""The recipe of `diffgen train --lora`."""

from __future__ import annotations

from diffgen.engine.model import Model
from diffgen.settings.model import Overrides, Source
from diffgen.settings.training import QuickLora
from diffgen.train.data.dataset import find_entries
from diffgen.train.recipe.tables import Table

STEPS_PER_PICTURE = 100
STEPS = (500, 5000)  # at least and at most
BUCKETED = 512  # pixels from which pictures are sorted by aspect ratio
PREVIEWS = 4


def lora_table(quick: QuickLora, own: Overrides, name: str) -> Table:
    """A recipe as a table: the pictures in `quick.data`, at the native size of `quick.model`.

    Raises UsageError and ConfigError for data or a model that cannot be used.
    """
    data, model = quick.data or "", quick.model or ""
    noise = {"prediction": own.prediction, "zero_snr": own.zero_snr}
    source = Source(model=model, vae=own.vae, prediction=own.prediction, zero_snr=own.zero_snr)
    config = Model.open(source).checkpoint.config
    entries = find_entries(data).entries
    least, most = STEPS
    steps = min(max(STEPS_PER_PICTURE * len(entries), least), most)
    texts = [text for entry in entries for text in entry.captions or (quick.caption or "",)]
    captions = list(dict.fromkeys(filter(None, texts)))
    return {
        "target": "lora",
        "name": name,
        "data": {
            "path": data,
            **_said(caption=quick.caption),
            "size": config.native_size,
            "buckets": config.native_size >= BUCKETED,
        },
        "model": {"base": model, **_said(autoencoder=own.vae and str(own.vae), **noise)},
        "optimizer": {"lr": 1e-4, "warmup": steps // 20},
        # SDXL fits a 24 GB card only if activations are recomputed.
        "run": {"steps": steps, "gradient_checkpointing": config.is_xl},
        "samples": {"prompts": captions[:PREVIEWS], "every": steps // 4},
    }


def _said(**values: object) -> Table:
    return {key: value for key, value in values.items() if value is not None}
