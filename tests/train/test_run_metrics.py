"""diffgen.train.metrics: rows in metrics.jsonl and, as they are written, in TensorBoard."""

import json
import math
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffgen.train.metrics import Metrics, means_of, plot_curve, read_rows

ROWS = [{"step": step, "loss": 1.0 / step, "lr": 0.001} for step in (1, 2, 3)]


def board(run):
    """The scalars that TensorBoard shows of a run: (step, value) by name."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def test_tensorboard_shows_each_row_as_it_is_written(tmp_path):
    metrics = Metrics(tmp_path, step=0)
    for count, row in enumerate(ROWS, 1):
        metrics.write(row)
        assert read_rows(metrics.path) == ROWS[:count]
        for name in ("loss", "lr"):
            steps, values = zip(*board(tmp_path)[name], strict=True)
            assert steps == tuple(r["step"] for r in ROWS[:count])
            assert values == pytest.approx([r[name] for r in ROWS[:count]])
    assert "step" not in board(tmp_path)


def test_rows_of_a_killed_run_are_dropped_when_it_goes_on(tmp_path):
    before = Metrics(tmp_path, step=0)
    for row in ROWS:
        before.write(row)
    second = int(time.time())
    while int(time.time()) == second:  # TensorBoard orders its files by seconds
        time.sleep(0.01)
    after = Metrics(tmp_path, step=2)
    after.write({"step": 3, "loss": 9.0, "lr": 0.001})
    assert [row["loss"] for row in read_rows(after.path)] == [1.0, 0.5, 9.0]
    assert board(tmp_path)["loss"] == [(1, 1.0), (2, 0.5), (3, 9.0)]


def test_without_tensorboard_there_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Metrics(tmp_path, step=0).write(ROWS[0])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1])[:-4], encoding="utf-8")
    assert read_rows(path) == ROWS[:1]
    assert read_rows(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", ["[1]", "7", "{}", "[" * 10_000, "9" * 10_000])
def test_a_line_that_is_no_row_ends_the_rows(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(ROWS[0])}\n{line}\n{json.dumps(ROWS[1])}\n", encoding="utf-8")
    assert read_rows(path) == ROWS[:1]


def test_the_curve_is_a_picture(tmp_path):
    plot_curve([*ROWS, {"step": 3, "held_out_loss": 0.4}], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def strict_rows(path):
    """What a reader that knows JSON alone makes of the lines."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5, "grad_norm": Infinity}\n', encoding="utf-8")
    metrics = Metrics(tmp_path, step=1)  # a row of an earlier version is put right
    metrics.write({"step": 2, "loss": math.nan, "grad_norm": 1.0})
    assert strict_rows(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "grad_norm": 1.0}]
    assert board(tmp_path)["grad_norm"] == [(2, 1.0)]
    assert "loss" not in board(tmp_path)
    plot_curve(read_rows(path), tmp_path / "loss.png")


def test_a_damaged_line_ends_what_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for damage in (b"\xff\xfe\n", b'{"step": 2, "lo', b"[1]\n", b'{"step": "x"}\n', b"null\n"):
        path.write_bytes(b'{"step": 1, "loss": 0.5}\n' + damage)
        assert read_rows(path) == [{"step": 1, "loss": 0.5}]


def test_an_average_stays_finite_beside_a_step_that_is_not():
    rows = [{"loss": 1.0, "norm": math.inf}, {"loss": 2.0, "norm": 3.0}]
    assert means_of(rows) == {"loss": 1.5, "norm": 3.0}
    assert means_of(rows[:1]) == {"loss": 1.0}
