"""LocallyConnected2D: the loop definition, values and gradients; equal to a convolution where all places share."""

from __future__ import annotations

import keras
import layers_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import LocallyConnected2D

# (height, width), kernel, strides, padding, share
CASES = {
    "nothing shared": ((5, 4), 2, 1, "valid", 1),
    "regions of 2 x 2": ((6, 6), 3, 1, "valid", 2),
    "regions that do not divide": ((6, 7), (2, 3), 1, "valid", (2, 3)),
    "strides": ((7, 6), (3, 2), (2, 3), "valid", 2),
    "same": ((5, 4), 3, 1, "same", 2),
    "same, even kernel and strides": ((5, 6), 2, (2, 3), "same", 1),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def definition(x, kernel, bias, size, strides, padding, share):
    """Straight loops over images, places, kernel positions, channels and filters."""
    batch, height, width, channels = x.shape
    if padding == "same":
        rows, columns = -(-height // strides[0]), -(-width // strides[1])
        top = max((rows - 1) * strides[0] + size[0] - height, 0) // 2
        left = max((columns - 1) * strides[1] + size[1] - width, 0) // 2
    else:
        rows, columns = (height - size[0]) // strides[0] + 1, (width - size[1]) // strides[1] + 1
        top = left = 0
    filters = kernel.shape[-1]
    y = np.zeros((batch, rows, columns, filters))
    for b, r, c, f in np.ndindex(*y.shape):
        weights = kernel[r // share[0], c // share[1]].reshape(*size, channels, filters)
        total = bias[r // share[0], c // share[1], f]
        for i, j, k in np.ndindex(*size, channels):
            row, column = r * strides[0] + i - top, c * strides[1] + j - left
            if 0 <= row < height and 0 <= column < width:
                total += x[b, row, column, k] * weights[i, j, k, f]
        y[b, r, c, f] = total
    return y


def made(case, filters=2, channels=2, batch=2, dtype="float64"):
    (height, width), size, strides, padding, share = case
    layer = LocallyConnected2D(filters, size, strides, padding, share, dtype=dtype)
    layer.build((None, height, width, channels))
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.standard_normal(tuple(weight.shape)))
    return layer, rng.standard_normal((batch, height, width, channels))


@every_case
def test_value_and_gradients_are_those_of_the_definition(case):
    layer, x = made(case)
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    y = definition(x, kernel, bias, layer.kernel_size, layer.strides, layer.padding, layer.share)
    weights = np.random.default_rng(1).standard_normal(y.shape)
    variables = [getattr(v, "value", v) if not callable(getattr(v, "value", None)) else v for v in layer.trainable_weights]
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        total = tf.reduce_sum(outputs * weights)
    np.testing.assert_allclose(outputs, y, rtol=1e-12, atol=1e-12)
    assert tuple(layer.compute_output_shape(x.shape)) == y.shape
    for number, gradient in enumerate(tape.gradient(total, [inputs, *variables])):
        start = [x, kernel, bias]

        def moved(z, number=number, start=start):
            changed = [*start[:number], z, *start[number + 1 :]]
            rest = (layer.kernel_size, layer.strides, layer.padding, layer.share)
            return float(np.sum(weights * definition(*changed, *rest)))

        # Linear in each of the three, so that any step of the difference quotient will do.
        np.testing.assert_allclose(gradient, oracles.slopes(moved, start[number], step=0.5), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2])
def test_one_region_is_an_ordinary_convolution(padding, strides):
    x = np.random.default_rng(0).standard_normal((3, 9, 8, 4)).astype(np.float32)
    layer = LocallyConnected2D(5, 3, strides, padding, share=9)
    y = layer(x)
    kernel = tf.reshape(tf.convert_to_tensor(layer.kernel), [3, 3, 4, 5])
    np.testing.assert_allclose(y, tf.nn.conv2d(x, kernel, strides, padding.upper()), rtol=1e-4, atol=1e-5)


def test_places_of_a_region_share_and_others_do_not():
    layer, _ = made(((4, 4), 1, 1, "valid", 2))
    y = layer(np.ones((1, 4, 4, 2))).numpy()[0, :, :, 0]
    for region in (y[:2, :2], y[:2, 2:], y[2:, :2], y[2:, 2:]):
        assert np.ptp(region) == 0
    assert len(np.unique(y.round(9))) == 4


def test_the_kernel_is_drawn_by_its_fan_in_and_differs_between_places():
    keras.utils.set_random_seed(0)
    layer = LocallyConnected2D(20, 3)
    layer.build((None, 12, 12, 30))
    kernel = np.asarray(layer.kernel)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (3 * 3 * 30)), rtol=0.01)
    assert abs(np.corrcoef(kernel[0, 0].ravel(), kernel[0, 1].ravel())[0, 1]) < 0.05


def test_saved_and_reloaded(tmp_path):
    images = keras.Input((6, 5, 2))
    options = {"strides": (1, 2), "padding": "same", "share": (2, 3), "activation": "relu", "use_bias": False}
    layer = LocallyConnected2D(3, (2, 3), kernel_regularizer="l2", kernel_initializer="glorot_uniform", **options)
    model = keras.Model(images, layer(images))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[-1].get_config() == layer.get_config()
    assert (again(x).numpy() >= 0).all()
    assert len(again.losses) == 1
    np.testing.assert_allclose(again.losses[0], 0.01 * np.sum(np.asarray(layer.kernel) ** 2), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    layer = LocallyConnected2D(3, 2, share=2, dtype=policy)
    x = tf.random.stateless_normal([2, 6, 5, 4], [0, 1])
    full = LocallyConnected2D(3, 2, share=2)
    full.build(x.shape)
    layer.build(x.shape)
    full.set_weights(layer.get_weights())
    y = layer(x)
    assert y.dtype == (tf.float16 if policy == "mixed_float16" else tf.bfloat16)
    np.testing.assert_allclose(tf.cast(y, tf.float32), full(x), atol=0.1)


def test_graph_and_xla_give_the_same():
    layer, x = made(CASES["regions that do not divide"], dtype="float32")
    x = tf.constant(x, tf.float32)
    for compiled in (None, True):
        np.testing.assert_allclose(tf.function(layer, jit_compile=compiled)(x), layer(x), rtol=1e-5, atol=1e-5)


def test_any_batch_size_in_one_graph():
    layer, x = made(CASES["regions of 2 x 2"], batch=5)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, 6, 6, 2], tf.float64)])
    for count in (0, 1, 5):
        np.testing.assert_allclose(run(x[:count]), layer(x)[:count])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "filters=0: expected an integer >= 1"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size=\(3, 3, 3\): expected one integer >= 1, or two"),
        ({"strides": 0}, "strides=0"),
        ({"share": 1.5}, "share=1.5"),
        ({"padding": "full"}, "padding='full' is not known"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected2D(**{"filters": 4, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, None, 6, 2), "all known but B.*keras.Input"),
        ((None, 6, 2), "all known but B"),
        ((None, 2, 6, 2), "maps of 2 x 6 are smaller than kernel_size"),
    ],
)
def test_input_shapes_are_checked(shape, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected2D(4, 3).build(shape)
