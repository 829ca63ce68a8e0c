"""The parts of a service as its settings ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfdml_serving.settings import Settings

if TYPE_CHECKING:
    from tfdml_serving.embedding.base import ImageEmbedder
    from tfdml_serving.living.store import LivingCatalogue
    from tfdml_serving.rollout.versions import Versions


def make_parts(settings: Settings) -> tuple[Versions, ImageEmbedder, LivingCatalogue | None]:
    """Versions, embedder and living catalogue."""
    from tfdml_serving.embedding import make_embedder
    from tfdml_serving.living.store import LivingCatalogue
    from tfdml_serving.rollout.versions import Versions

    embedder = make_embedder(settings, settings.served_name)
    living = None if settings.living is None else LivingCatalogue.open(settings.living)
    return Versions(settings, embedder, living), embedder, living
