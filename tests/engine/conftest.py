"""One loaded tiny model for the tests of the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffgen import Engine

if TYPE_CHECKING:
    from tiny_models import TinyModel


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """The models here are tiny."""


@pytest.fixture(scope="session")
def engine(sd1: "TinyModel") -> Engine:
    return Engine.load(sd1.folder, device="cpu", dtype="fp32")


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write bytes to a file without a suffix: what a picture is has to be read from inside."""

    def write(content: bytes) -> Path:
        path = tmp_path / "picture"
        path.write_bytes(content)
        return path

    return write
