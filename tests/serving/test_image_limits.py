"""Headers of image files: read without decoding, refused when they claim too much, in bounded time whatever is in them."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from image_files import encoded, good_files, picture
from PIL import Image
from tfdml_serving.errors import ServingError, TooLarge, Undecodable, UnsupportedType
from tfdml_serving.images import TYPES, ImageLimits, read_header

LIMITS = ImageLimits(max_bytes=200_000, max_pixels=40_000, max_frames=5)
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp", "GIF": "image/gif"}


@pytest.mark.parametrize("name", sorted(good_files()))
def test_sizes_are_those_that_pillow_reads(name):
    data = good_files()[name]
    header = LIMITS.check(data)
    with Image.open(io.BytesIO(data)) as image:
        assert header.type == KINDS[image.format]
        assert (header.width, header.height) == image.size
        assert header.frames == getattr(image, "n_frames", 1)
    assert header.type in TYPES


def test_every_frame_of_a_gif_counts():
    frames = [picture(100, 90, seed=seed) for seed in range(4)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, disposal=2)
    header = read_header(data)
    assert (header.frames, header.pixels) == (4, 4 * 9000)
    assert LIMITS.check(data) == header
    with pytest.raises(TooLarge, match="in 4 frames"):
        ImageLimits(200_000, 30_000, 5).check(data)
    with pytest.raises(TooLarge, match="more than 3 frames"):
        ImageLimits(200_000, 40_000, 3).check(data)


def huge(kind: str, side: int) -> bytes:
    """A small file that claims to be side x side pixels."""
    data = bytearray(encoded(picture(), kind))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", side, side)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", side, -side)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    else:
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_file_that_claims_to_be_huge_is_refused(kind):
    assert LIMITS.check(huge(kind, 200)).pixels == 40_000
    with pytest.raises(TooLarge, match=r"60000 x 60000 pixels.*40,000"):
        LIMITS.check(huge(kind, 60_000))
    with pytest.raises(Undecodable, match="0 x 0"):
        LIMITS.check(huge(kind, 0))


def test_a_gif_whose_frames_are_larger_than_its_screen_is_refused():
    data = bytearray(encoded(picture(), "GIF"))
    place = data.index(b"\x2c", 13 + 3 * 256)
    data[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(TooLarge):
        LIMITS.check(bytes(data))


def test_what_a_file_is_said_to_be_is_held_against_what_it_is():
    png = good_files()["colour.png"]
    assert LIMITS.check(png, "image/png")
    with pytest.raises(UnsupportedType, match="said to be image/jpeg, but begins like image/png"):
        LIMITS.check(png, "image/jpeg")
    for other in (b"<svg/>", b"II*\0" + bytes(100), b"RIFF\0\0\0\0WEBP", b"%PDF-1.7"):
        with pytest.raises(UnsupportedType, match="none of JPEG, PNG, BMP and GIF"):
            LIMITS.check(other)
    with pytest.raises(Undecodable, match="empty"):
        LIMITS.check(b"")
    with pytest.raises(TooLarge, match="200,001 bytes"):
        LIMITS.check(bytes(200_001))


def test_a_jpeg_of_a_thousand_scans_is_refused():
    jpeg = encoded(picture(), "JPEG", progressive=True)
    assert 3 < jpeg.count(b"\xff\xda") < 20
    with pytest.raises(TooLarge, match="scans"):
        LIMITS.check(jpeg + b"\xff\xda\0\0" * 1000)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 150_000,
        b"\xff\xd8" + b"\xff\xe0\0\0" * 40_000,
        b"\xff\xd8" + b"\xff\xd0" * 70_000,
        b"\xff\xd8\xff\xda",
        b"\xff\xd8\xff\xc4\0\x02\x12",
        b"GIF89a\x05\0\x05\0\0\0\0" + b"\x21\xfe" + b"\x01a" * 90_000,
        b"GIF89a\x05\0\x05\0\0\0\0" + b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\0" * 15_000,
        b"BM",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
)
def test_files_made_to_keep_a_reader_busy_end_soon(data, monkeypatch):
    """Time is not measured: the reader's steps are counted by the bytes that it looks at."""

    class Counted(bytes):
        looks = 0

        def __getitem__(self, key):
            Counted.looks += 1
            return super().__getitem__(key)

    with contextlib.suppress(ServingError):
        LIMITS.check(Counted(data))
    assert Counted.looks < 200_000


def test_any_bytes_are_read_or_refused_with_a_reason():
    rng = np.random.default_rng(0)
    originals = list(good_files().values())
    for number in range(3000):
        data = bytearray(originals[number % len(originals)])
        for place in rng.integers(0, min(len(data), 700), rng.integers(1, 8)):
            data[place] = rng.integers(256)
        data = bytes(data[: rng.integers(0, len(data) + 1)]) if number % 3 == 0 else bytes(data)
        with contextlib.suppress(TooLarge, Undecodable, UnsupportedType):
            header = LIMITS.check(data)
            assert 1 <= header.width * header.height <= header.pixels <= 40_000
