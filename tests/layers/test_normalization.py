"""Normalisation by name: moments, running averages, and the global batch."""

import jax
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.normalization import NORMALIZATIONS, Norm

X = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 5, 5, 4))

# What is normalised together, as axes of X with its channels split into 2 groups: [8, 5, 5, 2, 2].
AXES = {"batch": (0, 1, 2), "layer": (3, 4), "group": (1, 2, 4)}


def init_and_apply(norm, x, train=True):
    variables = norm.init(jax.random.key(0), x, train=False)
    return norm.apply(variables, x, train=train, mutable=["batch_stats"])


@pytest.mark.parametrize("kind", AXES)
def test_mean_zero_and_variance_one(kind):
    outputs, _ = init_and_apply(Norm(kind, num_groups=2), X)
    groups = np.asarray(X).reshape(8, 5, 5, 2, 2)
    mean = groups.mean(AXES[kind], keepdims=True)
    variance = groups.var(AXES[kind], keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(X.shape)
    # Some positions have a variance of 0.01 about a mean of 3: E[x^2] - E[x]^2 loses three digits there.
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(outputs.mean(), 0, atol=1e-5)


def test_rms():
    outputs, _ = init_and_apply(Norm("rms"), X)
    np.testing.assert_allclose(outputs, X / np.sqrt(np.mean(X**2, -1, keepdims=True) + 1e-5), rtol=1e-5)


def test_none_is_the_identity_without_parameters():
    outputs, state = init_and_apply(Norm("none"), X)
    np.testing.assert_array_equal(outputs, X)
    assert not state and not Norm("none").init(jax.random.key(0), X, train=True)


def test_running_averages():
    norm = Norm("batch", momentum=0.8)
    variables = norm.init(jax.random.key(0), X, train=False)
    _, state = norm.apply(variables, X, train=True, mutable=["batch_stats"])
    statistics = state["batch_stats"]["batch"]
    np.testing.assert_allclose(statistics["mean"], 0.2 * X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.8 + 0.2 * X.var((0, 1, 2)), rtol=1e-5)
    evaluated, unchanged = norm.apply({**variables, **state}, X, train=False, mutable=["batch_stats"])
    expected = (X - statistics["mean"][None, None, None]) / np.sqrt(statistics["var"] + 1e-5)[None, None, None]
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(unchanged["batch_stats"]["batch"]["mean"], statistics["mean"])


@pytest.mark.parametrize("kind", [kind for kind in NORMALIZATIONS if kind != "batch"])
def test_only_batch_differs_between_training_and_evaluation(kind):
    norm = Norm(kind, num_groups=2)
    np.testing.assert_array_equal(init_and_apply(norm, X, True)[0], init_and_apply(norm, X, False)[0])


def test_batch_statistics_are_of_the_global_batch(whole_and_sharded):
    norm = Norm("batch")
    variables = norm.init(jax.random.key(0), X, train=False)
    # Eight shards of one example each: with its own statistics, none would agree.
    whole, sharded = whole_and_sharded(lambda x: norm.apply(variables, x, train=True, mutable=["batch_stats"])[0], X)
    np.testing.assert_allclose(whole, sharded, atol=1e-5)
    whole, sharded = whole_and_sharded(
        lambda x: norm.apply(variables, x, train=True, mutable=["batch_stats"])[1], X, replicated=True
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, sharded)


@pytest.mark.parametrize(
    ("norm", "message"),
    [(Norm("bach"), "Did you mean 'batch'"), (Norm("group", num_groups=3), "4 channels do not divide into 3 groups")],
)
def test_bad_input(norm, message):
    with pytest.raises(InputError, match=message):
        init_and_apply(norm, X)
