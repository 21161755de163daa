"""diffgen.batch.sheet: every picture in its place, and what differs below it."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffgen.batch.sheet import GAP, LABEL, SIDE, Sheet, check_sheet, columns_of
from diffgen.errors import OutputError, UsageError

RECORD: dict[str, Any] = {"prompt": "a barn", "seed": 1, "steps": 3, "guidance_scale": 4.0}
COLOURS = ["red", "lime", "blue", "black", "yellow"]


def filled(columns: int | None) -> Sheet:
    sheet = Sheet(columns)
    for i, colour in enumerate(COLOURS):
        sheet.add(Image.new("RGB", (400, 200), colour), RECORD | {"steps": i, "prompt": "\u8d64\n"})
    return sheet


@pytest.mark.parametrize(("columns", "width"), [(None, 3), (2, 2), (5, 5)])
def test_tiles_are_where_they_belong(tmp_path: Path, columns: int | None, width: int) -> None:
    filled(columns).save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        rows = -(-5 // width)
        step = SIDE + GAP, SIDE + LABEL + GAP
        assert image.size == (width * step[0] + GAP, rows * step[1] + GAP)
        for i, colour in enumerate(COLOURS):
            middle = GAP + i % width * step[0] + SIDE // 2, GAP + i // width * step[1] + SIDE // 2
            assert image.getpixel(middle) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
            label = image.crop((middle[0] - 90, middle[1] + 97, middle[0] + 90, middle[1] + 120))
            assert label.convert("L").getextrema()[0] < 128  # something is written


def test_the_row_of_a_matrix() -> None:
    assert columns_of([1, 3, 1, 2, 1]) == 2
    assert columns_of([1, 1]) is None


def test_names_and_folders(tmp_path: Path) -> None:
    check_sheet(None)
    with pytest.raises(UsageError, match=r"sheet\.txt: \.txt: pictures are png"):
        check_sheet("sheet.txt")
    with pytest.raises(OutputError, match="cannot write"):
        filled(None).save(tmp_path / "none" / "sheet.png")
