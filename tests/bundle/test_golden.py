"""Bundles that earlier versions wrote must be read by every later one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import gallery_dataset

from tfdml.bundle import Bundle, Embedder, Manifest, Searcher, Threshold, verify
from tfdml.bundle.layout import MANIFEST

FOLDER = Path(__file__).parent
GOLDEN = {1: FOLDER / "golden", 2: FOLDER / "golden_2", 3: FOLDER / "golden_3"}
"""By the schema version of their manifests."""


@pytest.mark.parametrize("schema", GOLDEN)
def test_a_golden_bundle_is_read(schema):
    golden = GOLDEN[schema]
    manifest = verify(golden / "1", deep=True).manifest
    assert (manifest.schema_version, manifest.tfdml_version, manifest.items) == (schema, "0.1.0", 24)
    assert (manifest.metric, manifest.model.dimension) == ("cosine", 6)
    assert manifest.thresholds == {"example": Threshold(0.4, 0.3, 0.5, 0.95, "made up for this file")}
    data, expected = gallery_dataset(), np.load(golden / "expected.npz")
    embeddings = Embedder(golden).embed([data.image_bytes(number) for number in (0, 7, 20)])
    np.testing.assert_allclose(embeddings, expected["embeddings"], atol=1e-5)
    with Bundle.open(golden) as bundle:
        answers = bundle.search(embeddings, k=4)
    assert [[hit.id for hit in row] for row in answers] == expected["ids"].tolist()
    assert answers[1][0].fields == {"label": "class-3", "title": "Thing 7", "price": 10.5}


@pytest.mark.parametrize("schema", [2, 3])
def test_a_golden_bundle_is_searched_by_its_model(schema):
    golden, data = GOLDEN[schema], gallery_dataset()
    searcher, expected = Searcher(golden), np.load(golden / "expected.npz")
    assert (searcher.max_k, searcher.manifest.search.method) == (20, "ivf")
    answers = searcher.search([data.image_bytes(number) for number in (0, 7, 20)], k=4)
    assert answers.ids.tolist() == expected["searched"].tolist()
    np.testing.assert_allclose(answers.distances, expected["distances"], atol=1e-5)
    assert answers.fields["price"][1, 0] == 10.5


@pytest.mark.parametrize("schema", GOLDEN)
def test_a_manifest_is_written_back_byte_for_byte(schema):
    data = (GOLDEN[schema] / "1" / MANIFEST).read_bytes()
    manifest = Manifest.from_bytes(data)
    assert (manifest.schema_version, manifest.search is None) == (schema, schema == 1)
    assert manifest.to_bytes() == data
    assert (manifest.space, manifest.folded) == (manifest.model.fingerprint, None)


@pytest.mark.parametrize(("schema", "most"), [(1, 200_000), (2, 400_000), (3, 400_000)])
def test_golden_bundles_are_small(schema, most):
    assert sum(file.stat().st_size for file in GOLDEN[schema].rglob("*") if file.is_file()) < most
