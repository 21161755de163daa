"""scripts/lock_weights.py: sizes and hashes from a hub on loopback."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serving

from diffgen.errors import WeightsError
from diffgen.weights.registry import RemoteFile, read_registry

SCRIPT = Path(__file__).parents[2] / "scripts" / "lock_weights.py"
spec = importlib.util.spec_from_file_location("lock_weights", SCRIPT)
assert spec
assert spec.loader
lock_weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock_weights)

DATA = b"weights"
DIGITS = hashlib.sha256(DATA).hexdigest()
TEXT = """# kept
["one.5"]
description = "d"
license = "MIT"
repository = "a/b"
files = [{ path = "x.safetensors" }] # gone
steps = 4

[two]
description = "d"
license = "MIT"
bundled = "files = not this"
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub({"a/b": {"x.safetensors": DATA}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "weights.toml"
    path.write_text(TEXT)
    return path


def test_what_is_missing_is_filled_in(hub: Hub, registry: Path) -> None:
    assert lock_weights.lock(registry, check=True) == ["one.5"]
    assert registry.read_text() == TEXT
    assert lock_weights.lock(registry, check=False) == ["one.5"]
    entry = read_registry(registry)["one.5"]
    assert entry.files == (RemoteFile("x.safetensors", len(DATA), DIGITS),)
    assert entry.steps == 4
    assert registry.read_text().startswith("# kept\n")
    assert lock_weights.lock(registry, check=True) == []


@pytest.mark.parametrize("wrong", ["size = 8", f'sha256 = "{"0" * 64}"'])
def test_what_differs_is_for_somebody_to_look_at(hub: Hub, registry: Path, wrong: str) -> None:
    text = TEXT.replace('"x.safetensors" }', f'"x.safetensors", {wrong} }}')
    registry.write_text(text)
    with pytest.raises(WeightsError, match=r"a/b: x\.safetensors is .* there, .* here"):
        lock_weights.lock(registry, check=False)
    assert registry.read_text() == text
