"""The items' small pictures: size, order, and catalogues without them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from image_files import encoded
from PIL import Image

from tfdml.bundle import BundleError, Catalogue, write_catalogue
from tfdml.bundle.thumbnails import make_thumbnails, to_rgb
from tfdml.datasets import Dataset

pytestmark = pytest.mark.one_stack


def picture(file: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(file))
    assert image.format == "JPEG"
    return np.asarray(image)


def test_each_item_has_its_own_picture_in_its_own_shape(tmp_path):
    values = [20, 120, 220]
    for value in values:
        (tmp_path / f"{value}.png").write_bytes(encoded(Image.fromarray(np.full((100, 200, 3), value, np.uint8)), "PNG"))
    data = Dataset.from_files([tmp_path / f"{value}.png" for value in values], [0, 0, 1])
    pictures = [picture(file) for file in make_thumbnails(data, 48)]
    assert [p.shape for p in pictures] == [(24, 48, 3)] * 3
    assert [abs(int(p.mean()) - value) <= 2 for p, value in zip(pictures, values, strict=True)] == [True] * 3


def test_small_and_grey_images_stay_small():
    data = Dataset.from_arrays(np.full((2, 28, 28, 1), 99, np.uint8), [0, 1])
    assert [picture(file).shape for file in make_thumbnails(data, 96)] == [(28, 28, 3)] * 2


def test_a_file_that_pillow_cannot_read_is_shown_as_the_model_sees_it(monkeypatch):
    data = Dataset.from_arrays(np.full((1, 16, 16, 3), 99, np.uint8), [0])
    monkeypatch.setattr(data, "image_bytes", lambda number: b"some other kind of file")
    assert abs(int(picture(next(make_thumbnails(data, 96))).mean()) - 99) <= 1


def test_the_catalogue_keeps_them(tmp_path):
    write_catalogue(tmp_path / "with", ["a", "b"], thumbnails=[b"1", b"22"])
    with Catalogue(tmp_path / "with") as catalogue:
        catalogue.check()
        assert [catalogue.thumbnail(0), catalogue.thumbnail(1)] == [b"1", b"22"]
        with pytest.raises(KeyError, match="number=2"):
            catalogue.thumbnail(2)
    write_catalogue(tmp_path / "without", ["a", "b"])
    with Catalogue(tmp_path / "without") as catalogue:
        catalogue.check()
        assert catalogue.thumbnail(0) is None


def test_a_picture_too_few_is_refused(tmp_path):
    with pytest.raises((BundleError, ValueError)):
        write_catalogue(tmp_path / "few", ["a", "b"], thumbnails=[b"1"])


def test_16_bit_pictures_are_not_white():
    grey = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    shown = to_rgb(Image.open(io.BytesIO(encoded(Image.fromarray(grey), "PNG"))))
    np.testing.assert_array_equal(np.asarray(shown)[..., 0], grey >> 8)


def test_exif_data_turn_a_picture_and_damaged_ones_are_passed_over(tmp_path):
    flat = Image.fromarray(np.full((24, 48, 3), 99, np.uint8))
    sideways = Image.Exif()
    sideways[0x0112] = 6
    # The second breaks off behind the byte order. Pillow reads it on opening, and hides that, where a file has no resolution.
    for name, exif, size in (("sideways", sideways, (24, 48)), ("damaged", b"Exif\0\0II*\0", (48, 24))):
        (tmp_path / f"{name}.jpg").write_bytes(encoded(flat, "JPEG", exif=exif, dpi=(72, 72)))
        data = Dataset.from_files([tmp_path / f"{name}.jpg"], [0])
        (file,) = make_thumbnails(data, 48)
        assert (name, Image.open(io.BytesIO(file)).size) == (name, size)


def test_a_picture_that_pillow_finds_too_large_is_shown_as_the_model_sees_it(monkeypatch):
    data = Dataset.from_arrays(np.full((1, 16, 16, 3), 99, np.uint8), [0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = next(make_thumbnails(data, 8))
    monkeypatch.undo()
    assert picture(file).shape == (8, 8, 3)
