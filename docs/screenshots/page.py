"""Takes the pictures of the search page that serving/README.md shows.

    tfdml demo --out demo --steps 300         # version 1
    tfdml demo --out demo                     # version 2, which the page compares with it
    python docs/screenshots/page.py demo

It serves the bundle in a process of its own, drives a Chromium that is on the PATH, and writes JPEG files beside itself. The
photographs are from the Grocery Store dataset (MIT), in TFDML_DATA. That of plums shows what is in the dataset and not in the
bundle: the demo trains on plums, and publishes other products.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP = {"viewport": {"width": 1240, "height": 800}}
TELEPHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
LARGEST = 200_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("demo", type=Path, help="the folder that `tfdml demo` wrote")
    given = arguments.parse_args()
    data = Path(os.environ["TFDML_DATA"]) / "grocery_store"
    with serving(given.demo / "products") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        take_all(browser, url, given.demo / "queries", data / "test/Fruit/Plum/Plum_001.jpg")
        browser.close()


def take_all(browser: Browser, url: str, queries: Path, unknown: Path) -> None:
    yoghurt, juice, pepper = (
        next(queries.glob(f"*{name}*")) for name in ("Yoggi-Vanilla", "Golden-Grapefruit", "Green-Bell-Pepper")
    )
    with contextlib.closing(opened(browser, url, **DESKTOP)) as page:
        search(page, yoghurt)
        keep(page, "answer")
        search(page, unknown)
        keep(page, "no-match")
        search(page, juice)
        page.set_viewport_size({"width": 1240, "height": 1060})
        page.locator("#compare").select_option(index=1)
        page.locator(".sides").wait_for()
        keep(page, "compare")
    with contextlib.closing(opened(browser, url, color_scheme="dark", **DESKTOP)) as page:
        search(page, pepper)
        page.locator(".card-info").first.click()
        keep(page, "details")
    with contextlib.closing(opened(browser, url, **TELEPHONE)) as page:
        search(page, juice)
        keep(page, "telephone")


def opened(browser: Browser, url: str, **options: Any) -> Page:
    page = browser.new_page(**options)
    page.goto(url)
    page.locator(".card:not(.blank)").first.wait_for()
    return page


def search(page: Page, photo: Path) -> None:
    place = "#hero" if page.locator("#hero").is_visible() else "#asked"
    # Under the name that a telephone gives.
    file = {"name": "IMG_2041.jpg", "mimeType": "image/jpeg", "buffer": photo.read_bytes()}
    with page.expect_response("**/v1/search/image*"):
        page.locator(f"{place} input[type=file]:not([capture])").set_input_files(file)
    page.locator("main[aria-busy=false] .verdict").wait_for()


def keep(page: Page, name: str) -> None:
    """The page as it is seen, in the best quality that is small enough to be looked at in a README."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in (88, 82, 76, 70):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() < LARGEST:
            break
    path = HERE / f"page-{name}.jpg"
    path.write_bytes(file.getvalue())
    print(f"{path.name}: {image.width} x {image.height}, {file.tell():,} bytes")


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tfdml.cli", "serve", str(bundle), "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            wait_for(f"{url}/readyz", process)
            time.sleep(8)  # the version before is opened after the current one
            yield url
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        if process.poll() is not None:
            raise SystemExit("the service did not start")
        time.sleep(0.2)
    raise SystemExit("the service is not ready after two minutes")


if __name__ == "__main__":
    main()
