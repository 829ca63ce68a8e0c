"""What makes a product a class: its family, proportions, colours, pattern and label. All its views share one `Look`."""

from __future__ import annotations

import dataclasses
import math

from PIL import Image, ImageDraw

from tfdml.datasets.catalogue.draws import Draws

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (200, 36, 44),
    "orange": (236, 124, 30),
    "yellow": (244, 202, 52),
    "lime": (150, 196, 54),
    "green": (38, 128, 68),
    "teal": (28, 142, 146),
    "sky": (112, 182, 226),
    "blue": (40, 88, 184),
    "navy": (32, 42, 92),
    "purple": (118, 62, 152),
    "pink": (234, 130, 168),
    "brown": (124, 78, 46),
    "cream": (238, 224, 190),
    "white": (242, 242, 240),
    "grey": (140, 144, 150),
    "black": (42, 42, 46),
}
FAMILIES = (
    "bottle",
    "carton",
    "can",
    "jar",
    "tube",
    "mug",
    "teapot",
    "vase",
    "handbag",
    "shoe",
    "shirt",
    "chair",
    "lamp",
    "fruit",
    "ball",
    "clock",
)
PATTERNS = ("plain", "dots", "hoops", "stripes", "diagonals", "checks", "fade", "zigzag")
MOTIFS = ("disc", "ring", "star", "leaf", "triangle", "heart", "cross", "sun", "bars", "diamond")
_SYLLABLES = ("bo", "da", "fe", "ki", "lu", "ma", "no", "pe", "ri", "so", "ta", "vi", "zu", "ol", "an", "er")


@dataclasses.dataclass(frozen=True)
class Look:
    """One product class.

    Attributes:
        family: what kind of product, one of `FAMILIES`.
        colour_names: main colour, second colour (caps, lids, handles, soles) and label colour.
        colours: the same as RGB, varied a little, so that two red bottles are not the same red.
        pattern, motif: one of `PATTERNS` and of `MOTIFS`.
        proportions: numbers from 0 to 1 that a family turns into heights, widths and curves.
        scale: how coarse the pattern is, 0 to 1.
        label: position and size of the label: centre height, width, height, each 0 to 1.
        brand: an invented name.
        price: in some currency, always the same for one class.
    """

    family: str
    colour_names: tuple[str, str, str]
    colours: tuple[Colour, Colour, Colour]
    pattern: str
    motif: str
    proportions: tuple[float, float, float, float]
    scale: float
    label: tuple[float, float, float]
    round_label: bool
    brand: str
    price: float

    @property
    def key(self) -> tuple[object, ...]:
        """What two classes never have in common all at once."""
        return (self.family, self.colour_names, self.pattern, self.motif)

    @property
    def title(self) -> str:
        pattern = "" if self.pattern == "plain" else f" with {self.pattern}"
        return f"{self.brand} {self.colour_names[0]} {self.family}{pattern}"


def draw_looks(classes: int, seed: int) -> list[Look]:
    """`classes` different looks; a longer list starts with the shorter one."""
    looks: list[Look] = []
    taken = set()
    for number in range(classes):
        draws = Draws(seed, number)
        look = _draw_look(draws)
        while look.key in taken:
            look = _draw_look(draws)
        taken.add(look.key)
        looks.append(look)
    return looks


def _draw_look(draws: Draws) -> Look:
    names = list(COLOURS)
    main = draws.choice(names)
    second = draws.choice([name for name in names if name != main])
    label = draws.choice([name for name in names if name not in (main, second)])
    brand = "".join(draws.choice(_SYLLABLES) for _ in range(2 + draws.chance(0.5))).capitalize()
    return Look(
        family=draws.choice(FAMILIES),
        colour_names=(main, second, label),
        colours=(_vary(main, draws), _vary(second, draws), _vary(label, draws)),
        pattern=draws.choice(PATTERNS),
        motif=draws.choice(MOTIFS),
        proportions=(draws.unit(), draws.unit(), draws.unit(), draws.unit()),
        scale=draws.unit(),
        label=(draws.unit(), draws.unit(), draws.unit()),
        round_label=draws.chance(0.35),
        brand=brand,
        price=round(draws.uniform(2, 60)) - 0.05,
    )


def _vary(name: str, draws: Draws) -> Colour:
    red, green, blue = (min(255, max(0, round(value + draws.uniform(-14, 14)))) for value in COLOURS[name])
    return red, green, blue


def draw_texture(look: Look, side: int) -> Image.Image:
    """The pattern of the product's body, `side` high and twice as wide, so that a view can turn it."""
    width, height = 2 * side, side
    main, second = look.colours[0], look.colours[1]
    image = Image.new("RGB", (width, height), main)
    draw = ImageDraw.Draw(image)
    step = max(4, round(side * (0.09 + 0.11 * look.scale)))
    if look.pattern == "dots":
        radius = step * 0.3
        for row, y in enumerate(range(0, height + step, step)):
            for x in range((row % 2) * step // 2, width + step, step):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
    elif look.pattern == "hoops":
        for y in range(0, height, 2 * step):
            draw.rectangle((0, y, width, y + step - 1), fill=second)
    elif look.pattern == "stripes":
        for x in range(0, width, 2 * step):
            draw.rectangle((x, 0, x + step // 2, height), fill=second)
    elif look.pattern == "diagonals":
        for x in range(-height, width, 2 * step):
            draw.polygon([(x, height), (x + step, height), (x + step + height, 0), (x + height, 0)], fill=second)
    elif look.pattern == "checks":
        for row, y in enumerate(range(0, height, step)):
            for x in range((row % 2) * step, width, 2 * step):
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=second)
    elif look.pattern == "fade":
        ramp = Image.linear_gradient("L").resize((width, height))
        image = Image.composite(Image.new("RGB", (width, height), second), image, ramp)
    elif look.pattern == "zigzag":
        for y in range(0, height + 2 * step, 2 * step):
            points = [(x, y + (step if i % 2 else 0)) for i, x in enumerate(range(0, width + step, step))]
            draw.line(points, fill=second, width=max(2, step // 3), joint="curve")
    return image


def draw_label(look: Look, side: int) -> Image.Image:
    """The product's label, RGBA: a motif above lines of writing on a plate."""
    _, wide, high = look.label
    width, height = round(side * (0.30 + 0.14 * wide)), round(side * (0.22 + 0.16 * high))
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    plate, ink = look.colours[2], look.colours[1]
    if look.round_label:
        draw.ellipse((0, 0, width - 1, height - 1), fill=plate)
    else:
        draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=height * 0.12, fill=plate)
    size = height * 0.26
    draw_motif(draw, look.motif, (width / 2, height * 0.38), size, ink)
    for line, share in ((0.74, 0.5), (0.86, 0.3)):
        half = width * share / 2
        draw.rectangle((width / 2 - half, height * line, width / 2 + half, height * (line + 0.06)), fill=ink)
    return image


def draw_motif(draw: ImageDraw.ImageDraw, motif: str, centre: tuple[float, float], size: float, ink: Colour) -> None:
    """A simple sign of half-width `size`."""
    x, y = centre
    box = (x - size, y - size, x + size, y + size)
    if motif == "disc":
        draw.ellipse(box, fill=ink)
    elif motif == "ring":
        draw.ellipse(box, outline=ink, width=max(2, round(size * 0.4)))
    elif motif in ("star", "sun"):
        draw.polygon(_star(x, y, size * 1.15, *((5, 0.42) if motif == "star" else (9, 0.62))), fill=ink)
    elif motif == "leaf":
        draw.chord((x - 1.4 * size, y - size, x + size, y + 1.4 * size), 240, 30, fill=ink)
        draw.chord((x - size, y - 1.4 * size, x + 1.4 * size, y + size), 60, 210, fill=ink)
    elif motif == "triangle":
        draw.polygon([(x, y - size), (x + size, y + size * 0.8), (x - size, y + size * 0.8)], fill=ink)
    elif motif == "heart":
        draw.ellipse((x - size, y - size, x + size * 0.08, y + size * 0.2), fill=ink)
        draw.ellipse((x - size * 0.08, y - size, x + size, y + size * 0.2), fill=ink)
        draw.polygon([(x - size * 0.94, y - size * 0.1), (x + size * 0.94, y - size * 0.1), (x, y + size)], fill=ink)
    elif motif == "cross":
        arm = size * 0.36
        draw.rectangle((x - arm, y - size, x + arm, y + size), fill=ink)
        draw.rectangle((x - size, y - arm, x + size, y + arm), fill=ink)
    elif motif == "bars":
        for offset in (-0.8, -0.1, 0.6):
            draw.rectangle((x - size, y + size * offset, x + size, y + size * (offset + 0.36)), fill=ink)
    elif motif == "diamond":
        draw.polygon([(x, y - size), (x + size * 0.8, y), (x, y + size), (x - size * 0.8, y)], fill=ink)


def _star(x: float, y: float, radius: float, points: int, inner: float) -> list[tuple[float, float]]:
    corners = []
    for i in range(2 * points):
        reach = radius * (inner if i % 2 else 1.0)
        angle = math.pi * (i / points - 0.5)
        corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return corners
