"""The page's service and browser, one of each for the tests of the page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

# A browser on a machine that does much else beside is slow; what never comes is noticed all the same.
PATIENCE = 30_000


class PageService(NamedTuple):
    """A running service: its address, images to search with, the items' titles, the files it was sent, the key it asks for."""

    url: str
    queries: list[bytes]
    titles: list[str]
    seen: list[bytes]
    key: str | None = None


@pytest.fixture(scope="module")
def drawn_catalogue(tmp_path_factory):
    """(model directory, images to search with, the items' titles); the first title tries to be markup."""
    from page_bundles import drawn_products, pack_versions

    files, queries, fields = drawn_products()
    fields["title"][0] = "<img src=x onerror=document.title='broken'> 'and' \"quoted\""
    to = tmp_path_factory.mktemp("page") / "catalogue"
    pack_versions(to, files, fields)
    return to, queries, fields["title"]


@contextlib.contextmanager
def served(catalogue, **settings) -> Iterator[PageService]:
    """The real service on a real socket; only the embeddings are not a network's."""
    from page_bundles import PixelEmbedder
    from service_runs import serving, wait_until
    from tfdml_serving.api.app import create_app
    from tfdml_serving.rollout.versions import Versions
    from tfdml_serving.settings import Settings

    path, queries, titles = catalogue
    embedder = PixelEmbedder()
    options = Settings(path, port=0, max_image_bytes=1 << 20, poll_seconds=0.05, **settings)
    app = create_app(options, Versions(options, embedder), embedder)
    with serving(options, app) as running:
        listed = app.state.service.versions.list
        wait_until(lambda: {version.state for version in listed()} == {"current", "held"}, what="opening both versions")
        yield PageService(running.url, queries, titles, embedder.seen)


@pytest.fixture(scope="module")
def service(drawn_catalogue) -> Iterator[PageService]:
    with served(drawn_catalogue) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(drawn_catalogue, tmp_path_factory) -> Iterator[PageService]:
    from tfdml_serving.api.keys import new_key

    key, line = new_key("shop", "read")
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"{line}\n")
    with served(drawn_catalogue, api_keys=keys) as running:
        yield running._replace(key=key)


@pytest.fixture(scope="module")
def browser():
    from page_browser import CHROMIUM, FLAGS
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, service):
    """Opens pages; at the end none may have asked another machine for anything, or have broken the content policy."""
    contexts, requests, errors = [], [], []

    def open_one(url: str | None = None, *, ready: str = ".card:not(.blank)", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None)
        page.goto(url or service.url)
        page.wait_for_selector(ready)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:"))] == []
    assert requests


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.fixture(scope="module")
def blank(browser, service):
    """A page to run the page's own functions in."""
    with contextlib.closing(browser.new_page()) as page:
        page.goto(service.url)
        yield page


@pytest.fixture(scope="session")
def problems_of():
    """What axe finds wrong with a page."""
    from axe_playwright_python.sync_playwright import Axe

    def problems(page, *rules: str) -> list[str]:
        found = Axe().run(page, options={"runOnly": list(rules)} if rules else None).response["violations"]
        return [f"{rule['id']}: {node['html']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]

    return problems
