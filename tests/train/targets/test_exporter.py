"""diffgen.train.targets.exporter: a model that was one file comes out as a folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import single_files
from training import Listener, make_recipe

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.train import run


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_full_training_of_a_single_file_writes_a_folder(
    squares: Path, tmp_path: Path, family: str
) -> None:
    """At a rate of 0 the folder draws what the file draws, to the bit."""
    file = tmp_path / f"{family}.safetensors"
    single_files.write_single_file(file, single_files.make_pipeline(family), family)
    changes = {"model": {"base": str(file)}, "data.size": 64, "optimizer.lr": 0.0}
    more = {"run.steps": 1, "run.save_dtype": "fp32", "data.validation": 0}
    run.train(
        make_recipe(squares, {**changes, **more}),
        tmp_path / "run",
        resume=False,
        reporter=Listener(),
    )
    request = GenerateRequest(
        prompts=["a red square"], steps=1, seed=1, guidance_scale=3.0, width=64, height=64
    )
    engines = [
        Engine.load(source, device="cpu", dtype="fp32")
        for source in (file, tmp_path / "run" / "model")
    ]
    first, second = (next(iter(engine.generate(request))).image.tobytes() for engine in engines)
    assert first == second
    configs = [engine.config for engine in engines]
    assert replace(configs[1], family=configs[0].family, text=configs[0].text) == configs[0]
