"""Run as `python replicas_run.py N`: ten steps on N replicas of every objective, beside ten steps on one with the same batches.

In a process of its own: devices can only be split before TensorFlow is used, and a process can hold groups of one size only.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from workers_run import train

from tfdml import layers, losses, mining, models
from tfdml._compat import KERAS_3

STEPS, BATCH, RATE = 10, 16, 0.1
CLASSES, FEATURES, DIMENSION = 4, 6, 5
NORMALISATION = "batch normalisation"


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective, and what it is given.

    Attributes:
        make: makes the loss or head.
        items: how many embeddings make a row: 2 and 3 for explicit pairs and triplets.
        length: of the embeddings, if they are normalised.
        multi_hot: whether labels are boolean rows.
        draws: whether it draws at random, by the bits of the embeddings: no two runs whose weights differ by a rounding draw
            alike, so each step begins with the weights that one replica has.
    """

    make: Callable[[], Any]
    items: int = 1
    normalised: bool = True
    multi_hot: bool = False
    draws: bool = False


def cases() -> dict[str, Case]:
    explicit = {"reduction": "sum_over_batch_size"}
    return {
        "contrastive": Case(lambda: losses.ContrastiveLoss(1.0, average="balanced")),
        "contrastive, legacy": Case(lambda: losses.ContrastiveLoss(1.0, form="legacy"), multi_hot=True),
        "contrastive, pairs": Case(lambda: losses.ContrastiveLoss(1.0, "explicit", average="balanced", **explicit), items=2),
        "triplet, semi-hard": Case(lambda: losses.TripletLoss(0.2)),
        "triplet, hard": Case(lambda: losses.TripletLoss("soft", "hard"), normalised=False),
        "triplet, all": Case(lambda: losses.TripletLoss(0.5, "all", "squared_euclidean")),
        "triplet, random": Case(lambda: losses.TripletLoss(0.5, mining.RandomNegative()), normalised=False, draws=True),
        "triplet, explicit": Case(lambda: losses.TripletLoss(0.5, "explicit", average="active"), items=3),
        "margin": Case(lambda: losses.MarginLoss(mining=mining.DistanceWeighted(upper=None)), normalised=False, draws=True),
        "margin, all": Case(lambda: losses.MarginLoss(mining="all")),
        "lifted": Case(lambda: losses.LiftedStructureLoss()),
        "lifted, generalized": Case(lambda: losses.LiftedStructureLoss(variant="generalized")),
        "n-pair": Case(lambda: losses.NPairLoss(), normalised=False),
        "n-pair, one against one": Case(lambda: losses.NPairLoss("ovo", positives="all"), normalised=False),
        "nt-xent": Case(lambda: losses.NTXentLoss(0.5)),
        "sup-con": Case(lambda: losses.SupConLoss(0.5)),
        "multi-similarity": Case(lambda: losses.MultiSimilarityLoss()),
        "row blocks": Case(lambda: losses.RowBlocks(losses.TripletLoss(0.2), rows=5)),
        "circle": Case(lambda: losses.CircleLoss(gamma=8.0)),
        "two towers": Case(lambda: losses.TwoTowerLoss(losses.NTXentLoss(0.5)), items=2),
        "sum": Case(lambda: losses.ContrastiveLoss(1.0, reduction="sum")),
        "a-softmax": Case(lambda: layers.ASoftmax(CLASSES, base=0), normalised=False),
        "arcface": Case(lambda: layers.ArcFace(CLASSES, scale=8.0, initial_length=1.0)),
        "cosface": Case(lambda: layers.CosFace(CLASSES, scale=8.0, sub_centers=2, initial_length=1.0)),
        "cosface, sampled": Case(lambda: layers.CosFace(60, scale=8.0, sampled_classes=20, initial_length=1.0)),
        "normalized softmax": Case(lambda: layers.NormalizedSoftmax(CLASSES, 0.2, initial_length=1.0)),
        "proxy-anchor": Case(lambda: layers.ProxyAnchor(CLASSES, alpha=8.0, initial_length=1.0)),
        "proxy-nca": Case(lambda: layers.ProxyNCA(CLASSES, 1.0, "negatives", initial_length=1.0)),
        "margin head": Case(lambda: layers.MarginHead(CLASSES, nu=0.1, mining="all")),
        "deepid2": Case(
            lambda: layers.IdentificationVerification(CLASSES, weight=1.0, reset_every=2, window=500), normalised=False
        ),
        "deepid2, pairs": Case(
            lambda: layers.IdentificationVerification(CLASSES, "cosine", weight=1.0, pairs="consecutive"), normalised=False
        ),
        "memory": Case(lambda: layers.CrossBatchMemory(losses.ContrastiveLoss(1.0), 24, start=2)),
    }


class Training:
    """One dense layer and an objective: steps of SGD under a strategy, each with the batch that it is given."""

    def __init__(self, case: Case, strategy: Any) -> None:
        self.case, self.strategy = case, strategy
        keras.utils.set_random_seed(1)
        with strategy.scope():
            self.dense = keras.layers.Dense(DIMENSION, use_bias=False)
            self.dense.build((None, FEATURES))
            self.objective = case.make()
            self.is_head = isinstance(self.objective, layers.Head)
            if self.is_head:
                self.objective.build((None, DIMENSION))
            self.optimizer = keras.optimizers.SGD(RATE)
            self.trained = self.dense.trainable_weights + (self.objective.trainable_weights if self.is_head else [])
            self.optimizer.build(self.trained)
        run = lambda *batch: strategy.run(self._replica_step, args=batch)  # noqa: E731
        self.run = run if strategy is tf.distribute.get_strategy() else tf.function(run)

    @property
    def weights(self) -> list[Any]:
        return self.dense.weights + (self.objective.weights if self.is_head else [])

    def step(self, x: np.ndarray, y: np.ndarray, ends: list[int]) -> tuple[float, list[np.ndarray]]:
        """Loss and gradients of one step, whose rows are split at `ends`."""
        outputs = self.run(tf.constant(x), tf.constant(y), tf.constant(ends))
        results = self.strategy.experimental_local_results(outputs)
        return sum(float(loss) for loss, _ in results), [np.array(gradient) for gradient in results[0][1]]

    def _replica_step(self, x: tf.Tensor, y: tf.Tensor, ends: tf.Tensor) -> Any:
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group
        x, y = (rows[ends[number] : ends[number + 1]] for rows in (x, y))
        with tf.GradientTape() as tape:
            if self.case.draws:
                # Anything but one product rounds a row differently among more of them, and that is another draw.
                embeddings = x * tf.convert_to_tensor(self.dense.kernel)[:, 0]
            else:
                embeddings = self.dense(x)
            if self.case.normalised:
                embeddings = tf.math.l2_normalize(embeddings, -1)
            if self.is_head:
                values = self.objective.per_anchor(embeddings, y, training=True)
                value = tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.shape(values)[0], values.dtype))
            else:
                # As Keras asks for it.
                self.objective._allow_sum_over_batch_size = True
                value = self.objective(y, embeddings)
            if self.is_head or (not KERAS_3 and self.objective.reduction != "sum"):
                # Of a mean over replicas; Keras 3 has done so in the reduction of a loss.
                value /= context.num_replicas_in_sync
        gradients = tape.gradient(value, self.trained)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if context.num_replicas_in_sync > 1:
            gradients = [context.all_reduce("sum", gradient) for gradient in gradients]
        return value, gradients


def batches(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLASSES, FEATURES))
    made = []
    for _ in range(STEPS):
        labels = random.permutation(np.repeat(np.arange(CLASSES), BATCH // CLASSES))
        shape = (BATCH, FEATURES) if case.items == 1 else (BATCH, case.items, FEATURES)
        near = centres[labels] if case.items == 1 else centres[labels][:, None]
        x = 0.3 * (near + random.standard_normal(shape)).astype(np.float32)
        if case.multi_hot:
            made.append((x, (labels[:, None] == np.arange(CLASSES)) | (random.random((BATCH, CLASSES)) < 0.2)))
        else:
            made.append((x, labels // 2 if case.items == 2 else labels))
    return made


def splits(replicas: int, step: int) -> list[int]:
    """Even parts in even steps; in odd ones parts that differ, one of them empty if there are several."""
    if step % 2 == 0:
        return [BATCH * i // replicas for i in range(replicas + 1)]
    return {1: [0, 16], 2: [0, 5, 16], 4: [0, 7, 7, 10, 16]}[replicas]


def compare(name: str, case: Case, strategy: Any) -> None:
    alone, together = Training(case, tf.distribute.get_strategy()), Training(case, strategy)
    replicas = strategy.num_replicas_in_sync
    for weights, others in zip(together.weights, alone.weights, strict=True):
        weights.assign(others)
    for step, (x, y) in enumerate(batches(case)):
        if case.draws:
            for weights, others in zip(together.weights, alone.weights, strict=True):
                weights.assign(others)
        loss, gradients = together.step(x, y, splits(replicas, step))
        expected_loss, expected = alone.step(x, y, splits(1, step))
        assert np.isfinite(expected_loss), name
        assert any(np.any(gradient) for gradient in expected), name
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5, atol=1e-5, err_msg=f"{name}: loss of step {step}")
        for one, other in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=f"{name}: gradient of step {step}")
    assert not np.array_equal(alone.weights[0], Training(case, tf.distribute.get_strategy()).weights[0]), name
    for weights, others in zip(together.weights, alone.weights, strict=True):
        expected_weights = np.array(tf.convert_to_tensor(others))
        for copy in strategy.experimental_local_results(weights.value if KERAS_3 else weights):
            found = np.array(tf.convert_to_tensor(copy))
            np.testing.assert_allclose(found, expected_weights, rtol=1e-5, atol=1e-5, err_msg=f"{name}: {weights.name}")


def fit_models(strategy: Any) -> None:
    """Keras's own `fit`, of models with a loss, a head, a memory, and of DAML; and `fit_distributed`."""
    random = np.random.default_rng(0)
    labels = np.concatenate([random.permutation(np.repeat(np.arange(CLASSES), BATCH // CLASSES)) for _ in range(STEPS)])
    x = random.standard_normal((CLASSES, FEATURES))[labels] + random.standard_normal((len(labels), FEATURES))

    def encoder() -> Any:
        return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(DIMENSION)])

    def daml() -> Any:
        generator = layers.HardNegativeGenerator(units=(8,), residual=False)
        return models.DAML(encoder(), generator=generator, pretrain_steps=2, generator_steps=2, positives=1)

    def memory() -> Any:
        return models.EmbeddingModel(encoder(), head=layers.CrossBatchMemory(losses.ContrastiveLoss(1.0), 24))

    makes = {
        "a loss": (lambda: models.EmbeddingModel(encoder()), losses.TripletLoss(0.2)),
        "a head": (lambda: models.EmbeddingModel(encoder(), head=layers.ProxyAnchor(CLASSES, alpha=8.0)), None),
        "a memory": (memory, None),
        "a generator": (daml, losses.TripletLoss(0.5, "all", average="valid")),
    }
    for name, (make, loss) in makes.items():
        found = []
        for each in (tf.distribute.get_strategy(), strategy):
            keras.utils.set_random_seed(1)
            with each.scope():
                model = make()
                model.compile(keras.optimizers.SGD(RATE), loss=loss)
            data = tf.data.Dataset.from_tensor_slices((x.astype(np.float32), labels)).batch(BATCH, drop_remainder=True)
            history = model.fit(data, epochs=1, shuffle=False, verbose=0).history
            found.append([*(np.array(w) for w in model.get_weights()), *(history[key] for key in sorted(history))])
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)
        print("same: fit with", name, flush=True)
    (one, _), (other, _) = (train(each, None) for each in (tf.distribute.get_strategy(), strategy))
    for weights, others in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(weights, others, rtol=1e-5, atol=1e-5, err_msg="fit_distributed")
    print("same: fit_distributed", flush=True)


def normalise(strategy: Any) -> None:
    """Batch normalisation on a replica without rows: its averages stay, and no gradient is NaN."""
    x = tf.constant(np.random.default_rng(0).standard_normal((5, 2, 2, 3)), tf.float32)
    for shape in ((2, 2, 3), (12,)):
        with strategy.scope():
            layer = layers.BatchNormalization(momentum=0.5)
            layer.build((None, *shape))

        def step(layer: Any = layer, shape: Any = shape) -> Any:
            rows = tf.where(tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0), 5, 0)
            with tf.GradientTape() as tape:
                outputs = layer(tf.reshape(x, (-1, *shape))[:rows], training=True)
                total = tf.reduce_sum(outputs * tf.range(float(shape[-1])))
            return tf.shape(outputs)[0], tape.gradient(total, layer.trainable_variables)

        results = strategy.experimental_local_results(tf.function(lambda step=step: strategy.run(step))())
        assert [int(rows) for rows, _ in results] == [5] + [0] * (len(results) - 1)
        for _, gradients in results:
            assert all(np.isfinite(gradient).all() for gradient in gradients)
        mean, *without_rows = strategy.experimental_local_results(layer.moving_mean.value)
        np.testing.assert_allclose(mean, 0.5 * np.mean(np.reshape(x, (-1, shape[-1])), 0), rtol=1e-4, atol=1e-6)
        assert not np.any(without_rows)


def main() -> None:
    replicas = int(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    # Half of the time, and nothing to be seen of it in the numbers.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    if sys.argv[2:] == ["fit"]:
        fit_models(strategy)
        return
    chosen = cases()
    for name in sys.argv[2:] or chosen:
        if name == NORMALISATION:
            normalise(strategy)
        else:
            compare(name, chosen[name], strategy)
        print("same:", name, flush=True)


if __name__ == "__main__":
    main()
