"""The keyed permutation: a permutation for every length, uniform over keys, the same everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.samplers.permutation import hashed, permuted_positions

UNLIKELY = 1e-6
"""Seeds are fixed, so these tests give one answer for ever; a p-value below this is a fault in the shuffle."""


@tf.function(reduce_retracing=True)
def permutations(length, keys):
    """One permutation of 0 .. length - 1 in every row."""
    positions = tf.tile(tf.range(length)[None], [tf.size(keys), 1])
    return permuted_positions(positions, length, keys[:, None])


def keys(count: int, seed: int = 0):
    return hashed(tf.constant(seed, tf.uint64), tf.range(count, dtype=tf.int64))


def chi_square_p(observed: np.ndarray) -> float:
    """The normal approximation of Wilson and Hilferty to the chi-square tail; flat expectation."""
    expected = observed.sum() / observed.size
    degrees = observed.size - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return math.erfc(z / math.sqrt(2)) / 2


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 300), seed=st.integers(0, 2**64 - 1))
def test_is_a_permutation(length, seed):
    result = permutations(tf.constant(length, tf.int64), keys(3, seed)).numpy()
    assert (np.sort(result, axis=1) == np.arange(length)).all()


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_every_permutation_is_equally_likely(length):
    result = permutations(tf.constant(length, tf.int64), keys(24_000)).numpy()
    _, observed = np.unique(result, axis=0, return_counts=True)
    assert len(observed) == math.factorial(length)
    assert chi_square_p(observed) > UNLIKELY


@pytest.mark.parametrize("length", [7, 64, 100])
def test_every_pair_of_places_is_equally_likely(length):
    result = permutations(tf.constant(length, tf.int64), keys(4_000)).numpy()
    for first, second in [(0, 1), (0, length - 1), (length // 2, length // 2 + 1)]:
        buckets = np.zeros((7, 7))
        np.add.at(buckets, (result[:, first] % 7, result[:, second] % 7), 1)
        expected = np.zeros((7, 7))
        places = np.arange(length)
        np.add.at(expected, (places[:, None].repeat(length, 1) % 7, places[None].repeat(length, 0) % 7), 1.0)
        expected[np.diag_indices(7)] -= np.bincount(places % 7)  # two elements never share a place
        live = expected > 0
        ratio = buckets[live] / expected[live]
        # Scaled so that every cell has the same expectation; the cells differ little in size, length 7 apart.
        assert chi_square_p(ratio * expected[live].mean()) > UNLIKELY


def test_a_million_is_spread_evenly():
    length = 1_000_000
    result = permuted_positions(tf.range(50_000, dtype=tf.int64), length, hashed(tf.constant(3, tf.uint64))).numpy()
    assert len(np.unique(result)) == 50_000
    assert chi_square_p(np.bincount(result // 10_000, minlength=100)) > UNLIKELY


def test_lengths_and_keys_may_differ_by_element():
    lengths = tf.constant([[1], [4], [2**40]], tf.int64)
    positions = tf.constant([[0, 0], [1, 3], [5, 2**40 - 1]], tf.int64)
    several_keys = keys(3)[:, None]
    together = permuted_positions(positions, lengths, several_keys).numpy()
    assert (together < lengths.numpy()).all()
    for row in range(3):
        alone = permuted_positions(positions[row], lengths[row], several_keys[row])
        assert together[row].tolist() == alone.numpy().tolist()


def test_values_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    assert int(hashed(tf.constant(7, tf.uint64), 1, 2).numpy()) == GOLDEN_HASH
    result = permuted_positions(tf.range(10, dtype=tf.int64), 10, hashed(tf.constant(7, tf.uint64)))
    assert result.numpy().tolist() == GOLDEN_PERMUTATION


def test_hash_is_splitmix64():
    """The first outputs of the reference implementation for seed 1234567 (its state grows by the golden constant)."""
    first = [int(hashed(tf.constant(1234567, tf.uint64), step).numpy()) for step in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


GOLDEN_HASH = 16652526507510397265
GOLDEN_PERMUTATION = [7, 1, 6, 9, 3, 4, 2, 5, 0, 8]
