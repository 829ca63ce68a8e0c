"""Items that are added, changed and removed while a bundle is served. Loads no TensorFlow."""

from tfdml_serving.living.records import Entry, LivingCatalogueError
from tfdml_serving.living.store import LivingCatalogue

__all__ = ["Entry", "LivingCatalogue", "LivingCatalogueError"]
