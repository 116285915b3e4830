"""Attention against its formula, masks, and the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.attention import KVCache, MultiHeadAttention, causal_mask, padding_mask, segment_mask

X = jax.random.normal(jax.random.key(0), (2, 5, 8))


def attend(layer, x, **inputs):
    variables = layer.init(jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) / 2, variables)
    return layer.apply(variables, x, **inputs)[0], variables


@pytest.mark.parametrize("num_kv_heads", [None, 2, 1])
def test_formula(num_kv_heads):
    bias = jax.random.normal(jax.random.key(2), (1, 4, 5, 5))
    mask = padding_mask(jnp.array([5, 3]), 5)
    layer = MultiHeadAttention(4, num_kv_heads, head_dim=3)
    outputs, variables = attend(layer, X, mask=mask, bias=bias, is_causal=True)
    params = jax.tree.map(np.asarray, variables["params"])

    def project(name, heads):
        return (np.asarray(X) @ params[name]["kernel"] + params[name]["bias"]).reshape(2, 5, heads, 3)

    groups = 4 // (num_kv_heads or 4)
    query = project("query", 4)
    key, value = (np.repeat(project(name, num_kv_heads or 4), groups, axis=2) for name in ("key", "value"))
    logits = np.einsum("btnd,bsnd->bnts", query, key) / np.sqrt(3) + np.asarray(bias)
    seen = np.asarray(mask) & np.tri(5, dtype=bool)
    weights = np.exp(logits) * seen
    weights /= weights.sum(-1, keepdims=True)
    heads = np.einsum("bnts,bsnd->btnd", weights, value).reshape(2, 5, 12)
    np.testing.assert_allclose(outputs, heads @ params["output"]["kernel"] + params["output"]["bias"], atol=1e-5)


def test_is_causal_is_the_causal_mask():
    layer = MultiHeadAttention(2)
    np.testing.assert_array_equal(attend(layer, X, is_causal=True)[0], attend(layer, X, mask=causal_mask(5))[0])


def test_masks():
    assert padding_mask(jnp.array([2, 0]), 3)[:, 0, 0].tolist() == [[True, True, False], [False] * 3]
    assert segment_mask(jnp.array([[1, 2, 2]]))[0, 0].astype(int).tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_a_query_that_sees_nothing_is_finite():
    outputs, _ = attend(MultiHeadAttention(2), X, mask=jnp.zeros((1, 1, 1, 5), bool))
    assert jnp.isfinite(outputs).all()


def test_cache_holds_what_was_seen_and_leaves_out_what_is_beyond():
    empty = jnp.zeros((2, 3, 1, 1))
    keys = jnp.arange(1.0, 5.0).reshape(2, 2, 1, 1)
    cache = KVCache(empty, empty).write(keys, -keys, jnp.array([[0, 1], [2, 3]]))
    assert cache.keys[..., 0, 0].tolist() == [[1, 2, 0], [0, 0, 3]]
    np.testing.assert_array_equal(cache.values, -cache.keys)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (MultiHeadAttention(3), "8 channels do not divide into num_heads=3"),
        (MultiHeadAttention(4, 3), "num_heads=4 is not a multiple of num_kv_heads=3"),
    ],
)
def test_bad_input(layer, message):
    with pytest.raises(InputError, match=message):
        layer.init(jax.random.key(0), X)
