import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from PIL import Image, ImageChops
from view_examples import CELLS, RESULTS, empty_results

from diffgen.bench.show.plots import write_plots
from diffgen.errors import OutputError


def svg_texts(folder):
    root = ET.parse(folder / "plots.svg").getroot()
    return [
        "".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def test_both_files_hold_the_two_plots(tmp_path):
    write_plots(RESULTS, tmp_path)
    with Image.open(tmp_path / "plots.png") as picture:
        assert picture.width > 1000
        blank = Image.new("RGB", picture.size, "white")
        assert ImageChops.difference(picture.convert("RGB"), blank).getbbox()
    texts = svg_texts(tmp_path)
    assert {"Network evaluations", "Seconds for one picture"} <= set(texts)
    assert {"floor of the reference", "recommended", "Pareto front"} <= set(texts)
    assert {"ddim + leading", "heun + karras", "dpmpp_sde + karras"} <= set(texts)


def test_cells_without_a_distance_are_not_drawn(tmp_path):
    write_plots(RESULTS, tmp_path)
    assert not {"lcm + lcm", "unipc + karras"} & set(svg_texts(tmp_path))


def test_a_model_may_be_called_anything(tmp_path):
    write_plots(
        replace(RESULTS, model="$broken^ {$ \N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-4E00}"), tmp_path
    )
    assert any("$broken^ {$" in text for text in svg_texts(tmp_path))


def test_one_cell_is_enough(tmp_path):
    write_plots(replace(RESULTS, cells=CELLS[:1], front=(), recommendation=None), tmp_path)
    assert "ddim + leading" in svg_texts(tmp_path)


@pytest.mark.parametrize("cells", [(), CELLS[-2:]])
def test_nothing_measured_says_so(tmp_path, cells):
    write_plots(replace(empty_results(), cells=cells), tmp_path)
    assert svg_texts(tmp_path).count("no cell was measured") == 2


def test_the_same_results_give_the_same_file(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_plots(RESULTS, tmp_path / name)
    assert (tmp_path / "a/plots.svg").read_bytes() == (tmp_path / "b/plots.svg").read_bytes()


def test_many_samplers_find_room(tmp_path):
    many = [replace(CELLS[0], sampler=f"sampler_{i}") for i in range(25)]
    write_plots(replace(RESULTS, cells=many), tmp_path)
    assert {f"sampler_{i} + leading" for i in range(25)} <= set(svg_texts(tmp_path))


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*plots\.png"):
        write_plots(RESULTS, tmp_path / "missing")


def test_drawing_needs_no_display_and_no_pyplot(tmp_path):
    code = (
        "import sys; from view_examples import RESULTS; from pathlib import Path;"
        "from diffgen.bench.show.plots import write_plots; assert 'matplotlib' not in sys.modules;"
        f"write_plots(RESULTS, Path({str(tmp_path)!r}));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "MPLBACKEND": "TkAgg", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
