"""The forms of scaling laws, and that the fit's way of saying them is the same."""

import doctest
import importlib

import jax
import numpy as np
import pytest

from jaxdl.scaling import laws
from jaxdl.scaling.laws import LAWS, PUBLISHED

CONSTANTS = {
    "chinchilla": PUBLISHED["hoffmann2022"],
    "kaplan": {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "kaplan_n": {"N_c": 8.8e13, "alpha_N": 0.076},
    "kaplan_d": {"D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan_c": {"C_c": 2.3e8, "alpha_C": 0.050},
    "power": {"x_c": 30.0, "alpha": 0.5},
    "falling": {"A": 3.0, "E": 0.2, "alpha": 0.7},
    "rising": {"A": 3.0, "E": 0.9, "alpha": 0.7},
}
"""Kaplan's are the published ones: arXiv 2001.08361, tables 1 and 2 (C in PF-days)."""


@pytest.mark.parametrize("name", LAWS)
def test_the_form_and_what_the_fit_predicts_are_the_same(name):
    law, constants = LAWS[name], CONSTANTS[name]
    axes = [np.geomspace(10.0, 1e10, 7) * scale for scale in range(1, len(law.axes) + 1)]
    with jax.enable_x64(True):
        predicted = np.asarray(law.predict(law.theta_of(constants), *map(np.log, axes)))
    np.testing.assert_allclose(predicted, law.target(law.function(*axes, **constants)), rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_theta_and_constants_are_each_other_s_inverse(name):
    law = LAWS[name]
    again = law.constants_of(law.theta_of(CONSTANTS[name]))
    assert again == pytest.approx(CONSTANTS[name], rel=1e-12)
    assert list(again) == list(law.constants)


def test_published_predictions():
    # Hoffmann et al. 2022: Chinchilla, 70 billion parameters and 1.4 trillion tokens. Kaplan et al. 2020, section 1.2:
    # doubling the parameters multiplies the loss by 2^-0.076 = 0.95.
    assert laws.chinchilla(70e9, 1.4e12, **PUBLISHED["hoffmann2022"]) == pytest.approx(1.9367, abs=1e-4)
    ratio = laws.kaplan_n(2e9, **CONSTANTS["kaplan_n"]) / laws.kaplan_n(1e9, **CONSTANTS["kaplan_n"])
    assert ratio == pytest.approx(0.95, abs=0.005)


def test_kaplan_s_law_of_both_has_those_of_one_as_limits():
    constants = CONSTANTS["kaplan"]
    endless = laws.kaplan(1e9, 1e30, **constants)
    assert endless == pytest.approx(laws.kaplan_n(1e9, N_c=constants["N_c"], alpha_N=constants["alpha_N"]), rel=1e-6)


def test_the_grid_of_starts_is_hoffmann_s():
    grid = laws.chinchilla_grid()
    assert grid.shape == (4500, 5)
    np.testing.assert_array_equal(grid.min(axis=0), [0, 0, -1, 0, 0])
    np.testing.assert_array_equal(grid.max(axis=0), [25, 25, 1, 2, 2])


@pytest.mark.parametrize(
    "name",
    ("flops", "formulas", "ladder", "laws", "solver", "fits", "isoflop", "predictions", "uncertainty"),
)
def test_examples_in_the_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"jaxdl.scaling.{name}"))
    assert results.attempted and not results.failed
