"""The networks of the papers: sizes of every stage, numbers of weights, saving, serving, other sizes, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.bundle.operations import check_operations
from tfdml.models import deep_ranking_encoder, deepid2_encoder, drlim_encoder, lunet, sphereface_encoder, trinet
from tfdml.models.trinet import CaffePixels

# Small ones, for what needs no full size.
SMALL = {
    "drlim": lambda: drlim_encoder(),
    "caffe": lambda: drlim_encoder(variant="caffe"),
    "deep_ranking": lambda: deep_ranking_encoder((40, 48, 3), dimension=8, width=1 / 32),
    "deepid2": lambda: deepid2_encoder((55, 47, 3), dimension=12, width=0.2),
    "lunet": lambda: lunet((48, 32, 3), dimension=8, width=1 / 16),
    "trinet": lambda: trinet(backbone=small_backbone(), hidden=6, dimension=4),
    "sphereface": lambda: sphereface_encoder(10, (24, 32, 3), dimension=8, width=1 / 16),
}
every_network = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
# Tracing a training step or a signature of the deeper ones takes seconds.
DEEP = ("deep_ranking", "lunet", "sphereface")
some_slow = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=[pytest.mark.slow] * (name in DEEP)) for name, make in SMALL.items()]
)


def small_backbone():
    return keras.Sequential([keras.Input((20, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(5, 3)])


def stages(model, *names):
    return [tuple(model.get_layer(name).output.shape)[1:] for name in names]


def weights_of(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def images_for(model, count=3):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def test_drlim():
    model = drlim_encoder()
    assert stages(model, "padding", "conv1", "pool1", "conv2", "embedding") == [
        (32, 32, 1),
        (27, 27, 15),
        (9, 9, 15),
        (1, 1, 30),
        (2,),
    ]
    assert weights_of(model) == (36 * 15 + 15) + (81 * 15 * 30 + 30) + (30 * 2 + 2)


def test_drlim_takes_larger_images_without_padding():
    model = drlim_encoder((40, 35, 1))
    assert not any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in model.layers)
    assert stages(model, "pool1", "conv2") == [(11, 10, 15), (3, 2, 30)]


def test_caffes_siamese_lenet():
    model = drlim_encoder(variant="caffe")
    assert stages(model, "conv1", "pool1", "conv2", "pool2", "dense1", "dense2", "embedding") == [
        (24, 24, 20),
        (12, 12, 20),
        (8, 8, 50),
        (4, 4, 50),
        (500,),
        (10,),
        (2,),
    ]
    assert weights_of(model) == 520 + 25_050 + 400_500 + 5_010 + 22


def test_deepid2():
    model = deepid2_encoder()
    assert stages(model, "conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "conv4", "features", "embedding") == [
        (52, 44, 20),
        (26, 22, 20),
        (24, 20, 40),
        (12, 10, 40),
        (10, 8, 60),
        (5, 4, 60),
        (4, 3, 80),
        (5 * 4 * 60 + 4 * 3 * 80,),
        (160,),
    ]
    # Of conv3, 5 x 4 regions of 2 x 2 places have weights of their own; of conv4, each of 4 x 3 places has.
    convolutions = 4 * 4 * 3 * 20 + 20 + 9 * 20 * 40 + 40 + 5 * 4 * (9 * 40 + 1) * 60 + 4 * 3 * (4 * 60 + 1) * 80
    assert weights_of(model) == convolutions + 2160 * 160 + 160


def test_the_embedding_of_deepid2_sees_both_layers_and_has_no_negative_numbers():
    model = deepid2_encoder(width=0.2)
    kernel, bias = model.get_layer("embedding").get_weights()
    coarse, fine = (int(np.prod(shape)) for shape in stages(model, "pool3", "conv4"))
    assert kernel.shape[0] == coarse + fine
    x = images_for(model)
    whole = model(x).numpy()
    assert (whole >= 0).all()
    for part in (slice(0, coarse), slice(coarse, None)):
        changed = kernel.copy()
        changed[part] = 0
        model.get_layer("embedding").set_weights([changed, bias])
        assert (model(x).numpy() != whole).any()


def test_deep_ranking():
    model = deep_ranking_encoder(width=1 / 32)
    names = ("subsample2", "conv2", "pool2", "subsample3", "conv3", "pool3", "paths2and3", "path1", "normalized")
    assert stages(model, *names) == [
        (57, 57, 3),
        (15, 15, 3),
        (4, 4, 3),
        (29, 29, 3),
        (8, 8, 3),
        (4, 4, 3),
        (2 * 4 * 4 * 3,),
        (4096 // 32,),
        (4096,),
    ]


@pytest.mark.slow
def test_deep_ranking_in_full():
    model = deep_ranking_encoder()
    assert stages(model, "pool2", "pool3", "paths2and3", "path1", "features", "embedding") == [
        (4, 4, 96),
        (4, 4, 96),
        (3072,),
        (4096,),
        (7168,),
        (4096,),
    ]
    convnet = sum([34_944, 614_656, 885_120, 1_327_488, 884_992, (8 * 8 * 256 + 1) * 4096, 4097 * 4096])
    assert model.get_layer("convnet").count_params() == convnet
    assert weights_of(model) == convnet + 2 * (8 * 8 * 3 + 1) * 96 + 7169 * 4096


def test_deep_ranking_has_length_1_and_normalises_deep_and_shallow_paths_apart():
    model = deep_ranking_encoder((64, 64, 3), dimension=5, width=1 / 16)
    x = images_for(model)
    np.testing.assert_allclose(np.linalg.norm(model(x), axis=1), 1, rtol=1e-5)
    paths = keras.Model(model.inputs[0], [model.get_layer("path1").output, model.get_layer("paths2and3").output])
    for path in paths(x):
        np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1, rtol=1e-5)


def test_deep_ranking_takes_a_convnet_of_ones_own():
    convnet = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(3, 5), keras.layers.GlobalMaxPooling2D()])
    model = deep_ranking_encoder((64, 64, 3), dimension=6, convnet=convnet, width=1 / 16, l2=0.001)
    assert stages(model, "path1") == [(3,)]
    # The user's own network has its own regularisation; here: two shallow convolutions and the embedding.
    assert len(model.losses) == 3
    expected = sum(
        0.001 * np.sum(np.square(model.get_layer(name).get_weights()[0])) for name in ("conv2", "conv3", "embedding")
    )
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-5)
    for wrong in (keras.Sequential([keras.Input((32, 64, 3)), keras.layers.Flatten()]), small_backbone()):
        with pytest.raises(ValueError, match=r"expected images of input_shape=\(64, 64, 3\) and vectors"):
            deep_ranking_encoder((64, 64, 3), convnet=wrong, width=1 / 16)


def test_lunet_has_5_million_weights():
    model = lunet()
    assert stages(model, "conv1", "pool1", "pool2", "pool3", "pool4", "pool5", "flatten", "dense1", "embedding") == [
        (128, 64, 128),
        (64, 32, 128),
        (32, 16, 256),
        (16, 8, 256),
        (8, 4, 512),
        (4, 2, 512),
        (4 * 2 * 128,),
        (512,),
        (128,),
    ]
    matrices = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights if len(weight.shape) > 1)
    assert round(matrices / 1e6, 2) == 5.00
    assert round(weights_of(model) / 1e6, 2) == 5.01


def test_trinet_has_as_many_weights_as_the_paper_says():
    model = trinet()
    assert stages(model, "average", "hidden", "embedding") == [(2048,), (1024,), (128,)]
    # Keras's ResNet-50 has biases before its batch normalisations, the paper's has not.
    biases = sum(
        int(np.prod(layer.bias.shape))
        for layer in model.get_layer("backbone")._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D)
    )
    assert round((weights_of(model) - biases) / 1e6, 2) == 25.74


def test_trinets_pixels_are_those_that_keras_prepares():
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    expected = keras.applications.resnet50.preprocess_input(x.copy())
    np.testing.assert_allclose(CaffePixels()(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("depth", "units"), [(4, 0), (10, 3), (20, 8), (36, 16), (64, 30)])
def test_sphereface(depth, units):
    model = sphereface_encoder(depth, width=1 / 16)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == depth == 4 + 2 * units
    assert len([layer for layer in model.layers if isinstance(layer, keras.layers.PReLU)]) == depth
    assert len([layer for layer in model.layers if isinstance(layer, keras.layers.Add)]) == units
    assert stages(model, "conv1_1", "conv2_1", "conv3_1", "conv4_1", "embedding") == [
        (56, 48, 4),
        (28, 24, 8),
        (14, 12, 16),
        (7, 6, 32),
        (512,),
    ]


def test_sphereface_in_full_and_its_initialisers():
    keras.utils.set_random_seed(0)
    model = sphereface_encoder(20)
    strided = sum(9 * a * b + b for a, b in ((3, 64), (64, 128), (128, 256), (256, 512)))
    unit = sum(count * 2 * 9 * maps * maps for count, maps in ((1, 64), (2, 128), (4, 256), (1, 512)))
    slopes = 3 * 64 + 5 * 128 + 9 * 256 + 3 * 512
    assert weights_of(model) == strided + unit + slopes + 7 * 6 * 512 * 512 + 512
    assert not model.get_layer("conv3_4").use_bias
    np.testing.assert_allclose(model.get_layer("conv3_4").get_weights()[0].std(), 0.01, rtol=0.01)
    glorot = np.sqrt(2 / (9 * 128 + 9 * 256))
    np.testing.assert_allclose(model.get_layer("conv3_1").get_weights()[0].std(), glorot, rtol=0.01)
    np.testing.assert_array_equal(model.get_layer("prelu2_1").get_weights()[0].ravel(), np.full(128, 0.25, np.float32))


def test_sphereface_pads_both_sides_also_where_it_strides():
    model = sphereface_encoder(4, (8, 8, 1), dimension=2, width=1 / 16)
    first = keras.Model(model.inputs[0], model.get_layer("conv1_1").output)
    kernel, bias = model.get_layer("conv1_1").get_weights()
    x = images_for(model)
    y = (x - 127.5) / 128
    expected = tf.nn.conv2d(tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, 2, "VALID") + bias
    np.testing.assert_allclose(first(x), expected, atol=1e-5)


@every_network
def test_saved_and_reloaded(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = make()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = images_for(model)
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)


@some_slow
@pytest.mark.one_stack
def test_served_by_stock_operations(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = make()
    module = tf.Module()
    module.model = model
    shape = [None, *model.input_shape[1:]]
    module.embed = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    check_operations(tmp_path)
    x = images_for(model)
    served = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(served.embed(x), model(x), rtol=1e-4, atol=1e-5)


@some_slow
def test_trains_in_half_precision_and_embeds_in_float32(make):
    # bfloat16: its range is that of float32, so that no loss scaling is needed.
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = tfdml.EmbeddingModel(make(), normalize=False)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model.compile("sgd", loss=tfdml.losses.TripletLoss(0.2, "all"))
    before = [weight.copy() for weight in model.get_weights()]
    history = model.fit(images_for(model, 6).astype(np.uint8), np.array([0, 0, 1, 1, 2, 2]), batch_size=6, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    assert model(images_for(model)).dtype == tf.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: drlim_encoder(variant="lenet"), "variant='lenet' is not known. Known: 'drlim', 'caffe'"),
        (lambda: drlim_encoder((12, 28, 1), variant="caffe"), r"input_shape=\(12, 28, 1\): drlim_encoder expects.*16 x 16"),
        (lambda: deepid2_encoder((38, 47, 3)), r"input_shape=\(38, 47, 3\): deepid2_encoder expects.*39 x 39"),
        (lambda: deep_ranking_encoder((31, 225, 3)), "at least 32 x 32"),
        (lambda: lunet((64, 16, 3)), "at least 32 x 32"),
        (lambda: lunet((64, 64)), r"expects \(height, width, channels\)"),
        (lambda: lunet(width=0), "width=0"),
        (lambda: sphereface_encoder(18), "depth=18: expected one of 4, 10, 20, 36, 64"),
        (lambda: trinet(backbone=small_backbone(), weights="imagenet"), "weights='imagenet' beside backbone="),
        (lambda: trinet(backbone=keras.Sequential([keras.Input((4, 4)), keras.layers.Dense(2)])), "expected maps"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: deepid2_encoder((39, 39, 3), width=0.1), lambda: drlim_encoder((16, 16, 1), variant="caffe")]
)
def test_the_smallest_images_work(make):
    model = make()
    assert np.isfinite(model(images_for(model))).all()
