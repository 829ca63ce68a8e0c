"""The model that is trained, judged and exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import keras
import numpy as np
import tensorflow as tf

from tfdml._compat import total_loss
from tfdml.evaluation import evaluate_dataset
from tfdml.evaluation.of_models import embed
from tfdml.layers import Head, L2Normalization
from tfdml.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from tfdml.bundle import Bundle
    from tfdml.datasets import Dataset


@keras.saving.register_keras_serializable(package="tfdml")
class EmbeddingModel(keras.Model):
    """A Keras model around an encoder: images in, embeddings out.

    It is compiled and fitted as any Keras model, with a loss of `tfdml.losses` and batches of a `tfdml.samplers` sampler;
    `evaluate` on a dataset gives retrieval figures, `embed` gives vectors, `export` publishes a bundle. A plain `keras.Model`
    works with the same losses, samplers and `tfdml.bundle.export`; this class only saves lines.

    Args:
        encoder: any `keras.Model`, images to vectors `[B, D]`. Its first layer should scale from 0..255.
        normalize: whether embeddings are scaled to length 1, as FaceNet and most others do. Leave it off for losses on raw
            vectors, such as batch hard with a soft margin or N-pair.
        preprocessing: how image files become pixels. It is saved with the model, and `export` uses it; None means that of
            the gallery given to `export`.
        head: a `tfdml.layers.Head`, such as `ArcFace(num_classes)`, that trains the encoder with weights of its own. It is
            trained and saved with the model, and needs no loss: `compile("adam")`; a loss given to `compile` is added to
            the head's. The model's output stays the embedding, and `embed` and `export` leave the head out.

    Shapes: images `[B, h, w, C]`, 0 to 255, `uint8` or float; embeddings `[B, D]`, `float32`.

    Raises:
        ValueError: if the encoder has several outputs, its output is not `[B, D]`, or `head` needs the lengths of embeddings
            and `normalize` takes them away.

    Example:
        >>> import tensorflow as tf, tfdml
        >>> model = tfdml.EmbeddingModel(tfdml.models.conv_encoder((16, 16, 3), filters=(8, 8), dimension=4))
        >>> model.compile("adam", loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"))
        >>> images, labels = tf.zeros([6, 16, 16, 3], tf.uint8), tf.constant([0, 0, 1, 1, 2, 2])
        >>> history = model.fit(images, labels, batch_size=6, verbose=0)
        >>> model.embed(images.numpy()).shape
        (6, 4)
    """

    def __init__(
        self,
        encoder: keras.Model,
        normalize: bool = True,
        preprocessing: ImagePreprocessing | Mapping[str, Any] | None = None,
        head: Head | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(preprocessing, Mapping):
            preprocessing = ImagePreprocessing.from_config(preprocessing)
        self.encoder = encoder
        self.normalize = normalize
        self.preprocessing = preprocessing
        self._normalization = L2Normalization(dtype="float32")
        self._check_encoder()
        _check_head(head, normalize)
        self.head = head
        self._in_training = False
        self.build(encoder.input_shape)

    @property
    def dimension(self) -> int:
        """The length of an embedding."""
        return int(self.encoder.output_shape[-1])

    def build(self, input_shape: Any) -> None:
        if not self.encoder.built:
            self.encoder.build(input_shape)
        if self.head is not None and not self.head.built:
            self.head.build((None, self.dimension))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if inputs.dtype.is_integer:
            inputs = tf.cast(inputs, self.compute_dtype)
        embeddings = tf.cast(self.encoder(inputs, training=training), tf.float32)
        return self._normalization(embeddings) if self.normalize else embeddings

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.dimension)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        """The head's loss, if there is a head, and the compiled one; called by Keras."""
        if self.head is None:
            return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        if y is None:
            raise ValueError("head: it needs labels. Fit with (images, labels), e.g. batches of a tfdml sampler.")
        # Keras 2 does not say whether it is training.
        training = self._in_training if training is None else training
        values = self.head.per_anchor(y_pred, y, training=training)
        count = tf.cast(tf.shape(values)[0], values.dtype)
        if sample_weight is not None:
            values *= tf.reshape(tf.cast(sample_weight, values.dtype), [-1])
        value = tf.math.divide_no_nan(tf.reduce_sum(values), count)
        return total_loss(self, value, y, y_pred, sample_weight)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's own `fit`, on the batches of a sampler."""
        if _is_dataset(x):
            raise ValueError(
                "x is a tfdml.datasets.Dataset: expected batches of images and labels. What a batch holds is a sampler's "
                "matter, e.g. fit(PKSampler(data.labels, classes=16, examples=4).dataset(data.load), steps_per_epoch=200)."
            )
        # The eighth argument of Keras's `fit`, x included.
        if _is_dataset(kwargs.get("validation_data", args[6] if len(args) > 6 else None)):
            raise ValueError(
                "validation_data is a tfdml.datasets.Dataset: expected batches, on which Keras would compute the loss. For "
                "retrieval figures after each epoch, give callbacks=[tfdml.evaluation.RetrievalCallback(data)] instead."
            )
        return super().fit(x, *args, **kwargs)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        self._in_training = True
        return super().train_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        self._in_training = False
        return super().test_step(*args, **kwargs)

    @property
    def input_shape(self) -> Any:
        """Shape of the images, `(None, h, w, C)`."""
        return self.encoder.input_shape

    @property
    def output_shape(self) -> Any:
        """Shape of the embeddings, `(None, D)`."""
        return (None, self.dimension)

    def embed(self, data: Dataset | tf.data.Dataset | np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embeddings of all images, in order.

        Args:
            data: a `tfdml.datasets.Dataset`, an array of images `[N, h, w, C]`, or a `tf.data.Dataset` of image batches.
            batch_size: images per step; not used for a `tf.data.Dataset`.

        Returns:
            `float32 [N, D]`.

        Raises:
            ValueError: batches without end, as a sampler makes them.
        """
        if isinstance(data, tf.data.Dataset):
            if data.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise ValueError(
                    "data has no end, as a sampler's batches have none. Give data.take(number of batches), or the "
                    "tfdml.datasets.Dataset whose every image is to be embedded once."
                )
            return np.asarray(self.predict(data, verbose=0))
        return embed(self, data, batch_size)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Retrieval figures on a `tfdml.datasets.Dataset`; anything else goes to Keras's own `evaluate`.

        Args:
            x: a dataset, whose every image is a query against all others, or against `gallery`.
            gallery: another dataset to search in; classes are compared by name.
            ks: the k of Recall@k.
            metric: `"cosine"` or `"euclidean"`; cosine if the model normalises, else Euclidean.
            batch_size: images per step.

        Returns:
            For a dataset, a dictionary: `recall_at_1`, ..., `r_precision`, `map_at_r`, `queries`, `queries_without_answer`.
        """
        if not _is_dataset(x):
            return super().evaluate(x, *args, **kwargs)
        for display in ("verbose", "return_dict", "callbacks"):  # Keras's own, which have nothing to show here
            kwargs.pop(display, None)
        kwargs.setdefault("metric", "cosine" if self.normalize else "euclidean")
        return evaluate_dataset(self, x, *args, **kwargs).as_dict()

    def export(self, filepath: Any, gallery: Dataset | None = None, **kwargs: Any) -> Bundle | None:
        """Publishes a bundle of this model and `gallery`; see `tfdml.bundle.export`. Without a gallery, Keras's own export."""
        if gallery is None:
            alone = self if self.head is None else self.without_head()
            # Keras exports the shapes that a model has been called with, and one that was just loaded has not been called.
            alone(keras.Input(self.input_shape[1:]))
            keras.Model.export(alone, filepath, **kwargs)
            return None
        from tfdml.bundle import export

        return export(self, gallery=gallery, to=filepath, **kwargs)

    def without_head(self) -> EmbeddingModel:
        """A model of the same encoder, weights shared, that has no head: to save, or to go on training with a loss."""
        return EmbeddingModel(self.encoder, self.normalize, self.preprocessing, name=self.name)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "normalize": self.normalize,
            "preprocessing": self.preprocessing.get_config() if self.preprocessing else None,
            "head": keras.saving.serialize_keras_object(self.head) if self.head is not None else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> EmbeddingModel:
        encoder = keras.saving.deserialize_keras_object(config["encoder"], custom_objects=custom_objects)
        head = config.get("head")
        if head is not None:
            head = keras.saving.deserialize_keras_object(head, custom_objects=custom_objects)
        return cls(**{**config, "encoder": encoder, "head": head})

    def _check_encoder(self) -> None:
        try:
            shape = self.encoder.output_shape
        except AttributeError as error:
            raise ValueError(
                f"encoder={self.encoder.name!r} does not know its shapes yet. Expected a functional or sequential model "
                "with an input shape, e.g. keras.Sequential([keras.Input((64, 64, 3)), ...])."
            ) from error
        if not (isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[-1], int)):
            raise ValueError(
                f"encoder={self.encoder.name!r} has the output shape {shape}; expected one output [B, D]. "
                "Pool or flatten its feature maps, e.g. with keras.layers.GlobalAveragePooling2D()."
            )


def _check_head(head: Any, normalize: bool) -> None:
    if head is None:
        return
    if not isinstance(head, Head):
        raise ValueError(f"head={head!r}: expected a tfdml.layers.Head such as tfdml.layers.ArcFace(num_classes), or None.")
    if head.uses_length and normalize:
        raise ValueError(
            f"head={type(head).__name__} learns from the lengths of embeddings, which normalize=True sets to 1. "
            "Give EmbeddingModel(..., normalize=False)."
        )


def _is_dataset(data: Any) -> TypeGuard[Dataset]:
    from tfdml.datasets import Dataset

    return isinstance(data, Dataset)
