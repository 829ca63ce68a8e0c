"""Makes the pictures of docs/report.md and docs/data_care.md from reports that are already there.

    tfdml demo && tfdml report demo --out demo/report.html
    python docs/screenshots/make_report.py demo/report.html
    python docs/screenshots/make_report.py --data check.html

Needs a Chromium (CHROMIUM, or `chromium` on the path) and playwright. Only pictures whose licence allows it may be committed.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).resolve().parent
LARGEST = 200_000
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
]


def main() -> None:
    arguments = parse_arguments()
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)

        def opened(width: int, height: int, **options: Any) -> Page:
            page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1, **options)
            page.goto(arguments.report.resolve().as_uri())
            return page

        if arguments.data:
            save(opened(1200, 1000).screenshot(), "data_head")
            labels = opened(1200, 900)
            save(at(labels, "labels"), "data_labels")
        else:
            save(opened(1200, 1250).screenshot(), "report_head")
            save(at(opened(1200, 860), "confusions"), "report_confusions")
            curves = opened(1200, 1000)
            parts = [section(curves, name) for name in ("curves", "training")]
            save(stacked(parts), "report_curves")
            mapped = opened(1200, 960)
            at(mapped, "map")
            # The dot nearest to the middle of the map.
            x, y = mapped.evaluate(
                """() => [...document.querySelectorAll("#places circle")].map(dot => dot.getBoundingClientRect())
                .map(box => [box.x + box.width / 2, box.y + box.height / 2])
                .sort((a, b) => Math.hypot(a[0] - 600, a[1] - 500) - Math.hypot(b[0] - 600, b[1] - 500))[0]"""
            )
            mapped.mouse.move(x, y)
            mapped.wait_for_timeout(200)
            save(mapped.screenshot(), "report_map")
            phone = {"is_mobile": True, "has_touch": True, "color_scheme": "dark"}
            shots = []
            for name in ("figures", "answers", "curves"):
                page = opened(390, 844, **phone)
                shots.append(at(page, name) if name != "figures" else page.screenshot())
            save(beside(shots), "report_phone")
        browser.close()


def at(page: Page, name: str) -> bytes:
    """The window with a section at its top, below the sticky head."""
    page.evaluate("name => scrollTo({ top: document.getElementById(name).offsetTop - 16, behavior: 'instant' })", name)
    page.wait_for_timeout(300)
    return page.screenshot()


def section(page: Page, name: str) -> bytes:
    """A section alone, without the sticky head over it."""
    page.evaluate("document.querySelector('nav').style.display = 'none'")
    return page.locator(f"section#{name}").screenshot()


def stacked(shots: list[bytes]) -> bytes:
    return joined(shots, down=True)


def beside(shots: list[bytes]) -> bytes:
    return joined(shots, down=False)


def joined(shots: list[bytes], down: bool, gap: int = 16) -> bytes:
    pictures = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    sizes = [(picture.height, picture.width) if down else picture.size for picture in pictures]
    length, across = sum(size[0] for size in sizes) + gap * (len(sizes) - 1), max(size[1] for size in sizes)
    sheet = Image.new("RGB", (across, length) if down else (length, across), pictures[0].getpixel((0, 0)) if down else "white")
    place = 0
    for picture, size in zip(pictures, sizes, strict=True):
        sheet.paste(picture, (0, place) if down else (place, 0))
        place += size[0] + gap
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def save(shot: bytes, name: str) -> None:
    """As JPEG below 200 kB."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    for quality in (85, 78, 70, 60, 50):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() < LARGEST:
            break
    (FOLDER / f"{name}.jpg").write_bytes(buffer.getvalue())
    print(f"{name}.jpg: {picture.width} x {picture.height}, {buffer.tell() // 1000} kB at quality {quality}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--data", action="store_true", help="it is a report of tfdml data check")
    return parser.parse_args()


if __name__ == "__main__":
    main()
