"""One real bundle per session, and one without a real model, for tests that only read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from bundle_helpers import gallery_dataset, pack_fake_model, tiny_model


class Exported(NamedTuple):
    path: Path
    model: object
    data: object


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    """A published bundle, with the model and the gallery it was made of."""
    from tfdml import bundle

    model, data = tiny_model(), gallery_dataset()
    to = tmp_path_factory.mktemp("exported") / "products"
    options = {"evaluation": {"recall_at_1": 0.5}, "search_fields": ["label", "price"]}
    with bundle.export(model, data, to, **options) as published:
        return Exported(published.path, model, data)


@pytest.fixture(scope="session")
def exported_with_lists(exported, tmp_path_factory) -> Exported:
    """The same model and gallery; its SavedModel searches in lists, all of which it looks into for the asked recall of 1."""
    from tfdml import bundle

    to = tmp_path_factory.mktemp("exported-with-lists") / "products"
    options = {"search": "ivf", "recall": 1.0, "search_fields": ["label", "price"]}
    with bundle.export(exported.model, exported.data, to, **options) as published:
        return Exported(published.path, exported.model, exported.data)


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """A version directory whose SavedModel is only bytes."""
    path = tmp_path_factory.mktemp("packed") / "1"
    path.mkdir()
    pack_fake_model(path, np.random.default_rng(0).normal(size=(30, 5)))
    return path
