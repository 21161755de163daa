"""diffgen.batch.run and .plan: what shares a call, what fails alone, what is gone on with."""

import errno
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runs import Engine, Made, journal_in, planned

from diffgen.batch.files import BadFile, Record
from diffgen.batch.plan import BatchPlan
from diffgen.batch.requests import Variant
from diffgen.engine.output import OutputStyle
from diffgen.errors import DeviceLost, DiffgenError, OutputError

BARNS: list[dict[str, Any]] = [{"prompt": f"barn {i}"} for i in range(5)]


def test_pictures_that_may_share_a_call_are_made_together(tmp_path: Path) -> None:
    records = [
        {"prompt": "a"},
        {"prompt": "large", "width": 144},
        {"prompt": "b", "seed": 9},
        {"prompt": "other", "steps": 3},
        {"prompt": "d", "count": 2},
        {"prompt": "large too", "width": 144},
    ]
    made = Made(planned(records, batch_size=3), tmp_path)
    assert made.run.run().closing().startswith("7 made, 0 failed, 0 skipped in 0:0")
    assert made.batches == [["a", "b", "d"], ["d"], ["large", "large too"], ["other"]]


def test_what_steers_may_differ_in_a_call_if_it_costs_the_same(tmp_path: Path) -> None:
    records = [
        {"prompt": "a", "guidance": 3},
        {"prompt": "none", "guidance": 1},
        {"prompt": "b", "guidance": 7, "negative": "blurry"},
        {"prompt": "apg", "guidance": 4, "guidance_method": "apg"},
        {"prompt": "stronger apg", "guidance": 5, "guidance_method": "apg"},
        {"prompt": "less", "guidance": 0.5, "negative": "dark"},
        {"prompt": "some steps", "guidance": "7@0-0.5"},
        {"prompt": "c"},
    ]
    made = Made(planned(records, batch_size=8), tmp_path)
    made.run.run()
    assert made.batches == [
        ["a", "b", "c"],
        ["none", "less"],
        ["apg"],
        ["stronger apg"],
        ["some steps"],
    ]


def test_alone_they_are_made_in_the_files_order(tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": "b", "width": 144}, {"prompt": "c"}]
    made = Made(planned(records), tmp_path)
    made.run.run()
    assert made.heard.paths == ["a-5.png", "b-5.png", "c-5.png"]


def test_an_adaptive_sampler_makes_one_at_a_time(tmp_path: Path) -> None:
    records = [
        {"prompt": "a", "sampler": "dpm_adaptive"},
        {"prompt": "b", "sampler": "dpm_adaptive"},
    ]
    made = Made(planned(records, batch_size=4), tmp_path)
    made.run.run()
    assert made.batches == [["a"], ["b"]]


def test_each_model_is_loaded_once(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.symlink_to(Path(__file__).parents[2] / "diffgen" / "assets" / "storybook")
    models = ["storybook", str(folder)] * 3
    records = [{"prompt": f"p{i}", "model": model} for i, model in enumerate(models)]
    made = Made(planned(records), tmp_path)
    made.run.run()
    assert [engine.batches for engine in made.engines] == [
        [["p0"], ["p2"], ["p4"]],
        [["p1"], ["p3"], ["p5"]],
    ]


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    made = Made(planned([*BARNS, *BARNS], batch_size=8), tmp_path, room=3)
    assert made.run.run().made == 10
    assert [len(batch) for batch in made.batches] == [8, 4, 2, 2, 2, 2, 2]


def test_a_picture_that_fails_costs_no_other(tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": "bad"}, {"prompt": "c"}]
    made = Made(planned(records, batch_size=3), tmp_path, journal=journal_in(tmp_path))
    tally = made.run.run()
    assert (tally.made, tally.failed, tally.exit_code) == (2, 1, 3)
    assert made.heard.failures == [(2, "numbers that are not finite")]
    again = Made(planned(records), tmp_path, journal=journal_in(tmp_path))
    assert (again.run.run().exit_code, again.heard.passed) == (3, ["a-5.png", "c-5.png"])
    assert again.batches == [["bad"]]  # tried once more, by a new run


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_bug_costs_no_other_picture(batch_size: int, tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": "bug"}, {"prompt": "c"}]
    plan = planned(records, batch_size=batch_size)
    with journal_in(tmp_path) as journal:
        made = Made(plan, tmp_path, journal=journal)
        tally = made.run.run()
    assert (tally.made, tally.failed, tally.exit_code) == (2, 1, 3)
    ((line, reason),) = made.heard.failures
    assert line == 2
    assert reason.startswith("unexpected RuntimeError: shape '[2, 3]' is invalid")
    assert tally.failures[0]["error"] == reason
    (noted,) = (
        entry
        for entry in map(json.loads, journal.path.read_text().splitlines())
        if entry.get("state") == "failed"
    )
    assert (noted["line"], noted["error"]) == (2, reason)
    # Whatever the bug left behind is not drawn with.
    drawn = [engine.batches for engine in made.engines]
    if batch_size == 1:
        assert drawn == [[["a"], ["bug"]], [["c"]]]
    else:
        assert drawn == [[["a", "bug", "c"]], [["a"], ["bug"]], [["c"]]]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_device_that_is_lost_ends_the_run_which_goes_on_later(
    batch_size: int, tmp_path: Path
) -> None:
    records = [{"prompt": prompt} for prompt in ("a", "b", "crash", "d", "e")]
    with journal_in(tmp_path) as journal:
        made = Made(planned(records, batch_size=batch_size), tmp_path, journal=journal)
        with pytest.raises(DeviceLost):
            made.run.run()
    assert (made.run.tally.made, made.heard.failures) == (2, [])
    assert "failed" not in journal.path.read_text()
    records[2] = {"prompt": "c"}
    with journal_in(tmp_path) as journal:
        again = Made(planned(records), tmp_path, journal=journal)
        assert (again.run.run().made, again.run.tally.skipped) == (3, 2)


def test_no_more_than_one_model_is_in_memory_after_a_bug(tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": "bug"}, {"prompt": "c"}]
    made = Made(planned(records, batch_size=3), tmp_path)
    alive: list[weakref.ref[Any]] = []

    def loaded(stock: Any) -> Any:
        assert not any(engine() for engine in alive)
        engine = Engine(stock)
        alive.append(weakref.ref(engine))
        return engine

    made.run.load = loaded
    assert made.run.run().made == 2
    assert len(alive) == 3


def test_a_bug_in_loading_costs_no_other_model(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.symlink_to(Path(__file__).parents[2] / "diffgen" / "assets" / "storybook")
    made = Made(planned([{"prompt": "a", "model": str(folder)}, {"prompt": "b"}]), tmp_path)
    load = made._load

    def loaded(stock: Any) -> Any:
        if not made.heard.failures:
            raise KeyError("layer")
        return load(stock)

    made.run.load = loaded
    assert made.run.run().exit_code == 3
    assert made.heard.failures == [(1, "unexpected KeyError: 'layer' (-v shows where)")]


def test_a_picture_that_fits_no_file_costs_no_other(tmp_path: Path) -> None:
    long = {"prompt": "bar " * 16_000, "prompt_style": "a1111"}
    jpeg = {"style": OutputStyle(form="jpeg")}
    made = Made(planned([long, {"prompt": "b"}]), tmp_path, output=jpeg)
    tally = made.run.run()
    assert (tally.made, tally.failed) == (1, 1)
    assert "no room in a JPEG" in made.heard.failures[0][1]


def test_all_that_fail_are_a_failure(tmp_path: Path) -> None:
    assert Made(planned([{"prompt": "bad"}]), tmp_path).run.run().exit_code == 1


@pytest.mark.parametrize(("prompt", "kind"), [("bad", DiffgenError), ("bug", RuntimeError)])
def test_stop_on_error(prompt: str, kind: type[Exception], tmp_path: Path) -> None:
    records = [{"prompt": "a"}, {"prompt": prompt}, {"prompt": "c"}]
    made = Made(planned(records), tmp_path, stop_on_error=True)
    with pytest.raises(kind):
        made.run.run()
    assert made.heard.paths == ["a-5.png"]


def test_a_run_goes_on(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        Made(planned(BARNS), tmp_path, journal=journal).run.run()
    (tmp_path / "barn-1-5.png").unlink()
    changed = [*BARNS[:4], {"prompt": "barn 4", "guidance": 3}, {"prompt": "new"}]
    again = Made(planned(changed), tmp_path, journal=journal_in(tmp_path))
    tally = again.run.run()
    assert (tally.made, tally.skipped) == (3, 3)
    assert again.heard.paths == ["barn-1-5.png", "barn-4-5-2.png", "new-5.png"]


def test_equal_lines_are_two_pictures(tmp_path: Path) -> None:
    twice = [{"prompt": "a"}, {"prompt": "a"}]
    made = Made(planned(twice), tmp_path, journal=journal_in(tmp_path))
    made.run.run()
    assert made.heard.paths == ["a-5.png", "a-5-2.png"]
    assert Made(planned(twice), tmp_path, journal=journal_in(tmp_path)).run.run().skipped == 2


def test_another_format_is_another_picture(tmp_path: Path) -> None:
    for salt, made in (("png", 1), ("png", 0), ("jpeg", 1)):
        plan = BatchPlan(seed=5, salt=salt)
        plan.add(1, {"prompt": "a"}, {})
        run = Made(plan, tmp_path, journal=journal_in(tmp_path)).run
        assert run.run().made == made


def test_what_a_dead_process_had_taken_is_made(tmp_path: Path) -> None:
    plan = planned(BARNS)
    dead, alive = journal_in(tmp_path), journal_in(tmp_path)
    jobs = [job for _, batches in plan.stocks() for batch in batches for job in batch]
    dead.take([jobs[0].key])
    alive.take([jobs[1].key])
    dead.close()
    made = Made(plan, tmp_path, journal=journal_in(tmp_path))
    assert made.run.run().made == 4
    assert made.heard.paths == [f"barn-{i}-5.png" for i in (0, 2, 3, 4)]


def test_pictures_that_are_there_are_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "barn-2-5.png").write_bytes(b"mine")
    skip = {"style": OutputStyle(collision="skip")}
    made = Made(planned(BARNS), tmp_path, output=skip)
    tally = made.run.run()
    assert (tally.made, tally.skipped, made.heard.passed) == (4, 1, ["barn-2-5.png"])


def test_a_stop_ends_behind_the_batch(tmp_path: Path) -> None:
    made = Made(planned(BARNS), tmp_path, journal=journal_in(tmp_path))
    made.heard.made = lambda *_: made.run.stopping.set()  # type: ignore[method-assign]
    made.run.run()
    assert 1 <= len(made.batches) < 5
    assert len(list(tmp_path.glob("*.png"))) == len(made.batches)


def test_a_full_disk_stops_and_the_rest_is_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if len(list(tmp_path.glob("*.png"))) == 2:  # its own unfinished one among them
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    no_space = pytest.raises(OutputError, match="No space left on device")
    with no_space, journal_in(tmp_path) as journal:
        Made(planned(BARNS), tmp_path, journal=journal).run.run()
    assert not list(tmp_path.glob(".*.part*"))
    monkeypatch.undo()
    for file in tmp_path.glob("*.png"):
        Image.open(file, formats=["PNG"]).load()
    again = Made(planned(BARNS), tmp_path, journal=journal_in(tmp_path))
    assert again.run.run().made == 4


def test_what_others_make_is_counted(tmp_path: Path) -> None:
    plan = planned(BARNS)
    with journal_in(tmp_path) as other, journal_in(tmp_path) as mine:
        other.take([job.key for _, batches in plan.stocks() for (job,) in batches][:2])
        tally = Made(planned(BARNS), tmp_path, journal=mine).run.run()
    assert (tally.made, tally.elsewhere) == (len(BARNS) - 2, 2)
    assert tally.closing().endswith("; 2 are another process's")


def test_the_template_is_kept(tmp_path: Path) -> None:
    plan = BatchPlan(seed=5)
    plan.add(1, {"prompt": "a {red|blue} barn"}, {})
    made = Made(plan, tmp_path)
    made.run.run()
    (file,) = tmp_path.glob("*.png")
    with Image.open(file) as image:
        assert '"template": "a {red|blue} barn"' in image.text["diffgen"]  # type: ignore[attr-defined]


def test_a_bug_in_checking_a_line_is_a_problem_of_that_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = BatchPlan._keep

    def faulty(plan: BatchPlan, variant: Variant, record: Record) -> None:
        if variant.prompt == "bug":
            raise ZeroDivisionError("division by zero")
        keep(plan, variant, record)

    monkeypatch.setattr(BatchPlan, "_keep", faulty)
    entries = [Record(line, {"prompt": text}) for line, text in enumerate(("a", "bug", "bug"), 1)]
    with pytest.raises(BadFile) as bad:
        BatchPlan(seed=5).read(entries, {}, "p.txt")
    words = "unexpected ZeroDivisionError: division by zero (-v shows where)"
    assert bad.value.lines == (f"p.txt:2: {words}", f"p.txt:3: {words}")
