"""Convolution whose weights differ from place to place."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_count


@keras.saving.register_keras_serializable(package="tfdml")
class LocallyConnected2D(keras.layers.Layer):
    """A convolution with weights of its own at every place, or in every region of `share` places.

    y(r, c) = activation( sum_{i, j} x(r s + i, c s + j) W[r // share, c // share](i, j) + b[r // share, c // share] )

    For aligned images, such as faces, where each place shows another part. DeepID2 (Sun et al., NIPS 2014) uses both kinds:
    its third layer shares weights in regions of 2 x 2 places, its fourth shares none. Regions at the right and lower edge hold
    fewer places if `share` does not divide their number. A `share` as large as the output is an ordinary convolution.

    Keras 2 has a layer of this name, without `share` and slow on a CPU; Keras 3 has none. Here a step is one product of
    matrices for each region, all of them in one operation.

    Args:
        filters: number of output maps, F.
        kernel_size: height and width of the kernel; one integer for a square.
        strides: steps between places, down and to the right.
        padding: `"valid"`, or `"same"` as in `keras.layers.Conv2D`.
        share: height and width of the regions that share weights, counted in places of the output; 1: none share.
        activation: anything that `keras.activations.get` takes.
        use_bias: whether each map has a bias in each region.
        kernel_initializer, bias_initializer: anything that `keras.initializers.get` takes. The kernel is drawn as if it were
            that of one convolution with the filters of all regions, so choose one by the fan in.
        kernel_regularizer: anything that `keras.regularizers.get` takes.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: `[B, h, w, C]` to `[B, rows, columns, F]`; h and w must be known. Weights: kernel `[regions down, regions across,
    kernel height * kernel width * C, F]`, bias `[regions down, regions across, F]`.

    Raises:
        ValueError: an argument out of range, an image of unknown size, or one that is smaller than the kernel.

    Example:
        >>> import tensorflow as tf
        >>> layer = LocallyConnected2D(filters=60, kernel_size=3, share=2)
        >>> layer(tf.zeros([1, 12, 10, 40])).shape
        TensorShape([1, 10, 8, 60])
        >>> tuple(layer.kernel.shape)
        (5, 4, 360, 60)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        share: int | tuple[int, int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = check_count("filters", filters, 1)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.padding = check_choice("padding", padding, ("valid", "same"))
        self.share = _pair("share", share)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        down, across = self._regions(self._places(input_shape))
        height, width = self.kernel_size
        channels = input_shape[-1]
        initial = self.kernel_initializer

        def drawn_together(shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
            # An initialiser reads the fan in off the first three axes of a convolution's kernel.
            kernel = initial((height, width, channels, down * across * self.filters), dtype=dtype)
            kernel = tf.reshape(kernel, [height * width * channels, down * across, self.filters])
            return tf.reshape(tf.transpose(kernel, [1, 0, 2]), shape)

        self.kernel = self.add_weight(
            name="kernel",
            shape=(down, across, height * width * channels, self.filters),
            initializer=drawn_together,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(down, across, self.filters), initializer=self.bias_initializer)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rows, columns = self._places(inputs.shape)
        down, across = self._regions((rows, columns))
        share_rows, share_columns = self.share
        patches = self._patches(inputs, rows, columns)
        # Places beyond the edge make all regions equally large; they are cut off again at the end.
        beyond = [[0, 0], [0, down * share_rows - rows], [0, across * share_columns - columns], [0, 0]]
        patches = tf.reshape(tf.pad(patches, beyond), [-1, down, share_rows, across, share_columns, patches.shape[-1]])
        by_region = tf.transpose(patches, [1, 3, 0, 2, 4, 5])
        by_region = tf.reshape(by_region, [down, across, -1, patches.shape[-1]])
        maps = tf.matmul(by_region, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            maps += tf.convert_to_tensor(self.bias)[:, :, None]
        maps = tf.reshape(maps, [down, across, -1, share_rows, share_columns, self.filters])
        maps = tf.reshape(tf.transpose(maps, [2, 0, 3, 1, 4, 5]), [-1, down * share_rows, across * share_columns, self.filters])
        return self.activation(maps[:, :rows, :columns])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self._places(input_shape), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "share": self.share,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _patches(self, inputs: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
        """`[B, rows, columns, kernel height * kernel width * C]`: what the kernel sees at each place.

        One slice for each position in the kernel: the gradient of `tf.image.extract_patches` is many times slower.
        """
        if self.padding == "same":
            # As TensorFlow pads: the odd one of an odd number of rows or columns goes below, or to the right.
            missing = [
                max((places - 1) * stride + kernel - side, 0)
                for places, stride, kernel, side in zip(
                    (rows, columns), self.strides, self.kernel_size, inputs.shape[1:3], strict=True
                )
            ]
            inputs = tf.pad(inputs, [[0, 0], *([m // 2, m - m // 2] for m in missing), [0, 0]])
        (down, across), (height, width) = self.strides, self.kernel_size
        last_row, last_column = (rows - 1) * down + 1, (columns - 1) * across + 1
        return tf.concat(
            [inputs[:, i : i + last_row : down, j : j + last_column : across] for i in range(height) for j in range(width)], -1
        )

    def _places(self, input_shape: Any) -> tuple[int, int]:
        """Rows and columns of the output."""
        sides = tuple(input_shape)[1:3]
        if len(input_shape) != 4 or None in tuple(input_shape)[1:]:
            raise ValueError(
                f"input shape {tuple(input_shape)}: expected [B, height, width, channels], all known but B; each place has "
                "weights of its own, so their number must be known. Give keras.Input the size of the images."
            )
        if self.padding == "same":
            rows, columns = (-(-side // stride) for side, stride in zip(sides, self.strides, strict=True))
            return rows, columns
        if any(side < kernel for side, kernel in zip(sides, self.kernel_size, strict=True)):
            raise ValueError(
                f"input shape {tuple(input_shape)}: maps of {sides[0]} x {sides[1]} are smaller than kernel_size="
                f"{self.kernel_size}. Expected larger images, a smaller kernel, or padding='same'."
            )
        rows, columns = (
            (side - kernel) // stride + 1 for side, kernel, stride in zip(sides, self.kernel_size, self.strides, strict=True)
        )
        return rows, columns

    def _regions(self, places: tuple[int, int]) -> tuple[int, int]:
        """Their number, down and across."""
        return -(-places[0] // self.share[0]), -(-places[1] // self.share[1])


def _pair(argument: str, value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{argument}={value!r}: expected one integer >= 1, or two, (down, across).")
    return check_count(argument, pair[0], 1), check_count(argument, pair[1], 1)
