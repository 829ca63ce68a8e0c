"""Deep adversarial metric learning: an embedding model that trains against a generator of hard negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_count
from tfdml._compat import apply_scaled_gradients, scaled_loss, unlocked
from tfdml.layers.hard_negative_generator import HardNegativeGenerator
from tfdml.layers.head import add_state
from tfdml.losses.base import as_labels, not_empty
from tfdml.mining.pairs import is_multi_hot
from tfdml.models.daml_terms import MINING, Judged, Weighting, check_base_loss, default_negatives, draw_triplets, mean_terms
from tfdml.models.embedding_model import EmbeddingModel
from tfdml.models.splitting import split_encoder
from tfdml.preprocessing import ImagePreprocessing
from tfdml.replicas import gather

PHASES = ("pretrain", "generator", "joint")
PLAYERS = ("separate", "constant", "joint")


@keras.saving.register_keras_serializable(package="tfdml")
class DAML(EmbeddingModel):
    """An `EmbeddingModel` that learns from synthetic negatives, made by a generator that learns to make them hard.

    From the features of an anchor x, a positive x+ and an observed negative x-, the generator makes x~ = G(x-, x, x+). It
    minimises

    J_gen = J_hard + lambda_1 J_reg + lambda_2 J_adv, the means of

    - J_hard = ||x~ - x||^2: near the anchor;
    - J_reg = ||x~ - x-||^2: near the negative that it was made from;
    - J_adv = [d(x~, x) - d(x+, x) - alpha]_+: mistaken for a positive by the metric learnt so far;

    and the encoder minimises lambda J_m: the loss given to `compile`, with x~ in the place of x-. The first two are distances
    between features, those below the layer `metric_from` of the encoder; d is the distance of the loss, between embeddings.
    Duan, Zheng, Lin, Lu, Zhou, "Deep Adversarial Metric Learning", CVPR 2018.

    Training goes through three phases, counted in steps: `"pretrain"`, the loss as it is, on real negatives; `"generator"`,
    only the generator learns, against the metric as it stands; `"joint"`, both. The number of steps is saved with the model
    (`step`), so a reloaded model goes on in its phase. With `steps_per_execution` above 1, a phase begins with an execution.

    It is fitted with batches in which every class has several items (`tfdml.samplers.PKSampler`), and embeds, evaluates and
    exports as every `EmbeddingModel`. Exports hold nothing of the generator; `without_generator()` is the model without it.
    The logs have `loss`, what is minimised at the time; from the second phase on `j_m`, `j_hard`, `j_reg`, `j_adv`, and
    `harder_negatives`, the share of synthetic negatives that lie nearer to the anchor than the real one, by the learnt metric.

    What the paper does, in terms of the arguments: `HardNegativeGenerator(residual=False)`, `mining="random"`,
    `regular_weight=1`, `adversarial_weight=50`, `feature_distance="squared"`, and a loss with squared distances and a margin of
    1. The defaults here are gentler, and were chosen on classes held out of training: see `docs/papers/daml.md`.

    Args:
        encoder: a functional or sequential model, images to vectors `[B, D]`.
        metric_from: name of the layer of the encoder at which the learnt metric begins; its input, vectors `[B, F]`, is the
            feature space. None: the last layer with weights.
        generator: a `tfdml.layers.HardNegativeGenerator`; None makes one with its defaults.
        pretrain_steps: training steps before the generator begins to learn.
        generator_steps: steps after that in which it learns alone.
        players: who learns from what. `"separate"`: each player minimises its own objective, the generator J_gen and the
            encoder J_m. `"constant"`: the same, and no gradient of J_m reaches the features that a synthetic negative was made
            from. `"joint"`: both minimise J_gen + lambda J_m, as published; J_adv and J_m then pull in opposite directions, and
            of their two hinges just one is active.
        metric_weight: lambda.
        regular_weight: lambda_1.
        adversarial_weight: lambda_2.
        margin: alpha of J_adv, in units of d; None: that of the loss, 1 for a loss that has none, 0 if it is soft.
        feature_distance: `"relative"`: J_hard and J_reg are divided by the mean squared distance between anchors and their
            observed negatives, so that the weights mean the same whatever the scale of the features; `"squared"`: they are not.
        mining: which observed negatives are taken for an anchor and its positive: `"semi_hard"`, `"hard"` or `"random"`.
        positives: how many positives of every item have a triplet in a step, of those that there are.
        negatives: how many synthetic negatives every pair has. None: 1 for contrastive and triplet losses, 16 for lifted
            structure and N-pair losses, which set a pair against many (fewer in small batches).
        seed: of the choice of triplets.
        normalize: as in `EmbeddingModel`.
        preprocessing: as in `EmbeddingModel`.

    Shapes: images `[B, h, w, C]`, 0 to 255; embeddings `[B, D]`, `float32`.

    Raises:
        ValueError: an argument that is not known, or an encoder that cannot be cut at `metric_from`.

    Example:
        >>> import numpy as np, tfdml
        >>> encoder = tfdml.models.conv_encoder((16, 16, 3), filters=(8, 8), dimension=4)
        >>> model = tfdml.models.DAML(encoder, pretrain_steps=2, generator_steps=1)
        >>> model.compile("adam", loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"))
        >>> images, labels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)), np.arange(8) // 2
        >>> history = model.fit(images, labels, batch_size=8, epochs=4, verbose=0)
        >>> model.phase, sorted(history.history)
        ('joint', ['harder_negatives', 'j_adv', 'j_hard', 'j_m', 'j_reg', 'loss'])
    """

    def __init__(
        self,
        encoder: keras.Model,
        metric_from: str | None = None,
        generator: HardNegativeGenerator | None = None,
        pretrain_steps: int = 300,
        generator_steps: int = 50,
        players: str = "separate",
        metric_weight: float = 1.0,
        regular_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        margin: float | None = None,
        feature_distance: str = "relative",
        mining: str = "semi_hard",
        positives: int = 3,
        negatives: int | None = None,
        seed: int = 0,
        normalize: bool = True,
        preprocessing: ImagePreprocessing | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, normalize, preprocessing, **kwargs)
        self.metric_from = metric_from
        self.pretrain_steps = check_count("pretrain_steps", pretrain_steps, 0)
        self.generator_steps = check_count("generator_steps", generator_steps, 0)
        self.players = check_choice("players", players, PLAYERS)
        self.weighting = Weighting(metric_weight, regular_weight, adversarial_weight, margin, feature_distance)
        self.mining = check_choice("mining", mining, MINING)
        self.positives = check_count("positives", positives, 1)
        self.negatives = None if negatives is None else check_count("negatives", negatives, 1)
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise ValueError(f"seed={seed!r}: expected an integer.")
        self.seed = int(seed)
        if not isinstance(generator, (HardNegativeGenerator, type(None))):
            raise ValueError(f"generator={generator!r}: expected a tfdml.layers.HardNegativeGenerator, or None.")
        self._split = split_encoder(encoder, metric_from)
        with unlocked(self):
            self.generator = generator or HardNegativeGenerator()
            if not self.generator.built:
                self.generator.build((None, self._split.width))
            self.step = add_state(self, "step", (), "int64")
            names = ("objective", "j_m", "j_hard", "j_reg", "j_adv", "harder_negatives")
            self._progress = {name: keras.metrics.Mean(name=name) for name in names}
        self._phase_in_graph = "pretrain"
        self.train_function: Any = None
        # Keras 2 adds up what replicas log, though a metric gives each of them the result of all.
        self.distribute_reduction_method = "first"

    @property
    def phase(self) -> str:
        """What the next training step does: `"pretrain"`, `"generator"` or `"joint"`."""
        step = int(tf.convert_to_tensor(self.step))
        if step < self.pretrain_steps:
            return "pretrain"
        return "generator" if step < self.pretrain_steps + self.generator_steps else "joint"

    def compile(self, optimizer: Any = "adam", loss: Any = None, generator_optimizer: Any = None, **kwargs: Any) -> None:
        """Keras's own, with an optimizer for the generator.

        Args:
            optimizer: that of the encoder. It takes no step in the second phase.
            loss: a `ContrastiveLoss`, `TripletLoss`, `LiftedStructureLoss` or `NPairLoss` of `tfdml.losses`.
            generator_optimizer: None: a new one like `optimizer`, with the same learning rate.
            **kwargs: those of `keras.Model.compile`.

        Raises:
            ValueError: another loss, or a reduction other than the mean.
        """
        check_base_loss(loss)
        super().compile(optimizer, loss=loss, **kwargs)
        if generator_optimizer is None:
            generator_optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        generator_optimizer = keras.optimizers.get(generator_optimizer)
        if hasattr(self.optimizer, "inner_optimizer") and not hasattr(generator_optimizer, "inner_optimizer"):
            # Keras scales the loss for float16, and knows of one optimizer only.
            generator_optimizer = type(self.optimizer)(generator_optimizer)
        self.generator_optimizer = generator_optimizer

    def get_compile_config(self) -> dict[str, Any]:
        config = dict(super().get_compile_config() or {})
        if config:
            config["generator_optimizer"] = keras.saving.serialize_keras_object(self.generator_optimizer)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizers()

    def enter_phase(self) -> str:
        """Makes `train_step` that of the phase of the next step; for loops of your own, which trace a graph for each phase."""
        self._phase_in_graph = self.phase
        return self._phase_in_graph

    def make_train_function(self, force: bool = False) -> Any:
        self._phase_in_graph = self.phase
        if self.train_function is not None and not force:
            return self.train_function
        self._build_optimizers()
        functions: dict[str, Any] = {}

        # Each phase is a graph of its own: a player that does not learn takes no step at all, and costs nothing.
        def train(iterator: Any) -> Any:
            if self._phase_in_graph != "joint":
                self._phase_in_graph = self.phase
            phase = self._phase_in_graph
            if phase not in functions:
                super(DAML, self).make_train_function(force=True)
                functions[phase], self.train_function = self.train_function, train
            return functions[phase](iterator)

        self.train_function = train
        return train

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            raise ValueError("DAML needs labels. Fit with (images, labels), e.g. batches of a tfdml sampler.")
        if is_multi_hot(as_labels(y)):
            raise ValueError(f"labels have shape {tuple(y.shape)}: DAML draws triplets of classes: expected one label an item.")
        phase = self._phase_in_graph
        with tf.GradientTape(persistent=True) as tape:
            images = tf.cast(x, self.compute_dtype) if x.dtype.is_integer else x
            # The metric that the generator learns against alone stands still, its moving averages too.
            features, outputs = self._split.both(images, training=phase != "generator")
            embeddings = self._embeddings(outputs)
            if phase == "pretrain":
                terms: dict[str, tf.Tensor] = {}
                of_encoder, of_generator = self._real(y, embeddings, sample_weight), tf.zeros([])
            else:
                terms = self._terms(features, embeddings, y, sample_weight)
                of_encoder, of_generator = self.weighting.objectives(terms)
                of_generator += _regularisation(self.generator)
            of_encoder += _regularisation(self.encoder)
            if phase == "generator":
                of_encoder = tf.zeros([])
            objective = of_encoder + of_generator
            if self.players == "joint" and phase == "joint":
                of_encoder = of_generator = objective
            # Gradients are summed over replicas.
            share = 1.0 / tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, tf.float32)
            of_encoder = scaled_loss(self.optimizer, share * of_encoder)
            of_generator = scaled_loss(self.generator_optimizer, share * of_generator)
        if phase != "generator":
            weights = self.encoder.trainable_weights
            apply_scaled_gradients(self.optimizer, tape.gradient(of_encoder, weights), weights)
        if phase != "pretrain":
            weights = self.generator.trainable_weights
            apply_scaled_gradients(self.generator_optimizer, tape.gradient(of_generator, weights), weights)
        self.step.assign_add(1)
        return self._logs({"objective": objective, **terms}, x, y, embeddings, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        logs = super().test_step(data)
        return {name: value for name, value in logs.items() if name not in self._progress}

    def export(self, filepath: Any, gallery: Any = None, **kwargs: Any) -> Any:
        """Publishes a bundle of this model and `gallery`; see `EmbeddingModel.export`. It holds nothing of the generator."""
        return self.without_generator().export(filepath, gallery, **kwargs)

    def without_generator(self) -> EmbeddingModel:
        """An `EmbeddingModel` of the same encoder, weights shared: to save, or to go on training with a loss alone."""
        model = EmbeddingModel(self.encoder, self.normalize, self.preprocessing, name=self.name)
        # Keras exports the shapes that a model has been called with.
        model(keras.Input(self.input_shape[1:]))
        return model

    without_head = without_generator

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["head"]
        return {
            **config,
            "metric_from": self.metric_from,
            "generator": keras.saving.serialize_keras_object(self.generator),
            "pretrain_steps": self.pretrain_steps,
            "generator_steps": self.generator_steps,
            "players": self.players,
            **self.weighting.get_config(),
            "mining": self.mining,
            "positives": self.positives,
            "negatives": self.negatives,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DAML:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("encoder", "generator")
        }
        return cls(**{**config, **parts})

    def _embeddings(self, outputs: tf.Tensor) -> tf.Tensor:
        embeddings = tf.cast(outputs, tf.float32)
        return self._normalization(embeddings) if self.normalize else embeddings

    def _real(self, y: Any, embeddings: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """The loss as it is, on real negatives."""
        return _weighted_mean(self.loss.call(y, embeddings), sample_weight)

    def _terms(self, features: tf.Tensor, embeddings: tf.Tensor, y: Any, sample_weight: Any) -> dict[str, tf.Tensor]:
        """J_m, J_hard, J_reg, J_adv and the share of harder negatives."""
        # Of all replicas: each of them computes the whole terms, and the mean over replicas of their gradients is the gradient.
        given = [as_labels(y), tf.cast(features, tf.float32), embeddings] + ([] if sample_weight is None else [sample_weight])
        labels, features, embeddings, *weights = (not_empty(z) for z in gather(*given).tensors)
        if self.players == "constant":
            features = tf.stop_gradient(features)
        count = self.negatives or default_negatives(self.loss)
        seed = tf.stack([tf.constant(self.seed, tf.int64), 2 * tf.convert_to_tensor(self.step)])
        triplets = draw_triplets(labels, embeddings, self.positives, count, self.mining, seed)
        anchors, positives = tf.gather(features, triplets.anchors), tf.gather(features, triplets.positives)
        observed = tf.gather(features, triplets.negatives)
        each = tf.zeros_like(observed)
        synthetic = self.generator(anchors[:, None] + each, positives[:, None] + each, observed)
        # In inference mode: the statistics of a batch normalisation are those of real features.
        outputs = self._split.metric(tf.reshape(synthetic, [-1, self._split.width]), training=False)
        judged = Judged(
            anchors=tf.gather(embeddings, triplets.anchors),
            positives=tf.gather(embeddings, triplets.positives),
            observed=tf.gather(embeddings, triplets.negatives),
            synthetic=tf.reshape(self._embeddings(outputs), [-1, count, self.dimension]),
            partners=triplets.positives * self.positives,
            valid=triplets.valid,
        )
        terms = mean_terms(self.loss, judged, self.weighting, anchors, observed, synthetic)
        per_anchor = tf.reduce_mean(tf.reshape(terms.pop("j_m"), [-1, self.positives]), 1)
        # A NaN or infinite feature is never hidden by a hinge: an optimizer with a loss scale must see it.
        finite = tf.reduce_all(tf.math.is_finite(features)) & tf.reduce_all(tf.math.is_finite(embeddings))
        whole = tf.where(finite, 1.0, float("nan"))
        terms = {"j_m": _weighted_mean(per_anchor, *weights), **terms}
        return {name: value * whole for name, value in terms.items()}

    def _logs(self, values: dict[str, tf.Tensor], x: Any, y: Any, embeddings: tf.Tensor, weight: Any) -> dict[str, Any]:
        for name, value in values.items():
            self._progress[name].update_state(value, sample_weight=tf.shape(embeddings)[0])
        logs = self.compute_metrics(x, y, embeddings, weight)
        compiled = {name: value for name, value in logs.items() if name not in self._progress}
        own = {name: self._progress[name].result() for name in values}
        return {**compiled, "loss": own.pop("objective"), **own}

    def _build_optimizers(self) -> None:
        with self.distribute_strategy.scope():
            self.optimizer.build(self.encoder.trainable_weights)
            self.generator_optimizer.build(self.generator.trainable_weights)


def _regularisation(layer: Any) -> tf.Tensor:
    return tf.add_n([tf.cast(value, tf.float32) for value in layer.losses]) if layer.losses else tf.zeros([])


def _weighted_mean(values: tf.Tensor, sample_weight: Any = None) -> tf.Tensor:
    """The mean of `[B]` values, each times its weight; 0 of none."""
    values = tf.cast(values, tf.float32)
    count = tf.cast(tf.shape(values)[0], tf.float32)
    if sample_weight is not None:
        values *= tf.reshape(tf.cast(sample_weight, tf.float32), [-1])
    return tf.math.divide_no_nan(tf.reduce_sum(values), count)
