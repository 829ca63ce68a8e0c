"""Several views of each image, and one embedding out of those of its views."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_count

CROPS = ("none", "center", "five")
COMBINATIONS = ("average", "concatenate")


@keras.saving.register_keras_serializable(package="tfdml")
class ImageViews(keras.layers.Layer):
    """Crops of each image, and their mirror images, one below the other in one batch.

    All images' first view comes first, then all images' second view, and so on: whole images or central crops, or the crops of
    the four corners (upper left, upper right, lower left, lower right) and of the centre; then the same mirrored left to right.
    `MergeViews` takes the views' embeddings together again; `tfdml.models.with_views` puts both around a model.

    Args:
        size: height and width of the crops.
        crops: `"none"` (images are of that size), `"center"` or `"five"`.
        flip: whether to add the mirror images.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: `[B, H, W, C]` to `[views B, height, width, C]`.

    Raises:
        ValueError: unknown `crops`, or images smaller than `size` (`"none"`: of another size).

    Example:
        >>> import tensorflow as tf
        >>> views = ImageViews((64, 64), crops="five", flip=True)
        >>> views.count, views(tf.zeros([2, 72, 72, 3])).shape
        (10, TensorShape([20, 64, 64, 3]))
    """

    def __init__(self, size: tuple[int, int], crops: str = "five", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = (check_count("size", size[0], 1), check_count("size", size[1], 1))
        self.crops = check_choice("crops", crops, CROPS)
        self.flip = flip

    @property
    def count(self) -> int:
        """Views of each image."""
        return (5 if self.crops == "five" else 1) * (2 if self.flip else 1)

    def build(self, input_shape: Any) -> None:
        sides = tuple(input_shape)[1:3]
        wrong = sides != self.size if self.crops == "none" else sides[0] < self.size[0] or sides[1] < self.size[1]
        if wrong:
            expected = "images of exactly" if self.crops == "none" else "images of at least"
            raise ValueError(
                f"images of {sides[0]} x {sides[1]} pixels, crops={self.crops!r}: expected {expected} {self.size[0]} x "
                f"{self.size[1]} pixels."
            )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = self.size
        down, across = inputs.shape[1] - height, inputs.shape[2] - width
        center = (down // 2, across // 2)
        places = [(0, 0), (0, across), (down, 0), (down, across), center] if self.crops == "five" else [center]
        views = [inputs[:, top : top + height, left : left + width] for top, left in places]
        if self.flip:
            views += [tf.reverse(view, [2]) for view in views]
        return tf.concat(views, 0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch = None if input_shape[0] is None else input_shape[0] * self.count
        return (batch, *self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "crops": self.crops, "flip": self.flip}


@keras.saving.register_keras_serializable(package="tfdml")
class MergeViews(keras.layers.Layer):
    """The embeddings of all views of an image, averaged or one behind the other. See `ImageViews`.

    Args:
        count: views of each image.
        combine: `"average"` or `"concatenate"`.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: `[count B, D]` to `[B, D]`, or `[B, count D]` for `"concatenate"`; float32.

    Example:
        >>> import tensorflow as tf
        >>> MergeViews(count=2)(tf.constant([[1.0], [2.0], [3.0], [5.0]])).numpy().tolist()
        [[2.0], [3.5]]
    """

    def __init__(self, count: int, combine: str = "average", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.count = check_count("count", count, 1)
        self.combine = check_choice("combine", combine, COMBINATIONS)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        dimension = inputs.shape[-1]
        views = tf.reshape(tf.cast(inputs, tf.float32), [self.count, -1, dimension])
        if self.combine == "average":
            return tf.reduce_mean(views, 0)
        return tf.reshape(tf.transpose(views, [1, 0, 2]), [-1, self.count * dimension])

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch = None if input_shape[0] is None else input_shape[0] // self.count
        return (batch, input_shape[-1] * (self.count if self.combine == "concatenate" else 1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "combine": self.combine}
