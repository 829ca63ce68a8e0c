"""N-pair batches and hard negative class mining: the greedy choice, and what batches depend on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import samplers_oracles as oracles
import tensorflow as tf

import tfdml
from tfdml.samplers import HardClassMining, NPairSampler, PKSampler
from tfdml.samplers.n_pair import LOOKAHEAD, hardest_classes
from tfdml.samplers.permutation import hashed

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(14) * 3 - 5, [1] + [4] * 13))
VECTORS = np.random.default_rng(1).normal(size=(len(LABELS), 5)).astype(np.float32)


def embed(indices):
    return VECTORS[indices]


def batches(dataset, count):
    return [[part.tolist() for part in batch] for batch in dataset.take(count).as_numpy_iterator()]


def key(seed):
    return hashed(tf.constant(seed, tf.uint64))


@pytest.mark.parametrize("seed", range(6))
def test_the_greedy_choice_is_that_of_loops(seed):
    anchors, positives = np.random.default_rng(seed).normal(size=(2, 9, 4))
    expected, _, _ = oracles.hardest_classes(anchors, positives, 3, 6)
    chosen = hardest_classes(tf.constant(anchors), tf.constant(positives), tf.constant(3, tf.int64), 6, key(seed))
    assert chosen.numpy().tolist() == expected


def test_ties_are_broken_at_random_and_only_ties():
    # Small whole numbers: computed exactly, and with many ties.
    anchors, positives = np.random.default_rng(4).integers(-1, 2, size=(2, 12, 3)).astype(np.float32)
    _, _, best = oracles.hardest_classes(anchors, positives, 0, 2)
    seen: dict[tuple, set] = {}
    for seed in range(40):
        chosen = hardest_classes(tf.constant(anchors), tf.constant(positives), tf.constant(0, tf.int64), 5, key(seed)).numpy()
        assert len(set(chosen)) == 5
        for place in range(1, 5):
            before = tuple(chosen[:place].tolist())
            assert chosen[place] in best(list(before))
            seen.setdefault(before, set()).add(int(chosen[place]))
    first = seen[(0,)]
    assert first == best([0])
    assert len(first) > 1, "the test should have a tie"


def test_one_class_and_all_classes():
    anchors = tf.constant(np.random.default_rng(0).normal(size=(4, 3)))
    assert hardest_classes(anchors, anchors, tf.constant(2, tf.int64), 1, key(0)).numpy().tolist() == [2]
    assert sorted(hardest_classes(anchors, anchors, tf.constant(2, tf.int64), 4, key(0)).numpy()) == [0, 1, 2, 3]


def test_without_mining_it_is_p_times_2():
    sampler = NPairSampler(LABELS, classes=5, seed=8)
    plain = PKSampler(LABELS, classes=5, examples=2, seed=8, small_classes="drop")
    for step in (0, 7):
        for one, other in zip(sampler.batch_at(step), plain.batch_at(step), strict=True):
            assert (one == other).all()
    assert (sampler.state, len(sampler)) == (None, 3)
    assert -5 not in sampler.batch_at(0)[1], "a class of one item makes no pair"


def test_mined_batches_are_the_greedy_choice_among_the_candidates():
    sampler = NPairSampler(LABELS, classes=4, candidates=7, seed=3)
    asked = []

    def remember(indices):
        asked.append(indices)
        return embed(indices)

    sampler.refresh(remember, step=10)
    items = asked[0].reshape(7, 2)
    candidates = LABELS[items[:, 0]]
    assert (LABELS[items] == candidates[:, None]).all()
    assert len(set(candidates)) == 7
    assert (items[:, 0] != items[:, 1]).all()
    anchors, positives = VECTORS[items[:, 0]].astype(float), VECTORS[items[:, 1]].astype(float)
    starts = set()
    for step in range(10 + LOOKAHEAD, 10 + LOOKAHEAD + 7):
        indices, labels = sampler.batch_at(step)
        assert (LABELS[indices] == labels).all()
        assert (labels[::2] == labels[1::2]).all()
        assert (indices[::2] != indices[1::2]).all()
        start = candidates.tolist().index(labels[0])
        expected, _, _ = oracles.hardest_classes(anchors, positives, start, 4)
        assert labels[::2].tolist() == candidates[expected].tolist()
        starts.add(start)
    assert len(starts) >= 4
    over_a_round = {sampler.batch_at(step)[1][0] for step in range(28, 35)}  # 28 = 4 * 7
    assert over_a_round == set(candidates), "each candidate starts a batch in its turn"


def test_a_refresh_counts_from_its_step_on_and_brings_other_candidates():
    sampler = NPairSampler(LABELS, classes=4, candidates=6, seed=1)
    plain = [sampler.batch_at(step)[0].tolist() for step in range(64)]
    seen = []
    sampler.refresh(lambda indices: seen.append(indices) or embed(indices), step=0)
    first = [sampler.batch_at(step)[0].tolist() for step in range(64)]
    assert first[:LOOKAHEAD] == plain[:LOOKAHEAD]
    assert all(one != other for one, other in zip(first[LOOKAHEAD:], plain[LOOKAHEAD:], strict=True))
    sampler.refresh(lambda indices: seen.append(indices) or embed(indices), step=30)
    second = [sampler.batch_at(step)[0].tolist() for step in range(64)]
    assert second[: 30 + LOOKAHEAD] == first[: 30 + LOOKAHEAD]
    assert second[30 + LOOKAHEAD :] != first[30 + LOOKAHEAD :]
    sampler.refresh(lambda indices: seen.append(indices) or embed(indices), step=60)
    assert {int(label) for indices in seen for label in LABELS[indices]} == set(LABELS) - {-5}, "all classes take turns"


def test_mined_batches_are_those_of_every_version():
    """Resuming a run on another machine or TensorFlow must give the same batches: these numbers may never change."""
    sampler = NPairSampler(np.arange(20) // 4, classes=2, candidates=4, seed=3)
    vectors = (np.arange(60) * 7 % 11).reshape(20, 3)
    sampler.refresh(lambda indices: vectors[indices], step=0)
    assert [sampler.batch_at(step)[0].tolist() for step in (16, 21)] == [[7, 4, 16, 19], [19, 16, 9, 10]]


def test_every_item_of_a_mined_class_can_come():
    sampler = NPairSampler(np.arange(12) // 4, classes=3, candidates=3)
    sampler.refresh(lambda indices: np.ones((6, 2)), step=0)
    counts = np.zeros(12)
    for indices, _ in sampler.indices(LOOKAHEAD).take(150).as_numpy_iterator():
        np.add.at(counts, indices, 1)
    assert oracles.chi_square_p(counts, np.full(12, 75.0)) > oracles.UNLIKELY


def test_a_running_pipeline_sees_a_refresh_in_time():
    """Batches are prepared ahead, but never so far that a refresh comes too late for its first step."""
    sampler = NPairSampler(LABELS, classes=2, candidates=8, seed=2)

    def taken():
        got = []
        for step, (indices, _) in enumerate(
            sampler.dataset(lambda index: index, augment=lambda x: x).take(80).as_numpy_iterator()
        ):
            got.append(indices.tolist())
            if step in (19, 49):
                sampler.refresh(embed, step + 1)
        return got

    got = taken()
    expected = NPairSampler(LABELS, classes=2, candidates=8, seed=2)
    expected.refresh(embed, 20)
    before_second = [expected.batch_at(step)[0].tolist() for step in range(50 + LOOKAHEAD)]
    expected.refresh(embed, 50)
    after = [expected.batch_at(step)[0].tolist() for step in range(50 + LOOKAHEAD, 80)]
    assert got == before_second + after


def test_state_and_position_are_saved_and_go_on(tmp_path):
    def fresh():
        return NPairSampler(LABELS, classes=3, candidates=6, seed=5)

    sampler = fresh()
    sampler.refresh(embed, 0)
    dataset = sampler.dataset(lambda index: index)
    expected = batches(dataset, 40)
    iterator = iter(dataset)
    for _ in range(25):
        next(iterator)
    path = tf.train.Checkpoint(state=sampler.state, iterator=iterator).write(str(tmp_path / "all"))

    other = fresh()
    resumed = iter(other.dataset(lambda index: index))
    tf.train.Checkpoint(state=other.state, iterator=resumed).read(path).assert_consumed()
    assert [next(resumed)[0].numpy().tolist() for _ in range(15)] == [batch[0] for batch in expected[25:]]
    assert batches(other.dataset(lambda index: index, start_step=25), 15) == expected[25:], "start_step does as well"


def test_shards_together_are_the_mined_batch():
    sampler = NPairSampler(LABELS, classes=4, candidates=9)
    sampler.refresh(embed, 0)
    whole = batches(sampler.indices(14), 6)
    parts = [batches(sampler.indices(14, shard_index=i, num_shards=2), 6) for i in range(2)]
    assert [[a + b for a, b in zip(one, other, strict=True)] for one, other in zip(*parts, strict=True)] == whole


def model():
    keras.utils.set_random_seed(1)
    result = keras.Sequential([keras.Input([5]), keras.layers.Dense(4)])
    result.compile(keras.optimizers.SGD(0.05), loss=tfdml.losses.NPairLoss(l2=0.02))
    return result


def test_the_callback_refreshes_and_training_is_the_same_every_time():
    def trained(mine):
        sampler = NPairSampler(LABELS, classes=4, candidates=8 if mine else None, seed=2)
        net = model()
        callbacks = [HardClassMining(sampler, lambda index: tf.gather(VECTORS, index), every=18)] if mine else []
        net.fit(
            sampler.dataset(lambda index: tf.gather(VECTORS, index)),
            steps_per_epoch=20,
            epochs=2,
            verbose=0,
            callbacks=callbacks,
        )
        return net.get_weights()[0], sampler

    first, sampler = trained(True)
    assert sampler.state.refreshes == 3  # at the start, and after 18 and 36 steps
    assert (first == trained(True)[0]).all()
    assert (first != trained(False)[0]).any()


def test_the_callback_embeds_with_the_model_and_in_inference():
    sampler = NPairSampler(LABELS, classes=4, candidates=8)
    net = keras.Sequential([keras.Input([5]), keras.layers.Dropout(0.9), keras.layers.Dense(2)])
    net.compile("sgd", loss=tfdml.losses.NPairLoss())
    mining = HardClassMining(sampler, lambda index: tf.gather(VECTORS, index), batch_size=5, start_step=40)
    mining.set_model(net)
    mining.on_train_begin()
    assert sampler.state.newest == 40 + LOOKAHEAD
    _, numbers, embeddings = sampler.state.at(tf.constant(60, tf.int64))
    _, items = sampler._candidates(0)
    expected = VECTORS[items.numpy()] @ net.get_weights()[0] + net.get_weights()[1]
    np.testing.assert_allclose(embeddings.numpy(), expected, atol=1e-5)
    assert len(set(numbers.numpy())) == 8


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"classes": 4, "candidates": 3}, ValueError, "candidates=3: expected an integer from 4 to 13"),
        ({"classes": 4, "candidates": 14}, ValueError, "candidates=14"),
        ({"classes": 4, "candidates": 5.0}, TypeError, "candidates=5.0"),
        ({"classes": 14}, ValueError, "only 13 classes with at least examples=2 items"),
        ({"classes": 4, "small_classes": "dorp"}, ValueError, "small_classes='dorp'"),
    ],
)
def test_bad_arguments(keywords, error, message):
    with pytest.raises(error, match=message):
        NPairSampler(LABELS, **keywords)


def test_bad_refreshes():
    with pytest.raises(ValueError, match=r"candidates=None: this sampler mines no classes"):
        NPairSampler(LABELS, classes=4).refresh(embed, 0)
    sampler = NPairSampler(LABELS, classes=4, candidates=6)
    with pytest.raises(ValueError, match=r"shape \(12,\) for 12 items: expected.*\[12, D\]"):
        sampler.refresh(lambda indices: np.zeros(12), 0)
    with pytest.raises(ValueError, match="NaN or infinity in shape"):
        sampler.refresh(lambda indices: np.full((12, 2), np.nan), 0)
    assert sampler.state.refreshes == 0
    sampler.refresh(embed, 5)
    with pytest.raises(ValueError, match="step=10: the refresh before counts from step 21 on"):
        sampler.refresh(embed, 10)
    with pytest.raises(ValueError, match=r"prefetch=30: up to .* only 16 steps ahead"):
        sampler.dataset(embed, prefetch=30)


def test_bad_callbacks():
    with pytest.raises(ValueError, match="expected an NPairSampler with candidates"):
        HardClassMining(NPairSampler(LABELS, classes=4), embed)
    with pytest.raises(ValueError, match="every=15: expected an integer of at least 16"):
        HardClassMining(NPairSampler(LABELS, classes=4, candidates=8), embed, every=15)
