"""The families of products: each is drawn from its proportions, colours, pattern and label."""

from __future__ import annotations

from collections.abc import Callable

from tfdml.datasets.catalogue import vessels, wares
from tfdml.datasets.catalogue.look import Look
from tfdml.datasets.catalogue.pen import Pen

# Products that may also be seen from the other side; the others carry writing.
MIRRORED = frozenset({"shoe", "teapot", "chair", "lamp", "ball"})


def draw_family(pen: Pen, look: Look) -> None:
    """Draws the product on the pen's canvas."""
    _FAMILIES[look.family](pen, look)


_FAMILIES: dict[str, Callable[[Pen, Look], None]] = {
    "bottle": vessels.bottle,
    "carton": vessels.carton,
    "can": vessels.can,
    "jar": vessels.jar,
    "tube": vessels.tube,
    "mug": vessels.mug,
    "teapot": vessels.teapot,
    "vase": vessels.vase,
    "handbag": wares.handbag,
    "shoe": wares.shoe,
    "shirt": wares.shirt,
    "chair": wares.chair,
    "lamp": wares.lamp,
    "fruit": wares.fruit,
    "ball": wares.ball,
    "clock": wares.clock,
}
