"""ImagePreprocessing: what stays in the picture, odd shapes and files, and that a config reads back."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfdml.preprocessing import FITS, ImagePreprocessing


def file_of(image: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def thirds() -> np.ndarray:
    """A wide image: red, green and blue thirds, 60 x 180."""
    image = np.zeros((60, 180, 3), np.uint8)
    for channel in range(3):
        image[:, 60 * channel : 60 * channel + 60, channel] = 200
    return image


def test_crop_keeps_the_centre(thirds):
    result = ImagePreprocessing(size=30, fit="crop")(file_of(thirds)).numpy()
    np.testing.assert_array_equal(result, np.full((30, 30, 3), [0, 200, 0]))


def test_pad_keeps_everything_and_adds_black(thirds):
    result = ImagePreprocessing(size=30, fit="pad")(file_of(thirds)).numpy()
    assert not result[:9].any()
    assert not result[21:].any()
    np.testing.assert_array_equal(result[15, [2, 15, 27]], [[200, 0, 0], [0, 200, 0], [0, 0, 200]])


def test_stretch_fills_the_frame(thirds):
    result = ImagePreprocessing(size=(20, 30), fit="stretch")(file_of(thirds)).numpy()
    np.testing.assert_array_equal(result[0, [2, 15, 27]], [[200, 0, 0], [0, 200, 0], [0, 0, 200]])


def test_resize_then_centre_crop_equals_the_uncropped_centre(thirds):
    preprocessing = ImagePreprocessing(size=64, resize=72)
    noise = file_of(np.random.default_rng(0).integers(0, 256, (112, 150, 3)).astype(np.uint8))
    whole = preprocessing.uncropped()(noise).numpy()
    assert whole.shape == (72, 72, 3)
    np.testing.assert_array_equal(preprocessing(noise), whole[4:68, 4:68])


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (31, 97)])
def test_odd_shapes(fit, shape):
    image = np.full((*shape, 3), 77, np.uint8)
    result = ImagePreprocessing(size=(24, 16), fit=fit)(file_of(image)).numpy()
    assert result.shape == (24, 16, 3)
    assert result.max() == 77


@pytest.mark.parametrize("fit", FITS)
def test_an_image_that_has_the_size_is_left_as_it_is(fit):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    preprocessing = ImagePreprocessing(size=(32, 48), resize=(40, 56), fit=fit)
    load = tf.function(preprocessing, input_signature=[tf.TensorSpec([], tf.string)])
    np.testing.assert_array_equal(load(file_of(image)), image[4:36, 4:52])
    # What comes in between makes no difference either: this is the operation that was left out.
    np.testing.assert_array_equal(tf.image.resize(image, (40, 56), antialias=True), image)


def test_a_flat_image_keeps_its_value_and_grey_is_the_luma():
    grey = np.full((40, 40, 3), 129, np.uint8)
    assert (ImagePreprocessing(size=16)(file_of(grey)).numpy() == 129).all()
    assert (ImagePreprocessing(size=16, channels=1)(file_of(grey)).numpy() == 129).all()
    assert ImagePreprocessing(size=16)(file_of(grey[..., 0])).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_file_kinds(kind, channels):
    image = np.full((20, 30, 3), 90, np.uint8)
    result = ImagePreprocessing(size=8, channels=channels)(file_of(image, kind)).numpy().astype(int)
    assert result.shape == (8, 8, channels)
    assert np.abs(result - 90).max() <= 3


def test_cmyk_alpha_and_16_bit_files_decode():
    size = ImagePreprocessing(size=8)
    buffer = io.BytesIO()
    Image.new("CMYK", (20, 20), (0, 0, 0, 0)).save(buffer, "JPEG")
    assert size(buffer.getvalue()).numpy().min() >= 250
    alpha = np.dstack([np.full((20, 20, 3), 50, np.uint8), np.zeros((20, 20), np.uint8)])
    assert (size(file_of(alpha)).numpy() == 50).all()
    deep = tf.io.encode_png(tf.fill([20, 20, 3], tf.constant(200 * 257, tf.uint16))).numpy()
    assert (size(deep).numpy() == 200).all()


def test_damaged_files_raise():
    whole = file_of(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), "JPEG")
    for damaged in [b"", b"not an image", whole[: len(whole) // 2]]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            ImagePreprocessing(size=8)(damaged)


def test_config_reads_back():
    for preprocessing in [ImagePreprocessing(), ImagePreprocessing((20, 30), channels=1, fit="pad", resize=(40, 40))]:
        assert ImagePreprocessing.from_config(preprocessing.get_config()) == preprocessing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": (3, 4, 5)}, "expected \\(height, width\\)"),
        ({"size": 64, "resize": 32}, "at least size"),
        ({"channels": 4}, "expected 3"),
        ({"fit": "squeeze"}, "Known: 'crop', 'pad', 'stretch'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImagePreprocessing(**arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("byte_order", ["II", "MM"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 300])
def test_photographs_stand_upright(orientation, byte_order, channels):
    # Smooth, since decoders differ at edges; and different from each of its mirror images.
    down, across = np.meshgrid(np.linspace(0, 200, 32), np.linspace(0, 250, 48), indexing="ij")
    image = Image.fromarray(np.stack([down, across / 2, (down + across) / 3], 2).astype(np.uint8))
    exif = Image.Exif()
    exif.endian = "<" if byte_order == "II" else ">"
    exif[0x010F] = "maker"
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))).convert("RGB" if channels == 3 else "L")
    result = ImagePreprocessing(size=8, channels=channels).decode(buffer.getvalue()).numpy()
    expected = np.asarray(expected).reshape(result.shape)
    assert np.abs(result.astype(int) - expected).max() <= 4


def test_exif_data_that_lie_do_no_harm():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = bytearray(file_of(image, "JPEG", exif=exif))
    start = whole.index(b"Exif\0\0") + 6
    decode = ImagePreprocessing(size=8).decode
    rng = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[start + int(rng.integers(26))] = int(rng.integers(256))
        assert sorted(decode(bytes(damaged)).shape[:2]) == [20, 30]


def test_webp_is_refused_though_some_tensorflows_decode_it():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "WEBP", lossless=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG, BMP or GIF"):
        ImagePreprocessing(size=8).decode(buffer.getvalue())
