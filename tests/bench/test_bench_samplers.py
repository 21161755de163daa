import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parity
def test_the_side_by_side_runs_and_both_sides_agree(tmp_path):
    """With the same sampler, spacing and steps, diffusers and diffgen draw one picture."""
    command = [sys.executable, "scripts/bench_samplers.py", "red barn at sunset"]
    command += ["--goals", "3:2:2", "--seeds", "0-1", "--choose-seeds", "7", "--reference", "8"]
    command += [
        "--samplers",
        "dpmpp_2m",
        "--schedules",
        "trailing",
        "--json",
        tmp_path / "out.json",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heading, _, theirs, karras, ours = done.stdout.splitlines()[3:]
    assert "latent RMSE" in heading
    assert theirs.startswith("| 3 | diffusers DPM++ 2M, trailing | 2 |")
    assert karras.startswith("| 3 | diffusers DPM++ 2M, Karras | 2 |")
    assert ours.startswith("| 3 | diffgen dpmpp_2m + trailing | 2 |")
    rows = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert [len(row["psnr"]) for row in rows] == [2, 2, 2]
    # Both to the converged picture: they differ by rounding, which 8-bit pictures hardly show.
    assert rows[2]["psnr"] == pytest.approx(rows[0]["psnr"], abs=0.02)
    assert rows[2]["rmse"] == pytest.approx(rows[0]["rmse"], rel=1e-3)
    assert rows[1]["rmse"] != pytest.approx(rows[0]["rmse"], rel=1e-2)
