"""The batched robust regression against what is known without it."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor

from jaxdl.scaling.solver import solve

X = np.linspace(-1, 2, 41)
Y = 0.7 * X - 0.3 + 0.2 * np.random.default_rng(0).standard_t(2, len(X))


def line(theta, x):
    return theta[0] * x + theta[1]


def bent(theta, x):
    return jnp.exp(theta[0] * x) + theta[1]


def test_a_large_delta_is_least_squares():
    found = solve(line, [X], Y, np.zeros((1, 2)), delta=1e3)
    np.testing.assert_allclose(found.theta[0], np.polyfit(X, Y, 1), rtol=1e-9)
    assert found.converged.all()


def test_least_absolute_errors_are_median_regression():
    reference = QuantileRegressor(quantile=0.5, alpha=0).fit(X[:, None], Y)
    found = solve(line, [X], Y, np.zeros((1, 2)), absolute=True)
    np.testing.assert_allclose(found.theta[0], [reference.coef_[0], reference.intercept_], atol=1e-6)
    assert found.objective[0] == pytest.approx(np.abs(Y - reference.predict(X[:, None])).sum(), rel=1e-8)


@pytest.mark.parametrize("scale", (1e-9, 1.0, 1e9))
def test_the_scale_of_the_objective_does_not_matter(scale):
    starts = np.array([[0.0, 0.0], [1.0, -1.0]])
    plain = solve(bent, [X], Y, starts, delta=0.1)
    scaled = solve(bent, [X], Y, starts, np.full((2, len(X)), scale), delta=0.1)
    assert plain.converged.all() and scaled.converged.all()
    np.testing.assert_allclose(scaled.theta, plain.theta, rtol=1e-7)
    np.testing.assert_allclose(scaled.objective, scale * plain.objective, rtol=1e-9)


def test_a_weight_of_two_is_the_point_twice_and_of_zero_is_no_point():
    weights = np.ones(len(X))
    weights[:5], weights[-7:] = 2, 0
    rows = np.repeat(np.arange(len(X)), weights.astype(int))
    weighted = solve(line, [X], Y, np.zeros((1, 2)), weights[None], delta=0.1)
    repeated = solve(line, [X[rows]], Y[rows], np.zeros((1, 2)), delta=0.1)
    np.testing.assert_allclose(weighted.theta, repeated.theta, rtol=1e-6)


def test_what_is_not_free_stays():
    found = solve(line, [X], Y, np.array([[0.5, 0.0]]), free=(False, True), delta=1e3)
    np.testing.assert_allclose(found.theta[0], [0.5, np.mean(Y - 0.5 * X)], rtol=1e-9)
    assert found.converged.all()


def test_problems_do_not_ask_each_other():
    starts = np.random.default_rng(1).normal(size=(300, 2))  # more than a chunk
    together = solve(bent, [X], Y, starts, delta=0.1)
    alone = solve(bent, [X], Y, starts[257:258], delta=0.1)
    np.testing.assert_allclose(together.theta[257], alone.theta[0], rtol=1e-9)


def test_what_has_no_minimum_has_not_converged():
    falls_for_ever = solve(lambda theta, x: theta[0] + theta[1] + 0 * x, [X], Y, np.zeros((1, 2)), delta=1e3)
    assert falls_for_ever.converged[0]  # a valley is a minimum, if not a single one
    not_a_number = solve(lambda theta, x: jnp.sqrt(theta[0] - 10.0) * x, [X], Y, np.zeros((1, 1)))
    assert not not_a_number.converged[0]
