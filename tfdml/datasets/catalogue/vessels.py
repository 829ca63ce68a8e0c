"""Families of products that hold something: bottles, cartons, cans, jars, tubes, mugs, teapots, vases."""

from __future__ import annotations

from tfdml.datasets.catalogue.curves import turned
from tfdml.datasets.catalogue.look import Colour, Look
from tfdml.datasets.catalogue.pen import Pen

METAL: Colour = (196, 200, 206)
TIN: Colour = (150, 154, 160)


def bottle(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    body, neck = 0.15 + 0.09 * a, 0.05 + 0.03 * b
    shoulder = 0.28 + 0.16 * c
    pen.polygon(
        turned([(0.10, neck), (0.20, neck), (shoulder + 0.08 * d, body), (0.90, body), (0.94, body * 0.92)]), None, "round"
    )
    pen.rounded((0.5 - neck * 1.25, 0.05, 0.5 + neck * 1.25, 0.13), 0.015, look.colours[1], "round")
    pen.label((0.5, 0.64 + 0.06 * look.label[0]))


def carton(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    width, depth, top = 0.34 + 0.16 * a, 0.10 + 0.08 * b, 0.18 + 0.16 * c
    left = 0.5 - (width + depth) / 2
    right = left + width
    pen.polygon([(right, top), (right + depth, top - 0.04), (right + depth, 0.88), (right, 0.94)], None, "side")
    pen.polygon([(left, top), (right, top), (right, 0.94), (left, 0.94)], None, "flat")
    if d < 0.5:
        ridge = top - 0.13
        pen.polygon([(left, top), (right, top), (right - 0.02, ridge), (left + 0.04, ridge)], look.colours[1], "flat")
        pen.polygon([(right, top), (right + depth, top - 0.04), (right - 0.02, ridge)], look.colours[1], "side")
        pen.polygon(
            [(left + 0.04, ridge), (right - 0.02, ridge), (right - 0.02, ridge - 0.04), (left + 0.04, ridge - 0.04)],
            look.colours[1],
        )
    else:
        pen.polygon([(left, top), (left + depth, top - 0.05), (right + depth, top - 0.05), (right, top)], look.colours[1])
    pen.label((left + width / 2, 0.52 + 0.12 * look.label[0]), min(1.0, width / 0.42))


def can(pen: Pen, look: Look) -> None:
    a, b, _, d = look.proportions
    radius, top = 0.17 + 0.12 * a, 0.12 + 0.2 * b
    bottom = 0.92
    pen.polygon(
        turned([(top, radius * 0.9), (top + 0.04, radius), (bottom - 0.04, radius), (bottom, radius * 0.92)]), None, "round"
    )
    pen.ellipse((0.5 - radius * 0.92, bottom - 0.03, 0.5 + radius * 0.92, bottom + 0.03), METAL, "round")
    pen.polygon(turned([(bottom - 0.06, radius), (bottom - 0.01, radius * 0.95)]), None, "round")
    pen.ellipse((0.5 - radius * 0.9, top - 0.035, 0.5 + radius * 0.9, top + 0.035), METAL, "flat")
    pen.ellipse((0.5 - radius * 0.74, top - 0.024, 0.5 + radius * 0.74, top + 0.026), TIN, "flat")
    if d < 0.6:
        pen.ellipse((0.47, top - 0.018, 0.55, top + 0.012), METAL)
    pen.label((0.5, (top + bottom) / 2 + 0.1 * (look.label[0] - 0.5)))


def jar(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    body, mouth, top = 0.2 + 0.12 * a, 0.14 + 0.08 * b, 0.2 + 0.14 * c
    pen.polygon(
        turned([(top, mouth), (top + 0.04, mouth), (top + 0.16, body), (0.84, body), (0.92, body * (0.7 + 0.28 * d))]),
        None,
        "round",
    )
    pen.rounded((0.5 - mouth * 1.12, top - 0.1, 0.5 + mouth * 1.12, top + 0.02), 0.02, look.colours[1], "round")
    pen.label((0.5, 0.58 + 0.1 * look.label[0]))


def tube(pen: Pen, look: Look) -> None:
    a, b, _, d = look.proportions
    width, neck = 0.16 + 0.1 * a, 0.09 + 0.05 * b
    foot = 0.78
    pen.polygon([(0.5 - width, 0.07), (0.5 + width, 0.07), (0.5 + neck, foot), (0.5 - neck, foot)], None, "round")
    pen.rounded((0.5 - width, 0.05, 0.5 + width, 0.1), 0.01, look.colours[1], "flat")
    cap = neck * (0.75 + 0.4 * d)
    pen.rounded((0.5 - cap, foot, 0.5 + cap, 0.94), 0.02, look.colours[1], "round")
    pen.label((0.5, 0.3 + 0.16 * look.label[0]), 0.85)


def mug(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    radius, foot, top = 0.2 + 0.08 * a, 0.15 + 0.1 * b, 0.2 + 0.14 * c
    reach = 0.15 + 0.06 * d
    pen.arc((0.42 + radius - reach, top + 0.12, 0.42 + radius + reach, 0.78), -95, 95, 0.055, look.colours[1])
    pen.polygon(turned([(top, radius), (0.72, radius * 0.98), (0.88, foot)], 0.42), None, "round")
    pen.ellipse((0.42 - foot, 0.85, 0.42 + foot, 0.91), None, "round")
    pen.ellipse((0.42 - radius, top - 0.05, 0.42 + radius, top + 0.05), look.colours[1], "flat")
    pen.ellipse((0.42 - radius * 0.9, top - 0.038, 0.42 + radius * 0.9, top + 0.042), look.colours[1], "inside")
    pen.label((0.42, 0.56), 0.8)


def teapot(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    wide, top, second = 0.22 + 0.07 * a, 0.34 + 0.1 * b, look.colours[1]
    middle = (top + 0.86) / 2
    pen.arc((0.5 + wide - 0.1, top + 0.02, 0.5 + wide + 0.16, 0.76), -110, 110, 0.05, second)
    tip = 0.1 + 0.05 * c
    pen.polygon(
        [(0.5 - wide + 0.06, middle + 0.14), (tip, top - 0.01), (tip + 0.06, top - 0.03), (0.5 - wide + 0.1, middle - 0.04)],
        second,
        "flat",
    )
    pen.ellipse((0.5 - wide, top, 0.5 + wide, 0.88), None, "sphere")
    pen.rounded((0.5 - wide * 0.5, 0.84, 0.5 + wide * 0.5, 0.91), 0.02, second, "round")
    pen.ellipse((0.5 - wide * 0.58, top - 0.05, 0.5 + wide * 0.58, top + 0.08), second, "round")
    knob = 0.03 + 0.02 * d
    pen.ellipse((0.5 - knob, top - 0.05 - 1.6 * knob, 0.5 + knob, top - 0.05 + 0.4 * knob), second, "sphere")


def vase(pen: Pen, look: Look) -> None:
    a, b, c, d = look.proportions
    mouth, neck, belly, foot = 0.1 + 0.12 * a, 0.06 + 0.08 * b, 0.18 + 0.12 * c, 0.08 + 0.1 * d
    at = 0.45 + 0.2 * look.label[0]
    pen.polygon(turned([(0.08, mouth), (0.24, neck), (at, belly), (0.86, foot * 0.9), (0.94, foot)]), None, "round")
    pen.ellipse((0.5 - mouth, 0.05, 0.5 + mouth, 0.11), look.colours[1], "inside")
    if look.label[1] < 0.5:
        pen.polygon(turned([(0.88, foot), (0.94, foot * 1.05)]), look.colours[1], "round")
