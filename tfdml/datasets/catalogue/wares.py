"""Families of other products: handbags, shoes, shirts, chairs, lamps, fruit, balls, clocks."""

from __future__ import annotations

import math

from tfdml.datasets.catalogue.curves import smooth, turned
from tfdml.datasets.catalogue.look import Colour, Look
from tfdml.datasets.catalogue.pen import Pen

STALK: Colour = (64, 54, 50)
LEAF: Colour = (70, 132, 58)
PAPER: Colour = (244, 242, 236)


def handbag(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    wide, narrow, top = 0.30 + 0.1 * a, 0.24 + 0.1 * b, 0.36 + 0.12 * c
    handle = 0.14 + 0.08 * d
    pen.arc((0.5 - handle, top - 0.28, 0.5 + handle, top + 0.24), 180, 360, 0.045, look.colours[1])
    pen.polygon(
        [
            (0.5 - narrow, top),
            (0.5 + narrow, top),
            (0.5 + wide, 0.86),
            (0.5 + wide - 0.04, 0.91),
            (0.5 - wide + 0.04, 0.91),
            (0.5 - wide, 0.86),
        ],
        None,
        "flat",
    )
    if look.label[1] < 0.6:
        drop = top + 0.14 + 0.16 * look.label[0]
        pen.polygon(
            [
                (0.5 - narrow - 0.01, top - 0.01),
                (0.5 + narrow + 0.01, top - 0.01),
                (0.5 + narrow * 0.9, drop - 0.05),
                (0.5, drop + 0.04),
                (0.5 - narrow * 0.9, drop - 0.05),
            ],
            look.colours[1],
            "flat",
        )
        pen.ellipse((0.47, drop - 0.04, 0.53, drop + 0.02), look.colours[2])
    else:
        pen.label((0.5, 0.66), 0.9)


def shoe(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    collar, heel = 0.28 + 0.18 * a, 0.02 + 0.1 * b
    second, third = look.colours[1], look.colours[2]
    upper = smooth(
        [
            (0.08, 0.72 - heel),
            (0.1, collar + 0.02),
            (0.2, collar - 0.02),
            (0.36, collar + 0.04),
            (0.48, 0.52),
            (0.66, 0.58 + 0.03 * c),
            (0.86, 0.62 + 0.03 * c),
            (0.93, 0.72),
            (0.92, 0.76),
        ]
    )
    pen.polygon([*upper, (0.5, 0.78), (0.08, 0.76 - heel * 0.5)], None, "flat")
    pen.polygon(
        smooth([(0.1, collar + 0.02), (0.2, collar - 0.02), (0.36, collar + 0.04), (0.3, collar + 0.1), (0.16, collar + 0.09)]),
        second,
        "inside",
    )
    thick = 0.07 + 0.05 * d
    pen.polygon(
        [
            (0.07, 0.74 - heel),
            (0.3, 0.76),
            (0.93, 0.74),
            (0.94, 0.76 + thick * 0.7),
            (0.9, 0.76 + thick),
            (0.34, 0.76 + thick),
            (0.3, 0.76 + thick * 0.6),
            (0.26, 0.77 + thick + heel),
            (0.07, 0.77 + thick + heel),
        ],
        second,
        "flat",
    )
    if look.label[1] < 0.65:
        for i in range(4):
            x, y = 0.38 + 0.07 * i, collar + 0.1 + (0.53 - collar - 0.1) * (i + 1) / 4
            pen.line([(x - 0.03, y + 0.05), (x + 0.05, y + 0.02)], 0.018, third)
    if look.label[2] < 0.7:
        pen.polygon([(0.22, 0.7), (0.3, 0.7), (0.46, 0.56), (0.4, 0.56)], third)


def shirt(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    body, sleeve, hem = 0.21 + 0.06 * a, 0.34 + 0.3 * b, 0.82 + 0.1 * c
    neck = 0.08 + 0.04 * d
    left = [
        (0.5 - neck, 0.12),
        (0.5 - body - 0.04, 0.17),
        (0.5 - body - 0.17, sleeve),
        (0.5 - body - 0.05, sleeve + 0.06),
        (0.5 - body, 0.38),
        (0.5 - body, hem),
    ]
    pen.polygon([*left, *[(1 - x, y) for x, y in reversed(left)]], None, "flat")
    pen.ellipse((0.5 - neck, 0.07, 0.5 + neck, 0.21), look.colours[1], "inside")
    pen.arc((0.5 - neck, 0.05, 0.5 + neck, 0.22), 0, 180, 0.025, look.colours[1])
    if look.label[1] < 0.5:
        pen.label((0.5, 0.42 + 0.08 * look.label[0]), 0.75)
    if look.label[2] < 0.4:
        pen.rounded((0.5 - body, hem - 0.05, 0.5 + body, hem), 0.01, look.colours[1], "flat")


def chair(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    wide, top, seat = 0.2 + 0.08 * a, 0.08 + 0.16 * b, 0.52 + 0.08 * c
    second = look.colours[1]
    for x, foot, start in (
        (0.5 - wide + 0.03, 0.9, seat),
        (0.5 + wide - 0.02, 0.9, seat),
        (0.5 - wide + 0.08, 0.82, seat),
        (0.5 + wide + 0.04, 0.82, seat),
    ):
        pen.line([(x, start), (x + 0.03 * (1 if x > 0.5 else -1) * d, foot)], 0.03 + 0.02 * d, second)
    if look.label[1] < 0.4:
        for i in range(4):
            x = 0.5 - wide + 0.06 + (2 * wide - 0.08) * i / 3
            pen.line([(x, top + 0.05), (x, seat)], 0.025, second)
        pen.rounded((0.5 - wide + 0.02, top, 0.5 + wide + 0.02, top + 0.13), 0.03, None, "flat")
    else:
        pen.rounded((0.5 - wide + 0.03, top, 0.5 + wide + 0.03, seat - 0.05 * d), 0.03 + 0.12 * look.label[2], None, "flat")
    pen.polygon(
        [
            (0.5 - wide + 0.05, seat - 0.07),
            (0.5 + wide + 0.06, seat - 0.07),
            (0.5 + wide, seat + 0.05),
            (0.5 - wide, seat + 0.05),
        ],
        None,
        "flat",
    )
    pen.polygon(
        [(0.5 - wide, seat + 0.05), (0.5 + wide, seat + 0.05), (0.5 + wide, seat + 0.09), (0.5 - wide, seat + 0.09)],
        None,
        "side",
    )


def lamp(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    top, bottom, drop = 0.08 + 0.14 * a, 0.2 + 0.12 * b, 0.38 + 0.1 * c
    second = look.colours[1]
    if d < 0.5:
        pen.line([(0.5, drop), (0.5, 0.88)], 0.035, second)
    else:
        pen.polygon(turned([(drop, 0.03), (0.62, 0.05 + 0.1 * d), (0.84, 0.04)]), look.colours[2], "round")
    pen.ellipse((0.5 - 0.14 - 0.06 * c, 0.84, 0.5 + 0.14 + 0.06 * c, 0.93), second, "round")
    pen.polygon([(0.5 - top, 0.08), (0.5 + top, 0.08), (0.5 + bottom, drop), (0.5 - bottom, drop)], None, "round")
    pen.ellipse((0.5 - bottom, drop - 0.03, 0.5 + bottom, drop + 0.03), (255, 236, 180), "flat")
    pen.polygon(
        [
            (0.5 - bottom, drop - 0.02),
            (0.5 + bottom, drop - 0.02),
            (0.5 + bottom * 0.97, drop + 0.012),
            (0.5 - bottom * 0.97, drop + 0.012),
        ],
        None,
        "round",
    )


def fruit(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    top, belly, foot = 0.08 + 0.2 * a, 0.24 + 0.1 * b, 0.1 + 0.12 * c
    middle = 0.5 + 0.14 * d
    pen.line([(0.5, 0.26), (0.5 + 0.06 * (b - 0.5), 0.1)], 0.028, STALK)
    pen.polygon(turned([(0.2, top * 0.4), (0.23, top), (middle, belly), (0.86, foot), (0.9, foot * 0.5)]), None, "sphere")
    leaves = 1 + (look.label[0] > 0.5)
    for i in range(leaves):
        side = 1 if i == 0 else -1
        pen.polygon(
            smooth([(0.5, 0.2), (0.5 + side * 0.1, 0.09), (0.5 + side * 0.24, 0.12), (0.5 + side * 0.13, 0.21), (0.5, 0.2)]),
            LEAF if look.label[1] < 0.7 else look.colours[1],
            "flat",
        )
    if look.label[2] < 0.5:
        pen.label((0.44, 0.52), 0.42)


def ball(pen: Pen, look: Look) -> None:
    a, b, c, _ = look.proportions
    radius = 0.3 + 0.08 * a
    box = (0.5 - radius, 0.54 - radius, 0.5 + radius, 0.54 + radius)
    pen.ellipse(box, None, "sphere")
    ink, width = look.colours[2], 0.014 + 0.02 * b
    if c < 0.34:
        pen.arc((box[0] - radius, box[1], box[0] + radius * 0.75, box[3]), -62, 62, width, ink)
        pen.arc((box[2] - radius * 0.75, box[1], box[2] + radius, box[3]), 118, 242, width, ink)
    elif c < 0.67:
        pen.line([(0.5, 0.545 - radius), (0.5, 0.535 + radius)], width, ink)
        pen.line([(0.505 - radius, 0.54), (0.495 + radius, 0.54)], width, ink)
    else:
        points = [(0.5 + 0.13 * math.cos(t), 0.52 + 0.13 * math.sin(t)) for t in (i * math.tau / 5 - 1.57 for i in range(5))]
        pen.polygon(points, ink, "flat")


def clock(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    radius, rim = 0.3 + 0.06 * a, 0.05 + 0.06 * b
    second, third = look.colours[1], look.colours[2]
    if c < 0.4:
        pen.line([(0.34, 0.78), (0.26, 0.92)], 0.05, second)
        pen.line([(0.66, 0.78), (0.74, 0.92)], 0.05, second)
    if d < 0.4:
        pen.ellipse((0.2, 0.08, 0.42, 0.3), third, "sphere")
        pen.ellipse((0.58, 0.08, 0.8, 0.3), third, "sphere")
    box = (0.5 - radius, 0.52 - radius, 0.5 + radius, 0.52 + radius)
    if look.label[1] < 0.5:
        pen.ellipse(box, None, "sphere")
    else:
        pen.rounded(box, 0.04 + 0.12 * look.label[2], None, "flat")
    inner = radius - rim
    pen.ellipse((0.5 - inner, 0.52 - inner, 0.5 + inner, 0.52 + inner), PAPER if look.label[0] < 0.6 else second, "flat")
    for i in range(12):
        cos, sin = math.cos(i * math.tau / 12), math.sin(i * math.tau / 12)
        pen.line(
            [(0.5 + inner * 0.82 * cos, 0.52 + inner * 0.82 * sin), (0.5 + inner * 0.92 * cos, 0.52 + inner * 0.92 * sin)],
            0.012,
            third,
        )
    for length, angle, width in ((0.5, 4 * a, 0.03), (0.75, 5 + 4 * b, 0.02)):
        pen.line([(0.5, 0.52), (0.5 + inner * length * math.cos(angle), 0.52 + inner * length * math.sin(angle))], width, third)
