"""Proxy-Anchor and ProxyNCA: stability at large scales, shares, and what each proxy learns from."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdml.layers import NormalizedSoftmax, ProxyAnchor, ProxyNCA


def with_proxies(head, proxies):
    head.build((None, len(proxies[0])))
    head.proxies.assign(proxies)
    return head


def test_proxy_anchor_stays_finite_at_any_scale():
    head = with_proxies(ProxyAnchor(2, alpha=1e4), [[1.0, 0.0], [0.0, 1.0]])
    values = head(tf.constant([[-1.0, 0.0], [0.0, -1.0]]), tf.constant([0, 1])).numpy()
    # Positives at cosine -1: alpha (margin + 1) each; negatives at cosine 0: alpha margin each. Half of it for each item.
    np.testing.assert_allclose(np.mean(values), 1e4 * (1.1 + 0.1), rtol=1e-5)


def test_proxy_anchor_gives_each_item_its_share():
    head = with_proxies(ProxyAnchor(3), [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    easy_and_hard = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    values = head(easy_and_hard, tf.constant([0, 1])).numpy()
    assert values[1] > 10 * values[0] > 0


def test_proxy_anchor_pushes_proxies_of_absent_classes():
    head = with_proxies(ProxyAnchor(3), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    with tf.GradientTape() as tape:
        total = tf.reduce_mean(head(tf.constant([[1.0, 0.0], [1.0, 0.1]]), tf.constant([0, 0])))
    gradient = tf.convert_to_tensor(tape.gradient(total, head.trainable_variables[0])).numpy()
    assert gradient[2].any()


def test_proxy_nca_plus_plus_is_a_softmax_of_half_the_temperature():
    rng = np.random.default_rng(0)
    proxies, x, y = rng.standard_normal((5, 4)), rng.standard_normal((7, 4)).astype(np.float32), np.arange(7) % 5
    softmax = NormalizedSoftmax(5, temperature=0.15)
    softmax.build((None, 4))
    softmax.kernel.assign(proxies)
    nca = with_proxies(ProxyNCA(5, temperature=0.3), proxies)
    np.testing.assert_allclose(nca(x, y), softmax.per_anchor(tf.constant(x), y, training=True), rtol=1e-5, atol=1e-6)


def test_leaving_the_own_proxy_out_lets_the_value_fall_below_zero():
    proxies = [[1.0, 0.0], [-1.0, 0.0]]
    x, y = tf.constant([[1.0, 0.0]]), tf.constant([0])
    assert with_proxies(ProxyNCA(2), proxies)(x, y).numpy()[0] >= 0
    original = with_proxies(ProxyNCA(2, temperature=1.0, denominator="negatives"), proxies)
    np.testing.assert_allclose(original(x, y), [-4.0], rtol=1e-5)
