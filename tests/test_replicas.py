"""Losses and heads on several replicas: the same steps as one replica takes with the same global batch."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdml._compat import KERAS_3
from tfdml.losses import TripletLoss
from tfdml.replicas import distribute, gather, weighed
from tfdml.samplers import PairSampler, PKSampler

TESTS = Path(__file__).resolve().parent


def run(*arguments: str) -> str:
    """What the script of this name prints, in a process of its own."""
    command = [sys.executable, str(TESTS / "replicas_run.py"), *arguments]
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_replicas_take_the_steps_of_one():
    # Keras 2 looks after replicas without rows by itself.
    names = ["triplet, semi-hard", "proxy-anchor", "memory"] + KERAS_3 * ["batch normalisation"]
    assert run("2", *names).count("same") == len(names)


@pytest.mark.slow
@pytest.mark.one_stack
def test_two_replicas_take_the_steps_of_one_with_every_loss_and_head():
    assert run("2").count("same") == 32


@pytest.mark.slow
@pytest.mark.one_stack
def test_four_replicas_take_the_steps_of_one():
    # One for each way in which replicas come together; two of them take every loss and head.
    names = ["triplet, hard", "two towers", "cosface, sampled", "proxy-anchor", "deepid2", "memory"]
    assert run("4", *names).count("same") == len(names)


@pytest.mark.slow
def test_two_replicas_fit_models_as_one_does():
    assert run("2", "fit").count("same") == 5


def test_of_one_replica_nothing_is_gathered():
    labels, embeddings = tf.constant([3, 3, 5]), tf.random.normal([3, 4])

    def count(strategy):
        with strategy.scope():
            function = tf.function(lambda y, x: strategy.run(TripletLoss().call, args=(y, x)))
            graph = function.get_concrete_function(labels, embeddings).graph
            return [operation.type for operation in graph.get_operations()]

    one, none = tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.get_strategy()
    assert count(none) == count(one)
    everything = gather(labels, embeddings)
    assert everything.tensors[1] is embeddings
    assert everything.own(labels) is labels
    assert weighed(embeddings) is embeddings
    assert (everything.start, everything.size, everything.total, everything.replicas) == (0, 3, 3, 1)
    with one.scope():
        # Outside `run` there is no replica, and nothing to wait for.
        assert gather(labels).tensors[0] is labels


class FourReplicas:
    """Two workers of two replicas each, of which only the way of asking for data is looked at: a dataset for each worker."""

    def distribute_datasets_from_function(self, of_worker):
        return [of_worker(tf.distribute.InputContext(2, worker, 4)) for worker in range(2)]


@pytest.mark.parametrize("make", [PKSampler, PairSampler])
def test_workers_and_replicas_share_out_the_batches_of_one(make):
    labels = np.repeat(np.arange(20), 5)
    edges = np.arange(100).reshape(50, 2)
    sampler = PKSampler(labels, classes=8, examples=2) if make is PKSampler else PairSampler(edges, batch_size=16)
    batches = functools.partial(sampler.dataset, tf.identity)
    workers = [list(data.take(6)) for data in distribute(FourReplicas(), batches, start_step=7)]
    for step in range(3):
        parts = [part for worker in workers for part in worker[2 * step : 2 * step + 2]]
        images, found = (tf.concat(values, -1) for values in zip(*parts, strict=True))
        indices, expected = sampler.batch_at(7 + step)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(images, indices if make is PKSampler else indices.T)


def test_batches_that_replicas_cannot_share_evenly_are_refused():
    sampler = PKSampler(np.repeat(np.arange(20), 5), classes=2, examples=3)
    with pytest.raises(ValueError, match="3 rows for 2 replicas of a worker: expected a multiple"):
        distribute(FourReplicas(), functools.partial(sampler.dataset, tf.identity))
    with pytest.raises(ValueError, match="num_shards=2 does not divide classes=1"):
        distribute(FourReplicas(), functools.partial(PKSampler([1, 1], 1, 2).dataset, tf.identity))


def test_what_has_no_rows_is_refused():
    for wrong in ((), (tf.constant(1.0),), (tf.zeros([2]), tf.constant(1))):
        with pytest.raises(ValueError, match="expected at least one, of rows"):
            gather(*wrong)
    np.testing.assert_array_equal(gather([1, 2]).tensors[0], [1, 2])
