from dataclasses import replace

import pytest
from PIL import Image
from view_examples import CELLS, MODEL, RESULTS, SIZE, empty_results, make_folder

from diffgen.bench.show import tiles
from diffgen.bench.show.sheet import Layout, write_sheet
from diffgen.errors import OutputError

TILE = tiles.tile_size(*SIZE)
LAYOUT = Layout(TILE, (4, 8, 16), 5)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def tile_at(sheet, row, column):
    x, y = LAYOUT.place(row, column)
    return sheet.crop((x, y, x + TILE[0], y + TILE[1]))


def picture(folder, name):
    with Image.open(folder / "cells" / f"{name}.png") as image:
        return image.convert("RGB").resize(TILE, Image.Resampling.NEAREST)


def test_every_picture_is_in_its_place(folder):
    path = write_sheet(RESULTS, folder)
    assert path == folder / "sheet.png"
    with Image.open(path) as sheet:
        assert sheet.size == LAYOUT.size
        for name, place in {
            "ddim-leading-4": (0, 0),
            "ddim-leading-8": (0, 1),
            "ddim-leading-16": (0, 2),
            "heun-karras-8": (1, 1),
            "dpmpp_sde-karras-8": (2, 1),
            "lcm-lcm-4": (3, 0),
            "reference": (0, 3),
            "reference-dpmpp_sde": (2, 3),
        }.items():
            assert tile_at(sheet, *place).tobytes() == picture(folder, name).tobytes(), name


def test_what_has_no_reference_or_picture_is_grey(folder):
    shade = (0xEF, 0xEC, 0xE5)
    with Image.open(write_sheet(RESULTS, folder)) as sheet:
        for place in [(3, 3), (4, 1), (4, 3)]:  # lcm has no limit, unipc failed
            assert tile_at(sheet, *place).getpixel((TILE[0] - 1, TILE[1] - 1)) == shade


def test_a_stale_picture_of_a_failed_cell_is_not_shown(folder):
    write_sheet(RESULTS, folder)
    before = (folder / "sheet.png").read_bytes()
    Image.new("RGB", SIZE, "red").save(folder / "cells" / "unipc-karras-8.png")
    write_sheet(RESULTS, folder)
    assert (folder / "sheet.png").read_bytes() == before


def test_only_the_recommended_cell_is_framed(folder):
    accent = (0xA8, 0x40, 0x1D)
    with Image.open(write_sheet(RESULTS, folder)) as sheet:
        corners = {
            (row, column): sheet.getpixel((x - 4, y - 4))
            for row in range(3)
            for column in range(3)
            for x, y in [LAYOUT.place(row, column)]
        }
    assert [place for place, colour in corners.items() if colour == accent] == [(0, 1)]


def test_no_pictures_no_sheet(tmp_path):
    assert write_sheet(RESULTS, tmp_path) is None
    assert write_sheet(empty_results(), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_grey_pictures_and_long_prompts(tmp_path):
    (tmp_path / "cells").mkdir()
    Image.new("L", (300, 200), 9).save(tmp_path / "cells" / "ddim-leading-4.png")
    settings = {"prompts": ["very long " * 100 + "\N{SNOWMAN}\nline"], "seeds": [0]}
    results = replace(RESULTS, cells=CELLS[:1], model=MODEL, settings=settings)
    with Image.open(write_sheet(results, tmp_path)) as sheet:
        assert sheet.size == Layout((256, 170), (4,), 1).size


def test_an_unwritable_folder_is_one_clear_error(folder):
    (folder / "sheet.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*sheet\.png"):
        write_sheet(RESULTS, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cells", "sheet.png"]


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((8, 8), (128, 128)),
        ((64, 64), (128, 128)),
        ((200, 100), (200, 100)),
        ((1024, 512), (256, 128)),
    ],
)
def test_small_pictures_grow_by_a_whole_factor(size, tile):
    assert tiles.tile_size(*size) == tile
