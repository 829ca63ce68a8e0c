"""A bundle that the first version wrote must be read by every later one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bundle_helpers import gallery_dataset

from tfdml.bundle import Bundle, Embedder, Manifest, Threshold, verify
from tfdml.bundle.layout import MANIFEST

GOLDEN = Path(__file__).with_name("golden")


def test_the_golden_bundle_is_read():
    report = verify(GOLDEN / "1", deep=True)
    manifest = report.manifest
    assert (manifest.tfdml_version, manifest.items, manifest.metric) == ("0.1.0", 24, "cosine")
    assert manifest.model.dimension == 6
    assert manifest.thresholds == {"example": Threshold(0.4, 0.3, 0.5, 0.95, "made up for this file")}
    data, expected = gallery_dataset(), np.load(GOLDEN / "expected.npz")
    embeddings = Embedder(GOLDEN).embed([data.image_bytes(number) for number in (0, 7, 20)])
    np.testing.assert_allclose(embeddings, expected["embeddings"], atol=1e-5)
    with Bundle.open(GOLDEN) as bundle:
        answers = bundle.search(embeddings, k=4)
    assert [[hit.id for hit in row] for row in answers] == expected["ids"].tolist()
    assert answers[1][0].fields == {"label": "class-3", "title": "Thing 7", "price": 10.5}


def test_its_manifest_is_written_back_byte_for_byte():
    data = (GOLDEN / "1" / MANIFEST).read_bytes()
    manifest = Manifest.from_bytes(data)
    assert (manifest.schema_version, manifest.search) == (1, None)
    assert manifest.to_bytes() == data


def test_the_golden_bundle_is_small():
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 200_000
