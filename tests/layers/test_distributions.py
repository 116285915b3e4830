"""Distributions of actions against SciPy, and what is drawn against both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdl.layers.distributions import Categorical, DiagonalGaussian

_rng = np.random.default_rng(0)
LOGITS = _rng.normal(size=(3, 4)).astype(np.float32)
MEAN, LOG_STD = _rng.normal(size=(2, 3, 2)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), 20_000)


def rows(distribution, index, count):
    """Row `index` of a distribution, `count` times."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[index], (count, *x.shape[1:])), distribution)


def test_categorical():
    policy = Categorical(jnp.asarray(LOGITS))
    probabilities = np.asarray(jax.nn.softmax(LOGITS))
    for index in range(3):
        np.testing.assert_allclose(policy.entropy()[index], scipy.stats.entropy(probabilities[index]), rtol=1e-5)
        drawn = np.bincount(rows(policy, index, len(KEYS)).sample(KEYS), minlength=4) / len(KEYS)
        # Four standard errors of a share of 20,000.
        assert np.abs(drawn - probabilities[index]).max() < 4 * 0.5 / len(KEYS) ** 0.5
    actions = jnp.array([3, 0, 1])
    np.testing.assert_allclose(jnp.exp(policy.log_probability(actions)), probabilities[range(3), actions], rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), probabilities.argmax(axis=-1))


def test_diagonal_gaussian():
    policy = DiagonalGaussian(jnp.asarray(MEAN), jnp.asarray(LOG_STD))
    actions = _rng.normal(size=(3, 2)).astype(np.float32)
    for index in range(3):
        theirs = scipy.stats.multivariate_normal(MEAN[index], np.diag(np.exp(2 * LOG_STD[index])))
        ours = jax.tree.map(lambda x: x[index], (policy.log_probability(actions), policy.entropy()))
        np.testing.assert_allclose(ours, (theirs.logpdf(actions[index]), theirs.entropy()), rtol=1e-5)
        drawn = np.asarray(rows(policy, index, len(KEYS)).sample(KEYS))
        error = np.exp(LOG_STD[index]) / len(KEYS) ** 0.5
        assert (np.abs(drawn.mean(axis=0) - MEAN[index]) < 4 * error).all()
        np.testing.assert_allclose(drawn.std(axis=0), np.exp(LOG_STD[index]), rtol=0.03)
    np.testing.assert_array_equal(policy.mode(), MEAN)


@pytest.mark.parametrize(
    "policy", [Categorical(LOGITS), DiagonalGaussian(MEAN, LOG_STD)], ids=lambda p: type(p).__name__
)
def test_each_row_is_drawn_by_its_key_alone(policy):
    keys = KEYS[:3]
    drawn = jax.jit(lambda policy, keys: policy.sample(keys))(policy, keys)
    backwards = jax.tree.map(lambda x: jnp.asarray(x)[::-1], policy).sample(keys[::-1])
    np.testing.assert_allclose(drawn, backwards[::-1], rtol=1e-6)
    assert np.isfinite(np.asarray(policy.log_probability(drawn))).all()


def test_certainty_has_no_entropy_and_finite_gradients():
    certain = lambda logit: Categorical(jnp.array([[logit, 0.0]])).entropy()[0]
    assert certain(1e4) == 0 and np.isfinite(jax.grad(certain)(1e4))
