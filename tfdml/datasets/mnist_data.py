"""MNIST: handwritten digits."""

from __future__ import annotations

import zipfile

import keras
import numpy as np

from tfdml.datasets import download
from tfdml.datasets.dataset import Dataset


def mnist() -> Dataset:
    """Handwritten digits, 28 x 28 in one channel, white on black, the training images before the test images.

    Read from `$TFDML_DATA/mnist/mnist.npz` (arrays `x_train`, `y_train`, `x_test`, `y_test`, as many images as the file holds)
    when the variable is set, else from `keras.datasets.mnist` (60,000 + 10,000 images, downloaded once and checked by Keras).
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 1998.

    Returns:
        A `Dataset` of arrays in memory with 10 classes. Field: `split` ("train", "test").

    Raises:
        DownloadError: when the data are not in `TFDML_DATA` and cannot be downloaded.
    """
    parts = _parts()
    return Dataset.from_arrays(
        np.concatenate([images for images, _ in parts.values()]),
        np.concatenate([labels for _, labels in parts.values()]),
        ids=[f"{split}/{i:05d}" for split, (images, _) in parts.items() for i in range(len(images))],
        fields={"split": [split for split, (images, _) in parts.items() for _ in range(len(images))]},
        name="mnist",
    )


def _parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder = download.local_folder("mnist", "mnist.npz")
    if folder is None:
        try:
            train, test = keras.datasets.mnist.load_data()
        except Exception as error:  # Keras raises bare `Exception` for a network error
            raise download.DownloadError(
                f"mnist: could not be downloaded: {error}. Two ways out: connect to the network and try again, or set "
                "TFDML_DATA to a folder that holds mnist/mnist.npz."
            ) from error
        return {"train": train, "test": test}
    try:
        with np.load(folder / "mnist.npz", allow_pickle=False) as file:
            return {split: (file[f"x_{split}"], file[f"y_{split}"]) for split in ("train", "test")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise download.DownloadError(f"mnist: {folder / 'mnist.npz'} cannot be read: {error}.") from error
