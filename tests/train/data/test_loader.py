import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from diffgen.errors import DiffgenError
from diffgen.train.data.loader import Shown, candidates, run
from diffgen.train.data.order import Draw


@dataclass
class Numbered:
    """A loader whose batches say who made them."""

    die_at: int = -1
    last: int = 1000

    def load(self, number):
        if number > self.last:
            raise IndexError(number)
        if number == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return Shown((1, 1), (Draw(number),), (str(os.getpid()).encode(),), ())


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pids, seconds=120.0):
    deadline = time.monotonic() + seconds
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(running(pid) for pid in pids)


def test_batches_come_in_order_from_all_workers():
    shown = list(run(Numbered(), start=5, stop=17, workers=3))
    assert [s.draws[0].index for s in shown] == list(range(5, 17))
    pids = {int(s.pixels[0]) for s in shown}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert wait_for_end(pids)


def test_workers_stop_where_they_are_told(capfd):
    """A list of batches has an end, past which there is nothing to load."""
    list(run(Numbered(last=5), stop=6, workers=2))
    assert capfd.readouterr().err == ""


def test_closing_ends_the_workers():
    batches = run(Numbered(), workers=2)
    pids = {int(next(batches).pixels[0]) for _ in range(4)}
    assert len(pids) == 2
    batches.close()
    assert not any(running(pid) for pid in pids)


def test_a_killed_worker_is_reported():
    with pytest.raises(DiffgenError, match=r"exit status -9.*fewer data\.workers"):
        list(run(Numbered(die_at=4), stop=8, workers=2))


PARENT = """
import sys, time
from diffgen.train.data.loader import run
from test_loader import Numbered
batches = run(Numbered(), workers=2)
for _ in range(4):
    print(next(batches).pixels[0].decode(), flush=True)
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print(next(batches).draws[0].index, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_workers_survive_ctrl_c_and_not_the_training():
    path = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        lines = [line.strip() for line in iter(parent.stdout.readline, "ready\n")]
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        assert parent.stdout.readline() == "4\n"  # the stream goes on, to finish the step
        parent.kill()
    assert len(set(lines)) == 2
    assert wait_for_end({int(pid) for pid in lines})


def test_candidates_go_round_once():
    assert list(candidates(5, (2, 5, 7))) == [5, 7, 2]
    assert list(candidates(7, (2, 5, 7))) == [7, 2, 5]
    assert list(candidates(5, ())) == [5]
