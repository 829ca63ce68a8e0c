"""For users of TF Similarity and TF Addons: their models with tfdml's losses and indexes.

`docs/migration.md` says which arguments of tfdml give the same numbers as theirs.

- **Losses in a `SimilarityModel`** need nothing from here: pass any loss of `tfdml.losses` to its `compile`. Those with a
  `distance` are understood by `distance="auto"`; to the others say which, for example `distance="cosine"`.
- **Search**: `AnnoySearch` and `ExactSearch` take the place of NMSLIB in `SimilarityModel.compile(search=...)`.
- **Distances as `y_pred`**, as in `tfa.losses.ContrastiveLoss`: `DistanceContrastiveLoss`.

TF Similarity is imported with the searches, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfdml.integrations.tf_addons import DistanceContrastiveLoss
    from tfdml.integrations.tf_similarity import AnnoySearch, ExactSearch

__all__ = ["AnnoySearch", "DistanceContrastiveLoss", "ExactSearch"]

_HOME = {"AnnoySearch": "tf_similarity", "ExactSearch": "tf_similarity", "DistanceContrastiveLoss": "tf_addons"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"tfdml.integrations.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfdml.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
