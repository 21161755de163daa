import os

import pytest
from PIL import Image

from diffgen.errors import OutputError
from diffgen.train import headers
from diffgen.train.captions import read_folder
from diffgen.train.headers import NAME, probe_all


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (8 + k, 8)).save(folder / f"{k}.png")
    (folder / "3.png").write_bytes(b"")
    return folder


@pytest.fixture
def probed(monkeypatch):
    names = []
    original = headers.probe
    monkeypatch.setattr(headers, "probe", lambda e: (names.append(e.name), original(e))[1])
    return names


def test_known_pictures_are_not_read_again(pictures, probed, tmp_path):
    first = probe_all(read_folder(pictures), tmp_path / "cache")
    assert sorted(probed) == ["0.png", "1.png", "2.png", "3.png"]
    assert [p.size for p in first] == [(8, 8), (9, 8), (10, 8), None]
    probed.clear()
    assert probe_all(read_folder(pictures), tmp_path / "cache") == first
    assert probed == []


def test_changed_pictures_are(pictures, probed, tmp_path):
    first = probe_all(read_folder(pictures), tmp_path / "cache")
    probed.clear()
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    os.utime(pictures / "0.png", ns=(1, 1))
    second = probe_all(read_folder(pictures), tmp_path / "cache")
    assert probed == ["0.png"]
    assert second[0] == first[1]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": ["b"]}', "\x00"])
def test_a_damaged_memory_is_made_anew(pictures, tmp_path, text):
    (tmp_path / NAME).write_text(text)
    assert probe_all(read_folder(pictures), tmp_path) == probe_all(read_folder(pictures), None)


def test_a_cache_folder_that_cannot_be_made(pictures, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        probe_all(read_folder(pictures), tmp_path / "cache")
