"""A catalogue of products that exist only here: drawn, not photographed, so it needs no download."""

from __future__ import annotations

from tfdml.datasets.catalogue.render import rendered_catalogue

__all__ = ["rendered_catalogue"]
