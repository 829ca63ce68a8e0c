"""Image files that are broken, lie about themselves, or were made to do harm, and some that are only unusual."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from image_files import encoded, good_files, picture
from PIL import Image

KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"GI": "image/gif", b"BM": "image/bmp"}
OTHER_KINDS = (
    "image/webp",
    "text/html",
    "application/octet-stream",
    "multipart/form-data",
    "",
    "image/jpeg; q=\xff",
    "x" * 300,
)

Rng = np.random.Generator


def fuzzed_file(rng: Rng) -> tuple[str, bytes, str]:
    """(what was done, the file, what it is said to be)."""
    name = str(rng.choice(list(_MAKERS), p=_CHANCES))
    data = _MAKERS[name](rng)
    kind = KINDS.get(data[:2], "image/jpeg")
    if name == "wrong type":
        kind = str(rng.choice([*KINDS.values(), *OTHER_KINDS]))
    return name, data, kind


def png(width: int, height: int, rows: bytes, depth: int = 8, color: int = 2, extra: bytes = b"") -> bytes:
    """A PNG file by hand: its header may say what its rows do not hold."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@functools.cache
def _good() -> list[bytes]:
    return list(good_files().values())


@functools.cache
def _zeros(megabytes: int) -> bytes:
    """Zeros, compressed a thousand to one."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(megabytes)) + packer.flush()


def _one(rng: Rng) -> bytes:
    return _good()[rng.integers(len(_good()))]


def _flipped(rng: Rng) -> bytes:
    data = bytearray(_one(rng))
    reach = len(data) if rng.random() < 0.5 else min(len(data), 100)
    for place in rng.integers(0, reach, rng.integers(1, 20)):
        data[place] = rng.integers(256)
    return bytes(data)


def _truncated(rng: Rng) -> bytes:
    data = _one(rng)
    return data[: rng.integers(0, len(data))]


def _spliced(rng: Rng) -> bytes:
    first, second = _one(rng), _one(rng)
    return first[: rng.integers(0, len(first))] + second[rng.integers(0, len(second)) :]


def _huge(rng: Rng) -> bytes:
    side = int(rng.choice([0, 1, 7000, 30_000, 65_535, 2**31 - 1, 2**32 - 1]))
    kind = rng.integers(4)
    if kind == 0:
        return png(side, int(rng.choice([1, side])), zlib.compress(bytes(100)))
    if kind == 1:
        data = bytearray(encoded(picture(), "BMP"))
        data[18:26] = struct.pack("<II", side, int(rng.choice([1, side])))
        return bytes(data)
    small = min(side, 65_535)
    if kind == 2:
        data = bytearray(encoded(picture(), "GIF"))
        data[6:10] = struct.pack("<HH", small, small)
        return bytes(data)
    data = bytearray(encoded(picture(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", small, small)
    return bytes(data)


def _bomb(rng: Rng) -> bytes:
    """Small files that would be large: in their pixels, or in what stands beside them."""
    kind = rng.integers(5)
    if kind == 0:  # within the limit on pixels: has to be borne
        side = int(rng.choice([500, 1500, 3000]))
        return png(side, side, _zeros(1 + 3 * side * side // (1 << 20)))
    if kind == 1:
        return png(20_000, 20_000, _zeros(64))
    if kind == 2:  # more rows than the header says
        return png(10, 10, _zeros(64))
    if kind == 3:
        return png(10, 10, zlib.compress(bytes(310)), extra=chunk(b"zTXt", b"Comment\0\0" + _zeros(64)))
    screen = struct.pack("<HHBBB", 3000, 3000, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 3000, 3000, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + screen + frame * int(rng.choice([1, 4, 100, 2000])) + b";"


def _deep(rng: Rng) -> bytes:
    pixels = rng.integers(0, 65_536, (20, 30)).astype(np.uint16)
    return encoded(Image.fromarray(pixels), "PNG")


def _cmyk(rng: Rng) -> bytes:
    return encoded(picture(seed=int(rng.integers(5))).convert("CMYK"), "JPEG", quality=int(rng.integers(1, 95)))


def _animated(rng: Rng) -> bytes:
    frames = [picture(int(rng.integers(1, 60)), int(rng.integers(1, 60)), seed=seed) for seed in range(rng.integers(2, 12))]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20)


def _turned(rng: Rng) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 12))
    data = encoded(picture(), "JPEG", exif=exif)
    if rng.random() < 0.5:  # the note itself is damaged
        changed = bytearray(data)
        for place in rng.integers(4, 60, 3):
            changed[place] = rng.integers(256)
        data = bytes(changed)
    return data


def _noise(rng: Rng) -> bytes:
    beginning = rng.choice(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"<svg>"]
    )
    return bytes(beginning) + rng.bytes(int(rng.choice([0, 1, 10, 100, 3000])))


def _odd_png(rng: Rng) -> bytes:
    """Every depth and colour type, the impossible ones as well."""
    depth, color = int(rng.choice([0, 1, 2, 4, 8, 16, 32])), int(rng.choice([0, 1, 2, 3, 4, 6, 7]))
    palette = chunk(b"PLTE", rng.bytes(3 * int(rng.integers(0, 300)))) if rng.random() < 0.6 else b""
    return png(10, 10, zlib.compress(rng.bytes(1000)), depth, color, palette)


def _large(rng: Rng) -> bytes:
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((1200, 900))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, progressive=bool(rng.integers(2)))
    return buffer.getvalue()


_MAKERS: dict[str, Callable[[Rng], bytes]] = {
    "good": _one,
    "wrong type": _one,
    "flipped": _flipped,
    "truncated": _truncated,
    "spliced": _spliced,
    "huge": _huge,
    "bomb": _bomb,
    "16-bit": _deep,
    "cmyk": _cmyk,
    "animated": _animated,
    "exif": _turned,
    "noise": _noise,
    "odd png": _odd_png,
    "large": _large,
}
_CHANCES = np.array([8, 8, 18, 14, 10, 10, 2, 5, 5, 3, 6, 5, 5, 1], float) / 100
