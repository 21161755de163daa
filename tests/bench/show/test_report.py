import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from view_examples import (
    CELLS,
    NO_LIMIT,
    PROMPT,
    REASON,
    RESULTS,
    at_guidance,
    empty_results,
    make_folder,
    statistic,
)

from diffgen.bench.results import Timing
from diffgen.bench.show import views
from diffgen.bench.show.report import SCRIPTS, write_report
from diffgen.errors import OutputError


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def data_of(path):
    pattern = r'^<script type="application/json" id="data">(.*)</script>$'
    line = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return json.loads(line[1])


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.title = ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "title" and not self.title:
            self.title = data


def tags_of(path):
    parser = Tags()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_the_file_needs_nothing_beside_it(folder):
    path = write_report(RESULTS, folder)
    assert path == folder / "report.html"
    for tag, attributes in tags_of(path).found:
        for name in ("src", "href", "srcset"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    text = path.read_text(encoding="utf-8")
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML", text)


ASSETS = Path(views.__file__).parents[2] / "assets" / "report"


def test_modules_are_joined_into_one(folder):
    """A page opened as a file may import nothing, so each name is to be there once, before its use."""
    assert {path.name for path in ASSETS.glob("*.js")} == set(SCRIPTS)
    joined = write_report(RESULTS, folder).read_text(encoding="utf-8")
    assert not re.search(r"^(import|export)\b", joined, re.MULTILINE)
    names = []
    for script in SCRIPTS:
        text = (ASSETS / script).read_text(encoding="utf-8")
        assert text.startswith("// @ts-check\n")
        for imported, module in re.findall(
            r'^import \{ (.*) \} from "\./(.*)";$', text, re.MULTILINE
        ):
            assert SCRIPTS.index(module) < SCRIPTS.index(script)
            exported = re.findall(
                r"^export (?:async function|function|const|let) (\w+)",
                (ASSETS / module).read_text(encoding="utf-8"),
                re.MULTILINE,
            )
            assert set(imported.split(", ")) <= set(exported), (script, module)
        names += re.findall(
            r"^(?:export )?(?:async function|function|const|let) (\w+)", text, re.MULTILINE
        )
    assert len(names) == len(set(names))


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_modules_are_javascript(script):
    command = ["node", "--input-type=module", "--check"]
    done = subprocess.run(command, input=(ASSETS / script).read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_user_text_is_never_markup(folder):
    tags = tags_of(write_report(RESULTS, folder))
    names = [tag for tag, _ in tags.found]
    assert names.count("script") == 2  # the results, and what draws them
    assert "b" not in names
    assert tags.title == "sample-steps: tiny <model> $x$"
    data = data_of(folder / "report.html")
    assert data["prompts"] == [PROMPT, "another"]
    assert data["shown"] == {"prompt": PROMPT, "seed": "7"}


def test_pictures_are_inside(folder):
    data = data_of(write_report(RESULTS, folder))
    for key, cell in data["cells"].items():
        if cell["status"] == "failed":
            assert cell["picture"] is None
            continue
        head, _, body = cell["picture"].partition(",")
        assert head == "data:image/png;base64"
        assert b64decode(body) == (folder / "cells" / f"{key}.png").read_bytes()
    own = b64decode(data["references"]["dpmpp_sde"]["picture"].partition(",")[2])
    assert own == (folder / "cells" / "reference-dpmpp_sde.png").read_bytes()


def test_each_cell_knows_its_reference(folder):
    cells = data_of(write_report(RESULTS, folder))["cells"]
    found = {key: cell["reference"] for key, cell in cells.items()}
    assert found["ddim-leading-4"] == ""
    assert found["dpmpp_sde-karras-8"] == "dpmpp_sde"
    assert found["lcm-lcm-4"] is None
    assert found["unipc-karras-8"] is None


def test_cells_without_a_distance_have_reasons_and_no_figures(folder):
    cells = data_of(write_report(RESULTS, folder))["cells"]
    assert (cells["lcm-lcm-4"]["status"], cells["lcm-lcm-4"]["reason"]) == ("no_limit", NO_LIMIT)
    assert (cells["unipc-karras-8"]["status"], cells["unipc-karras-8"]["reason"]) == (
        "failed",
        REASON,
    )
    for key in ("lcm-lcm-4", "unipc-karras-8"):
        assert not {"psnr", "ssim", "latent_rmse"} & cells[key]["values"].keys()


def test_figures_as_text(folder):
    cell = data_of(write_report(RESULTS, folder))["cells"]["ddim-leading-8"]
    assert cell["text"]["psnr"] == "31.2 \N{PLUS-MINUS SIGN} 1.5 dB"
    assert dict(map(tuple, cell["numbers"])) == {
        "Network evaluations": "8",
        "Sampling": "0.160 s (0.144 s to 0.192 s)",
        "Decoding": "15 ms",
        "Peak memory": "400 MiB",
        "PSNR": "31.2 \N{PLUS-MINUS SIGN} 1.5 dB",
        "SSIM": "0.624 \N{PLUS-MINUS SIGN} 0.010",
        "Latent RMSE": "0.321 \N{PLUS-MINUS SIGN} 0.010",
        "Noise": "deterministic",
    }
    assert cell["settings"] == [["guidance", "5"]]
    assert cell["pictures"] == "30.2, 32.2"
    assert cell["shownPsnr"] == "30.2 dB"


def test_only_metrics_that_were_measured_are_offered(folder):
    names = [one["name"] for one in data_of(write_report(RESULTS, folder))["metrics"]]
    assert names == ["psnr", "ssim", "latent_rmse"]
    scored = replace(RESULTS, cells=[replace(cell, clip=statistic(0.3, 0.01)) for cell in CELLS])
    names = [one["name"] for one in data_of(write_report(scored, folder))["metrics"]]
    assert names[-1] == "clip"


def test_missing_pictures_and_no_cells(tmp_path):
    data = data_of(write_report(RESULTS, tmp_path))
    assert all(cell["picture"] is None for cell in data["cells"].values())
    data = data_of(write_report(empty_results(), tmp_path))
    assert (data["cells"], data["metrics"], data["answer"]) == ({}, [], None)


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*report\.html"):
        write_report(RESULTS, tmp_path / "missing")


def test_a_failed_write_leaves_the_old_report(folder, monkeypatch):
    old = write_report(RESULTS, folder).read_text(encoding="utf-8")

    def fail(path):
        path.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        views.write_file(folder / "report.html", fail)
    assert (folder / "report.html").read_text(encoding="utf-8") == old
    assert not list(folder.glob(".part-*"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00123, "1.23 ms"),
        (0.0994, "99.4 ms"),
        (0.0996, "0.0996 s"),
        (0.5, "0.500 s"),
        (12.34, "12.3 s"),
        (99.97, "100 s"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds_as_text(seconds, text):
    assert views.seconds_text(seconds) == text


def test_a_single_repeat_has_no_extremes():
    assert views.timing_text(Timing(0.5, 0.5, 0.5, (0.5,))) == "0.500 s"


def test_colours_repeat_only_with_another_line():
    many = [replace(CELLS[0], sampler=f"s{i}") for i in range(25)]
    drawn = [(s.colour, s.dashes) for s in views.all_series(replace(RESULTS, cells=many))]
    assert len(set(drawn)) == 25


def test_each_solution_has_its_own_reference_front_and_answer(folder):
    data = data_of(write_report(at_guidance(), folder))
    assert (data["axes"], data["solving"]) == (["guidance"], ["guidance"])
    assert len(data["series"]) == 2 * len(data_of(write_report(RESULTS, folder))["series"])
    for scale in ("3", "7"):
        one = data["cells"][f"ddim-leading-8-guidance_{scale}"]
        assert one["at"] == {"guidance": scale}
        assert one["reference"] == f"guidance_{scale}"
        assert data["references"][one["reference"]]["title"] == f"guidance {scale}"
        assert data["references"][one["reference"]]["shared"]
        assert not data["references"][f"dpmpp_sde-guidance_{scale}"]["shared"]
    assert [{key.rpartition("_")[2] for key in front} for front in data["fronts"]] == [{"3"}, {"7"}]
    assert data["recommended"] == "ddim-leading-8-guidance_3"
    assert [one["cell"] for one in data["others"]] == ["ddim-leading-8-guidance_7"]
