"""A photograph of a product: pose, background, shadow, light, and things in front of it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tfdml.datasets.catalogue.draws import Draws
from tfdml.datasets.catalogue.look import COLOURS, Colour

_PALETTE = tuple(COLOURS.values())


def photograph(product: Image.Image, mask: Image.Image, size: tuple[int, int], draws: Draws, mirror: bool) -> Image.Image:
    """The product in a scene, `size` = (width, height) pixels, RGB."""
    scene = _background(size, draws)
    if mirror:
        product, mask = product.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pose = _pose(product.width, size, draws)
    placed = product.transform(size, Image.Transform.PERSPECTIVE, pose, Image.Resampling.BILINEAR)
    where = mask.transform(size, Image.Transform.PERSPECTIVE, pose, Image.Resampling.BILINEAR)
    _cast_shadow(scene, where, draws)
    scene.paste(placed, (0, 0), where)
    if draws.chance(0.45):
        _occlude(scene, draws)
    return _light(scene, draws)


def _pose(side: int, size: tuple[int, int], draws: Draws) -> tuple[float, ...]:
    """Coefficients that map scene pixels to canvas pixels: rotation, size, place and a little perspective."""
    width, height = size
    angle = draws.uniform(-0.5, 0.5) if draws.chance(0.75) else draws.uniform(-1.2, 1.2)
    scale = min(size) * draws.uniform(0.62, 1.05)
    squeeze = draws.uniform(0.8, 1.0)
    x, y = width * draws.uniform(0.38, 0.62), height * draws.uniform(0.38, 0.62)
    tilt = [draws.uniform(-0.09, 0.09) for _ in range(4)]
    corners = []
    for (u, v), bend in zip(((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)), tilt, strict=True):
        u, v = u * squeeze * (1 + bend), v * (1 + bend)
        corners.append(
            (x + scale * (u * math.cos(angle) - v * math.sin(angle)), y + scale * (u * math.sin(angle) + v * math.cos(angle)))
        )
    return _perspective(corners, [(0, 0), (side, 0), (side, side), (0, side)])


def _perspective(scene: list[tuple[float, float]], canvas: list[tuple[float, float]]) -> tuple[float, ...]:
    rows, values = [], []
    for (x, y), (u, v) in zip(scene, canvas, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)).tolist())


def _background(size: tuple[int, int], draws: Draws) -> Image.Image:
    width, height = size
    first, second = _muted(draws), _muted(draws)
    scene = Image.new("RGB", size, first)
    draw = ImageDraw.Draw(scene)
    kind = draws.choice(("gradient", "table", "shelf", "tiles", "clutter", "planks"))
    if kind == "gradient":
        ramp = Image.linear_gradient("L").rotate(draws.uniform(0, 360)).crop((38, 38, 218, 218))  # without the empty corners
        ramp = ramp.resize(size, Image.Resampling.BILINEAR)
        scene = Image.composite(Image.new("RGB", size, second), scene, ramp)
    elif kind == "table":
        edge = height * draws.uniform(0.45, 0.85)
        draw.polygon(
            [(0, edge), (width, edge + height * draws.uniform(-0.08, 0.08)), (width, height), (0, height)], fill=second
        )
    elif kind == "shelf":
        board = height * draws.uniform(0.72, 0.9)
        for _ in range(7):
            left, tall = width * draws.uniform(-0.1, 1.0), height * draws.uniform(0.25, 0.7)
            wide = width * draws.uniform(0.1, 0.25)
            draw.rectangle((left, board - tall, left + wide, board), fill=draws.choice(_PALETTE))
            draw.rectangle((left, board - tall * 0.6, left + wide, board - tall * 0.4), fill=_muted(draws))
        draw.rectangle((0, board, width, height), fill=second)
    elif kind == "tiles":
        step = max(4, round(width * draws.uniform(0.12, 0.35)))
        for i in range(0, max(size), step):
            draw.line([(i, 0), (i, height)], fill=second, width=max(1, step // 10))
            draw.line([(0, i), (width, i)], fill=second, width=max(1, step // 10))
    elif kind == "planks":
        step = max(4, round(height * draws.uniform(0.12, 0.3)))
        for i, y in enumerate(range(0, height, step)):
            shift = 0.86 + 0.14 * draws.unit()
            draw.rectangle((0, y, width, y + step - 2), fill=_scaled(first if i % 2 else second, shift))
    else:
        for _ in range(9):
            left, top = width * draws.uniform(-0.2, 0.9), height * draws.uniform(-0.2, 0.9)
            box = (left, top, left + width * draws.uniform(0.15, 0.5), top + height * draws.uniform(0.15, 0.5))
            (draw.ellipse if draws.chance(0.5) else draw.rectangle)(box, fill=draws.choice(_PALETTE))
        scene = scene.filter(ImageFilter.BoxBlur(max(1, width // 40)))
    return _grained(scene, draws)


def _grained(scene: Image.Image, draws: Draws) -> Image.Image:
    """Adds blotches: noise at a few pixels, enlarged to the scene."""
    cells = draws.choice((6, 12, 24))
    noise = Image.frombytes("L", (cells, cells), draws.raw_bytes(cells * cells)).resize(scene.size, Image.Resampling.BILINEAR)
    strength = draws.uniform(0.04, 0.2)
    dimmed = noise.point([round(255 - strength * value) for value in range(256)])
    return ImageChops.multiply(scene, Image.merge("RGB", (dimmed, dimmed, dimmed)))


def _cast_shadow(scene: Image.Image, where: Image.Image, draws: Draws) -> None:
    width, height = scene.size
    strength = draws.uniform(0.15, 0.6)
    small = where.reduce(4).filter(ImageFilter.BoxBlur(1)).resize(scene.size, Image.Resampling.BILINEAR)
    offset = (round(width * draws.uniform(-0.08, 0.08)), round(height * draws.uniform(0.0, 0.08)))
    shadow = Image.new("L", scene.size, 0)
    shadow.paste(small.point([round(value * strength) for value in range(256)]), offset)
    scene.paste((24, 22, 26), (0, 0), shadow)


def _occlude(scene: Image.Image, draws: Draws) -> None:
    """Something in front: a price tag, a finger, or the edge of a neighbour."""
    width, height = scene.size
    draw = ImageDraw.Draw(scene)
    kind = draws.choice(("tag", "finger", "neighbour", "bar"))
    if kind == "tag":
        left, top = width * draws.uniform(0.0, 0.7), height * draws.uniform(0.65, 0.85)
        draw.rounded_rectangle((left, top, left + width * 0.3, top + height * 0.16), radius=3, fill=(248, 246, 232))
        for i in range(3):
            draw.rectangle(
                (left + width * (0.03 + 0.08 * i), top + height * 0.05, left + width * (0.08 + 0.08 * i), top + height * 0.11),
                fill=(30, 30, 34),
            )
    elif kind == "finger":
        skin = draws.choice(((236, 196, 168), (198, 146, 112), (124, 84, 62)))
        side, y = draws.choice((0, 1)), height * draws.uniform(0.3, 0.9)
        reach, thick = width * draws.uniform(0.2, 0.38), height * draws.uniform(0.1, 0.16)
        tip = reach if side == 0 else width - reach
        draw.rectangle((0, y, tip, y + thick) if side == 0 else (tip, y, width, y + thick), fill=skin)
        draw.ellipse((tip - thick / 2, y, tip + thick / 2, y + thick), fill=skin)
    elif kind == "neighbour":
        wide, colour = width * draws.uniform(0.1, 0.26), draws.choice(_PALETTE)
        left = 0.0 if draws.chance(0.5) else width - wide
        draw.rectangle((left, height * draws.uniform(0.0, 0.4), left + wide, height), fill=colour)
    else:
        y, colour = height * draws.uniform(0.1, 0.85), draws.choice(_PALETTE)
        draw.polygon(
            [(0, y), (width, y + height * draws.uniform(-0.15, 0.15)), (width, y + height * 0.16), (0, y + height * 0.1)],
            fill=colour,
        )


def _light(scene: Image.Image, draws: Draws) -> Image.Image:
    """Exposure, contrast, colour of the light, and a falling-off to one side."""
    gain, contrast = draws.uniform(0.7, 1.3), draws.uniform(0.75, 1.1)
    table: list[int] = []
    for _ in range(3):
        channel = gain * draws.uniform(0.86, 1.14)
        table += [min(255, max(0, round(channel * (128 + contrast * (value - 128))))) for value in range(256)]
    scene = scene.point(table)
    if draws.chance(0.6):
        dark = draws.uniform(0.45, 0.85)
        ramp = Image.linear_gradient("L").rotate(90 * int(4 * draws.unit())).resize(scene.size, Image.Resampling.BILINEAR)
        ramp = ramp.point([round(255 * (dark + (1 - dark) * value / 255)) for value in range(256)])
        scene = ImageChops.multiply(scene, Image.merge("RGB", (ramp, ramp, ramp)))
    return scene


def _muted(draws: Draws) -> Colour:
    """A palette colour mixed with grey: backgrounds compete with the products, but less loudly."""
    red, green, blue = draws.choice(_PALETTE)
    grey, share = draws.uniform(60, 220), draws.uniform(0.2, 0.75)
    return round(red + (grey - red) * share), round(green + (grey - green) * share), round(blue + (grey - blue) * share)


def _scaled(colour: Colour, factor: float) -> Colour:
    return round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor)
