from dataclasses import replace

import pytest
from rich.console import Console
from view_examples import (
    CELLS,
    NO_LIMIT,
    REASON,
    RESULTS,
    at_guidance,
    cell,
    empty_results,
    statistic,
)

from diffgen.bench.show.table import results_table


def lines(results, width=80):
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(results_table(results))
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def rows(results, width=80):
    """The words of each row, the mark first ("" where there is none)."""
    body = lines(results, width)[2:]
    found = [[line[:2].strip(), *line[2:].split()] for line in body if line[2] == " "]
    return [words for words in found if words[3:] and words[3].isdigit()]


def row(results, *start):
    return next(words for words in rows(results) if tuple(words[1:])[: len(start)] == start)


def test_fewest_evaluations_first_then_quality_and_failed_ones_last():
    assert [tuple(words[1:5]) for words in rows(RESULTS)] == [
        ("ddim", "leading", "4", "4"),
        ("lcm", "lcm", "4", "4"),
        ("heun", "karras", "4", "7"),
        ("ddim", "leading", "8", "8"),
        ("heun", "karras", "8", "15"),
        ("dpmpp_sde", "karras", "8", "15"),
        ("ddim", "leading", "16", "16"),
        ("unipc", "karras", "8", "8"),
    ]


def test_marks_of_front_and_recommendation():
    marks = {"-".join(words[1:4]): words[0] for words in rows(RESULTS) if words[0]}
    assert marks == {
        "ddim-leading-4": "*",
        "ddim-leading-8": ">*",
        "heun-karras-8": "*",
        "ddim-leading-16": "*",
    }


def test_figures_of_a_cell():
    words = row(RESULTS, "ddim", "leading", "8")
    assert words == [">*", "ddim", "leading", "8", "8", "0.160", "31.2", "1.5", "0.624", "0.321"]


def test_a_single_picture_has_no_interval():
    single = replace(CELLS[0], psnr=replace(statistic(20.0), ci95=0.0, values=(20.0,)))
    assert row(replace(RESULTS, cells=(single,)), "ddim")[6:8] == ["20.0", "0.400"]


def test_cells_without_a_distance_say_why():
    text = " ".join(" ".join(lines(RESULTS)).split())
    assert f"no limit: lcm + lcm 4 ({NO_LIMIT})" in text
    assert f"failed: unipc + karras 8 ({REASON})" in text
    assert row(RESULTS, "lcm")[5:] == ["0.081", "no", "limit"]
    assert row(RESULTS, "unipc")[5:] == ["-", "failed"]


def test_one_reason_is_given_once():
    failed = [replace(CELLS[-1], steps=steps) for steps in (16, 4, 8)]
    text = " ".join(" ".join(lines(replace(RESULTS, cells=failed))).split())
    assert "unipc + karras 4/8/16 (" in text
    assert text.count(REASON) == 1


def test_markup_in_a_reason_is_text():
    failed = replace(CELLS[-1], reason="shape [red]4[/red] [/]")
    assert "shape [red]4[/red] [/]" in "\n".join(lines(replace(RESULTS, cells=(failed,))))


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "dpm_adaptive"])
def test_it_fits_80_columns_with_all_columns(sampler):
    wide = cell(
        sampler, "polyexponential", 1000, psnr=20.123, seconds=123.4, clip=statistic(0.31, 0.01)
    )
    results = replace(RESULTS, cells=(*CELLS, wide))
    text = lines(results)
    assert max(map(len, text)) <= 80
    assert any(sampler in line and "1000" in line and "0.31" in line for line in text)


def test_no_cells_make_an_empty_table():
    assert any("sampler" in line for line in lines(empty_results()))


def test_an_axis_has_a_column_and_its_cells_stand_together():
    words = rows(at_guidance())  # so the schedule is cut
    assert [each[4] for each in words] == [*["3"] * 7, *["7"] * 7, "3", "7"]  # failed ones last
    assert [each[:6] for each in words if each[0] == ">*"] == [
        [">*", "ddim", "leadin", "8", scale, "8"] for scale in ("3", "7")
    ]
    assert sum("*" in each[0] for each in words) == 2 * len(RESULTS.front)


def test_a_table_with_axes_says_what_its_distances_are_to():
    text = " ".join(" ".join(lines(at_guidance())).split())
    assert "two solvers of each reference agree to 58.0 dB or more" in text
    assert "PSNR: to the converged picture of the same guidance; * and > hold within it" in text
    assert "no limit: lcm + lcm, guidance 3, 4, lcm + lcm, guidance 7, 4 (" in text


def test_a_sampler_without_the_setting_has_a_dash():
    cells = [replace(CELLS[0], at={"eta": 0.5}), cell("heun", "karras", 4, psnr=20.0, seconds=1.0)]
    made = rows(replace(RESULTS, cells=cells))
    assert [each[1:5] for each in made] == [
        ["ddim", "leading", "4", "0.5"],
        ["heun", "karras", "4", "-"],
    ]
