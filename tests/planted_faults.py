"""A folder of labelled images with faults whose places are known: what a check of data has to find.

folder/{train,test}/<class>/<number>.jpg
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

CHANGES = ("crop", "re-encode", "brightness", "all three")


@dataclass
class Planted:
    """Names of files, relative to the folder.

    Attributes:
        truth: the true class number of each image.
        flipped: file -> the class that it truly is of.
        copies: `(original, near-duplicate, change)` on one side of the split and in one class.
        leaked: `(original in test, copy in train, change)`.
        unreadable: files.
        blank: files.
        tiny: files.
    """

    truth: np.ndarray
    flipped: dict[str, str] = field(default_factory=dict)
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    leaked: list[tuple[str, str, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)


def plant(
    data, folder: Path, flipped: float = 0.05, copies: int = 50, leaked: int = 20, bad: int = 3, seed: int = 0
) -> Planted:
    """Writes the images of `data` as JPEG files, 30% of them on the test side, with faults among them."""
    rng = np.random.default_rng(seed)
    planted = Planted(data.labels)
    side = np.where(rng.random(len(data)) < 0.3, "test", "train")
    names = np.array([str(data.class_names[label]) for label in data.labels])
    order = rng.permutation(len(data))
    wrong, copied = order[: round(flipped * len(data))], order[len(data) - copies :]
    tests = [number for number in order[len(wrong) : len(data) - copies] if side[number] == "test"][:leaked]
    given = names.copy()
    for number in wrong:
        given[number] = rng.choice(np.setdiff1d(np.unique(names), [names[number]]))
    files = [f"{side[number]}/{given[number]}/{number:05d}.jpg" for number in range(len(data))]
    for number, file in enumerate(files):
        write(folder / file, encoded(picture(data, number), 92))
    planted.flipped = {files[number]: names[number] for number in wrong}
    for count, number in enumerate(copied):
        change = CHANGES[count % len(CHANGES)]
        name = files[number].replace(".jpg", "-copy.jpg")
        write(folder / name, changed(picture(data, number), change, rng))
        planted.copies.append((files[number], name, change))
    for count, number in enumerate(tests):
        change = ("none", *CHANGES)[count % (1 + len(CHANGES))]
        name = f"train/{names[number]}/{number:05d}-leaked.jpg"
        file = (folder / files[number]).read_bytes() if change == "none" else changed(picture(data, number), change, rng)
        write(folder / name, file)
        planted.leaked.append((files[number], name, change))
    for number in range(bad):
        at = f"train/{names[number]}/"
        write(folder / at / f"bad-{number}.jpg", encoded(picture(data, number), 90)[:-200])
        write(folder / at / f"blank-{number}.jpg", encoded(Image.new("RGB", (50, 40), (200, 60 * number, 9)), 90))
        write(folder / at / f"tiny-{number}.jpg", encoded(picture(data, number).resize((9, 9)).rotate(90), 90))
        planted.unreadable.append(f"{at}bad-{number}.jpg")
        planted.blank.append(f"{at}blank-{number}.jpg")
        planted.tiny.append(f"{at}tiny-{number}.jpg")
    return planted


def picture(data, number: int) -> Image.Image:
    return Image.open(io.BytesIO(data.image_bytes(int(number)))).convert("RGB")


def changed(image: Image.Image, change: str, rng: np.random.Generator) -> bytes:
    """The picture without up to a fifth of each side, smaller and compressed, or darker or brighter."""
    quality = 90
    if change in ("crop", "all three"):
        share = rng.uniform(0.8, 0.95) if change == "crop" else 0.9
        width, height = round(image.width * share), round(image.height * share)
        x, y = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
        image = image.crop((x, y, x + width, y + height))
    if change in ("brightness", "all three"):
        image = ImageEnhance.Brightness(image).enhance(float(rng.choice([0.7, 0.8, 1.2, 1.3])))
    if change in ("re-encode", "all three"):
        image, quality = image.resize((round(image.width * 0.75), round(image.height * 0.75))), int(rng.integers(30, 70))
    return encoded(image, quality)


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def found_share(report, pairs) -> float:
    """The share of `(original, copy, change)` whose two files are in one group of duplicates."""
    groups = [{report.ids[number] for number in group.items} for group in report.duplicates]
    return float(np.mean([any({original, copy} <= group for group in groups) for original, copy, _ in pairs]))


def ranking(report, flipped) -> tuple[float, float]:
    """How well the doubts rank the flipped labels: precision at as many as there are, and the AUC by plain counting."""
    truth = np.array([file in flipped for file in report.ids])
    worst = report.doubts.worst()
    precision = float(truth[worst[: truth.sum()]].mean())
    doubt = report.doubts.doubt[worst]
    ranks = np.array([(doubt < value).sum() + ((doubt == value).sum() - 1) / 2 for value in doubt])
    positives = truth[worst]
    wins = ranks[positives].sum() - positives.sum() * (positives.sum() - 1) / 2
    return precision, float(wins / (positives.sum() * (~positives).sum()))
