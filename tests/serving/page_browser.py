"""What a person does with a page, and what they see of it."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageOps

REQUIRED = os.environ.get("TFDML_REQUIRE_BROWSER") == "1"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def skip_without_browser() -> None:
    """Skips a module where it cannot run; where TFDML_REQUIRE_BROWSER=1 says that it must, it fails."""
    if REQUIRED:
        assert CHROMIUM, "TFDML_REQUIRE_BROWSER=1, and there is no chromium on the PATH"
        return
    pytest.importorskip("playwright.sync_api")
    pytest.importorskip("axe_playwright_python.sync_playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH", allow_module_level=True)


_PREVIEW = "(document.querySelector('#asked .picture img')?.src ?? null)"
_FILE = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type }));
  return files;
}"""


def search_with(page, file: bytes, *, name: str = "photo.jpg", type: str = "image/jpeg", wait: str = ".verdict") -> None:
    """Chooses a file and waits for what comes of it."""
    place = "#hero" if page.locator("#hero").is_visible() else "#asked"
    chosen = {"name": name, "mimeType": type, "buffer": file}
    with answered(page, wait):
        page.locator(f"{place} input[type=file]:not([capture])").set_input_files(chosen)


@contextlib.contextmanager
def answered(page, wait: str = ".verdict") -> Iterator[None]:
    """Waits for the answer to another photo than the one before."""
    before = page.evaluate(_PREVIEW)
    yield
    page.wait_for_function(f"(before) => {_PREVIEW} !== before", arg=before)
    page.wait_for_selector(f"main[aria-busy=false] {wait}")


def paste_file(page, file: bytes, *, name: str = "image.png", type: str = "image/jpeg") -> None:
    files = page.evaluate_handle(_FILE, [base64.b64encode(file).decode(), name, type])
    page.evaluate("(files) => dispatchEvent(new ClipboardEvent('paste', { clipboardData: files, cancelable: true }))", files)


def drop_file(page, file: bytes, *, name: str = "photo.jpg", type: str = "image/jpeg") -> None:
    files = page.evaluate_handle(_FILE, [base64.b64encode(file).decode(), name, type])
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": files})


def shown_ids(place, cards: str = ".card:not(.blank)") -> list[str]:
    return place.locator(cards).evaluate_all("(cards) => cards.map((card) => card.dataset.id)")


def await_ids(page, ids: list[str], cards: str = ".card:not(.blank)") -> None:
    """Waits until these are shown: an address changes before the page has heard of it."""
    js = "([cards, ids]) => String([...document.querySelectorAll(cards)].map((card) => card.dataset.id)) === String(ids)"
    try:
        page.wait_for_function(js, arg=[cards, ids], timeout=10_000)
    except Exception:  # which of the browser's errors it is does not matter: the difference does
        assert shown_ids(page, cards) == ids
        raise


def jpeg(pixels: np.ndarray, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    """As a program sees it that knows of EXIF orientation."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
