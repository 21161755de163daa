"""diffgen.bench.result_files: the results of a sweep, written and read back."""

import csv
import json
import math
import os
from dataclasses import replace

import pytest
from sweep_examples import cell, results

from diffgen.bench.result_files import read_results, write_results
from diffgen.bench.results import Recommendation
from diffgen.errors import OutputError, UsageError

FULL = results(
    [cell(ssim=0.9, settings={"eta": 0.0, "guidance": 4.0}), cell("lcm", psnr=None, seconds=None)],
    front=("ddim-karras-10",),
    knees={"ddim-karras": 10},
    recommendation=Recommendation(cell="ddim-karras-10", sentence="take it"),
)


def test_results_come_back_as_they_were(tmp_path):
    write_results(FULL, tmp_path)
    assert read_results(tmp_path / "results.json") == FULL
    assert read_results(tmp_path) == FULL


def test_results_without_a_recommendation_come_back(tmp_path):
    bare = replace(FULL, recommendation=None, cells=(), front=())
    write_results(bare, tmp_path)
    assert read_results(tmp_path) == bare


def test_the_csv_has_every_cell_with_its_settings(tmp_path):
    write_results(FULL, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["sampler"], first["steps"], first["psnr"]) == ("ddim", "10", "30.0")
    assert (first["seconds_median"], first["set_eta"], first["threads"]) == ("1.0", "0.0", "1")
    assert (second["sampler"], second["psnr"], second["set_eta"]) == ("lcm", "", "")
    assert float(first["psnr_ci95"]) > 0.0
    assert (first["ssim"], first["ssim_ci95"]) == ("0.9", "")  # of one picture, so unknown


def test_nothing_half_written_is_left(tmp_path):
    write_results(FULL, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not the JSON of a sweep"),
        ("[]", "schema null"),
        ('{"schema": "diffgen.sample-steps/9"}', 'schema "diffgen.sample-steps/9"; this diffgen'),
        ('{"schema": "diffgen.sample-steps/1"}', "is damaged"),
    ],
)
def test_unusable_results_are_refused(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_results(tmp_path)


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_results(tmp_path / "none.json")


def test_a_cell_with_an_unknown_field_is_damage(tmp_path):
    write_results(FULL, tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    data["cells"][0]["colour"] = 1
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is damaged"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("model",), 7, "model should be a string"),
        (("cells",), {}, "cells should be a list"),
        (("cells", 0), "x", r"cells\[0\] should be an object"),
        (("cells", 0, "steps"), "10", r"cells\[0\].steps should be a whole number"),
        (("cells", 0, "steps"), 0, r"cells\[0\] has 0 steps"),
        (("cells", 0, "status"), "fine", r"cells\[0\].status is none of ok, no_limit, failed"),
        (("cells", 0, "stochastic"), "no", r"cells\[0\].stochastic should be true or false"),
        (("cells", 0, "psnr", "mean"), "31.2", r"cells\[0\].psnr.mean should be a number"),
        (("cells", 0, "psnr", "mean"), math.nan, r"cells\[0\].psnr.mean should be a finite number"),
        (("cells", 0, "psnr", "values"), [], r"cells\[0\].psnr has no values"),
        (("cells", 0, "seconds", "median"), -1.0, r"cells\[0\].seconds should be numbers above 0"),
        (("cells", 0, "seconds", "repeats"), [], r"cells\[0\].seconds should be numbers above 0"),
        (("references", ""), None, r"references. should be an object"),
        (("knees",), {"ddim-karras": 1.5}, r"knees.ddim-karras should be a whole number"),
    ],
)
def test_values_of_another_type_are_named_with_file_and_key(tmp_path, place, value, message):
    write_results(FULL, tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    *parents, last = place
    table = data
    for name in parents:
        table = table[name]
    table[last] = value
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=rf"results\.json is damaged: {message}") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cell_s_place_on_the_axes_comes_back(tmp_path):
    at = {"guidance": 3.0, "method": "apg"}
    varied = results([cell(at=at, settings={"eta": 0.0, **at})])
    write_results(varied, tmp_path)
    assert read_results(tmp_path) == varied
    assert varied.cells[0].key == "ddim-karras-10-guidance_3-method_apg"
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["set_guidance"], row["set_method"]) == ("3.0", "apg")


def test_results_of_the_first_version_are_read(tmp_path):
    write_results(FULL, tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    data["schema"] = "diffgen.sample-steps/1"
    del data["other_recommendations"]
    for one in data["cells"]:
        del one["at"]
    for reference in data["references"].values():
        del reference["title"]
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert read_results(tmp_path) == replace(FULL, schema="diffgen.sample-steps/1")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write into"):
        write_results(FULL, tmp_path / "file")
