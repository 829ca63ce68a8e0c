"""Heads that compare embeddings with one trainable proxy of each class: Proxy-Anchor and ProxyNCA."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml.layers._cosines import cosines
from tfdml.layers.head import Head, nan_outside


@keras.saving.register_keras_serializable(package="tfdml")
class ProxyAnchor(Head):
    """Proxy-Anchor: each class's proxy pulls the batch's hardest positives most, and pushes its hardest negatives most.

    1/|P+| sum_{p in P+} log(1 + sum_{x in X_p+} exp(-alpha (cos(x, p) - margin)))
      + 1/|P| sum_{p in P} log(1 + sum_{x in X_p-} exp(alpha (cos(x, p) + margin)))

    P are all proxies, P+ those whose class is in the batch, X_p+ and X_p- the batch's items of and not of p's class.
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020. The authors let proxies learn 100 times as
    fast as the network.

    Args:
        num_classes: number of classes, and proxies, C.
        margin: delta, in cosine.
        alpha: scale of the cosines.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]` of any length, labels `[B]`; losses `[B]`, float32. A proxy's term is shared out evenly among
    the items in it, so that the mean over `[B]` is the loss.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf
        >>> head = ProxyAnchor(num_classes=3)
        >>> head(tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([0, 2])).shape
        TensorShape([2])
    """

    def __init__(self, num_classes: int, margin: float = 0.1, alpha: float = 32.0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("margin", margin, allow_zero=True)
        check_positive("alpha", alpha)
        self.margin, self.alpha = margin, alpha

    def build(self, input_shape: Any) -> None:
        self.proxies = self.add_class_weights(input_shape[-1], name="proxies")
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        classes = self.classes(labels)
        similarity = cosines(embeddings, self.proxies)
        dtype = similarity.dtype
        own = tf.equal(classes[:, None], tf.range(self.num_classes, dtype=classes.dtype))
        items, batch = tf.reduce_sum(tf.cast(own, dtype), 0), tf.cast(tf.shape(classes)[0], dtype)
        present = tf.reduce_sum(tf.cast(items > 0, dtype))
        pull = _log_one_plus_sum_exp(self.alpha * (self.margin - similarity), own)
        push = _log_one_plus_sum_exp(self.alpha * (self.margin + similarity), ~own)
        pull_share = tf.math.divide_no_nan(pull * batch, items * present)
        push_share = tf.math.divide_no_nan(push * batch, (batch - items) * self.num_classes)
        values = tf.reduce_sum(tf.where(own, pull_share, push_share), 1)
        return nan_outside(values, classes, self.num_classes)

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "alpha": self.alpha}


@keras.saving.register_keras_serializable(package="tfdml")
class ProxyNCA(Head):
    """ProxyNCA++: a softmax over squared distances to class proxies, all of length 1.

    -log( exp(-d(x, p_y) / T) / sum_{p in A} exp(-d(x, p) / T) ),   d(x, p) = ||x / ||x|| - p / ||p|| ||_2^2

    Teh, DeVries, Taylor, "ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis", ECCV 2020: A holds
    all proxies. With `denominator="negatives"` and `temperature=1.0` it is the original ProxyNCA (Movshovitz-Attias et al.,
    ICCV 2017), whose A leaves out the own class's proxy, and whose value can be negative. The authors let proxies learn much
    faster than the network.

    Args:
        num_classes: number of classes, and proxies, C.
        temperature: T.
        denominator: `"all"` or `"negatives"`, see above.
        **kwargs: those of `keras.layers.Layer`.

    Shapes: embeddings `[B, D]` of any length, labels `[B]`; losses `[B]`, float32.

    Raises:
        ValueError: arguments or labels out of range.

    Example:
        >>> import tensorflow as tf
        >>> head = ProxyNCA(num_classes=3)
        >>> head(tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([0, 2])).shape
        TensorShape([2])
    """

    def __init__(self, num_classes: int, temperature: float = 0.11, denominator: str = "all", **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.denominator = check_choice("denominator", denominator, ("all", "negatives"))

    def build(self, input_shape: Any) -> None:
        self.proxies = self.add_class_weights(input_shape[-1], name="proxies")
        self.built = True

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        classes = self.classes(labels)
        # ||u - v||^2 = 2 - 2 cos for unit vectors, and the 2 cancels in the fraction.
        logits = cosines(embeddings, self.proxies) * (2.0 / self.temperature)
        if self.denominator == "all":
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
        own = tf.equal(classes[:, None], tf.range(self.num_classes, dtype=classes.dtype))
        negatives = tf.reduce_logsumexp(tf.where(own, tf.constant(-float("inf"), logits.dtype), logits), 1)
        values = negatives - tf.reduce_sum(tf.where(own, logits, 0.0), 1)
        return nan_outside(values, classes, self.num_classes)

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "denominator": self.denominator}


def _log_one_plus_sum_exp(x: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """log(1 + sum of exp(x) over the kept entries of each column)."""
    kept_only = tf.where(kept, x, tf.constant(-float("inf"), x.dtype))
    return tf.reduce_logsumexp(tf.concat([tf.zeros([1, x.shape[1]], x.dtype), kept_only], 0), 0)
