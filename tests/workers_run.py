"""One of several worker processes, or all there is: trains a model and writes down its weights.

Run as `python workers_run.py CHECKPOINT RESULT [DIES_AFTER]`, with TF_CONFIG for more than one worker. With a number of steps,
the process kills itself after that many, as the kernel would.
"""

from __future__ import annotations

import functools
import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import tfdml
from tfdml.models import fit_distributed

STEPS, EPOCHS, SAVE_EVERY = 5, 2, 4


class Killed(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def spread(_, embeddings):
    return tf.math.reduce_std(embeddings, -1)


def train(strategy, checkpoint, callbacks=(), epochs=EPOCHS):
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 6)
    features = tf.constant(random.standard_normal((12, 8))[labels] + random.standard_normal((72, 8)), tf.float32)
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(6)])
        memory = tfdml.layers.CrossBatchMemory(tfdml.losses.ContrastiveLoss(0.5), 40)
        model = tfdml.EmbeddingModel(encoder, head=memory)
        model.compile(keras.optimizers.Adam(0.01), loss=tfdml.losses.TripletLoss(0.2, "all"), metrics=[spread])
    sampler = tfdml.samplers.PKSampler(labels, classes=4, examples=4, seed=5)
    batches = functools.partial(sampler.dataset, lambda index: tf.gather(features, index))
    history = fit_distributed(
        model, batches, STEPS, epochs, checkpoint=checkpoint, save_every=SAVE_EVERY, callbacks=callbacks, verbose=0
    )
    return model, history.history


def main() -> None:
    checkpoint, result, *dies_after = sys.argv[1:]
    several = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    model, history = train(strategy, checkpoint, [Killed(int(steps)) for steps in dies_after])
    np.savez(result, *[np.array(tf.convert_to_tensor(weight)) for weight in model.weights], **history)


if __name__ == "__main__":
    main()
