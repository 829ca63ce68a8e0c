"""The differences between Keras 2.15 and Keras 3, in one place."""

from __future__ import annotations

import keras

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3
