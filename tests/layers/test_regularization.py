"""Dropping at random: how much, what together, the same masks on any number of devices."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.layers.activations import RReLU
from jaxdl.layers.batch_axis import batch_context
from jaxdl.layers.regularization import DropConnect, Dropout, StochasticDepth

RNGS = {"dropout": jax.random.key(7)}
X = jax.random.normal(jax.random.key(1), (16, 2, 2, 4))

# Layers that draw, and the inputs that they take.
RANDOM = {
    "dropout": (lambda rate: Dropout(rate), X),
    "spatial dropout": (lambda rate: Dropout(rate, spatial=True), X),
    "stochastic depth": (lambda rate: StochasticDepth(rate), X),
    "drop connect": (lambda rate: DropConnect(5, rate), X[:, 0, 0]),
}


def variables_of(layer, x):
    return layer.init(jax.random.key(0), x, train=False)


@pytest.mark.parametrize("name", RANDOM)
def test_zero_draws_nothing_and_evaluation_is_the_layer_without_dropping(name):
    make, x = RANDOM[name]
    variables = variables_of(make(0.5), x)
    # No rngs: had it drawn, Flax would have refused.
    plain = make(0.0).apply(variables, x, train=True)
    np.testing.assert_array_equal(plain, make(0).apply(variables, x, train=True))
    np.testing.assert_array_equal(plain, make(0.5).apply(variables, x, train=False))


@pytest.mark.parametrize("name", RANDOM)
def test_traced_rate(name):
    make, x = RANDOM[name]
    variables = variables_of(make(0.0), x)

    def apply(rate):
        return make(rate).apply(variables, x, train=True, rngs=RNGS)

    traced = jax.jit(jax.vmap(apply))(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(traced[0], make(0.0).apply(variables, x, train=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(traced[1], apply(0.3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*RANDOM, "rrelu"])
def test_masks_do_not_depend_on_the_number_of_devices(name, whole_and_sharded):
    make, x = {**RANDOM, "rrelu": (lambda rate: RReLU(), X)}[name]
    layer = make(0.5)
    variables = variables_of(layer, x)
    whole, sharded = whole_and_sharded(lambda x: layer.apply(variables, x, train=True, rngs=RNGS), x)
    np.testing.assert_allclose(whole, sharded, rtol=1e-6, atol=1e-6)
    assert not np.allclose(whole, layer.apply(variables, x, train=False))


@pytest.mark.parametrize("name", RANDOM)
def test_masks_do_not_depend_on_the_number_of_microbatches(name):
    make, x = RANDOM[name]
    layer = make(0.5)
    variables = variables_of(layer, x)
    whole = layer.apply(variables, x, train=True, rngs=RNGS)
    for index in range(2):
        with batch_context(index=index, count=2):
            part = layer.apply(variables, x[index::2], train=True, rngs=RNGS)
        np.testing.assert_allclose(part, whole[index::2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "together"),
    [(Dropout(0.3), ()), (Dropout(0.3, spatial=True), (1, 2)), (StochasticDepth(0.3), (1, 2, 3))],
)
def test_what_is_dropped_together_and_how_often(layer, together):
    shape = (500, 4, 4, 3)
    outputs = np.asarray(layer.apply({}, jnp.ones(shape), train=True, rngs=RNGS))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    drawn = outputs.mean(together)
    assert set(np.unique(drawn > 0)) == {False, True}
    np.testing.assert_allclose(outputs.min(together), outputs.max(together))
    # Four standard errors of a fraction.
    np.testing.assert_allclose((drawn > 0).mean(), 0.7, atol=4 * math.sqrt(0.3 * 0.7 / drawn.size))


def test_examples_and_layers_draw_their_own():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Dropout(0.5)(x, train=True), Dropout(0.5)(x, train=True)

    first, second = Two().apply({}, jnp.ones((2, 200)), rngs=RNGS)
    assert (first != second).any() and (first[0] != first[1]).any()


def test_drop_connect_drops_single_weights_and_biases():
    layer = DropConnect(1000, 0.25)
    x = jnp.ones((2, 1))
    params = {"kernel": jnp.ones((1, 1000)), "bias": jnp.full((1000,), 10.0)}
    outputs = np.asarray(layer.apply({"params": params}, x, train=True, rngs=RNGS)) * 0.75
    # One weight of 1 and one bias of 10, each kept with probability 3/4.
    values, counts = np.unique(outputs.round(3), return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 10, 11])
    expected = np.array([1, 3, 3, 9]) / 16
    np.testing.assert_allclose(counts / 2000, expected, atol=4 * math.sqrt(0.25 / 2000))
    assert (outputs[0] != outputs[1]).any()


def test_drop_connect_without_dropping_is_dense():
    x = X[:, 0, 0]
    dense = nn.Dense(5)
    variables = dense.init(jax.random.key(0), x)
    np.testing.assert_allclose(DropConnect(5).apply(variables, x, train=True), dense.apply(variables, x), rtol=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_dtype_is_kept(name):
    make, x = RANDOM[name]
    variables = jax.tree.map(lambda p: p.astype(jnp.bfloat16), variables_of(make(0.5), x))
    outputs = make(jnp.float32(0.5)).apply(variables, x.astype(jnp.bfloat16), train=True, rngs=RNGS)
    assert outputs.dtype == jnp.bfloat16
