"""Fits on data made from known laws, and points that no law can be fitted to."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.scaling import fits, uncertainty
from jaxdl.scaling.laws import LAWS, PUBLISHED, chinchilla
from tests.scaling.test_laws import CONSTANTS

N = np.tile(np.geomspace(1e6, 1e9, 6), 5)
D = np.repeat(np.geomspace(1e8, 1e11, 5), 6)
LOSS = chinchilla(N, D, **PUBLISHED["hoffmann2022"])
POINTS = {"N": N, "D": D, "loss": LOSS}


@pytest.mark.parametrize("name", [name for name in LAWS if name != "chinchilla"])
def test_a_law_without_noise_is_found_again(name):
    law, constants = LAWS[name], CONSTANTS[name]
    axes = (N, D) if len(law.axes) == 2 else (np.geomspace(1e2, 1e5, 12),)
    fit = fits.fit(law, axes, law.function(*axes, **constants))
    assert fit.converged
    assert fit.constants == pytest.approx(constants, rel=1e-4)
    np.testing.assert_allclose(fit.residuals, 0, atol=1e-8)


def test_both_ways_find_the_same_minimum():
    loss = LOSS * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(N)))
    start = LAWS["chinchilla"].theta_of(PUBLISHED["hoffmann2022"])
    fit, projected = fits.fit(LAWS["chinchilla"], (N, D), loss, starts=start), fits.variable_projection(N, D, loss)
    assert fit.converged
    assert projected.objective == pytest.approx(fit.objective, rel=1e-8)
    assert projected.constants == pytest.approx(fit.constants, rel=1e-4)


def test_a_metric_that_rises_saturates_at_the_top():
    width = np.geomspace(16, 4096, 9)
    fit = fits.fit_saturating(width, 0.93 - 2 / width**0.8)
    assert fit.law.name == "rising" and fit.converged
    assert fit.constants == pytest.approx({"A": 2, "E": 0.93, "alpha": 0.8}, rel=1e-4)


def test_one_outlier_does_not_move_a_robust_fit():
    x = np.geomspace(1, 1000, 20)
    y = 0.5 + 2 / x**0.5
    y[7] *= 1.5
    assert fits.fit_saturating(x, y).constants["E"] == pytest.approx(0.5, abs=2e-3)


def test_the_form_that_made_the_points_predicts_unseen_ones_best():
    x = np.geomspace(1, 1000, 20)
    y = (0.5 + 2 / x**0.5) * np.exp(0.005 * np.random.default_rng(0).standard_normal(20))
    errors = fits.cross_validate({"falling": fits.fit_saturating(x, y), "power": fits.fit_power("x", x, y)})
    assert errors["falling"] < 0.2 * errors["power"]


def test_points_without_which_there_is_no_minimum_have_no_error():
    x = np.geomspace(1, 1000, 20)
    fit = fits.fit_power("x", x, 1 / x**0.3)
    refit = lambda weights: (np.repeat(fit.theta[None], len(weights), axis=0), weights[:, 0] > 0)
    unsure = dataclasses.replace(fit)
    object.__setattr__(unsure, "refit", refit)  # the fit without the first point ends at no minimum
    residuals = fits.held_out_residuals(unsure, [np.array([0, 1]), np.array([2, 3])])
    assert np.isnan(residuals[[0, 1, 4]]).all() and np.isfinite(residuals[[2, 3]]).all()
    assert np.isnan(fits.cross_validate({"unsure": unsure})["unsure"])


def test_only_fits_of_the_same_points_are_compared():
    x = np.geomspace(1, 1000, 20)
    one, other = fits.fit_power("x", x, 1 / x**0.3), fits.fit_power("x", x, 2 / x**0.3)
    with pytest.raises(InputError, match="the same points"):
        fits.cross_validate({"one": one, "other": other})


def test_constants_that_the_points_do_not_tell_are_named():
    # All runs are so long that D does not matter: nothing is told of B and beta.
    tokens = D * 1e12
    loss = chinchilla(N, tokens, **PUBLISHED["hoffmann2022"])
    loss *= np.exp(0.002 * np.random.default_rng(0).standard_normal(len(N)))
    start = LAWS["chinchilla"].theta_of(PUBLISHED["hoffmann2022"])
    fit = fits.fit(LAWS["chinchilla"], (N, tokens), loss, starts=start)
    told = " ".join(uncertainty.unidentified(fit, uncertainty.bootstrap(fit, 100)))
    assert "B " in told or "resamples" in told
    assert "beta " in told or "resamples" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"N": np.where(np.arange(30) == 3, np.nan, N)}, "point 3: parameters is nan; leave"),
        ({"D": np.where(np.arange(30) == 4, 0, D)}, "point 4: tokens is 0, and must be positive"),
        ({"loss": np.where(np.arange(30) == 5, -1, LOSS)}, "point 5: loss is -1, and must be positive"),
        ({"N": N[:-1]}, "parameters has the shape (29,), and loss (30,)"),
        ({"N": N[:5], "D": D[:5], "loss": LOSS[:5]}, "5 points are too few for 5 constants; at least 6 are needed"),
        (
            {"N": np.r_[N[:29], N[2]], "D": np.r_[D[:29], D[2]], "loss": np.r_[LOSS[:29], LOSS[2]]},
            "point 2 and point 29",
        ),
        ({"D": 1e18 / N}, "all points are of one budget, 6e+18 FLOPs"),
        ({"loss": np.full(30, 2.5)}, "all points have loss 2.5; a law needs several values of it"),
        ({"N": np.full(30, 1e7)}, "all points have parameters 1e+07"),
    ],
)
def test_points_that_no_law_fits_are_one_line(change, message):
    points = POINTS | change
    for call in (fits.fit_parametric, fits.variable_projection):
        with pytest.raises(InputError) as told:
            call(**points)
        assert message in str(told.value) and "\n" not in str(told.value)


def test_float64_is_not_left_switched_on():
    import jax.numpy as jnp

    fits.fit_power("N", N[:6], LOSS[:6])
    assert jnp.ones(3).dtype == jnp.float32


def test_the_package_alone_is_light():
    code = "import sys, jaxdl.scaling; assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    import jaxdl.scaling

    assert all(callable(getattr(jaxdl.scaling, name)) for name in jaxdl.scaling.__all__)
    with pytest.raises(AttributeError, match="fit_nothing"):
        jaxdl.scaling.fit_nothing  # noqa: B018
