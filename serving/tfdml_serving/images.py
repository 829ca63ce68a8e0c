"""Limits on image files, judged from their headers before anything decodes them.

A few hundred bytes can claim to be a picture of gigabytes. So width, height, frames and passes are read here, in plain Python
and in bounded time, and a file over a limit is refused unseen; only then may it reach a decoder, here or in TF-Serving. Whether
the rest of the file is sound is the decoder's to say.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from itertools import islice

from tfdml_serving.errors import TooLarge, Undecodable, UnsupportedType

# The kinds of file that every supported TensorFlow decodes; the same as in tfdml.preprocessing, which cannot be imported here.
_BEGINNINGS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
TYPES = tuple(_BEGINNINGS.values())

# A progressive JPEG file is decoded anew for each of its scans; real ones have about ten.
_MOST_SCANS = 100
_SCAN = re.compile(rb"\xff\xda")
# Segments before a JPEG file's size, and blocks in a GIF file: beyond these a file was made to keep a reader busy.
_MOST_SEGMENTS = 1000
_MOST_FILL = 64
_MOST_BLOCKS = 100_000


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What a file says of itself.

    Args:
        type: its media type, by its first bytes.
        width: in pixels.
        height: in pixels.
        frames: pictures in the file; 1 except for GIF.
        pixels: that a decoder makes room for, over all frames.
    """

    type: str
    width: int
    height: int
    frames: int
    pixels: int


@dataclasses.dataclass(frozen=True)
class ImageLimits:
    """The largest image files that are taken.

    Args:
        max_bytes: of the file.
        max_pixels: over all frames.
        max_frames: of a GIF.

    Example:
        >>> limits = ImageLimits(max_bytes=1000, max_pixels=10_000, max_frames=10)
        >>> header = b"\\x89PNG\\r\\n\\x1a\\n" + b"\\0\\0\\0\\rIHDR" + b"\\0\\0\\0\\x40\\0\\0\\0\\x30" + b"\\x08\\x02\\0\\0\\0"
        >>> limits.check(header, "image/png").pixels
        3072
    """

    max_bytes: int
    max_pixels: int
    max_frames: int

    def check(self, data: bytes, content_type: str | None = None) -> ImageHeader:
        """Reads the header of an image file.

        Args:
            data: the file.
            content_type: what it was said to be; None if nothing was said.

        Raises:
            UnsupportedType: if it is none of `TYPES`, or not what it was said to be.
            TooLarge: if it is over a limit.
            Undecodable: if its header makes no sense.
        """
        if len(data) > self.max_bytes:
            raise TooLarge(f"image: {len(data):,} bytes; at most {self.max_bytes:,} are taken. Send a smaller picture.")
        header = read_header(data)
        if content_type is not None and content_type != header.type:
            raise UnsupportedType(f"image: said to be {content_type}, but begins like {header.type}. Send it as what it is.")
        if header.width * header.height > self.max_pixels or header.pixels > self.max_pixels:
            frames = f" in {header.frames} frames" if header.frames > 1 else ""
            raise TooLarge(
                f"image: {header.width} x {header.height} pixels{frames}; at most {self.max_pixels:,} are taken in all. "
                "Send a smaller picture."
            )
        if header.frames > self.max_frames:
            raise TooLarge(f"image: more than {self.max_frames} frames. Send one of them.")
        return header


def read_header(data: bytes) -> ImageHeader:
    """The type, size and frames of an image file; see `ImageLimits.check` for what is raised."""
    if not data:
        raise Undecodable("image: empty. Send the bytes of a JPEG, PNG, BMP or GIF file.")
    for beginning, kind in _BEGINNINGS.items():
        if data.startswith(beginning):
            try:
                header = _READERS[kind](data)
            except (struct.error, IndexError):
                raise Undecodable(f"image: a {kind} file that ends before its size is told.") from None
            if header.width < 1 or header.height < 1:
                raise Undecodable(f"image: {header.width} x {header.height} pixels; each must be at least 1.")
            return header
    raise UnsupportedType("image: none of JPEG, PNG, BMP and GIF, by its first bytes. Convert it to one of them.")


def _jpeg(data: bytes) -> ImageHeader:
    # A fifth of the time of `data.count`, and no longer than it takes to see that there are too many.
    if sum(1 for _ in islice(_SCAN.finditer(data), _MOST_SCANS + 1)) > _MOST_SCANS:
        raise TooLarge(f"image: a JPEG file of more than {_MOST_SCANS} scans. Save it anew.")
    position = 2
    for _ in range(_MOST_SEGMENTS):
        if data[position] != 0xFF:
            raise Undecodable("image: a JPEG file whose segments are damaged.")
        # Several of these bytes may stand before a marker.
        position += len(data[position : position + _MOST_FILL]) - len(data[position : position + _MOST_FILL].lstrip(b"\xff"))
        marker = data[position]
        position += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # they stand alone
            continue
        if marker in (0xD8, 0xD9, 0xDA):
            raise Undecodable("image: a JPEG file that does not tell its size.")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 3)
            return ImageHeader("image/jpeg", width, height, 1, width * height)
        position += max(2, struct.unpack_from(">H", data, position)[0])
    raise Undecodable(f"image: a JPEG file that does not tell its size in its first {_MOST_SEGMENTS} segments.")


def _png(data: bytes) -> ImageHeader:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise Undecodable("image: a PNG file that does not begin with its header.")
    return ImageHeader("image/png", width, height, 1, width * height)


def _bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    # A negative height says that the rows come from top to bottom.
    return ImageHeader("image/bmp", width, abs(height), 1, max(0, width) * abs(height))


def _gif(data: bytes) -> ImageHeader:
    """Walks over the blocks without decompressing them: a decoder makes room for every frame, whichever is asked for."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _color_table(flags)
    frames, pixels, blocks = 0, 0, 0
    try:
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x2C:
                frame_width, frame_height, flags = struct.unpack_from("<HHB", data, position + 5)
                frames += 1
                pixels += frame_width * frame_height
                position += 11 + _color_table(flags)
            else:
                position += 2
            while length := data[position]:
                position += 1 + length
                blocks += 1
                if blocks > _MOST_BLOCKS:
                    raise TooLarge(f"image: a GIF file of more than {_MOST_BLOCKS:,} blocks. Save it anew.")
            position += 1
    except (struct.error, IndexError):
        pass  # it ends early: what there is has been counted, and the decoder will say what it thinks of it
    return ImageHeader("image/gif", width, height, max(1, frames), max(pixels, width * height))


def _color_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


_READERS = {"image/jpeg": _jpeg, "image/png": _png, "image/bmp": _bmp, "image/gif": _gif}
