from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfdml.datasets import Dataset
from tfdml.preprocessing import ImagePreprocessing


def pictures(count: int, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def dataset(classes: int = 5, each: int = 3) -> Dataset:
    count = classes * each
    return Dataset.from_arrays(
        pictures(count),
        [f"class {i % classes}" for i in range(count)],
        ids=[f"item {i}" for i in range(count)],
        fields={"price": list(range(count)), "split": ["train" if i < count // 2 else "test" for i in range(count)]},
    )


def images_of(data: Dataset) -> np.ndarray:
    return np.concatenate(list(data.batches(4).as_numpy_iterator()))


class TestLabels:
    def test_strings_become_dense_numbers_in_sorted_order(self) -> None:
        data = Dataset.from_arrays(pictures(4), ["shoe", "mug", "shoe", "hat"])
        assert data.labels.tolist() == [2, 1, 2, 0]
        assert data.labels.dtype == np.int64
        assert data.class_names == ("hat", "mug", "shoe")

    def test_negative_and_huge_integers_stay_apart(self) -> None:
        labels = [16777216, 16777217, -3, 2**62, 2**62 + 1, -3]
        data = Dataset.from_arrays(pictures(6), labels)
        assert data.labels.tolist() == [1, 2, 0, 3, 4, 0]
        assert data.class_names == ("-3", "16777216", "16777217", str(2**62), str(2**62 + 1))

    def test_integers_sort_as_numbers(self) -> None:
        assert Dataset.from_arrays(pictures(3), [10, 9, 2]).class_names == ("2", "9", "10")

    def test_column_of_labels(self) -> None:
        assert Dataset.from_arrays(pictures(3), np.array([[4], [5], [4]])).labels.tolist() == [0, 1, 0]

    @pytest.mark.parametrize("kind", ["S", "O", "T"])
    def test_text_of_every_kind(self, kind: str) -> None:
        if kind == "T" and not hasattr(np.dtypes, "StringDType"):
            pytest.skip("NumPy 2 has strings of this kind")
        labels = [b"mug", b"shoe", "hüt".encode()] if kind == "O" else ["mug", "shoe", "hat"]
        data = Dataset.from_arrays(pictures(3), np.array(labels, np.dtypes.StringDType() if kind == "T" else kind))
        assert data.labels.tolist() == [1, 2, 0]
        assert data.class_names == ("hüt" if kind == "O" else "hat", "mug", "shoe")

    def test_class_names_given(self) -> None:
        data = Dataset.from_arrays(pictures(3), [2, 0, 2], class_names=["a", "b", "c"])
        assert (data.class_names, data.labels.tolist()) == (("a", "c"), [1, 0, 1])

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0.5, 1.0, 2.0], "expected integers or strings"),
            ([0, 1], "expected one label for each of 3 images"),
            ([[0, 1], [1, 0], [1, 1]], "expected one label for each"),
            ([None, "a", "b"], "expected integers or strings"),
            ([float("nan"), 1, 2], "expected integers or strings"),
            ([True, False, True], "expected integers or strings"),
        ],
    )
    def test_bad_labels(self, labels: list, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Dataset.from_arrays(pictures(3), labels)

    def test_class_names_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match="expected numbers 0 to 1"):
            Dataset.from_arrays(pictures(3), [0, 1, 2], class_names=["a", "b"])
        with pytest.raises(ValueError, match="'a' occurs twice"):
            Dataset.from_arrays(pictures(3), [0, 1, 1], class_names=["a", "a"])


class TestImages:
    def test_grey_images_get_a_channel(self) -> None:
        data = Dataset.from_arrays(pictures(2)[..., 0], [0, 1])
        assert data.load(1).shape == (8, 8, 1)

    @pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, np.float64])
    def test_other_types_are_taken_when_the_values_fit(self, dtype: type) -> None:
        images = pictures(2)
        np.testing.assert_array_equal(Dataset.from_arrays(images.astype(dtype), [0, 1]).load(1), images[1])

    def test_black_float_images_are_fine(self) -> None:
        assert Dataset.from_arrays(np.zeros([2, 4, 4, 3], np.float32), [0, 1]).load(0).numpy().max() == 0

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.full([2, 4, 4, 3], np.nan), "contain NaN or infinity, first at index 0"),
            (np.full([2, 4, 4, 3], -1.0), "expected 0 to 255"),
            (np.full([2, 4, 4, 3], 256), "expected 0 to 255"),
            (np.full([2, 4, 4, 3], 0.5), "Multiply by 255"),
            (np.zeros([2, 4, 4, 4], np.uint8), "1 or 3 channels"),
            (np.zeros([2, 3, 4, 5], np.uint8), "1 or 3 channels"),
            (np.zeros([0, 4, 4, 3], np.uint8), "at least one image"),
            (np.zeros([2, 4], np.uint8), "expected \\[N, height, width, channels\\]"),
            (np.array(["a", "b"]), "expected one array of numbers"),
            (np.zeros([2, 4, 4, 3], bool), "expected one array of numbers"),
        ],
    )
    def test_bad_images(self, images: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Dataset.from_arrays(images, [0, 1])

    def test_the_bytes_of_an_array_are_the_image_that_is_loaded(self) -> None:
        data = Dataset.from_arrays(pictures(3, side=9, channels=3), [0, 1, 1])
        np.testing.assert_array_equal(data.preprocessing(tf.constant(data.image_bytes(2))), data.load(2))
        grey = Dataset.from_arrays(pictures(3, channels=1), [0, 1, 1])
        np.testing.assert_array_equal(grey.preprocessing(tf.constant(grey.image_bytes(1))), grey.load(1))

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("wanted", [1, 3])
    def test_other_size_and_channels_agree_with_the_bytes(self, channels: int, wanted: int) -> None:
        data = Dataset.from_arrays(pictures(2, side=12, channels=channels), [0, 1])
        data = data.with_preprocessing(ImagePreprocessing(size=(6, 4), channels=wanted, resize=(8, 5)))
        loaded = data.load(1).numpy()
        assert loaded.shape == (6, 4, wanted)
        np.testing.assert_array_equal(loaded, data.preprocessing(tf.constant(data.image_bytes(1))))

    @pytest.mark.parametrize("index", [-1, 3, 10**6])
    def test_an_index_out_of_range(self, index: int) -> None:
        data = Dataset.from_arrays(pictures(3), [0, 1, 1])
        with pytest.raises(IndexError, match=r"expected 0 to 2"):
            data.image_bytes(index)
        with pytest.raises(tf.errors.InvalidArgumentError):
            data.load(index)


class TestLoading:
    def test_batches_are_all_images_in_order(self) -> None:
        images = pictures(10)
        data = Dataset.from_arrays(images, np.arange(10) % 2)
        batches = list(data.batches(4).as_numpy_iterator())
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert batches[0].dtype == np.uint8
        np.testing.assert_array_equal(np.concatenate(batches), images)

    def test_batch_size_has_to_be_positive(self) -> None:
        with pytest.raises(ValueError, match="batch_size=0"):
            dataset().batches(0)

    def test_the_graph_does_not_grow_with_the_data(self) -> None:
        def size(count: int) -> tuple[int, int]:
            data = Dataset.from_arrays(pictures(count), np.arange(count))
            graph = tf.function(data.load).get_concrete_function(tf.TensorSpec([], tf.int64)).graph.as_graph_def()
            return len(graph.node), graph.ByteSize()

        few, many = size(4), size(4000)
        assert few[0] == many[0]
        assert abs(few[1] - many[1]) < 64  # bytes; the images alone are 768 kB

    def test_shape_is_static(self) -> None:
        assert dataset().batches(4).element_spec.shape == (None, 8, 8, 3)

    def test_in_memory_loads_the_same(self) -> None:
        data = dataset().with_preprocessing(ImagePreprocessing(size=5)).subset([7, 2, 9])
        kept = data.in_memory()
        np.testing.assert_array_equal(images_of(kept), images_of(data))
        assert kept.ids.tolist() == data.ids.tolist()
        assert kept.image_bytes(1) == data.image_bytes(1)
        assert kept.in_memory() is kept
        part = kept.subset([2, 0])
        np.testing.assert_array_equal(part.load(0), data.load(2))
        bigger = part.with_preprocessing(ImagePreprocessing(size=8))
        np.testing.assert_array_equal(bigger.load(1), dataset().load(7))
        assert bigger.image_bytes(1) == dataset().image_bytes(7)

    def test_files(self, tmp_path) -> None:
        images = pictures(2)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
        paths = [tmp_path / "0.png", tmp_path / "1.png"]
        data = Dataset.from_files(paths, ["a", "b"], preprocessing=ImagePreprocessing(size=8))
        np.testing.assert_array_equal(images_of(data), images)
        assert data.image_bytes(1) == paths[1].read_bytes()
        assert data.ids.tolist() == [str(path) for path in paths]
        assert Image.open(io.BytesIO(data.image_bytes(0))).size == (8, 8)


class TestIdsAndFields:
    def test_ids_are_positions_by_default(self) -> None:
        assert Dataset.from_arrays(pictures(3), [0, 0, 1]).ids.tolist() == ["0", "1", "2"]

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (["a", "b", "a"], "'a' occurs more than once"),
            (["a", "b"], "2 ids for 3 images"),
            (["a", "", "b"], "id at index 1 is empty"),
        ],
    )
    def test_bad_ids(self, ids: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Dataset.from_arrays(pictures(3), [0, 0, 1], ids=ids)

    @pytest.mark.parametrize("fields", [{"price": [1, 2]}, {"price": "abc"}, {"": [1, 2, 3]}, {3: [1, 2, 3]}])
    def test_bad_fields(self, fields: dict) -> None:
        with pytest.raises(ValueError, match="fields"):
            Dataset.from_arrays(pictures(3), [0, 0, 1], fields=fields)

    def test_fields_are_plain_values(self) -> None:
        data = Dataset.from_arrays(pictures(2), [0, 1], fields={"price": np.array([1.5, 2.5], np.float32)})
        assert data.fields == {"price": [1.5, 2.5]}
        assert type(data.fields["price"][0]) is float
        numbers = data.with_fields(stock=list(np.arange(2))).fields["stock"]
        assert [type(number) for number in numbers] == [int, int]

    def test_with_fields_adds_and_replaces(self) -> None:
        data = dataset().with_fields(price=["p"] * 15, colour=["red"] * 15)
        assert set(data.fields) == {"price", "split", "colour"}
        assert data.fields["price"][3] == "p"

    def test_labels_and_ids_cannot_be_overwritten(self) -> None:
        data = dataset()
        with pytest.raises(ValueError, match="read-only"):
            data.labels[0] = 3
        with pytest.raises(ValueError, match="read-only"):
            data.ids[0] = "x"


class TestSubsets:
    def test_subset_keeps_order_and_makes_labels_dense(self) -> None:
        data = dataset(classes=5, each=3)
        part = data.subset([9, 3, 8])
        assert part.class_names == ("class 3", "class 4")
        assert part.labels.tolist() == [1, 0, 0]
        assert part.ids.tolist() == ["item 9", "item 3", "item 8"]
        assert part.fields["price"] == [9, 3, 8]
        np.testing.assert_array_equal(images_of(part), images_of(data)[[9, 3, 8]])
        assert part.image_bytes(0) == data.image_bytes(9)

    def test_subset_of_a_subset(self) -> None:
        data = dataset()
        part = data.subset([9, 3, 8]).subset([False, True, True])
        assert part.ids.tolist() == ["item 3", "item 8"]
        np.testing.assert_array_equal(images_of(part), images_of(data)[[3, 8]])

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ([], "at least one index"),
            ([0, 0], "0 occurs more than once"),
            ([-1], "expected 0 to 14"),
            ([15], "expected 0 to 14"),
            ([0.5], "expected integers or booleans"),
            ([True, False], "one boolean for each image"),
            ([False] * 15, "at least one index"),
            ([[0, 1]], "at least one index"),
        ],
    )
    def test_bad_indices(self, indices: list, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataset().subset(indices)

    def test_where(self) -> None:
        data = dataset()
        assert data.where(split="train").ids.tolist() == [f"item {i}" for i in range(7)]
        assert data.where(split="test", price=[1, 8, 9]).ids.tolist() == ["item 8", "item 9"]

    def test_where_nothing_is_left(self) -> None:
        with pytest.raises(ValueError, match=r"split='val' leaves no image.*'test', 'train'"):
            dataset().where(split="val")
        with pytest.raises(ValueError, match="field='colour' is not known"):
            dataset().where(colour="red")


class TestSplits:
    @pytest.mark.parametrize(
        ("test", "classes"), [(0.5, 5), (0.1, 1), (0.01, 1), (0.99, 9), (3, 3), (9, 9), (["class 2", "class 7"], 2)]
    )
    def test_no_class_and_no_image_on_both_sides(self, test: object, classes: int) -> None:
        data = dataset(classes=10)
        left, right = data.split_by_class(test)
        assert right.num_classes == classes
        assert set(left.class_names) | set(right.class_names) == set(data.class_names)
        assert not set(left.class_names) & set(right.class_names)
        assert sorted([*left.ids, *right.ids]) == sorted(data.ids)
        for side in (left, right):
            original = {i: data.class_names[label] for i, label in zip(data.ids, data.labels, strict=True)}
            assert [side.class_names[label] for label in side.labels] == [original[i] for i in side.ids]
            positions = [data.ids.tolist().index(i) for i in side.ids]
            assert positions == sorted(positions)

    def test_named_classes_are_the_ones_taken(self) -> None:
        _, test = dataset(classes=10).split_by_class(["class 7", "class 2", "class 7"])
        assert test.class_names == ("class 2", "class 7")

    def test_the_same_seed_gives_the_same_classes_for_ever(self) -> None:
        data = dataset(classes=10)
        assert data.split_by_class(0.3, seed=0)[1].class_names == data.split_by_class(0.3, seed=0)[1].class_names
        # Written down once: figures that people publish depend on these classes.
        assert data.split_by_class(4, seed=0)[1].class_names == ("class 1", "class 2", "class 3", "class 8")
        assert data.split_by_class(4, seed=1)[1].class_names == ("class 2", "class 4", "class 7", "class 9")

    @pytest.mark.parametrize("test", [0.0, 1.0, 1.5, -0.5, 0, 10, -1, True, "class 1", None, float("nan"), []])
    def test_bad_share(self, test: object) -> None:
        with pytest.raises(ValueError, match="test="):
            dataset(classes=10).split_by_class(test)  # type: ignore[arg-type]

    def test_unknown_class(self) -> None:
        with pytest.raises(ValueError, match="no class is called 'class 77'"):
            dataset(classes=10).split_by_class(["class 77"])

    @pytest.mark.parametrize("seed", [-1, 0.5, "0", True, None])
    def test_bad_seed(self, seed: object) -> None:
        with pytest.raises(ValueError, match="seed="):
            dataset().split_by_class(0.5, seed=seed)  # type: ignore[arg-type]

    def test_one_class_cannot_be_split(self) -> None:
        with pytest.raises(ValueError, match="both sides"):
            dataset(classes=1).split_by_class(0.5)

    @pytest.mark.parametrize("k", [2, 3, 10])
    def test_folds_validate_every_class_once(self, k: int) -> None:
        data = dataset(classes=10)
        folds = data.folds(k, seed=3)
        assert len(folds) == k
        assert sorted(name for _, validation in folds for name in validation.class_names) == sorted(data.class_names)
        sizes = [validation.num_classes for _, validation in folds]
        assert max(sizes) - min(sizes) <= 1
        for train, validation in folds:
            assert set(train.class_names) == set(data.class_names) - set(validation.class_names)

    @pytest.mark.parametrize("k", [0, 1, 11, 2.0])
    def test_bad_number_of_folds(self, k: object) -> None:
        with pytest.raises(ValueError, match="k="):
            dataset(classes=10).folds(k)  # type: ignore[arg-type]


class TestSmallClasses:
    def uneven(self) -> Dataset:
        return Dataset.from_arrays(pictures(6), ["a", "a", "a", "b", "c", "c"])

    def test_drop(self) -> None:
        assert self.uneven().with_min_images(2).class_names == ("a", "c")

    def test_keep(self) -> None:
        assert self.uneven().with_min_images(9, "keep").class_names == ("a", "b", "c")

    def test_error_names_the_classes(self) -> None:
        with pytest.raises(ValueError, match=r"1 of 3 classes .*'b' \(1\)"):
            self.uneven().with_min_images(2, "error")

    def test_dropping_everything_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="3 of 3 classes"):
            self.uneven().with_min_images(4, "drop")

    def test_unknown_policy(self) -> None:
        with pytest.raises(ValueError, match="Known: 'keep', 'drop', 'error'"):
            self.uneven().with_min_images(2, "remove")

    def test_a_class_with_one_image_survives_the_rest(self) -> None:
        data = self.uneven()
        assert data.class_counts.tolist() == [3, 1, 2]
        assert data.subset([3]).class_names == ("b",)
        assert len(images_of(data.subset([3]))) == 1


def test_summary_says_what_there_is() -> None:
    lines: list[str] = []
    dataset().subset([0, 5, 10, 1]).summary(lines.append)
    text = "\n".join(lines)
    assert "4 images of 2 classes" in text
    assert "1 to 3, median 2; 1 with a single image" in text
    assert "'test' (1), 'train' (3)" in text


def test_repr() -> None:
    assert repr(dataset()) == "Dataset('arrays': 15 images, 5 classes, 8 x 8 x 3)"
