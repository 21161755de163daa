"""The report in a real Chromium: what a reader clicks, types and sees."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium_page import Page
from PIL import Image
from view_examples import (
    MODEL,
    NO_LIMIT,
    PROMPT,
    REASON,
    RESULTS,
    SEVERAL,
    SIZE,
    empty_results,
    make_folder,
)

from diffgen.bench.answer import RULE
from diffgen.bench.show.report import write_report

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LOCAL = ("file:", "data:", "chrome:", "chrome-untrusted:")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER),
        reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page.launch(CHROMIUM, CHROMEDRIVER, tmp_path_factory.mktemp("profile"))
    yield page
    page.driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(RESULTS, make_folder(tmp_path_factory.mktemp("report")))


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The page freshly opened; whatever happens to it, nothing may be logged or fetched."""
    browser.driver.get_log("browser")
    browser.requests()
    yield browser.open(report)
    assert browser.driver.get_log("browser") == []
    # chrome: and chrome-untrusted: are what the browser's own start page is made of.
    assert [url for url in browser.requests() if not url.startswith(LOCAL)] == []


DIFFERENCE = """(() => {
    const canvas = document.querySelector('#shown-difference canvas');
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return [...data].filter((_, i) => i % 4 < 3);
})()"""
# A picture's width is known, and it can be compared, before its load event has run the page's code.
LOADED = "[...document.querySelectorAll('#dialog-pictures img')].every((i) => i.style.getPropertyValue('--natural'))"
COMPARED = "document.querySelector('#shown-difference canvas')?.dataset.factor"


def tile(key):
    return f'button.tile[data-key="{key}"]'


def first_column(page):
    return page.texts("#cells tbody th")


def test_the_head_says_what_was_measured(page):
    assert page.text("#model") == MODEL
    assert page.texts("#prompts li") == [PROMPT, "another"]
    assert page.driver.title == f"sample-steps: {MODEL}"  # no prompt has changed it
    assert page.text("#sentence").startswith("ddim + leading, 8 steps")
    assert page.text("#sentence").endswith("from the converged picture, <fine>")
    assert page.pairs("#key-figures")["PSNR"] == "31.2 dB"
    assert page.run("document.querySelectorAll('#answer-pictures img').length") == 2


def test_every_picture_on_the_page_loads(page):
    page.wait("[...document.images].every((image) => image.complete)")
    sizes = page.run("[...document.images].map((i) => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [list(SIZE)] * len(sizes)
    assert len(sizes) == 2 + 7 + 3  # recommendation, cells, a reference for each row that has one


def test_a_click_shows_the_cell_beside_its_reference(page):
    page.click(tile("ddim-leading-16"))
    assert page.find("#dialog").is_displayed()
    assert page.text("#dialog-title") == "ddim + leading, 16 steps"
    page.wait(LOADED)
    assert page.wait(COMPARED) == "32"  # the pictures differ by 6 of 255
    assert max(page.run(DIFFERENCE)) == 6 * 32
    assert (
        page.text("#shown-difference figcaption")
        == "difference \N{MULTIPLICATION SIGN}32; the largest is 6 of 255"
    )
    for name, file in {"picture": "ddim-leading-16", "reference": "reference"}.items():
        shown = page.run(f"document.querySelector('#shown-{name} img').src")
        assert shown == page.run(PICTURE_OF, file)
        size = page.run(
            f"(({name}) => [{name}.naturalWidth, {name}.naturalHeight])(document.querySelector('#shown-{name} img'))"
        )
        assert tuple(size) == SIZE
    numbers = page.pairs("#dialog-numbers")
    assert numbers["PSNR"] == "36.0 \N{PLUS-MINUS SIGN} 1.5 dB"
    assert numbers["Sampling"] == "0.320 s (0.288 s to 0.384 s)"
    assert numbers["PSNR of each picture"] == "35.0, 37.0"
    assert page.pairs("#dialog-settings")["guidance"] == "5"
    assert page.pairs("#dialog-settings")["Compared with"].startswith("dpmpp_3m + exponential")


DATA = "JSON.parse(document.getElementById('data').textContent)"
PICTURE_OF = f"{DATA}.cells[arguments[0]]?.picture ?? {DATA}.references[''].picture"


def test_equal_pictures_have_no_difference(page):
    page.click(tile("ddim-leading-4"))
    page.wait(COMPARED)
    assert not any(page.run(DIFFERENCE))
    assert "equal to the last bit" in page.text("#shown-difference figcaption")


def test_small_pictures_are_enlarged_as_squares(page):
    page.click(tile("ddim-leading-8"))
    page.wait(LOADED)
    page.wait(COMPARED)
    for selector in ("#shown-picture img", "#shown-reference img", "#shown-difference canvas"):
        shown = page.find(selector)
        assert shown.value_of_css_property("image-rendering") == "pixelated"
        assert shown.size["width"] >= 200
        assert shown.size["width"] % SIZE[0] == 0
    assert not page.find("#dialog-zoom").is_displayed()


def test_a_stochastic_sampler_is_shown_beside_its_own_limit(page):
    page.click(tile("dpmpp_sde-karras-8"))
    page.wait(COMPARED)
    assert page.run(
        "document.querySelector('#shown-reference img').src"
        f" === {DATA}.references.dpmpp_sde.picture"
    )


def test_a_sampler_without_limit_has_no_reference_and_no_figures(page):
    page.click(tile("lcm-lcm-4"))
    page.wait(LOADED)
    assert page.text("#dialog-reason") == NO_LIMIT
    assert page.run("document.querySelectorAll('#dialog-pictures figure').length") == 1
    assert not {"PSNR", "SSIM", "Latent RMSE"} & page.pairs("#dialog-numbers").keys()
    assert page.text('#cells tr[data-key="lcm-lcm-4"]').endswith("no limit to compare with")


def test_a_failed_cell_says_why(page):
    assert f"failed: {REASON}" in page.text('#cells tr[data-key="unipc-karras-8"]')
    page.click(tile("unipc-karras-8"))
    assert page.text("#dialog-reason") == REASON
    assert page.run("document.querySelectorAll('#dialog-pictures figure').length") == 0


def test_the_keyboard_reaches_everything(page):
    page.run("document.querySelector('button.tile').focus()")
    page.press("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_DOWN")
    assert page.run("document.activeElement.dataset.key") == "heun-karras-8"
    page.press("HOME")
    assert page.run("document.activeElement.dataset.key") == "heun-karras-4"
    page.press("END", "ENTER")
    assert page.text("#dialog-title") == "heun + karras, 8 steps"
    page.press("ARROW_LEFT")
    assert page.text("#dialog-title") == "heun + karras, 4 steps"
    page.press("ARROW_LEFT")  # there is none
    assert page.text("#dialog-title") == "heun + karras, 4 steps"
    page.press("ARROW_UP")
    assert page.text("#dialog-title") == "ddim + leading, 4 steps"
    page.press("ESCAPE")
    assert not page.find("#dialog").is_displayed()
    # The dialog says that it is closed a moment later.
    page.wait("document.activeElement.dataset.key === 'ddim-leading-4'")


def test_the_sheet_is_one_stop_of_the_tab_key(page):
    assert page.run("document.querySelectorAll('button.tile[tabindex=\"0\"]').length") == 1
    page.run("document.querySelector('button.tile').focus()")
    page.press("ARROW_RIGHT")
    stops = page.run(
        "[...document.querySelectorAll('button.tile[tabindex=\"0\"]')].map((t) => t.dataset.key)"
    )
    assert stops == ["ddim-leading-8"]


def test_dialog_buttons_move_and_close(page):
    page.click(tile("heun-karras-8"))
    assert not page.find('[data-move="ArrowRight"]').is_enabled()
    page.click('[data-move="ArrowLeft"]')
    assert page.text("#dialog-title") == "heun + karras, 4 steps"
    page.click("#dialog-close")
    assert not page.find("#dialog").is_displayed()


def test_a_click_on_a_heading_sorts(page):
    assert first_column(page)[0].startswith("ddim + leading")
    page.click('[data-column="psnr"]')
    keys = page.run(
        "[...document.querySelectorAll('#cells tbody tr')].map((row) => row.dataset.key)"
    )
    assert keys[:3] == ["ddim-leading-16", "heun-karras-8", "ddim-leading-8"]
    assert set(keys[-2:]) == {"lcm-lcm-4", "unipc-karras-8"}  # without a figure
    assert page.find('th[aria-sort="descending"]').text.startswith("PSNR")
    page.click('[data-column="psnr"]')
    keys = page.run(
        "[...document.querySelectorAll('#cells tbody tr')].map((row) => row.dataset.key)"
    )
    assert keys[0] == "heun-karras-4"
    assert set(keys[-2:]) == {"lcm-lcm-4", "unipc-karras-8"}
    page.click('[data-column="label"]')
    names = first_column(page)
    assert names == sorted(names)


def test_plots_show_all_that_was_measured(page):
    for plot in ("#plot-nfe", "#plot-seconds"):
        keys = page.run(
            f"[...document.querySelectorAll('{plot} .point')].map((p) => p.dataset.cell)"
        )
        measured = {cell.key for cell in RESULTS.cells if cell.status == "ok"}
        assert set(keys) == measured
        marked = page.run(
            f"[...document.querySelectorAll('{plot} .on-front')].map((p) => p.dataset.cell)"
        )
        assert set(marked) == set(RESULTS.front)
        best = page.run(
            f"[...document.querySelectorAll('{plot} .best')].map((p) => p.dataset.cell)"
        )
        assert best == ["ddim-leading-8"]
        assert (
            page.run(f"document.querySelector('{plot} .floor text').textContent")
            == "floor of the reference"
        )
    assert page.run("document.querySelector('#plot-seconds .front') !== null")


def test_evaluations_are_marked_where_they_were_measured(page):
    ticks = page.texts("#plot-nfe .notch + .tick")
    assert set(ticks) <= {str(cell.nfe) for cell in RESULTS.cells if cell.status == "ok"}
    assert len(ticks) > 1


def test_the_rule_the_command_and_the_files_are_at_hand(page):
    assert page.text("#rule") == RULE
    assert page.text("#command") == RESULTS.recommendation.command
    assert page.texts("#files a") == ["results.csv", "results.json", "plots.png", "sheet.png"]
    links = page.run(
        "[...document.querySelectorAll('#files a')].map((a) => a.getAttribute('href'))"
    )
    assert links == page.texts("#files a")


def test_better_cells_are_drawn_higher_whatever_the_metric(page):
    higher = {"psnr": True, "ssim": True, "latent_rmse": False}  # of 16 steps against 4
    for metric, up in higher.items():
        page.click(f'[data-metric="{metric}"]')
        few, many = (
            page.run(
                f"Number(document.querySelector('#plot-nfe [data-cell=\"ddim-leading-{steps}\"] .dot').getAttribute('cy'))"
            )
            for steps in (4, 16)
        )
        assert (many < few) is up
        assert page.find('#metrics [aria-pressed="true"]').get_attribute("data-metric") == metric


def test_a_point_tells_its_figures_and_opens_its_cell(page):
    from selenium.webdriver import ActionChains

    point = page.find('#plot-nfe [data-cell="heun-karras-4"] .hit')
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(page.driver).move_to_element(point).perform()
    assert "heun + karras, 4 steps" in page.text("#tip")
    assert "7 evaluations" in page.text("#tip")
    assert page.run("document.querySelectorAll('#legend .dimmed').length") == 4
    ActionChains(page.driver).click().perform()
    assert page.text("#dialog-title") == "heun + karras, 4 steps"
    assert not page.find("#tip").is_displayed()


@pytest.fixture
def telephone(page):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.wait("innerWidth === 390")
    yield page
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_fits_a_narrow_screen(telephone):
    assert telephone.wait("document.documentElement.scrollWidth") <= 390


def test_the_table_can_be_used_on_a_narrow_screen(telephone):
    """Names stay in sight and leave room for figures, of which one can scroll to the last."""
    table = "document.querySelector('#cells').parentElement"
    name = telephone.find("#cells tbody th").size["width"]
    assert name <= 390 / 2
    telephone.run(f"({table}.scrollLeft = 10000)")
    last = telephone.run(
        "document.querySelector('#cells tbody td:last-child').getBoundingClientRect().right"
    )
    assert last <= 390
    edge = telephone.run("document.querySelector('#cells tbody th').getBoundingClientRect().left")
    assert 0 <= edge < 30
    # A finger needs about 24 pixels (WCAG 2.2, 2.5.8).
    heights = "[...document.querySelectorAll('#cells button')].map((b) => b.getBoundingClientRect().height)"
    assert min(telephone.run(heights)) >= 24


def test_a_cell_can_be_looked_at_on_a_narrow_screen(telephone):
    telephone.click(tile(SEVERAL))
    telephone.wait(COMPARED)
    dialog = "document.querySelector('#dialog')"
    assert telephone.run(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
    assert telephone.find("#shown-picture img").size["width"] >= 128
    assert telephone.find("#dialog-more a").size["width"] >= 64


def test_further_seeds_are_shown_beside_their_references(page):
    page.click(tile(SEVERAL))
    page.wait("[...document.querySelectorAll('#dialog-more img')].every((i) => i.naturalWidth > 0)")
    assert page.texts("#dialog-more figcaption") == [f'"{PROMPT}", seed 8, 32.2 dB']
    links = page.run(
        "[...document.querySelectorAll('#dialog-more a')].map((a) => a.getAttribute('href'))"
    )
    assert links == [f"cells/{SEVERAL}-p2.png", "cells/reference-p2.png"]
    page.press("ARROW_RIGHT")
    assert not page.find("#dialog-more").is_displayed()


def test_a_page_that_was_moved_does_without_further_seeds(browser, report, tmp_path):
    browser.open(shutil.copy(report, tmp_path / "report.html"))
    browser.click(tile(SEVERAL))
    browser.wait(COMPARED)
    browser.find("#dialog-more")  # what is lazy is loaded where it can be seen
    browser.run("document.querySelector('#dialog-more').scrollIntoView()")
    browser.wait("!document.querySelector('#dialog-more figure')")


def test_the_page_may_fetch_nothing(browser, report):
    browser.open(report)
    browser.driver.get_log("browser")
    failed = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done(false), () => done(true));"
    )
    assert failed
    assert any(
        "Content Security Policy" in entry["message"] for entry in browser.driver.get_log("browser")
    )


def test_large_pictures_can_be_seen_pixel_for_pixel(browser, tmp_path):
    (tmp_path / "cells").mkdir()
    for name in ("ddim-leading-4", "reference"):
        Image.effect_noise((512, 512), 90).save(tmp_path / "cells" / f"{name}.png")
    browser.open(write_report(RESULTS, tmp_path))
    browser.click(tile("ddim-leading-4"))
    browser.wait(COMPARED)
    browser.wait("!document.querySelector('#dialog-zoom').hidden")
    assert browser.find("#shown-picture img").size["width"] < 512
    assert browser.find("#shown-picture img").value_of_css_property("image-rendering") == "auto"
    browser.click("#dialog-zoom")
    for selector in ("#shown-picture img", "#shown-reference img", "#shown-difference canvas"):
        assert browser.find(selector).size["width"] == 512


@pytest.mark.parametrize(
    "results",
    [
        empty_results(),
        replace(RESULTS, cells=RESULTS.cells[-2:], front=(), recommendation=None),
        replace(RESULTS, cells=RESULTS.cells[:1], settings={}),
    ],
    ids=["nothing", "no distances", "one cell"],
)
def test_little_to_show_is_no_error(browser, tmp_path, results):
    browser.driver.get_log("browser")
    browser.open(write_report(results, tmp_path))
    assert browser.find("#answer").is_displayed() is (results.recommendation is not None)
    rows = browser.run("document.querySelectorAll('#cells tbody tr').length")
    assert rows == len(results.cells)
    assert browser.driver.get_log("browser") == []
