"""diffgen.engine.output: names, no overwriting, nothing half-written."""

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.engine.metadata import make_record, text_chunks
from diffgen.engine.model import Model
from diffgen.engine.origin import Origin
from diffgen.engine.output import OutputStyle, PictureOutput
from diffgen.engine.plan import Picture
from diffgen.engine.request import GenerateRequest
from diffgen.errors import OutputError, UsageError

IMAGE = Image.new("RGB", (8, 6), "red")
OVERWRITE = OutputStyle(collision="overwrite")


def record(prompt: str = "a barn", seed: int = 5) -> dict[str, object]:
    model = Model.open("storybook")
    plan = model.plan(GenerateRequest(prompts=[prompt], seed=seed))
    origin = Origin(model, ()).record
    made = {"origin": origin, "dtype": "fp32", "device": "cpu", "cut": "", "timings": {"text": 0.1}}
    return make_record(plan, Picture(prompt, seed), **made)


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
        (" \n", "unconditional-5.png"),
        ("...", "full-stop-full-stop-full-stop-5.png"),
        ("\U0001f431", "cat-face-5.png"),
        ("\u2764\ufe0f \U0001f9d1\u200d\U0001f33e", "heavy-black-heart-adult-ear-of-rice-5.png"),
        ("\x07", "u7-5.png"),
        ("\U0001f431 asleep", "asleep-5.png"),
        ("CON", "con-5.png"),
        ("nul.", "nul-5.png"),
        ("na\u0131\u0308ve cafe\u0301", "na\u0131\u0308ve-caf\u00e9-5.png"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", "\u0928\u092e\u0938\u094d\u0924\u0947-5.png"),
        ("../../etc/passwd", "etc-passwd-5.png"),
        ("caf\u00e9 \u8d64", "caf\u00e9-\u8d64-5.png"),
        (
            "one two three four five six seven eight nine",
            "one-two-three-four-five-six-seven-eight-5.png",
        ),
        ("x" * 300, "x" * 40 + "-5.png"),
        ("\u8d64" * 300, "\u8d64" * 40 + "-5.png"),
        ("\U00020000" * 300, "\U00020000" * 30 + "-5.png"),
    ],
)
def test_names_come_from_prompts(in_tmp: Path, prompt: str, name: str) -> None:
    path = PictureOutput(None, pictures=1).save(IMAGE, record(prompt))
    assert path == Path(name)
    assert [file.name for file in in_tmp.iterdir()] == [name]


WINDOWS_KEEPS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
WINDOWS_FORBIDS = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')


@given(prompt=st.text(), seed=st.integers(0, 2**64 - 1))
def test_any_prompt_gives_a_name_that_every_system_takes(prompt: str, seed: int) -> None:
    made = {"prompt": prompt, "seed": seed}
    name = PictureOutput(None, pictures=1).name(made).name
    assert len(name.encode()) <= 150
    assert not WINDOWS_KEEPS.fullmatch(name)
    assert not WINDOWS_FORBIDS.search(name)


@pytest.mark.parametrize("target", ["new/deep", "new/", "there", "v1.2", "out.txt", "x.png/"])
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
    path = PictureOutput(None, pictures=1, style=OVERWRITE).save(IMAGE, record())
    assert path == Path("a-barn-5.png")
    assert size(path) == (8, 6)


def test_overwrite_spares_the_pictures_of_the_same_run(in_tmp: Path) -> None:
    """Two prompts may have the same name."""
    output = PictureOutput(None, pictures=2, style=OVERWRITE)
    paths = {output.save(IMAGE, record(prompt)) for prompt in ("a barn!", "a barn?")}
    assert len(paths) == 2


def test_a_file_that_exists(in_tmp: Path) -> None:
    Path("a.png").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"a\.png exists; choose another name or add --overwrite"):
        PictureOutput("a.png", pictures=1)
    PictureOutput("a.png", pictures=1, style=OVERWRITE).save(IMAGE, record())
    assert size(Path("a.png")) == (8, 6)


@pytest.mark.parametrize(
    ("target", "pictures", "message"),
    [
        ("a.png", 2, "2 pictures do not fit into a.png; give a folder"),
        ("-", 2, "2 pictures do not fit into -"),
        ("a.bmp", 1, "pictures are png, jpg, jpeg, webp, avif files"),
    ],
)
def test_targets_that_cannot_hold_the_pictures(target: str, pictures: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PictureOutput(target, pictures=pictures)


def test_what_cannot_be_written_is_known_at_once(in_tmp: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(UsageError, match=r"new/\.png is a suffix without a name"):
        PictureOutput("new/.png", pictures=1)
    with pytest.raises(UsageError, match=r"file is a file, and no folder to write into"):
        PictureOutput("file/sub/", pictures=1)
    with pytest.raises(OutputError, match="cannot write into /proc"):
        PictureOutput("/proc/pictures/", pictures=1)


def test_a_name_that_is_too_long_is_known_at_once(in_tmp: Path) -> None:
    for target in ("y" * 300 + ".png", "y" * 300):
        with pytest.raises(OutputError, match=r"cannot write y+.*: File name too long"):
            PictureOutput(target, pictures=1)


TAKE_NAMES = """
import sys
sys.path[:0] = sys.argv[1:2]
from test_output import IMAGE, record
from diffgen.engine.output import PictureOutput
output, made = PictureOutput("out", pictures=40), record()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    print(output.save(IMAGE, made))
"""


def test_two_processes_never_take_one_name(in_tmp: Path) -> None:
    command = [sys.executable, "-c", TAKE_NAMES, str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [line for process in both for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == len(set(said)) == 80
    assert set(map(str, Path("out").iterdir())) == set(said)
    assert all(size(path) == (8, 6) for path in Path("out").iterdir())


def test_a_file_that_another_program_made_meanwhile_is_left_as_it_is(in_tmp: Path) -> None:
    output = PictureOutput("a.png", pictures=1)
    Path("a.png").write_bytes(b"another program's")
    with pytest.raises(
        OutputError, match=r"another program made a\.png meanwhile.*; the picture is a-2\.png"
    ):
        output.save(IMAGE, record())
    assert Path("a.png").read_bytes() == b"another program's"
    assert size(Path("a-2.png")) == (8, 6)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of files")
def test_a_full_disk_leaves_what_was_there(in_tmp: Path) -> None:
    """No file of this process may grow beyond a limit, as on a disk without space."""
    import resource

    output = PictureOutput("out", pictures=3)
    first = output.save(IMAGE, record())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write out/a-barn-5-2\.png: File too large"):
            output.save(IMAGE, record())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(Path("out").iterdir()) == [first]
    assert size(first) == (8, 6)
    assert output.save(IMAGE, record()) == Path("out/a-barn-5-2.png")


def test_a_folder_that_goes_away_is_not_made_again(in_tmp: Path) -> None:
    output = PictureOutput("out", pictures=2)
    output.save(IMAGE, record())
    shutil.rmtree("out")
    with pytest.raises(OutputError, match=r"cannot write out/a-barn-5-2\.png: its folder is gone"):
        output.save(IMAGE, record())
    assert not list(in_tmp.iterdir())


def test_an_interrupt_leaves_what_was_there(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:10])
        raise KeyboardInterrupt

    Path("a.png").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PictureOutput("a.png", pictures=1, style=OVERWRITE).save(IMAGE, record())
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
    with pytest.raises(UsageError, match="cannot be printed on a terminal"):
        PictureOutput("-", pictures=1)


@pytest.mark.parametrize("prompt", ["barn", 'two\nlines, "quoted"', "\u8d64\u3044 \U0001f33b"])
def test_the_picture_knows_how_it_was_made(in_tmp: Path, prompt: str) -> None:
    made = record(prompt)
    path = PictureOutput("a.png", pictures=1).save(IMAGE, made)
    with Image.open(path) as image:
        texts = {key: text for key, text in image.text.items() if not key.startswith("XML:")}
        assert texts == text_chunks(made)
        timed = json.loads(image.text["diffgen"]) | {"timings": made["timings"]}
        assert timed == made
