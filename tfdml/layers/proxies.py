"""Heads that compare embeddings with one trainable proxy of each class: Proxy-Anchor and ProxyNCA."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_positive
from tfdml.layers._cosines import cosines
from tfdml.layers.head import Head, nan_outside
from tfdml.replicas import gather, weighed


@keras.saving.register_keras_serializable(package="tfdml")
class ProxyAnchor(Head):
    """Proxy-Anchor: each class's proxy pulls the batch's hardest positives most, and pushes its hardest negatives most.

    1/|P+| sum_{p in P+} log(1 + sum_{x in X_p+} exp(-alpha (cos(x, p) - margin)))
      + 1/|P| sum_{p in P} log(1 + sum_{x in X_p-} exp(alpha (cos(x, p) + margin)))

    P are all proxies, P+ those whose class is in the batch, X_p+ and X_p- the batch's items of and not of p's class.
    Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020. The authors let proxies learn 100 times as
    fast as the network; here they begin short for that, see `initial_length` of `Head`.

    Args:
        num_classes: number of classes, and proxies, C.
        margin: delta, in cosine.
        alpha: scale of the cosines.
        **kwargs: those of `tfdml.layers.Head`: `initial_length` of the class weights, and those of `keras.layers.Layer`.

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
        everything = gather(self.classes(labels), embeddings)
        classes, embeddings = everything.tensors
        scaled = cosines(embeddings, self.proxies, self.alpha)
        dtype, batch, offset = scaled.dtype, tf.shape(classes)[0], self.alpha * self.margin
        # Under XLA nothing has refused a number out of range; nan_outside does.
        own = tf.clip_by_value(classes, 0, self.num_classes - 1)
        place = tf.stack([tf.range(batch, dtype=own.dtype), own], 1)
        ones = tf.ones_like(classes, dtype)
        items = tf.math.unsorted_segment_sum(ones, own, self.num_classes)
        present, others = tf.math.count_nonzero(items, dtype=dtype), tf.cast(batch, dtype) - items
        pull = _log_one_plus_sum_exp_of_classes(offset - tf.gather_nd(scaled, place), own, self.num_classes)
        # An item does not push its own proxy: at the dtype's lowest number, its exponential is 0.
        negatives = tf.tensor_scatter_nd_update(scaled, place, tf.fill([batch], tf.constant(dtype.min / 2, dtype)))
        push = _log_one_plus_sum_exp(offset + negatives)
        # The mean over [B] of what all items carry is the loss: a proxy's pull is shared by its items, its push by the others.
        carried = tf.cast(batch, dtype) * tf.math.divide_no_nan(push, others * self.num_classes)
        values = tf.reduce_sum(carried) - tf.gather(carried, own)
        values += tf.cast(batch, dtype) * tf.gather(tf.math.divide_no_nan(pull, items * present), own)
        return everything.own(nan_outside(values, classes, self.num_classes))

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
    faster than the network; here they begin short for that, see `initial_length` of `Head`.

    Args:
        num_classes: number of classes, and proxies, C.
        temperature: T.
        denominator: `"all"` or `"negatives"`, see above.
        **kwargs: those of `tfdml.layers.Head`: `initial_length` of the class weights, and those of `keras.layers.Layer`.

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
        logits = cosines(embeddings, self.proxies, 2.0 / self.temperature)
        if self.denominator == "all":
            return weighed(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits))
        own = tf.equal(classes[:, None], tf.range(self.num_classes, dtype=classes.dtype))
        negatives = tf.reduce_logsumexp(tf.where(own, tf.constant(-float("inf"), logits.dtype), logits), 1)
        values = negatives - tf.reduce_sum(tf.where(own, logits, 0.0), 1)
        return weighed(nan_outside(values, classes, self.num_classes))

    def per_anchor(self, embeddings: tf.Tensor, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self(embeddings, labels)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> Any:
        return (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "denominator": self.denominator}


@tf.custom_gradient
def _log_one_plus_sum_exp(x: tf.Tensor) -> Any:
    """log(1 + sum of exp(x)) of each column."""
    top = tf.nn.relu(tf.reduce_max(x, 0))
    terms = tf.exp(x - top)
    total = tf.exp(-top) + tf.reduce_sum(terms, 0)
    return top + tf.math.log(total), lambda g: terms * (g / total)


def _log_one_plus_sum_exp_of_classes(x: tf.Tensor, classes: tf.Tensor, num_classes: int) -> tf.Tensor:
    """`[B]` to `[C]`: log(1 + sum of exp(x)) over the items of each class; 0 for a class without any."""
    top = tf.nn.relu(tf.math.unsorted_segment_max(tf.stop_gradient(x), classes, num_classes))
    total = tf.math.unsorted_segment_sum(tf.exp(x - tf.gather(top, classes)), classes, num_classes)
    return top + tf.math.log(tf.exp(-top) + total)
