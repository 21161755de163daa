import json
import os

import pytest
from PIL import Image

from diffgen.errors import OutputError
from diffgen.train.data import headers
from diffgen.train.data.folders import read_folder
from diffgen.train.data.headers import NAME, probe_all


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
    first = probe_all(read_folder(pictures).entries, tmp_path / "cache")
    assert sorted(probed) == ["0.png", "1.png", "2.png", "3.png"]
    assert [p.size for p in first] == [(8, 8), (9, 8), (10, 8), None]
    probed.clear()
    assert probe_all(read_folder(pictures).entries, tmp_path / "cache") == first
    assert probed == ["3.png"]  # a library for it may have been installed


def test_changed_pictures_are(pictures, probed, tmp_path):
    first = probe_all(read_folder(pictures).entries, tmp_path / "cache")
    probed.clear()
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    os.utime(pictures / "0.png", ns=(1, 1))
    second = probe_all(read_folder(pictures).entries, tmp_path / "cache")
    assert probed == ["0.png", "3.png"]
    assert second[0] == first[1]


def test_a_picture_put_in_place_of_one_of_its_size_and_time_is_read(pictures, tmp_path):
    Image.new("RGB", (8, 8)).save(pictures / "0.bmp")
    first = probe_all(read_folder(pictures).entries, tmp_path / "cache")
    status = (pictures / "0.bmp").stat()
    probe = tmp_path / "clock"
    probe.touch()
    while probe.stat().st_ctime_ns <= status.st_ctime_ns:  # file systems count in coarse steps
        probe.touch()
    Image.new("RGB", (8, 8), "red").save(pictures / "0.bmp")
    os.utime(pictures / "0.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    again = (pictures / "0.bmp").stat()
    assert (again.st_size, again.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    second = probe_all(read_folder(pictures).entries, tmp_path / "cache")
    assert second[0].digest != first[0].digest


ROWS = ["1", '"b"', '["b"]', '["b", 8]', '["b", 8, "8"]', '["b", [8], [8]]', '["b", 0, 8]', "{}"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"a": 1}', "\x00", "[" * 10_000, '{"format": 2}', "null", "\ud800"),
        '{"a": ["digest", [8, 8], false]}',  # as earlier versions wrote it
        '{"format": 2, "pictures": []}',
        *(f'{{"format": 2, "pictures": {{"a": {row}}}}}' for row in ROWS),
    ],
)
def test_a_damaged_memory_is_made_anew(pictures, tmp_path, text):
    (tmp_path / NAME).write_bytes(text.encode(errors="surrogatepass"))
    entries = read_folder(pictures).entries
    assert probe_all(entries, tmp_path) == probe_all(entries, None)
    assert "pictures" in (tmp_path / NAME).read_text()
    assert '"a"' not in (tmp_path / NAME).read_text()


def test_rows_of_another_form_are_not_taken_for_pictures(pictures, tmp_path):
    """Also where the key is that of a picture."""
    entries = read_folder(pictures).entries
    expected = probe_all(entries, tmp_path)
    table = json.loads((tmp_path / NAME).read_text())
    for row in ROWS:
        table["pictures"] = dict.fromkeys(table["pictures"], json.loads(row))
        (tmp_path / NAME).write_text(json.dumps(table))
        assert probe_all(entries, tmp_path) == expected


def test_a_cache_folder_that_cannot_be_made(pictures, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        probe_all(read_folder(pictures).entries, tmp_path / "cache")
