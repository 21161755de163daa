import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training import make_recipe

from diffgen.train.tables import to_toml

ROOT = Path(__file__).parents[2]


def train(recipe, folder, *launcher):
    file = folder.with_suffix(".toml")
    file.write_text(to_toml(recipe))
    command = [sys.executable, *launcher, "-m", "diffgen", "train", str(file), "-o", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows, done.stdout.split()


def test_two_processes_are_one_with_twice_the_batch(squares, tmp_path):
    small = {"run.steps": 6, "run.validate_every": 3, "data.caption_dropout": 0.25}
    one = make_recipe(squares, {**small, "run.batch_size": 4})
    two = make_recipe(squares, {**small, "run.batch_size": 2})
    alone, _ = train(one, tmp_path / "one")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    together, printed = train(two, tmp_path / "two", *torchrun)
    assert printed == [str(tmp_path / "two" / "model")]
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    for key in ("loss", "grad_norm", "held_out_loss"):
        first, second = ([row[key] for row in rows if key in row] for rows in (alone, together))
        # Sums in another order, then six steps of AdamW, which magnifies tiny gradients.
        assert second == pytest.approx(first, rel=1e-4)
