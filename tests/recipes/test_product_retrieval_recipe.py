from __future__ import annotations

import pytest
from recipe_runs import run_alone

import tfdml


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [pytest.param("small", marks=pytest.mark.one_stack), "resnet18_v2"])
def test_product_retrieval(tmp_path, backbone):
    pytest.importorskip("keras_cv")
    photos = tmp_path / "photos"
    data = tfdml.datasets.rendered_catalogue(classes=8, views=4, image_size=64)
    for number, item in enumerate(data.ids):
        path = photos / f"{item}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.image_bytes(number))
    options = ["--steps", 3, "--classes", 4, "--examples", 2, "--backbone", backbone]
    output = run_alone("product_retrieval.py", "--photos", photos, "--to", tmp_path / "exports", *options)
    assert "untrained: Recall@1" in output
    assert "trained: Recall@1" in output
    assert output.count("product-") >= 6
    assert len(tfdml.bundle.Bundle.open(tmp_path / "exports")) == 15
