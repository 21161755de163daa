"""diffgen.bench.journal, and what a sweep does with its folder."""

import os
from dataclasses import replace

import pytest
from PIL import Image
from sweep_examples import REFERENCE, results

from diffgen.bench.folder import exclusive
from diffgen.bench.journal import Journal
from diffgen.bench.pictures import read_png, write_png
from diffgen.bench.result_files import write_results
from diffgen.bench.runs import Run
from diffgen.errors import OutputError, UsageError

CONDITIONS = {"model": "storybook", "seeds": (0, 1), "guidance": 4.0}
RUN = Run(cell="ddim-karras-10", round=0, nfe=10, seconds=0.5, psnr=30.0)


def test_a_journal_keeps_runs_and_references(tmp_path):
    journal = Journal.open(tmp_path / "new", CONDITIONS)
    journal.add_run(RUN)
    journal.add_reference("", REFERENCE)
    journal.add_text_seconds(0.25)
    again = Journal.open(tmp_path / "new", CONDITIONS)
    assert again.runs == {("ddim-karras-10", 0): RUN}
    assert again.references == {"": REFERENCE}
    assert again.text_seconds == 0.25
    assert again.runs_of("ddim-karras-10") == [RUN]
    assert again.runs_of("ddim-karras-20") == []


def test_a_failed_run_is_tried_again(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.add_run(replace(RUN, reason="out of memory"))
    assert journal.runs_of(RUN.cell)
    assert Journal.open(tmp_path, CONDITIONS).runs == {}


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.add_run(RUN)
    text = journal.path.read_text()
    journal.path.write_text(text + text.splitlines()[-1][:30])
    again = Journal.open(tmp_path, CONDITIONS)
    assert list(again.runs) == [("ddim-karras-10", 0)]
    again.add_run(replace(RUN, round=1))
    assert len(Journal.open(tmp_path, CONDITIONS).runs) == 2


def test_other_conditions_are_refused_unless_fresh(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.add_run(RUN)
    (tmp_path / "cells" / "ddim-karras-9.png").write_text("x")
    (tmp_path / "mine.txt").write_text("x")
    other = CONDITIONS | {"guidance": 7.0}
    with pytest.raises(UsageError, match=r"guidance was 4.0, now 7.0\); --fresh starts over"):
        Journal.open(tmp_path, other)
    assert Journal.open(tmp_path, other, fresh=True).runs == {}
    assert not (tmp_path / "cells" / "ddim-karras-9.png").exists()
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "line 1 is damaged"),
        (b'{"schema": "diffgen.sample-steps/0"}\n', "written by another version"),
        (b'{"schema": "diffgen.sample-steps/0"}', "written by another version"),
    ],
)
def test_a_journal_of_another_version_is_refused_unless_fresh(tmp_path, header, message):
    (tmp_path / "journal.jsonl").write_bytes(header)
    with pytest.raises(UsageError, match=f"{message}; --fresh starts over"):
        Journal.open(tmp_path, CONDITIONS)
    assert Journal.open(tmp_path, CONDITIONS, fresh=True).runs == {}


def test_a_damaged_header_is_told_and_fresh_mends_it(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.add_run(RUN)
    journal.path.write_bytes(b"\xff" + journal.path.read_bytes())
    with pytest.raises(UsageError, match="line 1 is damaged; --fresh starts over"):
        Journal.open(tmp_path, CONDITIONS)
    assert Journal.open(tmp_path, CONDITIONS, fresh=True).runs == {}


@pytest.mark.parametrize("header", [b"nonsense\n", b'{"my": "diary"}\n', b"\xff\n"])
def test_another_program_s_journal_is_never_replaced(tmp_path, header):
    (tmp_path / "journal.jsonl").write_bytes(header)
    for fresh in (False, True):
        with pytest.raises(UsageError, match="holds other files"):
            Journal.open(tmp_path, CONDITIONS, fresh=fresh)
    assert (tmp_path / "journal.jsonl").read_bytes() == header
    assert os.listdir(tmp_path) == ["journal.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"run": 7}',
        b'{"run": {"cell": "a", "round": 1, "colour": 2}}',
        b'{"run": {"cell": "a", "round": "first"}}',
        b'{"run": {"cell": "a", "round": 1, "seconds": NaN}}',
        b'{"name": "", "reference": {"sampler": "x"}}',
        b'{"text_seconds": "soon"}',
        b'{"unheard": "of"}',
        b"[" * 10_000,
    ],
)
def test_a_damaged_line_is_told_and_measured_again(tmp_path, line, caplog):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.add_run(RUN)
    with journal.path.open("ab") as file:
        file.write(line + b"\n")
    journal.add_run(replace(RUN, round=1))
    again = Journal.open(tmp_path, CONDITIONS)
    assert list(again.runs) == [(RUN.cell, 0), (RUN.cell, 1)]
    assert "damaged, line 3; what they held is measured again" in caplog.text


def test_a_run_whose_picture_is_cut_off_is_made_again(tmp_path, caplog):
    journal = Journal.open(tmp_path, CONDITIONS)
    picture = tmp_path / "cells" / "ddim-karras-10.png"
    write_png(Image.effect_noise((32, 32), 90), picture)
    journal.add_run(replace(RUN, picture="cells/ddim-karras-10.png"))
    assert Journal.open(tmp_path, CONDITIONS).runs
    picture.write_bytes(picture.read_bytes()[:200])
    assert Journal.open(tmp_path, CONDITIONS).runs == {}
    assert "cells/ddim-karras-10.png is missing or damaged; it is made again" in caplog.text


def test_only_a_png_of_some_size_is_read_back(tmp_path, monkeypatch):
    image, path = Image.new("RGB", (8, 8), "red"), tmp_path / "a.png"
    write_png(image, path)
    assert read_png(path).getpixel((0, 0)) == (255, 0, 0)
    monkeypatch.setattr("diffgen.bench.pictures.MAX_PIXELS", 63)
    assert read_png(path) is None
    monkeypatch.undo()
    image.save(path, format="GIF")
    assert read_png(path) is None
    assert read_png(tmp_path / "none.png") is None


def test_fresh_removes_what_is_our_own_and_nothing_else(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    write_results(results([]), tmp_path)
    own = ["cells/ddim-karras-10.png", "cells/ddim-karras-10-p2.png", "cells/reference.png"]
    own += ["cells/reference-euler_a.png", "references/reference.safetensors", "report.html"]
    own += ["trajectory-euler-trailing-2-strip.png"]
    own += ["cells/ddim-karras-10-guidance_3-method_apg-p2.png"]
    own += ["cells/reference-euler_a-eta_0.5-guidance_3.5-p2.png"]
    own += ["references/reference-guidance_3-rescale_0.7.safetensors"]
    other = ["cells/ddim-karras-10-of_mine.png", "cells/ddim-karras-10-p2-guidance.png"]
    other += ["cells/holiday.jpg", "references/notes.txt", "thesis.tex", "trajectory.txt"]
    for name in (*own, *other):
        (tmp_path / name).write_text("x")
    Journal.open(tmp_path, CONDITIONS, fresh=True)
    assert [name for name in own if (tmp_path / name).exists()] == []
    assert [name for name in other if not (tmp_path / name).exists()] == []
    assert journal.path.exists()


def test_what_a_killed_sweep_had_begun_to_write_is_removed(tmp_path):
    Journal.open(tmp_path, CONDITIONS)
    part = tmp_path / "cells" / ".0123456789ab.part.png"
    part.write_bytes(b"half")
    Journal.open(tmp_path, CONDITIONS)
    assert not part.exists()


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "report"
    with exclusive(folder):
        with pytest.raises(OutputError, match="in use by process"), exclusive(folder):
            pass
        Journal.open(folder, CONDITIONS)  # the lock's own file is none of other people's
    with exclusive(folder):
        pass


@pytest.mark.parametrize("fresh", [False, True])
def test_other_people_s_files_are_left_alone(tmp_path, fresh):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        Journal.open(tmp_path, CONDITIONS, fresh=fresh)
    with pytest.raises(UsageError, match="is a file"):
        Journal.open(tmp_path / "thesis.tex", CONDITIONS, fresh=fresh)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write into"):
        Journal.open(tmp_path / "file" / "report", CONDITIONS)


def test_a_journal_of_the_first_version_is_not_gone_on_with(tmp_path):
    journal = Journal.open(tmp_path, CONDITIONS)
    journal.path.write_text(journal.path.read_text().replace("steps/2", "steps/1"))
    with pytest.raises(UsageError, match="another version; --fresh starts over"):
        Journal.open(tmp_path, CONDITIONS)
