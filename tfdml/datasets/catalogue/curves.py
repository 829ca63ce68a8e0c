"""Outlines that are smooth curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Point = tuple[float, float]


def turned(profile: Sequence[tuple[float, float]], centre: float = 0.5) -> list[Point]:
    """The outline of a turned body from (height, radius) pairs, joined by smooth curves."""
    points: list[tuple[float, float]] = []
    for (y0, r0), (y1, r1) in itertools.pairwise(profile):
        for i in range(8):
            t = i / 8
            ease = (1 - math.cos(math.pi * t)) / 2
            points.append((y0 + (y1 - y0) * t, r0 + (r1 - r0) * ease))
    points.append(profile[-1])
    return [(centre - r, y) for y, r in points] + [(centre + r, y) for y, r in reversed(points)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    padded = [points[0], *points, points[-1]]
    curve: list[Point] = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for i in range(6):
            t = i / 6
            x, y = (
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
            )
            curve.append((x, y))
    return [*curve, points[-1]]
