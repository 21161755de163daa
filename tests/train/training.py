"""A tiny training run that tests of several files share: 16 coloured squares, a 6 k U-Net."""

import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from PIL import Image

from diffgen.train.loop import Progress
from diffgen.train.recipe.read import parse_recipe
from diffgen.train.recipe.recipe import Recipe

COLOURS = ("red", "green", "blue", "yellow")

RECIPE: dict[str, Any] = {
    "target": "diffusion",
    "name": "squares",
    "license": "CC0-1.0",
    "data": {"size": 8, "validation": 4, "caption_dropout": 0.25},
    "model": {
        "tokenizer": str(Path(__file__).parents[1] / "vocabulary"),
        "train_text_encoder": True,
        "unet": {
            "in_channels": 3,
            "out_channels": 3,
            "channels": [8, 16],
            "blocks": [1, 1],
            "depth": [0, 1],
            "num_heads": [1, 2],
            "context_dim": 16,
            "norm_groups": 4,
        },
        "text": {
            "vocab_size": 950,
            "width": 16,
            "layers": 1,
            "num_heads": 2,
            "mlp_width": 32,
            "max_tokens": 16,
        },
        "schedule": {"prediction": "v"},
    },
    "optimizer": {"lr": 1e-3, "warmup": 2},
    "run": {
        "steps": 8,
        "batch_size": 3,
        "device": "cpu",
        "precision": "fp32",
        "log_every": 1,
        "checkpoint_every": 2,
        "validate_every": 4,
    },
    "samples": {"every": 100, "steps": 2},
}
VAE = {"channels": [8, 8], "blocks": 1, "norm_groups": 4, "mid_attention": False}


def draw_squares(folder: Path) -> Path:
    """16 pictures with captions, four of each colour."""
    folder.mkdir()
    for index in range(16):
        colour = COLOURS[index % 4]
        image = Image.new("RGB", (12, 12), "white")
        image.paste(colour, (index // 4, 2, index // 4 + 6, 9))
        image.save(folder / f"{index:02}.png")
        (folder / f"{index:02}.txt").write_text(f"a {colour} square")
    return folder


def make_recipe(data: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """RECIPE on the pictures in `data`; `changes` have dotted keys."""
    table = {k: dict(v) if isinstance(v, dict) else v for k, v in RECIPE.items()}
    table["data"]["path"] = str(data)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        place = table
        for name in parents:
            place[name] = dict(place.get(name, {}))
            place = place[name]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return parse_recipe(table, "recipe.toml")


def spoil(path: Path) -> None:
    """Make a PNG that looks whole, every sum right, and whose pixels cannot be decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 24, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", b"\x78\x9c" + b"\xff" * 300)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))


class Listener:
    """A reporter that remembers; `fail_at` makes it die in that step, as a killed process would."""

    def __init__(self, fail_at: int = 0) -> None:
        self.losses: list[float] = []
        self.lines: list[str] = []
        self.fail_at = fail_at

    def step(self, progress: Progress) -> None:
        if progress.step == self.fail_at:
            raise KeyboardInterrupt
        self.losses.append(progress.loss)

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_squares(tmp_path_factory.mktemp("data") / "squares")
