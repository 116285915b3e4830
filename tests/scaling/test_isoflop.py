"""Chinchilla's approaches 1 and 2 on noiseless runs, where what they should find is known."""

import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.scaling import isoflop, predictions
from jaxdl.scaling.isoflop import Curve
from jaxdl.scaling.laws import PUBLISHED, chinchilla

EVEN = {"A": 400.0, "B": 1600.0, "E": 1.7, "alpha": 0.34, "beta": 0.34}
UNEVEN = PUBLISHED["hoffmann2022"] | {"beta": 0.5, "B": 40000.0}
BUDGETS = np.geomspace(1e18, 1e21, 5)


def runs(constants, width=0.5, offset=0.0, sizes=7):
    """Runs at five budgets, sizes over `width` decades to both sides of the optimum moved by `offset` decades."""
    best, _ = predictions.compute_optimal(constants, BUDGETS)
    N = (best[:, None] * 10 ** (offset + np.linspace(-width, width, sizes))).ravel()
    D = np.repeat(BUDGETS, sizes) / 6 / N
    return N, D, chinchilla(N, D, **constants)


def fitted(constants, **shape):
    N, D, loss = runs(constants, **shape)
    return isoflop.fit_isoflop(N, D, loss, isoflop.group_budgets(6 * N * D), constants, resamples=50)


def test_centred_grids_of_an_even_law_have_no_bias():
    curves, frontier = fitted(EVEN)
    assert [curve.bias for curve in curves] == pytest.approx([1] * 5, abs=1e-6)
    np.testing.assert_allclose(frontier.N, predictions.compute_optimal(EVEN, BUDGETS)[0], rtol=1e-6)
    assert frontier.a == pytest.approx(0.5, abs=1e-6) and frontier.a_bias == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("constants", "shape"), [(EVEN, {"offset": 0.3}), (UNEVEN, {"width": 1.0})], ids=("off-centre", "uneven and wide")
)
def test_the_bias_of_parabolas_is_what_is_reported(constants, shape):
    curves, _ = fitted(constants, **shape)
    best, _ = predictions.compute_optimal(constants, BUDGETS)
    for curve, optimum in zip(curves, best):
        assert abs(curve.bias - 1) > 0.005
        assert curve.N / optimum == pytest.approx(curve.bias, rel=1e-6)  # there is no noise: all error is bias


def test_a_wider_grid_is_more_biased():
    biases = [abs(fitted(UNEVEN, width=width)[0][2].bias - 1) for width in (0.2, 0.5, 1.0)]
    assert biases == sorted(biases) and biases[0] < 0.005
    N, _, _ = runs(UNEVEN, width=1.0)
    one = isoflop.parabola_bias(UNEVEN, BUDGETS[2], N[14:21])
    assert abs(one - 1) == pytest.approx(biases[2], rel=1e-6)


def test_a_minimum_outside_of_the_sizes_counts_for_nothing():
    curves, frontier = fitted(EVEN, offset=0.8)
    assert not any(curve.inside or curve.known for curve in curves)
    assert frontier is None


def test_budgets_are_found_among_scattered_points():
    generator = np.random.default_rng(0)
    flops = np.concatenate([generator.uniform(0.96, 1.04, 9) * budget for budget in BUDGETS] + [[3.1e18, 2.2e19]])
    groups = isoflop.group_budgets(flops)
    assert [list(group) for group in groups] == [list(range(start, start + 9)) for start in range(0, 45, 9)]
    given = isoflop.group_budgets(flops, budgets=[BUDGETS[3], BUDGETS[1]])
    assert [group[0] for group in given] == [9, 27]
    assert isoflop.group_budgets(np.geomspace(1, 1e9, 20)) == []


def test_the_envelope_of_training_curves_is_the_frontier():
    sizes = np.geomspace(1e7, 1e10, 25)
    curves = []
    for N in sizes:
        D = np.geomspace(N / 10, N * 2000, 400)
        curves.append(Curve(N, D, chinchilla(N, D, **EVEN)))
    found = isoflop.envelope(curves)
    a, _ = predictions.exponents(EVEN)
    assert found.a == pytest.approx(a, abs=0.02)
    np.testing.assert_allclose(found.loss, predictions.optimal_loss(EVEN, found.flops), rtol=5e-3)
    assert found.N.min() > sizes[0] and found.N.max() < sizes[-1]


def test_an_envelope_needs_sizes():
    curve = Curve(1e6, np.geomspace(1e6, 1e8, 5), np.linspace(4, 3, 5))
    with pytest.raises(InputError, match="at least 3 sizes; there are 1"):
        isoflop.envelope([curve])
