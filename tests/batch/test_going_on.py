"""What a second run of a file of prompts takes for made, and what it makes anew."""

import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from runs import planned

from diffgen.batch.plan import BatchPlan
from diffgen.batch.session import Session
from diffgen.batch.stock import Stock
from diffgen.engine.model import Model
from diffgen.settings.model import Adapters
from diffgen.weights.registry import PACKAGE

STORYBOOK = PACKAGE / "assets" / "storybook"
TURBO = PACKAGE / "assets" / "storybook-turbo" / "lora.safetensors"


def keys(plan: BatchPlan) -> list[str]:
    return [job.key for _, batches in plan.stocks() for batch in batches for job in batch]


def session(folder: Path, **given: Any) -> Session:
    file = folder / "p.txt"
    if not file.exists():
        file.write_text("a barn\na boat\n")
    return Session.open([], {"prompt_file": str(file), "output": f"{folder}/o/"} | given)


def test_lines_that_move_are_the_same_pictures() -> None:
    lines = [{"prompt": "a"}, {"prompt": "b", "seed": 3}, {"prompt": "a"}]
    moved = [{"prompt": "new"}, lines[1], lines[0]]
    before, after = keys(planned(lines)), keys(planned(moved))
    assert set(after) & set(before) == {before[0], before[1]}
    assert len(set(before)) == 3  # a line that is there twice is two pictures


def test_a_folder_of_pictures_to_begin_with_may_grow(tmp_path: Path) -> None:
    for name, colour in (("b", "red"), ("d", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    record = {"prompt": "a barn", "init": str(tmp_path), "seed": 1}
    before = keys(planned([record]))
    Image.new("RGB", (64, 64), "green").save(tmp_path / "a.png")
    grown = keys(planned([record]))
    assert grown[1:] == before
    Image.new("RGB", (64, 64), "black").save(tmp_path / "d.png")
    assert keys(planned([record]))[:2] == grown[:2]
    assert keys(planned([record]))[2] not in grown


def test_a_model_on_board_is_the_same_after_a_new_installation() -> None:
    model = Model.open("storybook")
    stamps = Stock.of(model, Adapters(), "").stamp
    files = {
        info.file for part in model.checkpoint.tensors.values() for info in part.infos.values()
    }
    times = {str(path.stat().st_mtime_ns) for path in files}
    assert stamps
    assert not any(time in stamp for stamp in stamps for time in times)


def test_another_file_behind_a_tag_makes_another_picture(tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    shutil.copy(TURBO, lora)
    prompts = ["a boat", f"a barn <lora:{lora}:0.7>"]
    lines = [{"prompt": prompt, "prompt_style": "a1111", "seed": 1} for prompt in prompts]
    before = keys(planned(lines))
    assert keys(planned(lines)) == before
    os.utime(lora, (1, 1))
    after = keys(planned(lines))
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_another_refiner_makes_another_picture(tmp_path: Path) -> None:
    refiner = tmp_path / "refiner"
    shutil.copytree(STORYBOOK, refiner)
    line = {"prompt": "a boat", "refiner": str(refiner), "refiner_start": 0.5, "seed": 1}
    before = keys(planned([line]))
    os.utime(refiner / "unet" / "diffusion_pytorch_model.safetensors", (1, 1))
    assert keys(planned([line])) != before


def test_options_that_change_no_picture_go_on_with_the_seed_that_was_drawn(tmp_path: Path) -> None:
    with session(tmp_path).journal(fresh=False) as first:
        drawn = first.seed
    others = {"strict": True, "device": "cpu", "skip_existing": True, "quiet": True}
    with session(tmp_path, **others).journal(fresh=False) as second:
        assert (second.is_known, second.seed) == (True, drawn)
    looked = session(tmp_path, dry_run=True).journal(fresh=False, look=True)
    assert looked.seed == drawn
    with session(tmp_path, negative="fog").journal(fresh=False) as third:
        assert not third.is_known
