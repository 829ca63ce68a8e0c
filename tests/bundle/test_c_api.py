"""The exported SavedModel under TensorFlow's C API: the graph that TF-Serving sees, with no Python beside it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import ITEMS, encoded, gallery_images

from tfdml.bundle import Bundle
from tfdml.bundle.graph_search import NO_DISTANCE
from tfdml.bundle.operations import read_saved_model

SOURCE = Path(__file__).with_name("check_saved_model.c")


def to_file(path: Path, value: np.ndarray) -> None:
    """A tensor as the program reads it."""
    dtype = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
    header = struct.pack(f"<{2 + value.ndim}q", dtype.as_datatype_enum, value.ndim, *value.shape)
    if value.dtype == object:
        body = b"".join(struct.pack("<q", len(text)) + text for text in value.ravel())
    else:
        body = value.tobytes()
    path.write_bytes(header + body)


def from_bytes(data: bytes, position: int) -> tuple[np.ndarray, int]:
    """A tensor as the program writes it, and where the next one begins."""
    enum, rank = struct.unpack_from("<2q", data, position)
    shape = struct.unpack_from(f"<{rank}q", data, position + 16)
    position += 16 + 8 * rank
    dtype, count = tf.as_dtype(enum), int(np.prod(shape))
    if dtype != tf.string:
        value = np.frombuffer(data, dtype.as_numpy_dtype, count, position).reshape(shape)
        return value, position + value.nbytes
    texts = np.empty(count, object)
    for number in range(count):
        (length,) = struct.unpack_from("<q", data, position)
        texts[number] = data[position + 8 : position + 8 + length]
        position += 8 + length
    return texts.reshape(shape), position


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """The compiled program, as a function: (directory, signature, inputs by name) -> outputs by name."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("a C compiler is needed (Annoy needs one as well): install gcc or clang")
    work = tmp_path_factory.mktemp("c_api")
    program, library = work / "check_saved_model", tf.sysconfig.get_lib()
    command = [compiler, "-Wall", "-Werror", "-O1", str(SOURCE), "-o", str(program)]
    command += ["-I", tf.sysconfig.get_include(), "-L", library, f"-Wl,-rpath,{library}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run(command, check=True, timeout=300)

    def run(directory: Path, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        definition = read_saved_model(directory).meta_graphs[0].signature_def[signature]
        assert set(inputs) == set(definition.inputs)
        feeds = []
        for name, value in inputs.items():
            to_file(work / name, value)
            feeds += [definition.inputs[name].name, str(work / name)]
        outputs = sorted(definition.outputs)
        names = [definition.outputs[name].name for name in outputs]
        command = [str(program), str(directory), str(work / "output"), str(len(inputs)), *feeds, *names]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode:
            raise RuntimeError(result.stderr)
        data, position, found = (work / "output").read_bytes(), 0, {}
        for name in outputs:
            found[name], position = from_bytes(data, position)
        assert position == len(data)
        return found

    return run


def files(*data: bytes) -> np.ndarray:
    return np.array([*data, None], object)[:-1]


def test_bytes_agree_with_keras(check, exported):
    images = gallery_images()[:9]
    found = check(exported.path, "serving_default", image_bytes=files(*map(encoded, images)))
    assert found["valid"].all()
    assert found["embedding"].dtype == np.float32
    np.testing.assert_allclose(found["embedding"], exported.model.embed(images), atol=1e-5, rtol=0)


def test_images_agree_with_keras(check, exported):
    images = gallery_images()
    found = check(exported.path, "embed_images", images=images)
    assert found["valid"].all()
    np.testing.assert_allclose(found["embedding"], exported.model.embed(images), atol=1e-5, rtol=0)


def test_bad_images_do_not_fail_their_neighbours(check, exported):
    images = gallery_images()[:2]
    given = files(b"", encoded(images[0]), b"not an image", encoded(images[1]), encoded(images[1])[:60])
    found = check(exported.path, "serving_default", image_bytes=given)
    assert found["valid"].tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(found["embedding"][found["valid"]], exported.model.embed(images), atol=1e-5, rtol=0)
    assert not found["embedding"][~found["valid"]].any()


def test_a_wrong_size_is_refused(check, exported):
    with pytest.raises(RuntimeError, match=r"run: .*\[2,13,12,3\] is not compatible"):
        check(exported.path, "embed_images", images=np.zeros([2, 13, 12, 3], np.uint8))


def inputs(signature: str, exported, rows: list[int]) -> dict[str, np.ndarray]:
    images = gallery_images()[rows]
    return {
        "search": lambda: {"image_bytes": files(*map(encoded, images))},
        "search_images": lambda: {"images": images},
        "search_embedding": lambda: {"embedding": np.asarray(exported.model.embed(images), np.float32)},
    }[signature]()


@pytest.mark.parametrize("signature", ["search", "search_images", "search_embedding"])
@pytest.mark.parametrize("method", ["exact", "ivf"])
@pytest.mark.one_stack
def test_searches_agree_with_the_index(check, exported, exported_with_lists, signature, method):
    bundle = exported if method == "exact" else exported_with_lists
    rows, k = [5, 0, 23], np.array([4, 1, ITEMS + 9], np.int32)
    found = check(bundle.path, signature, **inputs(signature, bundle, rows), k=k)
    assert found["count"].tolist() == [4, 1, ITEMS]
    assert found["valid"].tolist() == [True] * 3
    assert found["ids"].shape == (3, ITEMS + 9)
    with Bundle.open(bundle.path) as opened:
        answers = opened.search(np.asarray(bundle.model.embed(gallery_images()[rows])), k=ITEMS)
    for row, hits in enumerate(answers):
        count = found["count"][row]
        assert [text.decode() for text in found["ids"][row]] == [hit.id for hit in hits[:count]] + [""] * (ITEMS + 9 - count)
        np.testing.assert_allclose(found["distances"][row, :count], [hit.distance for hit in hits[:count]], atol=1e-5)
        assert (found["distances"][row, count:] == NO_DISTANCE).all()
        assert found["price"][row, :count].tolist() == [hit.fields["price"] for hit in hits[:count]]
        assert [text.decode() for text in found["label"][row, :count]] == [hit.fields["label"] for hit in hits[:count]]


def test_a_bad_image_does_not_fail_a_search(check, exported):
    given = files(b"not an image", encoded(gallery_images()[7]), b"")
    found = check(exported.path, "search", image_bytes=given, k=np.array([3, 2, 1], np.int32))
    assert found["valid"].tolist() == [False, True, False]
    assert found["count"].tolist() == [0, 2, 0]
    assert found["ids"][1, 0] == b"item/7"
    assert set(found["ids"][[0, 2]].ravel()) == {b""}


@pytest.mark.parametrize(
    ("signature", "changed", "message"),
    [
        ("search", {"k": np.array([3], np.int32)}, "as many numbers as there are queries"),
        ("search", {"k": np.array([[3], [3]], np.int32)}, "is not compatible"),
        ("search_images", {"images": np.zeros([2, 13, 12, 3], np.uint8)}, "is not compatible"),
        ("search_embedding", {"embedding": np.zeros([2, 7], np.float32)}, "is not compatible"),
        ("search_embedding", {"embedding": np.zeros([6], np.float32)}, "is not compatible"),
    ],
)
@pytest.mark.one_stack
def test_searches_refuse_other_shapes(check, exported, signature, changed, message):
    given = {**inputs(signature, exported, [1, 2]), "k": np.array([3, 3], np.int32), **changed}
    with pytest.raises(RuntimeError, match=rf"run: [\s\S]*{message}"):
        check(exported.path, signature, **given)
