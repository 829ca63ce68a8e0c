"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfdml._checks import check_positive
from tfdml.datasets import download
from tfdml.datasets.dataset import Dataset

COMMIT = "057f034baf2ecb8530bc5710e5a23584d2a519cc"
URL = f"https://github.com/brendenlake/omniglot/raw/{COMMIT}/python/"
# MD5 of the two archives: the checksums with which other libraries verify the same files.
ARCHIVES = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
# SHA-256 of the packed pixels of all 32,460 drawings in order.
PIXELS_SHA256 = "43f3e5e604f5d4ba93a120ae07a0525c7b3513d558c5952e9e531bc7fc798ce3"
FILE = "omniglot_105_bits.npz"
SIDE = 105


def omniglot(image_size: int = 28) -> Dataset:
    """32,460 drawings of 1,623 characters from 50 alphabets; every character drawn once by each of 20 people.

    Ink is white (255) on black (0), the images have one channel, and are scaled down with an area average. The data are read
    from `$TFDML_DATA/omniglot` when the variable is set, else downloaded once (15 MB) and checked. The published open-set
    split is in the field `split`: `data.where(split="background")` (30 alphabets, 964 classes) trains,
    `data.where(split="evaluation")` (20 alphabets, 659 classes) tests. Source: github.com/brendenlake/omniglot (MIT); Lake,
    Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015.

    Args:
        image_size: side of the square images in pixels, 1 to 105 (the original).

    Returns:
        A `Dataset` of arrays in memory, class = character. Fields: `alphabet`, `drawer` (1 to 20), `split` ("background",
        "evaluation").

    Raises:
        DownloadError: when the data are not in `TFDML_DATA` and cannot be downloaded, or are not what they should be.

    Example:
        >>> data = tfdml.datasets.omniglot(image_size=28)  # doctest: +SKIP
        >>> train, test = data.where(split="background"), data.where(split="evaluation")  # doctest: +SKIP
    """
    check_positive("image_size", image_size)
    if not isinstance(image_size, int) or image_size > SIDE:
        raise ValueError(f"image_size={image_size!r}: expected an integer from 1 to {SIDE}, the side of the originals.")
    arrays = _read(_packed_file())
    classes = arrays["class_names"].tolist()
    alphabets = [arrays["alphabet_names"].tolist()[number] for number in arrays["alphabet"]]
    drawers = arrays["drawer"].tolist()
    return Dataset.from_arrays(
        _resized(arrays["images_packed"], image_size),
        arrays["class_id"].astype(np.int64),
        ids=[f"{classes[c]}/drawer{drawer:02d}" for c, drawer in zip(arrays["class_id"], drawers, strict=True)],
        class_names=classes,
        fields={
            "alphabet": alphabets,
            "drawer": drawers,
            "split": [("background", "evaluation")[number] for number in arrays["split"]],
        },
        name="omniglot",
    )


def _packed_file() -> Path:
    """The packed drawings: in TFDML_DATA, in the cache, or made from the two published archives."""
    folder = download.local_folder("omniglot", FILE)
    if folder:
        return folder / FILE
    target = download.cache_folder() / FILE
    if not target.is_file():
        files = [download.fetch_file("omniglot", URL + name, name, md5) for name, md5 in ARCHIVES.items()]
        arrays = pack(files)
        scratch = target.with_name(f".{os.getpid()}-{FILE}")
        try:
            with open(scratch, "wb") as file:
                np.savez_compressed(file, **arrays)
            _read(scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        for downloaded in files:
            downloaded.unlink()
    return target


def pack(archives: list[Path]) -> dict[str, Any]:
    """The drawings of the published archives (background, evaluation), 8 pixels a byte, with their labels.

    Inside an archive a drawing is `images_<split>/<alphabet>/character<NN>/<number>_<drawer>.png`, ink black on white.
    """
    rows: list[tuple[str, str, int, int]] = []
    pixels: list[np.ndarray] = []
    for split, archive in enumerate(archives):
        for alphabet, character, drawer, image in _drawings(archive):
            rows.append((alphabet, character, drawer, split))
            pixels.append(np.packbits(image == 0, axis=1))
    alphabets = list(dict.fromkeys(row[0] for row in rows))
    classes = list(dict.fromkeys(f"{row[0]}/{row[1]}" for row in rows))
    number = {name: i for i, name in enumerate(classes)}
    return {
        "images_packed": np.stack(pixels),
        "alphabet": np.array([alphabets.index(row[0]) for row in rows], np.uint8),
        "drawer": np.array([row[2] for row in rows], np.uint8),
        "class_id": np.array([number[f"{row[0]}/{row[1]}"] for row in rows], np.int16),
        "split": np.array([row[3] for row in rows], np.uint8),
        "alphabet_names": np.array(alphabets),
        "class_names": np.array(classes),
    }


def _drawings(archive: Path) -> Iterator[tuple[str, str, int, np.ndarray]]:
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.endswith(".png") and not name.startswith("__MACOSX")]
        for name in sorted(names, key=lambda name: (name.split("/")[1:3], name.rsplit("_", 1)[1])):
            _, alphabet, character, drawing = name.split("/")
            image = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("L"))
            yield alphabet, character, int(drawing.rsplit("_", 1)[1].removesuffix(".png")), image


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found = hashlib.sha256(arrays["images_packed"].tobytes()).hexdigest()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise download.DownloadError(f"omniglot: {path} cannot be read: {error}. Remove it, then try again.") from error
    if found != PIXELS_SHA256:
        raise download.DownloadError(
            f"omniglot: the drawings in {path} have SHA-256 {found}, expected {PIXELS_SHA256}. Remove the file, then try again."
        )
    return arrays


def _resized(packed: np.ndarray, side: int) -> np.ndarray:
    """`uint8 [N, side, side]`, ink 255. Unpacked in parts: all drawings at full size are 360 MB."""
    result = np.empty((len(packed), side, side), np.uint8)
    for start in range(0, len(packed), 1024):
        part = np.unpackbits(packed[start : start + 1024], axis=2, count=SIDE) * np.uint8(255)
        for i, image in enumerate(part):
            result[start + i] = image if side == SIDE else Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return result
