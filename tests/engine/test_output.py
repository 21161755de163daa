"""diffgen.engine.output: names, no overwriting, nothing half-written."""

import io
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from diffgen.engine.metadata import text_chunks
from diffgen.engine.model import Model
from diffgen.engine.output import PictureOutput
from diffgen.engine.request import GenerateRequest, Picture
from diffgen.errors import OutputError, UsageError

IMAGE = Image.new("RGB", (8, 6), "red")


def record(prompt: str = "a barn", seed: int = 5) -> dict[str, object]:
    from diffgen.engine.metadata import make_record

    model = Model.open("storybook")
    plan = model.plan(GenerateRequest(prompts=[prompt], seed=seed))
    picture = Picture(prompt, seed)
    return make_record(plan, picture, model=model, dtype="fp32", device="cpu", cut="", timings={})


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Red barn, at SUNSET!", "red-barn-at-sunset-5.png"),
        ("", "unconditional-5.png"),
        ("...", "unconditional-5.png"),
        ("../../etc/passwd", "etc-passwd-5.png"),
        ("caf\u00e9 \u8d64", "caf\u00e9-\u8d64-5.png"),
        (
            "one two three four five six seven eight nine",
            "one-two-three-four-five-six-seven-eight-5.png",
        ),
        ("x" * 300, "x" * 40 + "-5.png"),
    ],
)
def test_names_come_from_prompts(in_tmp: Path, prompt: str, name: str) -> None:
    path = PictureOutput(None, pictures=1).save(IMAGE, record(prompt))
    assert path == Path(name)
    assert [file.name for file in in_tmp.iterdir()] == [name]


@pytest.mark.parametrize("target", ["new/deep", "new/", "there"])
def test_folders_are_made(in_tmp: Path, target: str) -> None:
    (in_tmp / "there").mkdir()
    path = PictureOutput(target, pictures=2).save(IMAGE, record())
    assert path == Path(target) / "a-barn-5.png"
    assert size(path) == (8, 6)


def test_a_file_in_a_folder_to_be(in_tmp: Path) -> None:
    assert PictureOutput("a/b.png", pictures=1).save(IMAGE, record()) == Path("a/b.png")


def test_existing_pictures_are_kept(in_tmp: Path) -> None:
    output = PictureOutput(None, pictures=3)
    names = [str(output.save(IMAGE, record())) for _ in range(3)]
    assert names == ["a-barn-5.png", "a-barn-5-2.png", "a-barn-5-3.png"]


def test_overwrite_replaces_what_was_there(in_tmp: Path) -> None:
    Path("a-barn-5.png").write_bytes(b"old")
    path = PictureOutput(None, pictures=1, overwrite=True).save(IMAGE, record())
    assert path == Path("a-barn-5.png")
    assert size(path) == (8, 6)


def test_overwrite_spares_the_pictures_of_the_same_run(in_tmp: Path) -> None:
    """Two prompts may have the same name."""
    output = PictureOutput(None, pictures=2, overwrite=True)
    paths = {output.save(IMAGE, record(prompt)) for prompt in ("a barn!", "a barn?")}
    assert len(paths) == 2


def test_a_file_that_exists(in_tmp: Path) -> None:
    Path("a.png").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"a\.png exists; choose another name or add --overwrite"):
        PictureOutput("a.png", pictures=1)
    PictureOutput("a.png", pictures=1, overwrite=True).save(IMAGE, record())
    assert size(Path("a.png")) == (8, 6)


@pytest.mark.parametrize(
    ("target", "pictures", "message"),
    [
        ("a.png", 2, "2 pictures do not fit into a.png; give a folder"),
        ("-", 2, "2 pictures do not fit into -"),
        ("a.jpg", 1, "pictures are PNG files"),
    ],
)
def test_targets_that_cannot_hold_the_pictures(target: str, pictures: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PictureOutput(target, pictures=pictures)


def test_what_cannot_be_written_is_known_at_once(in_tmp: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write into .*file: Not a directory"):
        PictureOutput("file/sub/", pictures=1)
    with pytest.raises(OutputError, match="cannot write into /proc"):
        PictureOutput("/proc/pictures/", pictures=1)


def test_a_failure_leaves_nothing_behind(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, file: io.BytesIO, **options: object) -> None:
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match=r"cannot write a\.png: No space left on device"):
        PictureOutput("a.png", pictures=1).save(IMAGE, record())
    assert not list(in_tmp.iterdir())


def test_an_interrupt_leaves_what_was_there(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Image.Image, file: io.BytesIO, **options: object) -> None:
        file.write(b"half a picture")
        raise KeyboardInterrupt

    Path("a.png").write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PictureOutput("a.png", pictures=1, overwrite=True).save(IMAGE, record())
    assert [file.name for file in in_tmp.iterdir()] == ["a.png"]
    assert Path("a.png").read_bytes() == b"old"


@pytest.fixture
def umask() -> Iterator[int]:
    previous = os.umask(0o027)
    yield 0o027
    os.umask(previous)


def test_permissions_follow_the_umask(in_tmp: Path, umask: int) -> None:
    path = PictureOutput("a.png", pictures=1).save(IMAGE, record())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.umask(umask) == umask


def test_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer))
    output = PictureOutput("-", pictures=1)
    assert output.to_stdout
    assert output.save(IMAGE, record()) is None
    assert Image.open(io.BytesIO(buffer.getvalue())).size == (8, 6)


def test_a_terminal_gets_no_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="no text for a terminal"):
        PictureOutput("-", pictures=1)


@pytest.mark.parametrize("prompt", ["barn", 'two\nlines, "quoted"', "\u8d64\u3044 \U0001f33b"])
def test_the_picture_knows_how_it_was_made(in_tmp: Path, prompt: str) -> None:
    made = record(prompt)
    path = PictureOutput("a.png", pictures=1).save(IMAGE, made)
    with Image.open(path) as image:
        assert image.text == text_chunks(made)
        assert json.loads(image.text["diffgen"]) == made
