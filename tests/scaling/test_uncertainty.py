"""Bootstrap, budgets left out, and coverage of the intervals."""

import numpy as np
import pytest

from jaxdl.scaling import fits, uncertainty
from jaxdl.scaling.laws import LAWS, PUBLISHED, chinchilla
from tests.scaling.coverage import TRUTHS, coverage, isoflop_grid

RESAMPLES = 200


@pytest.fixture(scope="module")
def noisy():
    N, D = isoflop_grid(6, 8)
    loss = chinchilla(N, D, **TRUTHS[0]) * np.exp(0.004 * np.random.default_rng(0).standard_normal(len(N)))
    law = LAWS["chinchilla"]
    return fits.fit(law, (N, D), loss, starts=law.theta_of(TRUTHS[0]))


def test_a_resample_draws_as_many_points_as_there_are():
    counts = uncertainty.resample(30, 50, seed=0)
    assert (counts.sum(axis=1) == 30).all() and len(np.unique(counts, axis=0)) == 50
    np.testing.assert_array_equal(counts, uncertainty.resample(30, 50, seed=0))
    assert (counts != uncertainty.resample(30, 50, seed=1)).any()


def test_a_resample_is_a_fit_to_the_points_drawn(noisy):
    found = uncertainty.bootstrap(noisy, 3, seed=0)
    rows = np.repeat(np.arange(len(noisy.values)), uncertainty.resample(len(noisy.values), 3, 0)[1].astype(int))
    jitter = 1 + 1e-12 * np.arange(len(rows))  # the same point twice is refused
    axes = [axis[rows] * jitter for axis in noisy.axes.values()]
    again = fits.fit(noisy.law, axes, noisy.values[rows], starts=noisy.theta)
    np.testing.assert_allclose(found.theta[1], again.theta, rtol=1e-5)


def test_intervals_are_percentiles(noisy):
    found = uncertainty.bootstrap(noisy, RESAMPLES)
    low, high = found.intervals()["alpha"]
    inside = np.mean((low <= found.constants["alpha"]) & (found.constants["alpha"] <= high))
    assert inside == pytest.approx(0.95, abs=0.02)
    assert low < noisy.constants["alpha"] < high
    assert found.interval(lambda constants: constants["A"]) == found.intervals()["A"]


def test_a_resample_without_the_number_counts_for_nothing(noisy):
    found = uncertainty.bootstrap(noisy, 30)
    number = lambda constants: np.where(np.arange(30) < 3, np.nan, constants["E"])
    assert found.interval(number) == uncertainty.percentiles(found.constants["E"][3:])
    assert np.isnan(found.interval(lambda constants: np.full(30, np.nan))).all()


def test_a_budget_is_predicted_from_the_others():
    N, D = isoflop_grid(6, 8)
    loss = chinchilla(N, D, **PUBLISHED["besiroglu2024"])
    loss[-8:] *= 1.05  # the largest budget is five percent worse than the law of the others
    law = LAWS["chinchilla"]
    fit = fits.fit(law, (N, D), loss, starts=law.theta_of(PUBLISHED["besiroglu2024"]))
    budgets = [np.arange(start, start + 8) for start in range(0, 48, 8)]
    held = uncertainty.leave_one_budget_out(fit, budgets, 6 * N * D)
    assert held[-1].bias == pytest.approx(np.log(1.05), rel=1e-4)
    assert held[-1].error == pytest.approx(np.log(1.05), rel=1e-4)
    assert [each.flops for each in held] == pytest.approx(list(np.geomspace(6e18, 3e21, 6)))


def test_intervals_hold_the_truth():
    # The whole of it is `python -m tests.scaling.coverage`. With 95 %, fewer than 9 of 12 hold it once in 5,000.
    assert min(coverage(12, resamples=100).values()) >= 0.75
