"""fit_distributed: two worker processes against one, crashes and what goes on after them, DAML's phases, bad input."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import workers_run

import tfdml
from tfdml.models import distributed, fit_distributed
from tfdml.replicas import GlobalBatch

TESTS = Path(__file__).resolve().parents[1]


def weights_of(model):
    return [np.array(tf.convert_to_tensor(weight)) for weight in model.weights]


def straight():
    model, history = workers_run.train(tf.distribute.get_strategy(), None)
    return weights_of(model), history


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_workers(folder, dies_after=None):
    """Two worker processes, of which the second kills itself after some steps, if asked to."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        arguments = [str(folder / "checkpoint.npz"), str(folder / f"result_{index}.npz")]
        if index == 1 and dies_after is not None:
            arguments.append(str(dies_after))
        processes.append(
            subprocess.Popen(
                [sys.executable, str(TESTS / "workers_run.py"), *arguments],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster), "PYTHONPATH": paths},
                stdout=subprocess.DEVNULL,
                stderr=(folder / f"worker_{index}.log").open("w"),
            )
        )
    return processes


@pytest.mark.slow
def test_two_workers_that_crash_and_start_again_reach_the_weights_of_one_process(tmp_path):
    first, second = start_workers(tmp_path, dies_after=7)
    try:
        assert second.wait(300) == -signal.SIGKILL, (tmp_path / "worker_1.log").read_text()[-3000:]
        # The other one finds out by itself, and does not train on alone.
        assert first.wait(300) != 0
        assert not list(tmp_path.glob("result*"))
        with np.load(tmp_path / "checkpoint.npz") as saved:
            assert saved["step"] == 4
        workers = first, second = start_workers(tmp_path)
        for index, worker in enumerate(workers):
            assert worker.wait(300) == 0, (tmp_path / f"worker_{index}.log").read_text()[-3000:]
    finally:
        for process in (first, second):
            process.kill()
    expected, history = straight()
    for index in range(2):
        with np.load(tmp_path / f"result_{index}.npz") as result:
            for number, weights in enumerate(expected):
                np.testing.assert_allclose(result[f"arr_{number}"], weights, rtol=1e-5, atol=1e-5)
            for name in ("loss", "spread"):
                np.testing.assert_allclose(result[name][-1], history[name][-1], rtol=1e-5)


class Crash(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise InterruptedError("crashed")


def test_what_crashed_goes_on_as_if_it_had_not(tmp_path):
    expected, history = straight()
    path = tmp_path / "deeper" / "checkpoint.npz"
    with pytest.raises(InterruptedError):
        workers_run.train(tf.distribute.get_strategy(), path, [Crash(7)])
    model, later = workers_run.train(tf.distribute.get_strategy(), path)
    for one, other in zip(weights_of(model), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert later["loss"][-1] == history["loss"][-1]
    # Saved after step 8 of 10; what is finished is not trained again.
    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    workers_run.train(tf.distribute.get_strategy(), path, [count])
    assert seen == [3, 4]
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.npz"]


@pytest.mark.slow
def test_a_model_is_trained_as_by_fit():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 4)
    features = tf.constant(random.standard_normal((6, 8))[labels] + random.standard_normal((24, 8)), tf.float32)
    sampler = tfdml.samplers.PKSampler(labels, classes=4, examples=2)
    batches = functools.partial(sampler.dataset, lambda index: tf.gather(features, index))
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(4)])
        generator = tfdml.layers.HardNegativeGenerator(units=(8,))
        models.append(tfdml.models.DAML(encoder, generator=generator, pretrain_steps=2, generator_steps=2))
        models[-1].compile("adam", loss=tfdml.losses.TripletLoss(0.5))
    one, other = models
    expected = one.fit(batches(), steps_per_epoch=3, epochs=2, verbose=0).history
    found = fit_distributed(other, batches, steps_per_epoch=3, epochs=2, verbose=0).history
    assert other.phase == "joint"
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)
    for weights, others in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(weights, others, rtol=1e-4, atol=1e-5)


def test_a_callback_can_stop_it():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert np.isfinite(logs["loss"])
            self.model.stop_training = True

    _, history = workers_run.train(tf.distribute.get_strategy(), None, [Stop()])
    assert len(history["loss"]) == 1


def test_weights_of_half_precision_are_kept_as_they_were(tmp_path):
    model = tfdml.EmbeddingModel(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")]))
    model.compile("sgd", loss=tfdml.losses.TripletLoss())
    state = distributed._State(model, tmp_path / "checkpoint.npz", True)
    before = weights_of(model)
    state.save(3)
    for weight in model.weights:
        weight.assign(tf.ones_like(tf.convert_to_tensor(weight)))
    assert state.restore() == 3
    for one, other in zip(weights_of(model), before, strict=True):
        np.testing.assert_array_equal(one.astype(np.float32), other.astype(np.float32))


def test_bad_input_is_refused_with_a_reason(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    model, _ = workers_run.train(tf.distribute.get_strategy(), path, epochs=1)
    other = tfdml.EmbeddingModel(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]))
    other.compile("sgd", loss=tfdml.losses.TripletLoss())
    with pytest.raises(ValueError, match=r"checkpoint\.npz' holds .* variables of other shapes than the"):
        fit_distributed(other, None, 5, checkpoint=path)
    damaged, good = tmp_path / "damaged.npz", path.read_bytes()
    for content in (b"", b"no checkpoint", good[:100], good[:-100], good[:600] + b"\xff" * 100 + good[700:]):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.npz' cannot be read .*: expected one that fit_distributed has written"):
            fit_distributed(model, None, 5, checkpoint=damaged)
    np.savez(damaged, step=3, weights=np.zeros(2))
    with pytest.raises(ValueError, match=r"damaged\.npz' cannot be read"):
        fit_distributed(model, None, 5, checkpoint=damaged)
    for wrong in ({"steps_per_epoch": 0}, {"steps_per_epoch": 5, "epochs": 0}, {"steps_per_epoch": 5, "save_every": -1}):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]}="):
            fit_distributed(model, None, **wrong)
    # As it would be of two workers that do not share a file system.
    apart = GlobalBatch((tf.constant([0, 4], tf.int64),), 0, 1, 2, 2)
    monkeypatch.setattr(distributed, "gather", lambda *_: apart)
    with pytest.raises(ValueError, match=r"steps \[0, 4\]: expected one for all"):
        fit_distributed(model, None, 5, checkpoint=path)
