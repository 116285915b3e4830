"""Spectral normalisation against the singular value decomposition."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.layers.spectral import SpectralNorm

LAYERS = {"dense": (nn.Dense(5), (2, 7)), "convolution": (nn.Conv(5, (3, 3)), (2, 4, 4, 3))}


@pytest.mark.parametrize("name", LAYERS)
def test_the_largest_singular_value_becomes_one(name):
    layer, shape = LAYERS[name]
    model = SpectralNorm(layer, steps=200)
    x = jax.random.normal(jax.random.key(1), shape)
    variables = model.init(jax.random.key(0), x, train=False)
    [(_, params)] = variables["params"].items()
    outputs, state = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    largest = np.linalg.svd(np.asarray(params["kernel"]).reshape(-1, 5), compute_uv=False)[0]
    expected = layer.apply({"params": {**params, "kernel": params["kernel"] / largest}}, x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    # Evaluation takes the estimate as it is, and changes nothing.
    again = model.apply({**variables, **state}, x, train=False)
    np.testing.assert_allclose(again, outputs, rtol=1e-5, atol=1e-6)


def test_a_training_pass_improves_the_estimate_where_the_state_may_change():
    model, x = SpectralNorm(nn.Dense(5)), jnp.ones((2, 7))
    variables = model.init(jax.random.key(0), x, train=False)
    _, state = model.apply(variables, x, train=True, mutable=["batch_stats"])
    vectors = [tree["batch_stats"]["singular_vector"] for tree in (variables, state)]
    assert not np.allclose(*vectors)
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in vectors], 1, rtol=1e-5)
    held = model.apply(variables, x, train=True)  # nothing may change, as within a gradient penalty
    np.testing.assert_allclose(held, model.apply(variables, x, train=False), rtol=1e-6)


def test_the_gradient_is_that_of_the_divided_kernel():
    """d (W / sigma) / d W, sigma's gradient being u v'."""
    kernel = jax.random.normal(jax.random.key(0), (4, 3))
    x = jax.random.normal(jax.random.key(1), (2, 4))
    model = SpectralNorm(nn.Dense(3, use_bias=False, name="layer"), steps=300)
    state = model.init(jax.random.key(2), x, train=False)["batch_stats"]

    def ours(kernel):
        variables = {"params": {"layer": {"kernel": kernel}}, "batch_stats": state}
        return jnp.sin(model.apply(variables, x, train=True, mutable=["batch_stats"])[0]).sum()

    def exact(kernel):
        return jnp.sin(x @ (kernel / jnp.linalg.svd(kernel, compute_uv=False)[0])).sum()

    np.testing.assert_allclose(jax.grad(ours)(kernel), jax.grad(exact)(kernel), rtol=1e-3, atol=1e-4)
