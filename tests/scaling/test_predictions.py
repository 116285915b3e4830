"""Predictions of Chinchilla's law against a search for the minimum."""

import numpy as np
import pytest

from jaxdl.scaling import predictions
from jaxdl.scaling.laws import PUBLISHED, chinchilla


@pytest.mark.parametrize("constants", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("flops", (1e18, 5.76e23))
def test_the_optimum_is_the_least_loss_of_all_sizes(constants, flops):
    N, D = predictions.compute_optimal(constants, flops)
    assert 6 * N * D == pytest.approx(flops)
    sizes = N * 10 ** np.linspace(-0.5, 0.5, 2001)
    losses = chinchilla(sizes, flops / 6 / sizes, **constants)
    assert np.argmin(losses) == 1000
    assert predictions.optimal_loss(constants, flops) == pytest.approx(losses[1000], rel=1e-12)
    assert predictions.tokens_per_parameter(constants, flops) == pytest.approx(D / N)
    assert predictions.cost(constants, losses[1000]) == pytest.approx(flops, rel=1e-8)


def test_published_predictions():
    # Besiroglu et al. 2024, section 5: about 20 tokens a parameter, as Chinchilla was trained (70 B, 1.4 T).
    assert predictions.tokens_per_parameter(PUBLISHED["besiroglu2024"], 5.76e23) == pytest.approx(18.4, abs=0.1)
    # Hoffmann et al. 2022, table 2, approach 3: the exponents of N and D are 0.46 and 0.54, from unrounded constants.
    assert predictions.exponents(PUBLISHED["hoffmann2022"]) == pytest.approx((0.46, 0.54), abs=0.012)


def test_a_loss_that_cannot_be_reached_costs_infinitely_much():
    assert predictions.cost(PUBLISHED["hoffmann2022"], 1.69) == np.inf
    assert predictions.cost(PUBLISHED["hoffmann2022"], 1.0) == np.inf


@pytest.mark.parametrize("rising", [{"alpha": -0.1}, {"beta": -0.1}, {"alpha": -0.1, "beta": -0.2}, {"beta": 0.0}])
def test_a_loss_that_rises_has_no_compute_optimal_run(rising):
    constants = PUBLISHED["hoffmann2022"] | rising
    assert np.isnan(predictions.compute_optimal(constants, 1e20)).all()
    assert np.isnan(predictions.optimal_loss(constants, 1e20)) and np.isnan(predictions.cost(constants, 2.5))


def test_constants_may_be_those_of_many_resamples():
    constants = {name: np.array([value, 1.01 * value]) for name, value in PUBLISHED["hoffmann2022"].items()}
    N, D = predictions.compute_optimal(constants, 1e20)
    assert N.shape == D.shape == predictions.cost(constants, 2.5).shape == (2,)
