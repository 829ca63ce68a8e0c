"""The page in a real browser, against the real service on a real socket."""

from __future__ import annotations

import io
import json
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from page_browser import (
    answered,
    await_ids,
    drop_file,
    jpeg,
    paste_file,
    pixels_of,
    search_with,
    shown_ids,
    skip_without_browser,
)
from PIL import Image

skip_without_browser()
from playwright.sync_api import expect  # noqa: E402 - may be missing

NOISE = np.random.default_rng(0).integers(0, 256, [64, 64, 3], np.uint8)


def told(service, path, **options) -> dict:
    """What the API itself answers."""
    response = httpx.request(options.pop("method", "GET"), f"{service.url}/{path}", **options)
    response.raise_for_status()
    return response.json()


def by_image(service, file: bytes, **words) -> list[dict]:
    headers = {"Content-Type": "image/jpeg"}
    return told(service, "v1/search/image", method="POST", content=file, params=words, headers=headers)["hits"]


@pytest.fixture(scope="module")
def mixed(service) -> bytes:
    """A photo that some items match and others do not, and that the two versions do not answer alike."""
    for file in service.queries:
        older, newer = by_image(service, file, version=1), by_image(service, file)
        ids = [{hit["id"] for hit in hits} for hits in (older, newer)]
        if 0 < sum(hit["match"] for hit in newer[:5]) < 5 and ids[0] & ids[1] and ids[0] != ids[1]:
            return file
    raise AssertionError("no query has both")


def test_it_starts_with_the_catalogue_page_by_page(page, service):
    expect(page).to_have_title("catalogue · visual search")
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("60 items")
    expect(page.locator(".count")).to_have_text("48 of 60")
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(60)
    everything = told(service, "v1/items", params={"limit": 60, "order": "spread"})["items"]
    assert shown_ids(page) == [item["id"] for item in everything]
    # The bundle has the five pictures of one product after those of another.
    assert len({item["fields"]["title"] for item in everything[:12]}) > 6
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    # Text of the catalogue is text, whatever it looks like.
    expect(page.locator(".card-title").first).to_have_text(service.titles[0])
    assert "<img" in service.titles[0]
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 96)


def test_a_chosen_photo_is_answered_as_the_api_answers_it(page, service, mixed):
    search_with(page, mixed)
    truth = by_image(service, mixed)
    assert shown_ids(page) == [hit["id"] for hit in truth]
    matches = sum(hit["match"] for hit in truth)
    assert 0 < matches < 10
    expect(page.locator(".verdict-title")).to_have_text(f"{matches} match{'' if matches == 1 else 'es'}")
    expect(page.locator(".card.beyond")).to_have_count(10 - matches)
    threshold = told(service, "v1/info")["threshold"]
    expect(page.locator(".card .score b").first).to_have_text(f"{round(100 * threshold / (threshold + truth[0]['distance']))}")
    expect(page.get_by_role("img", name="The photo that was searched with")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="10 results")).to_have_count(1)

    page.get_by_label("Number of results").select_option("5")
    expect(page.locator(".card")).to_have_count(5)
    assert "k=5" in page.url


def test_a_photo_can_be_pasted_and_dropped_and_other_files_are_refused_in_words(page, service):
    with answered(page):
        paste_file(page, service.queries[1])
    assert shown_ids(page) == [hit["id"] for hit in by_image(service, service.queries[1])]
    with answered(page):
        drop_file(page, service.queries[2])
    assert shown_ids(page) == [hit["id"] for hit in by_image(service, service.queries[2])]
    drop_file(page, b"%PDF-1.7", name="list.pdf", type="application/pdf")
    expect(page.get_by_role("alert").filter(has_text="not a picture")).to_be_visible()
    drop_file(page, b"not a PNG", name="torn.png", type="image/png")
    expect(page.get_by_role("alert").filter(has_text="torn.png is not a picture")).to_be_visible()

    # What begins like a JPEG is for the service to judge: its decoder may know more kinds than the browser's.
    with answered(page, ".notice"):
        drop_file(page, b"\xff\xd8\xff torn", name="torn.jpg")
    expect(page.get_by_role("alert").filter(has_text="The picture cannot be read")).to_be_visible()


def test_a_large_photo_is_made_smaller_and_upright_and_a_small_one_goes_byte_for_byte(page, service):
    search_with(page, service.queries[0])
    assert service.seen[-1] == service.queries[0]

    wide = np.zeros([1500, 3000, 3], np.uint8)
    wide[:, :1500] = (220, 30, 30)
    wide[:, 1500:] = (30, 30, 220)
    turned = jpeg(wide, orientation=6)  # to be turned by 90 degrees clockwise: red comes on top
    search_with(page, turned)
    pixels = pixels_of(service.seen[-1])
    assert pixels.shape == (1600, 800, 3)
    assert pixels[400, 400, 0] > 180 > 80 > pixels[400, 400, 2]
    assert pixels[1200, 400, 2] > 180 > 80 > pixels[1200, 400, 0]
    expect(page.locator(".asked-words")).to_contain_text(re.compile("800 . 1600, scaled from 1500 . 3000"))

    webp = io.BytesIO()
    Image.fromarray(NOISE).save(webp, "WEBP")
    search_with(page, webp.getvalue(), name="shot.webp", type="image/webp")
    assert pixels_of(service.seen[-1]).shape == (64, 64, 3)
    expect(page.locator(".asked-words")).to_contain_text("converted to JPEG")


def more_like(page) -> list[str]:
    """The items of an answer to "more like it", when it has come."""
    expect(page.locator(".asked-kind")).to_be_visible()
    page.wait_for_selector("main[aria-busy=false] .verdict")
    return shown_ids(page)


def test_more_like_an_item_has_an_address_to_share_and_the_way_back_is_remembered(page, service, open_page):
    search_with(page, service.queries[5])
    first = shown_ids(page)
    page.locator(".card-link").nth(2).click()
    liked = more_like(page)
    body = {"id": first[2], "k": 10}
    assert liked == [hit["id"] for hit in told(service, "v1/search/item", method="POST", json=body)["hits"]]
    assert first[2] not in liked
    assert parse_qs(urlsplit(page.url).fragment) == {"item": [first[2]]}

    other = open_page(page.url)
    assert more_like(other) == liked

    page.locator(".card-link").first.click()
    page.go_back()  # before the answer is there, perhaps: what one comes back to is whole all the same
    await_ids(page, liked)
    assert more_like(page) == liked
    page.go_back()
    expect(page.get_by_role("heading", name="Your photo")).to_be_visible()
    await_ids(page, first)
    expect(page.locator(f'[data-id="{first[2]}"] .card-link')).to_be_focused()
    page.go_forward()
    await_ids(page, liked)
    page.get_by_role("link", name="Catalogue", exact=True).click()
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()

    # A photo stays in its tab: after a reload the page says so, in place of another answer.
    page.goto(f"{service.url}/#photo=1")
    page.reload()
    expect(page.locator(".notice")).to_contain_text("no longer in this tab")


def test_an_answer_that_comes_when_one_has_gone_back_is_not_shown(page, service):
    search_with(page, service.queries[5])
    page.locator(".card-link").nth(2).click()
    liked = more_like(page)

    def hold(route) -> None:
        """The item that an answer is like is never told; pictures are."""
        if "thumbnail" in route.request.url:
            route.continue_()

    page.route("**/v1/items/**", hold)
    with page.expect_response("**/v1/search/item"):
        page.locator(".card-link").first.click()
    page.go_back()
    await_ids(page, liked)
    page.wait_for_timeout(200)
    assert shown_ids(page) == liked
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")


def test_the_filter_suggests_narrows_and_says_where_it_is_wrong(page, service):
    search_with(page, service.queries[5])
    box = page.get_by_role("combobox", name="Filter by the items' fields")
    page.keyboard.press("/")
    expect(box).to_be_focused()
    options = page.get_by_role("option")
    assert {"category", "colour", "price", "in_stock", "id"} <= set(options.locator("span").all_text_contents())
    page.keyboard.type("in_st")
    page.keyboard.press("ArrowDown")
    expect(box).to_have_attribute("aria-activedescendant", "filter-option-0")
    page.keyboard.press("Enter")
    expect(box).to_have_value("in_stock ")
    page.keyboard.type("= 1 and price > 20")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox", name="Suggestions")).to_be_hidden()
    page.keyboard.press("Enter")
    truth = by_image(service, service.queries[5], filter="in_stock = 1 and price > 20")
    await_ids(page, [hit["id"] for hit in truth])
    assert all(hit["fields"]["price"] > 20 for hit in truth)

    box.fill("in_stock = 1 and colur = red")
    box.press("Enter")
    error = page.locator("#filter-error")
    expect(error).to_contain_text("colur")
    expect(error).to_contain_text("colour (text)")
    expect(error.locator("mark")).to_have_text("colur")
    expect(box).to_have_attribute("aria-invalid", "true")
    assert shown_ids(page) == [hit["id"] for hit in truth]

    page.get_by_role("button", name="Clear the filter").click()
    expect(error).to_be_hidden()
    expect(page.locator(".card")).to_have_count(10)
    box.fill("price > 1000")
    box.press("Enter")
    expect(page.locator(".verdict-title")).to_have_text("Nothing to show")


def test_a_value_in_the_details_filters_and_needs_no_quoting_by_hand(page, service):
    page.locator(".card").first.hover()
    page.locator(".card-info").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(service.titles[0])
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".turner")).to_contain_text("2 of 48")
    page.keyboard.press("ArrowLeft")
    dialog.get_by_role("button", name="Only items with this title").click()
    expect(page.locator(".count")).to_have_text(str(service.titles.count(service.titles[0])))


def test_no_match_is_said_and_shown(page):
    noise = io.BytesIO()
    Image.fromarray(NOISE).save(noise, "PNG")
    search_with(page, noise.getvalue(), name="noise.png", type="image/png")
    expect(page.locator(".verdict.none .verdict-title")).to_have_text("No match")
    expect(page.locator(".card.beyond")).to_have_count(10)
    expect(page.get_by_role("status").filter(has_text="No match")).to_have_count(1)


def test_two_versions_are_compared_side_by_side(page, service, mixed):
    search_with(page, mixed)
    page.get_by_label("Compare with").select_option("1")
    expect(page.locator(".sides")).to_be_visible()
    older, newer = ([hit["id"] for hit in by_image(service, mixed, version=version)] for version in (1, 2))
    sides = page.locator(".side")
    assert shown_ids(sides.nth(0)) == older
    assert shown_ids(sides.nth(1)) == newer
    gone, new = [i for i in older if i not in newer], [i for i in newer if i not in older]
    assert shown_ids(sides.nth(0), ".card:has(.badge.gone)") == gone
    assert shown_ids(sides.nth(1), ".card:has(.badge.new)") == new
    for rank, item in enumerate(newer):
        if item in older and older.index(item) != rank:
            up = older.index(item) - rank
            badge = sides.nth(1).locator(f'[data-id="{item}"] .badge')
            expect(badge).to_contain_text(f"moved {'up' if up > 0 else 'down'} {abs(up)} place")
    expect(page.locator(".change")).to_contain_text(f"{len(new)} new, {len(gone)} gone")
    assert "compare=1" in page.url


def test_everything_is_done_by_keyboard(page, service):
    names = []
    for _ in range(9):
        page.keyboard.press("Tab")
        names.append(page.evaluate("(document.activeElement.innerText || document.activeElement.id).split('\\n')[0]"))
    assert names[0] == "Skip to the results"
    assert {"Choose a photo", "filter"} <= set(names)
    page.locator(".card-link").first.focus()
    cards = shown_ids(page)
    tops = page.locator(".card").evaluate_all("(cards) => cards.map((card) => card.offsetTop)")
    row = tops.count(tops[0])
    focused = "document.activeElement.closest('.card').dataset.id"
    for key, place in [("ArrowRight", 1), ("ArrowDown", 1 + row), ("ArrowLeft", row), ("ArrowUp", 0), ("End", 47), ("Home", 0)]:
        page.keyboard.press(key)
        assert page.evaluate(focused) == cards[place], key
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("i")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.locator(".verdict-title")).to_be_focused()
    assert parse_qs(urlsplit(page.url).fragment) == {"item": [cards[0]]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everybody(open_page, service, mixed, scheme, problems_of):
    page = open_page(f"{service.url}/#k=5&filter=in_stock+=+1+and+price+>+45", color_scheme=scheme)
    rules = () if scheme == "light" else ("color-contrast",)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v) => v < 60)")
    assert dark == (scheme == "dark")
    if scheme == "light":
        assert problems_of(page) == []
    page.get_by_role("button", name="Clear the filter").click()
    search_with(page, mixed)
    assert problems_of(page, *rules) == []
    page.locator(".card-info").first.click()
    assert problems_of(page, "color-contrast", "button-name", "aria-dialog-name") == []
    page.keyboard.press("Escape")
    page.get_by_label("Compare with").select_option("1")
    expect(page.locator(".sides")).to_be_visible()
    page.locator("#filter").fill("colur = red")
    page.keyboard.press("Enter")
    expect(page.locator("#filter-error mark")).to_be_visible()
    assert problems_of(page, *rules) == []


def test_it_fits_a_telephone(open_page, service):
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    camera = page.locator("input[capture=environment]").first
    assert camera.get_attribute("accept") == "image/*"
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    camera.set_input_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": service.queries[5]})
    expect(page.locator(".verdict")).to_be_visible()
    assert page.evaluate(width) == 360
    page.locator(".card-info").first.tap()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    page.get_by_role("button", name="Close", exact=True).tap()
    page.get_by_label("Compare with").select_option("1")
    expect(page.locator(".sides")).to_be_visible()
    assert page.evaluate(width) == 360


ODD_VALUES = ["milk", "O'Brien's \"best\"", "and", "", "naïve \u2028 日本", "-1", "50% off_now", 3, -2.5, 1e21, None]
ODD_NAMES = ["category", "in stock", 'say "so"', "not", "größe", "2nd"]


def test_what_the_page_writes_the_filter_reads(page):
    """A condition that the page makes of a field and a value selects that value, whatever they are."""
    from tfdml_serving.engine.filters import parse_filter

    pairs = [[name, value] for name in ODD_NAMES for value in ODD_VALUES]
    write = "(pairs) => import('/static/filter.js').then(({ condition }) => pairs.map((pair) => condition(...pair)))"
    for (name, value), text in zip(pairs, page.evaluate(write, pairs), strict=True):
        fields = {name: "text" if isinstance(value, str) else "real"}
        assert parse_filter(text, fields).matches({"id": "a", name: value}), text
        assert not parse_filter(text, fields).matches({"id": "a", name: "other" if isinstance(value, str) else 7}), text


def test_whole_numbers_beyond_those_of_javascript_stay_exact(page):
    read = """(text) => Promise.all(["api", "words", "filter"].map((name) => import(`/static/${name}.js`))).then(
      ([{ parsed }, { valueText }, { condition }]) => parsed(text).map((value) => [valueText(value), condition("n", value)]))"""
    found = page.evaluate(read, "[9007199254740993, -9223372036854775808, 7, 2.5, 1e30]")
    assert [shown for shown, _ in found] == ["9007199254740993", "-9223372036854775808", "7", "2.5", "1e+30"]
    assert [text for _, text in found] == [f"n = {shown}" for shown, _ in found]


@pytest.mark.parametrize(
    ("text", "expect", "field", "prefix"),
    [
        ("", "field", None, ""),
        ("cat", "field", None, "cat"),
        ("category ", "comparison", "category", ""),
        ("category not ", "comparison", "category", ""),
        ("category = ", "value", "category", ""),
        ("category='mi", "value", "category", "'mi"),
        ("category in ('milk', ", "list", "category", ""),
        ("category = milk ", "join", "category", ""),
        ("category is null an", "join", "category", "an"),
        ("(category = 'a b' or not (pri", "field", "category", "pri"),
        ('"in stock" >= ', "value", "in stock", ""),
    ],
)
def test_the_filter_knows_what_comes_next(blank, text, expect, field, prefix):
    found = blank.evaluate("(text) => import('/static/filter.js').then(({ expected }) => expected(text))", text)
    assert (found["expect"], found["field"], found["prefix"]) == (expect, field, prefix)
    assert found["start"] == len(text) - len(prefix)


def problem(status: int, title: str, detail: str, **headers) -> dict:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "r-17"}
    return {"status": status, "body": json.dumps(body), "content_type": "application/problem+json", "headers": headers}


@pytest.mark.parametrize(
    ("status", "said"),
    [(413, "The picture is too large"), (415, "This kind of file is not taken"), (422, "The picture cannot be read")],
)
def test_what_the_service_refuses_is_said_with_the_way_out(page, service, status, said):
    page.route("**/v1/search/image*", lambda route: route.fulfill(**problem(status, "No", "Because of this.")))
    search_with(page, service.queries[0], wait="#notice .notice")
    notice = page.get_by_role("alert").filter(has_text=said)
    expect(notice).to_contain_text("Because of this.")
    expect(notice).to_contain_text("r-17")
    expect(notice.get_by_role("button")).to_have_count(0)


def test_a_busy_service_is_asked_again_and_an_absent_one_when_it_is_back(page, service):
    answers = [problem(503, "Busy", "Wait.", **{"Retry-After": "1"})]
    page.route("**/v1/search/image*", lambda route: route.fulfill(**answers.pop()) if answers else route.continue_())
    search_with(page, service.queries[0], wait="#notice .notice")
    expect(page.get_by_role("alert").filter(has_text="busy or starting")).to_contain_text("Trying again in 1 s")
    expect(page.locator(".verdict")).to_be_visible()
    expect(page.locator(".notice")).to_have_count(0)

    page.context.set_offline(True)
    search_with(page, service.queries[1], wait="#notice .notice")
    expect(page.get_by_role("alert").filter(has_text="You are offline")).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator(".verdict")).to_be_visible()
    assert shown_ids(page) == [hit["id"] for hit in by_image(service, service.queries[1])]

    page.evaluate("location.hash = '#item=nothing'")
    expect(page.get_by_role("alert").filter(has_text="It is not there")).to_contain_text("nothing")


def test_a_key_is_asked_for_kept_in_the_tab_only_and_sent_with_the_thumbnails(open_page, guarded):
    page = open_page(guarded.url, ready="#ask-key[open]")
    page.get_by_label("API key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert").filter(has_text="does not know this key")).to_be_visible()
    page.get_by_label("API key", exact=True).fill(guarded.key)
    page.keyboard.press("Enter")
    expect(page.locator(".card").first).to_be_visible()
    image = page.locator(".card img").first
    expect(image).to_have_js_property("naturalWidth", 96)
    assert re.match("blob:", image.get_attribute("src"))
    search_with(page, guarded.queries[3])
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
    assert guarded.key not in page.url
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
