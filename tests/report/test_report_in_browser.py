"""The report in Chromium: its parts, sorting, the map, the width of a phone, and that no request leaves the machine."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from report_subjects import subject
from typer.testing import CliRunner

import tfdml
from tfdml import data_care
from tfdml.cli import app
from tfdml.report import write, write_data

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def browser():
    if not os.path.exists(CHROMIUM):
        if os.environ.get("TFDML_REQUIRE_BROWSER") == "1":
            pytest.fail(f"TFDML_REQUIRE_BROWSER=1, and there is no Chromium at {CHROMIUM}")
        pytest.skip("no Chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*QUIET, "--disable-component-update", "--disable-sync"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write(subject(), tmp_path_factory.mktemp("report") / "report.html", map_method="pca")


@pytest.fixture
def open_page(browser):
    """Opens a file; at the end nothing was asked of any other place, and nothing went wrong in it."""
    asked, wrong, pages = [], [], []

    def open_it(path, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_it
    for page in pages:
        page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert wrong == []


def assert_parts_are_seen(page, charts: int) -> None:
    for name in ("figures", "answers", "curves", "map", "confusions", "labels", "duplicates", "classes", "training", "about"):
        assert page.locator(f"section#{name} h2").is_visible()
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator(".chart svg").count() == charts
    boxes = page.locator(".chart svg").evaluate_all("charts => charts.map(chart => chart.getBoundingClientRect().height)")
    assert min(boxes) > 100
    assert "raw pixels" in page.locator("#figures").inner_text()


def test_parts_pictures_and_charts_are_seen(open_page, report) -> None:
    assert_parts_are_seen(open_page(report), charts=6)


@pytest.mark.slow
@pytest.mark.one_stack
def test_the_report_of_the_demo(open_page, tmp_path, monkeypatch) -> None:
    """Of some of the photographs, where they are there."""
    if os.environ.get("TFDML_DATA"):
        few = tfdml.datasets.grocery_store().split_by_class(test=24, seed=0)[1]
        monkeypatch.setattr(tfdml.datasets, "grocery_store", lambda: few)
    runner, folder = CliRunner(), str(tmp_path / "demo")
    for command in (["demo", "--out", folder, "--steps", "5"], ["report", folder, "--out", str(tmp_path / "report.html")]):
        result = runner.invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    page = open_page(tmp_path / "report.html", viewport={"width": 1200, "height": 900})
    assert_parts_are_seen(page, charts=7)
    run = json.loads((tmp_path / "demo" / "run.json").read_text(encoding="utf-8"))
    assert page.locator("#classes tbody tr").count() == len(run["unseen_classes"])


def test_the_table_is_sorted_by_a_press(open_page, report) -> None:
    page = open_page(report)
    table = page.locator("#classes table")

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    names = column(1)
    table.get_by_role("button", name="Class", exact=True).click()
    assert column(1) == sorted(names, key=str.lower)
    table.get_by_role("button", name="Class", exact=True).click()
    assert column(1) == sorted(names, key=str.lower, reverse=True)
    table.get_by_role("button", name="MAP@R").click()
    values = [float(text.rstrip("%")) if text != "-" else -1 for text in column(5)]
    assert values == sorted(values, reverse=True)
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("MAP@R")


def test_the_map_shows_the_image_under_the_pointer(open_page, report) -> None:
    page = open_page(report)
    page.locator("#places").scroll_into_view_if_needed()
    # The one without a neighbour on the map, so that it is hit for certain.
    dot = page.locator("#places circle").nth(24)
    box = dot.bounding_box()
    assert page.locator("#tip").is_hidden()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#tip").is_visible()
    assert page.locator("#tip p").inner_text() in ("cup", "lamp & shade", "<script>alert(1)</script>", "the only one")
    sheet = page.locator("#tip .sprite").evaluate("element => getComputedStyle(element).backgroundImage")
    assert sheet.startswith('url("data:image/jpeg')
    page.locator("#highlight").select_option(label="cup")
    assert page.locator("#places circle.dim").count() == 25 - 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(open_page, report, scheme) -> None:
    page = open_page(report, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    bright = [sum(map(int, color[4:-1].split(", "))) for color in (paper, ink)]
    assert (bright[0] > bright[1]) == (scheme == "light")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_the_data_report(open_page, tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    images[4] = images[0]
    data = tfdml.datasets.Dataset.from_arrays(images, np.arange(12) % 3).with_fields(side=["train", "test"] * 6)
    page = open_page(
        write_data(data_care.check(data, "side"), tmp_path / "data.html", "Twelve"), viewport={"width": 360, "height": 740}
    )
    assert page.locator("section#across .card.alarm").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
