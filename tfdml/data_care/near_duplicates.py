"""Photographs that show the same picture: a copy that was cropped, compressed again, made smaller or brighter.

Candidates come from perceptual hashes (the imagehash library) of whole images and of crops of them; what the pictures have in
common then decides. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 64
"""Images are compared as squares of this side, in grey."""

BLANK = 3.0
"""A grey image whose values spread less (standard deviation, of 0 to 255) shows nothing: all such images look alike."""

Greys = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_CROP = 0.88
_BITS = 64
_MOST_BITS = 14
_FIRST_LOOK = 0.3
_SMALL = 24
_BLOCK = 1 << 25


class NearDuplicate(NamedTuple):
    """Two images that show one picture.

    Attributes:
        first: number of an image.
        second: number of another, larger than `first`.
        similarity: correlation of their grey values where they overlap, at most 1.
    """

    first: int
    second: int
    similarity: float


def near_duplicates(greys: npt.ArrayLike, similarity: float = 0.95) -> list[NearDuplicate]:
    """Pairs of images that show the same picture, the most similar first.

    Two images are candidates if the perceptual hash of one, whole or cropped to 88% at nine places, differs from that of the
    other in at most 14 of 64 bits. A candidate counts if the grey values correlate by at least `similarity` once the crop of
    the one that fits the other best has been found. A correlation does not change with brightness or contrast.

    Time: nine hashes more than there are images, one matrix product of hashes (N^2 x 640 operations), and about a millisecond
    for each candidate.

    Args:
        greys: uint8 `[N, 64, 64]`, whole images in grey, squeezed into a square: see `grey_square`.
        similarity: between 0 and 1: lower finds harder crops, and takes two shots of one shelf for one picture.

    Raises:
        ValueError: for other shapes or types.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from tfdml.data_care import grey_square, near_duplicates
        >>> pictures = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9), np.uint8)).resize((90, 90))
        ...             for seed in range(3)]
        >>> pictures.append(pictures[1].crop((4, 0, 90, 82)))
        >>> [(pair.first, pair.second) for pair in near_duplicates([grey_square(picture) for picture in pictures])]
        [(1, 3)]
    """
    images = np.asarray(greys)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"greys: expected uint8 [N, {SIDE}, {SIDE}], received {images.dtype} {images.shape}.")
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity={similarity!r}: expected a share above 0, up to 1.")
    telling = np.flatnonzero(images.reshape(len(images), -1).std(axis=1) >= BLANK)
    if len(telling) < 2:
        return []
    pictures = [Image.fromarray(images[number]) for number in telling]
    smalls = np.stack([_standard(_resized(picture, _WHOLE)) for picture in pictures])
    best: dict[tuple[int, int], float] = {}
    for cropped, whole, box in _candidates(pictures):
        key = (min(cropped, whole), max(cropped, whole))
        if best.get(key, 0.0) < similarity:
            found = _alignment(pictures[cropped], smalls[whole], box)
            best[key] = max(best.get(key, 0.0), found)
    pairs = [NearDuplicate(int(telling[a]), int(telling[b]), value) for (a, b), value in best.items() if value >= similarity]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def grey_square(image: Image.Image) -> Greys:
    """A picture as `near_duplicates` compares it: grey, uint8 `[64, 64]`."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def groups(pairs: Iterator[tuple[int, int]] | list[tuple[int, int]], count: int) -> list[list[int]]:
    """Images that pairs connect, also over others, each group and all of them in the order of the numbers.

    >>> groups([(0, 3), (3, 5), (1, 2)], 6)
    [[0, 3, 5], [1, 2]]
    """
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for first, second in pairs:
        ends = sorted((root(first), root(second)))
        parent[ends[1]] = ends[0]
    members: dict[int, list[int]] = {}
    for number in range(count):
        members.setdefault(root(number), []).append(number)
    return [group for group in members.values() if len(group) > 1]


def _crops() -> list[Box]:
    """The whole, and nine crops of it."""
    room = 1 - _CROP
    return [_WHOLE, *((x, y, x + _CROP, y + _CROP) for x in (0, room / 2, room) for y in (0, room / 2, room))]


def _candidates(pictures: list[Image.Image]) -> Iterator[tuple[int, int, Box]]:
    """`(i, j, box)`: image i, cut to the box, may be image j."""
    whole = np.stack([_hash(picture, _WHOLE) for picture in pictures])
    for box in _crops():
        cut = whole if box == _WHOLE else np.stack([_hash(picture, box) for picture in pictures])
        step = max(1, _BLOCK // len(whole))
        for start in range(0, len(cut), step):
            agree = cut[start : start + step] @ whole.T
            rows, columns = np.nonzero(agree >= _BITS - 2 * _MOST_BITS)
            for row, column in zip((rows + start).tolist(), columns.tolist(), strict=True):
                if row != column and (box != _WHOLE or row < column):
                    yield row, column, box


def _hash(picture: Image.Image, box: Box) -> npt.NDArray[np.float32]:
    """The bits of the perceptual hash as -1 and 1: a product of two hashes is 64 - 2 x (bits that differ)."""
    import imagehash

    bits = imagehash.phash(picture.resize((32, 32), Image.Resampling.BOX, box=tuple(SIDE * end for end in box))).hash
    return np.where(bits.ravel(), 1, -1).astype(np.float32)


def _alignment(cropped: Image.Image, whole: npt.NDArray[np.float32], box: Box) -> float:
    """The correlation of the whole image with the crop that fits it best, near `box`."""
    at, best = box, _correlation(cropped, whole, box)
    if best < _FIRST_LOOK:
        return best
    for step in (0.08, 0.04, 0.02, 0.01):
        moved = True
        while moved:
            moved = False
            for near in _moved(at, step):
                value = _correlation(cropped, whole, near)
                if value > best + 1e-4:
                    at, best, moved = near, value, True
    return best


def _moved(box: Box, step: float) -> Iterator[Box]:
    """Boxes with one side moved in or out."""
    for side in range(4):
        for way in (step, -step):
            ends = list(box)
            ends[side] = min(1.0, max(0.0, ends[side] + way))
            if ends[2] - ends[0] >= 0.6 and ends[3] - ends[1] >= 0.6 and tuple(ends) != box:
                yield (ends[0], ends[1], ends[2], ends[3])


def _correlation(cropped: Image.Image, whole: npt.NDArray[np.float32], box: Box) -> float:
    return float(_standard(_resized(cropped, box)) @ whole)


def _resized(picture: Image.Image, box: Box) -> npt.NDArray[np.float32]:
    small = picture.resize((_SMALL, _SMALL), Image.Resampling.BOX, box=tuple(SIDE * end for end in box))
    return np.asarray(small, np.float32).ravel()


def _standard(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centred = values - values.mean()
    return np.asarray(centred / (np.linalg.norm(centred) or 1.0), np.float32)
