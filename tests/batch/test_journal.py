"""diffgen.batch.journal: what is made, after any death, for any number of processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffgen.batch.journal import Journal, key_of
from diffgen.errors import OutputError, UsageError

KEYS = [key_of({"prompt": "a barn", "seed": seed}) for seed in range(6)]


def begun(folder: Path, request: str = "r", seed: int = 7, fresh: bool = False) -> Journal:
    return Journal(folder / "p.journal.jsonl", request=request, seed=seed, fresh=fresh)


def make(journal: Journal, key: str) -> Path:
    path = journal.path.parent / f"{key}.png"
    journal.made(key, path, 3)
    path.write_bytes(b"png")
    return path


def test_a_run_goes_on_where_another_stopped(tmp_path: Path) -> None:
    with begun(tmp_path) as first:
        assert first.take(KEYS[:4]) == KEYS[:4]
        for key in KEYS[:2]:
            make(first, key)
    with begun(tmp_path, seed=9) as second:
        assert second.seed == 7  # drawn by the first
        assert second.take(KEYS) == KEYS[2:]
        assert second.take(KEYS) == []


def test_another_request_draws_its_own_seed(tmp_path: Path) -> None:
    begun(tmp_path).close()
    with begun(tmp_path, request="other", seed=9) as journal:
        assert (journal.seed, journal.is_known) == (9, False)


def test_a_picture_that_is_gone_or_cut_short_is_made_again(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS)
        gone, cut, _ = (make(journal, key) for key in KEYS[:3])
    gone.unlink()
    cut.write_bytes(b"p")
    with begun(tmp_path) as journal:
        assert journal.take(KEYS[:3]) == KEYS[:2]


def test_a_failure_is_tried_again_by_the_next_run_only(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS[:1])
        journal.failed(KEYS[0], "no memory")
        assert journal.take(KEYS[:1]) == []
    with begun(tmp_path) as journal:
        entry = journal.entry(KEYS[0])
        assert entry is not None
        assert entry.error == "no memory"
        assert journal.take(KEYS[:1]) == KEYS[:1]


def test_fresh_starts_over(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS[:1])
        make(journal, KEYS[0])
    with begun(tmp_path, seed=8, fresh=True) as journal:
        assert journal.seed == 8
        assert journal.take(KEYS[:1]) == KEYS[:1]


def test_fresh_waits_for_whoever_is_at_work(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS[:1])
        with pytest.raises(OutputError, match="in use by another process"):
            begun(tmp_path, fresh=True)


def test_two_share_the_pictures(tmp_path: Path) -> None:
    with begun(tmp_path) as one, begun(tmp_path) as two:
        assert one.take(KEYS[:2]) == KEYS[:2]
        assert two.take(KEYS) == KEYS[2:]
        two.failed(KEYS[2], "x")
        assert one.take(KEYS) == []
        one.release(KEYS[:1])
        assert two.take(KEYS) == KEYS[:1]


@pytest.mark.parametrize(
    "damage",
    [b'{"key": "ab', b"\xff\xfe\x00", b"[1, 2]\n", b'{"key": 1, "state": "made"}\n', b"[" * 99999],
)
def test_damaged_lines_are_named_and_cost_nothing_else(tmp_path: Path, damage: bytes) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS[:1])
        make(journal, KEYS[0])
    with journal.path.open("ab") as file:
        file.write(damage)
    with begun(tmp_path) as journal:
        assert journal.damaged == [4]
        assert journal.take(KEYS[:2]) == KEYS[1:2]
        make(journal, KEYS[1])
    with begun(tmp_path) as journal:
        assert journal.take(KEYS[:2]) == []
        assert journal.damaged == [4]


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "p.journal.jsonl").write_text("my notes\n")
    with pytest.raises(UsageError, match="is no journal of diffgen; move it away"):
        begun(tmp_path)


def test_a_journal_of_the_future(tmp_path: Path) -> None:
    (tmp_path / "p.journal.jsonl").write_text('{"journal": 99, "request": "r"}\n')
    with pytest.raises(UsageError, match="another version of diffgen"):
        begun(tmp_path)
    with begun(tmp_path, fresh=True) as journal:  # as the error says
        assert journal.take(["a"]) == ["a"]


def test_a_look_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o" / "p.journal.jsonl"
    looked = Journal(path, request="r", seed=3, look=True)
    assert (looked.seed, looked.has_pictures, list(tmp_path.iterdir())) == (3, False, [])
    with begun(path.parent) as journal:
        make(journal, KEYS[0])
    before = sorted(path.parent.iterdir())
    looked = Journal(path, request="r", seed=3, look=True)
    assert (looked.seed, looked.is_made(KEYS[0]), looked.is_made(KEYS[1])) == (7, True, False)
    assert sorted(path.parent.iterdir()) == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot keep the journal"):
        begun(tmp_path / "file")


def test_lines_are_plain_json_without_secrets_of_the_machine(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.take(KEYS[:1])
        journal.made(KEYS[0], tmp_path / "a.png", 3, seconds=1.5)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert lines[0]["journal"] == 1
    assert lines[-1] | {"by": ""} == {
        "key": KEYS[0],
        "state": "made",
        "by": "",
        "path": "a.png",
        "size": 3,
        "seconds": 1.5,
    }


WORK = """
import sys, time
from pathlib import Path
from diffgen.batch.journal import Journal
with Journal(Path(sys.argv[1]) / "p.journal.jsonl", request="r", seed=1) as journal:
    dies_at = int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        for key in journal.take([f"{number:024x}"]):
            if number >= dies_at:
                print("taken", flush=True)
                sys.stdin.readline()
            path = journal.path.parent / f"{key}-{journal._me}.png"
            time.sleep(0.002)
            journal.made(key, path, 3)
            path.write_bytes(b"png")
"""


def test_processes_share_and_one_may_die(tmp_path: Path) -> None:
    """The first dies with a key in hand, while the others are at theirs."""
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, dies_at], **pipes) for dies_at in ("3", "100", "100")]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
        if worker is workers[0]:
            assert worker.stdout.readline() == "taken\n"
    os.kill(workers[0].pid, signal.SIGKILL)
    for worker in workers:
        worker.communicate(timeout=300)
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0]
    keys = [f"{number:024x}" for number in range(100)]
    made = [path.name[:24] for path in tmp_path.glob("*.png")]
    assert len(made) == len(set(made)) >= 99
    with begun(tmp_path) as journal:
        assert set(journal.take(keys)) == set(keys) - set(made)
        journal.forget_the_dead()
    # Of the dead, no sign is left but what tells processes apart.
    assert not list(tmp_path.glob(".p.journal.jsonl.?*.lock"))


def test_a_journal_that_goes_away_is_not_made_again(tmp_path: Path) -> None:
    """Its folder may be an unmounted disk's: what is written there then is lost or in the way."""
    (tmp_path / "o").mkdir()
    with begun(tmp_path / "o") as journal:
        shutil.rmtree(tmp_path / "o")
        with pytest.raises(OutputError, match=r"p\.journal\.jsonl is gone, or the disk it is on"):
            journal.take(["a"])
        with pytest.raises(OutputError, match="is gone"):
            journal.made("a", tmp_path / "o" / "a.png", 3)
    assert not (tmp_path / "o").exists()


def test_the_living_are_not_forgotten(tmp_path: Path) -> None:
    with begun(tmp_path) as one, begun(tmp_path) as two:
        (tmp_path / ".p.journal.jsonl.0123456789ab.lock").touch()
        one.forget_the_dead()
        assert len(list(tmp_path.glob(".p.journal.jsonl.?*.lock"))) == 2
        assert two.take(["a"]) == ["a"]
        assert one.take(["a"]) == []
