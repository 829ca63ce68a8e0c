"""Shapes filled with colours or patterns and shaded, on one transparent canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw

from tfdml.datasets.catalogue.curves import Point
from tfdml.datasets.catalogue.look import Colour


class Pen:
    """Draws in coordinates from 0 to 1, y down, on a square canvas.

    Args:
        side: the canvas's side in pixels.
        texture: the pattern that fills shapes painted with `None`, twice as wide as the canvas.
        label: RGBA picture for `label`.
        turn: how far the product is turned about its upright axis, -1 to 1: moves pattern and label sideways.
    """

    def __init__(self, side: int, texture: Image.Image, label: Image.Image, turn: float) -> None:
        self.side, self.texture, self.turn = side, texture, turn
        self._label = label
        self.image = Image.new("RGB", (side, side))
        self.mask = Image.new("L", (side, side), 0)

    def polygon(self, points: Sequence[Point], paint: Colour | None = None, shade: str = "flat") -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self._fill(self._box(scaled), lambda draw, at: draw.polygon(_moved(scaled, at), fill=255), paint, shade)

    def ellipse(self, box: tuple[float, float, float, float], paint: Colour | None = None, shade: str = "flat") -> None:
        x0, y0, x1, y1 = (value * self.side for value in box)
        corners = [(x0, y0), (x1, y1)]
        self._fill(self._box(corners), lambda draw, at: draw.ellipse(_moved(corners, at), fill=255), paint, shade)

    def rounded(
        self, box: tuple[float, float, float, float], radius: float, paint: Colour | None = None, shade: str = "flat"
    ) -> None:
        x0, y0, x1, y1 = (value * self.side for value in box)
        corners = [(x0, y0), (x1, y1)]

        def shape(draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> None:
            draw.rounded_rectangle(_moved(corners, at), radius=radius * self.side, fill=255)

        self._fill(self._box(corners), shape, paint, shade)

    def line(self, points: Sequence[Point], width: float, paint: Colour) -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        thick = max(1, round(width * self.side))
        for image, fill in ((self.image, paint), (self.mask, 255)):
            draw = ImageDraw.Draw(image)
            draw.line(scaled, fill=fill, width=thick, joint="curve")
            for x, y in (scaled[0], scaled[-1]):
                draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=fill)

    def arc(self, box: tuple[float, float, float, float], start: float, end: float, width: float, paint: Colour) -> None:
        """Part of an ellipse's outline, from `start` to `end` in degrees, clockwise from three o'clock."""
        scaled = [value * self.side for value in box]
        thick = max(1, round(width * self.side))
        ImageDraw.Draw(self.image).arc(scaled, start, end, fill=paint, width=thick)
        ImageDraw.Draw(self.mask).arc(scaled, start, end, fill=255, width=thick)

    def label(self, centre: Point, scale: float = 1.0) -> None:
        """The label, moved and narrowed by the turn; it never leaves what is drawn already."""
        turn = self.turn
        width = max(2, round(self._label.width * scale * (1 - 0.35 * abs(turn))))
        label = self._label.resize((width, max(2, round(self._label.height * scale))), Image.Resampling.BILINEAR)
        left = round((centre[0] + 0.10 * turn) * self.side - label.width / 2)
        top = round(centre[1] * self.side - label.height / 2)
        box = (max(0, left), max(0, top), min(self.side, left + label.width), min(self.side, top + label.height))
        label = label.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        self.image.paste(label, box[:2], ImageChops.multiply(label.getchannel("A"), self.mask.crop(box)))

    def _box(self, points: Sequence[Point]) -> tuple[int, int, int, int]:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        left, top = max(0, int(min(xs))), max(0, int(min(ys)))
        return left, top, max(left + 1, min(self.side, int(max(xs)) + 2)), max(top + 1, min(self.side, int(max(ys)) + 2))

    def _fill(
        self,
        box: tuple[int, int, int, int],
        shape: Callable[[ImageDraw.ImageDraw, tuple[int, int]], None],
        paint: Colour | None,
        shade: str,
    ) -> None:
        left, top, right, bottom = box
        size = (right - left, bottom - top)
        mask = Image.new("L", size, 0)
        shape(ImageDraw.Draw(mask), (left, top))
        if paint is None:
            shift = round((0.5 + 0.22 * self.turn) * self.side)
            layer = self.texture.crop((left + shift, top, right + shift, bottom))
        else:
            layer = Image.new("RGB", size, paint)
        layer = ImageChops.multiply(layer, _shade(shade, size))
        self.image.paste(layer, (left, top), mask)
        self.mask.paste(255, (left, top), mask)


def _moved(points: Sequence[Point], at: tuple[int, int]) -> list[Point]:
    return [(x - at[0], y - at[1]) for x, y in points]


def _shade(kind: str, size: tuple[int, int]) -> Image.Image:
    light = _SHADES[kind].resize(size, Image.Resampling.BILINEAR)
    return Image.merge("RGB", (light, light, light))


def _strip(values: Sequence[int], upright: bool) -> Image.Image:
    image = Image.new("L", (1, len(values)) if upright else (len(values), 1))
    image.putdata(values)
    return image


def _sphere() -> Image.Image:
    image = Image.new("L", (24, 24))
    image.putdata(
        [max(96, round(255 - 150 * (((x - 8.5) / 21) ** 2 + ((y - 7.5) / 21) ** 2))) for y in range(24) for x in range(24)]
    )
    return image


# How bright the surface is from left to right or from top to bottom; the light comes from the upper left.
_SHADES = {
    "flat": _strip([255, 246, 236, 226], upright=True),
    "round": _strip([150, 205, 244, 255, 250, 236, 214, 186, 152, 112], upright=False),
    "sphere": _sphere(),
    "side": _strip([150, 138], upright=True),
    "inside": _strip([70, 110, 150], upright=True),
}
