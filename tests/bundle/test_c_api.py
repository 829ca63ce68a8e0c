"""The exported SavedModel under TensorFlow's C API: the graph that TF-Serving sees, with no Python beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import encoded, gallery_images

from tfdml.bundle.operations import read_saved_model

SOURCE = Path(__file__).with_name("check_saved_model.c")


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """The compiled program, as a function: (directory, signature, inputs) -> (embeddings, valid)."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("a C compiler is needed (Annoy needs one as well): install gcc or clang")
    work = tmp_path_factory.mktemp("c_api")
    program, library = work / "check_saved_model", tf.sysconfig.get_lib()
    command = [compiler, "-Wall", "-Werror", "-O1", str(SOURCE), "-o", str(program)]
    command += ["-I", tf.sysconfig.get_include(), "-L", library, f"-Wl,-rpath,{library}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run(command, check=True, timeout=300)

    def run(directory: Path, signature: str, inputs) -> tuple[np.ndarray, np.ndarray]:
        definition = read_saved_model(directory).meta_graphs[0].signature_def[signature]
        (given,) = [tensor.name for tensor in definition.inputs.values()]
        names = [given, definition.outputs["embedding"].name, definition.outputs["valid"].name]
        output = work / "output"
        if isinstance(inputs, np.ndarray):
            (work / "pixels").write_bytes(inputs.tobytes())
            request = ["images", *map(str, inputs.shape[1:]), str(work / "pixels")]
        else:
            files = [work / f"image-{number}" for number in range(len(inputs))]
            for file, data in zip(files, inputs, strict=True):
                file.write_bytes(data)
            request = ["bytes", *map(str, files)]
        result = subprocess.run(
            [str(program), str(directory), *names, str(output), *request], capture_output=True, text=True, timeout=300
        )
        if result.returncode:
            raise RuntimeError(result.stderr)
        data = output.read_bytes()
        rows, dimension = np.frombuffer(data, np.int64, 2)
        embeddings = np.frombuffer(data, np.float32, rows * dimension, 16).reshape(rows, dimension)
        return embeddings, np.frombuffer(data, np.uint8, rows, 16 + embeddings.nbytes).astype(bool)

    return run


def test_bytes_agree_with_keras(check, exported):
    images = gallery_images()[:9]
    embeddings, valid = check(exported.path, "serving_default", [encoded(image) for image in images])
    assert valid.all()
    np.testing.assert_allclose(embeddings, exported.model.embed(images), atol=1e-5, rtol=0)


def test_images_agree_with_keras(check, exported):
    images = gallery_images()
    embeddings, valid = check(exported.path, "embed_images", images)
    assert valid.all()
    np.testing.assert_allclose(embeddings, exported.model.embed(images), atol=1e-5, rtol=0)


def test_bad_images_do_not_fail_their_neighbours(check, exported):
    images = gallery_images()[:2]
    files = [b"", encoded(images[0]), b"not an image", encoded(images[1]), encoded(images[1])[:60]]
    embeddings, valid = check(exported.path, "serving_default", files)
    assert valid.tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(embeddings[valid], exported.model.embed(images), atol=1e-5, rtol=0)
    assert not embeddings[~valid].any()


def test_a_wrong_size_is_refused(check, exported):
    with pytest.raises(RuntimeError, match=r"run: .*\[2,13,12,3\] is not compatible"):
        check(exported.path, "embed_images", np.zeros([2, 13, 12, 3], np.uint8))
