"""Actor and critic: how they begin, what they share, and the two kinds of policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.layers.distributions import Categorical, DiagonalGaussian
from jaxdl.models import create

OBSERVATIONS = jax.random.normal(jax.random.key(1), (5, 4))


def initialised(**fields):
    model = create("actor_critic", **{"widths": (8, 8), **fields})
    return model, model.init(jax.random.key(0), OBSERVATIONS, train=False)["params"]


def test_kernels_are_orthogonal_with_their_gains():
    _, params = initialised()
    gains = {"policy_output": 0.01, "value_output": 1.0}
    for name, layer in params.items():
        kernel = layer["kernel"]
        gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(gram, gains.get(name, 2**0.5) ** 2 * np.eye(len(gram)), atol=1e-5, err_msg=name)
        assert not layer["bias"].any()


@pytest.mark.parametrize("shared", [False, True])
def test_who_is_moved_by_whose_loss(shared):
    model, params = initialised(shared=shared)

    def gradient(loss):
        return jax.grad(lambda params: loss(*model.apply({"params": params}, OBSERVATIONS, train=True)))(params)

    of_value = gradient(lambda policy, value: value.sum())
    of_policy = gradient(lambda policy, value: policy.log_probability(jnp.zeros(5, jnp.int32)).sum())
    moved = lambda tree: {name for name, layer in tree.items() if any((x != 0).any() for x in jax.tree.leaves(layer))}
    both = moved(of_value) & moved(of_policy)
    assert both == ({"trunk0", "trunk1"} if shared else set())
    assert moved(of_value) | moved(of_policy) == set(params)


def test_the_first_policy_knows_nothing_yet():
    model, params = initialised(num_actions=3)
    policy, value = model.apply({"params": params}, OBSERVATIONS, train=False)
    assert isinstance(policy, Categorical) and value.shape == (5,)
    np.testing.assert_allclose(jax.nn.softmax(policy.logits), 1 / 3, atol=0.02)


def test_a_gaussian_policy_has_deviations_of_its_own():
    model, params = initialised(num_actions=3, policy="gaussian", initial_log_std=-0.5)
    policy, _ = model.apply({"params": params}, OBSERVATIONS, train=False)
    assert isinstance(policy, DiagonalGaussian)
    np.testing.assert_array_equal(policy.log_std, np.full((5, 3), -0.5, np.float32))
    assert params["log_std"].shape == (3,)


def test_images_are_flattened():
    model = create("actor_critic", widths=(4,))
    (policy, _), _ = model.init_with_output(jax.random.key(0), jnp.zeros((2, 3, 3, 1)), train=False)
    assert policy.logits.shape == (2, 2)
