"""A bundle made under one Keras answers the same under the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import gallery_images

from tfdml.bundle import Bundle, Embedder, Searcher

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = [ROOT / ".venv", ROOT / ".venv-keras2"]


def other_python() -> Path:
    for environment in ENVIRONMENTS:
        if environment.exists() and Path(sys.prefix).resolve() != environment.resolve():
            return environment / "bin" / "python"
    pytest.skip("only one environment is installed")


@pytest.mark.slow
@pytest.mark.parametrize("searches", [pytest.param("exported", marks=pytest.mark.one_stack), "exported_with_lists"])
def test_the_other_stack_finds_the_same_neighbours(request, searches, tmp_path):
    exported = request.getfixturevalue(searches)
    from bundle_helpers import encoded

    files = []
    for number, image in enumerate(gallery_images(30, side=40)[::2]):
        files.append(tmp_path / f"{number}.img")
        files[-1].write_bytes(encoded(image, ["PNG", "JPEG"][number % 2]))
    script = Path(__file__).with_name("read_bundle.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "serving")])}
    command = [str(other_python()), str(script), str(exported.path), *map(str, files)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    there = json.loads(result.stdout.splitlines()[-1])
    assert "refused" not in there, there
    embeddings = Embedder(exported.path).embed([file.read_bytes() for file in files])
    np.testing.assert_allclose(there["embeddings"], embeddings, atol=1e-5)
    with Bundle.open(exported.path) as bundle:
        assert there["ids"] == [[hit.id for hit in row] for row in bundle.search(embeddings, k=5)]
    assert there["searched"] == Searcher(exported.path).search([file.read_bytes() for file in files], k=5).ids.tolist()
