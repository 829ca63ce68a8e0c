"""FaceNet's batches: up to K items of P classes, and random others that are of none of them."""

from __future__ import annotations

import numpy as np
import pytest
from samplers_oracles import UNLIKELY, chi_square_p

from tfdml.samplers import FaceNetSampler, PKSampler

SIZES = [1, 2, 3, 5, 8, 13, 21, 4, 6]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)) * 2 - 3, SIZES))


def test_what_a_batch_holds():
    sampler = FaceNetSampler(LABELS, classes=3, examples=6, negatives=5, seed=4)
    plain = PKSampler(LABELS, classes=3, examples=6, seed=4)
    assert (sampler.batch_size, len(sampler)) == (23, 3)
    for step, (indices, labels) in enumerate(sampler.indices().take(60).as_numpy_iterator()):
        assert (LABELS[indices] == labels).all()
        base_indices, base_labels = plain.batch_at(step)
        chosen = base_labels[::6]
        others = np.ones(23, bool)
        for number, label in enumerate(chosen):
            size = min(SIZES[(label + 3) // 2], 6)
            own = np.arange(6 * number, 6 * number + size)
            assert (indices[own] == base_indices[own]).all(), "the classes' own items are those of P x K"
            assert len(set(indices[own])) == size
            others[own] = False
        assert not np.isin(labels[others], chosen).any(), "what fills up is of other classes"
        available = len(LABELS) - np.isin(LABELS, chosen).sum()
        assert len(set(indices[others])) == min(others.sum(), available), "distinct as far as there are enough"


def test_others_are_drawn_evenly():
    labels = np.repeat(np.arange(5), [2, 9, 4, 6, 3])
    sampler = FaceNetSampler(labels, classes=2, examples=3, negatives=4, seed=1)
    drawn, expected = np.zeros(24), np.zeros(24)
    for indices, batch_labels in sampler.indices().take(3000).as_numpy_iterator():
        own = np.isin(batch_labels, batch_labels[[0, 3]])
        drawn += np.bincount(indices[~own], minlength=24)
        free = ~np.isin(labels, batch_labels[[0, 3]])
        expected += (~own).sum() * free / free.sum()
    # Without replacement within a batch, so that counts vary less than chi-square expects: far too even would be a fault too.
    p = chi_square_p(drawn, expected)
    assert UNLIKELY < p < 1 - UNLIKELY


def test_papers_batch():
    labels = np.arange(60 * 70) % 60
    indices, drawn = FaceNetSampler(labels).batch_at(0)
    assert indices.shape == (1800,)
    assert len(set(indices)) == 1800
    assert sorted(np.unique(drawn, return_counts=True)[1])[-36:] == [40] * 36


def test_shards_together_are_the_batch():
    sampler = FaceNetSampler(LABELS, classes=4, examples=5, negatives=6)
    whole = sampler.batch_at(9)
    parts = [next(sampler.indices(9, shard_index=i, num_shards=2).as_numpy_iterator()) for i in range(2)]
    for part in range(2):
        together = [parts[0][part][:10], parts[1][part][:10], parts[0][part][10:], parts[1][part][10:]]
        assert (np.concatenate(together) == whole[part]).all()
    with pytest.raises(ValueError, match="num_shards=4 does not divide negatives=6"):
        sampler.indices(num_shards=4)
    with pytest.raises(ValueError, match="num_shards=3 does not divide classes=4"):
        sampler.indices(num_shards=3)


def test_batches_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    labels = [5, 5, 5, -1, -1, 9, 9, 9, 9, 9, 2, 2, 2, 4]
    sampler = FaceNetSampler(labels, classes=2, examples=3, negatives=3, seed=3)
    assert [sampler.batch_at(step)[0].tolist() for step in (0, 5)] == [
        [4, 3, 13, 6, 8, 7, 0, 2, 12],
        [12, 10, 11, 7, 5, 9, 3, 13, 1],
    ]


def test_all_classes_need_no_others():
    sampler = FaceNetSampler(np.arange(20) % 4, classes=4, examples=5, negatives=0)
    assert sorted(sampler.batch_at(0)[0]) == list(range(20))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"classes": 9, "examples": 2, "negatives": 0}, "classes=9 are all classes.*for classes of less than 2 items"),
        ({"classes": 9, "examples": 1, "negatives": 3}, "draw negatives=3 from.*classes=8 or less"),
        ({"classes": 10}, "only 9 classes"),
        ({"classes": 2, "negatives": -1}, "negatives=-1"),
    ],
)
def test_bad_arguments(keywords, message):
    with pytest.raises(ValueError, match=message):
        FaceNetSampler(LABELS, **keywords)
