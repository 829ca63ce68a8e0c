"""tfdml: deep metric learning for TensorFlow and Keras, from labelled images to a served visual search.

Sub-packages are imported when they are first used, so that `import tfdml` loads no TensorFlow: a search container that only
reads bundles stays small and starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = (
    "augmentation",
    "bundle",
    "data_care",
    "datasets",
    "distances",
    "evaluation",
    "index",
    "integrations",
    "layers",
    "losses",
    "mining",
    "models",
    "optimizers",
    "preprocessing",
    "replicas",
    "report",
    "samplers",
    "scale",
    "schedules",
)

__all__ = ["EmbeddingModel", "__version__", *_SUBMODULES]

if TYPE_CHECKING:
    from tfdml import (  # noqa: F401
        augmentation,
        bundle,
        data_care,
        datasets,
        distances,
        evaluation,
        index,
        integrations,
        layers,
        losses,
        mining,
        models,
        optimizers,
        preprocessing,
        replicas,
        report,
        samplers,
        scale,
        schedules,
    )
    from tfdml.models import EmbeddingModel


def __getattr__(name: str) -> Any:
    if name == "EmbeddingModel":
        from tfdml.models import EmbeddingModel

        return EmbeddingModel
    if name in _SUBMODULES:
        return importlib.import_module(f"tfdml.{name}")
    raise AttributeError(f"module 'tfdml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
