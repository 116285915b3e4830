"""How far a fitted law can be trusted: bootstrap intervals, errors on budgets left out, constants that are not told.

Efron and Tibshirani 1993, An introduction to the bootstrap, chapters 6 and 13: points are drawn with replacement, and
the interval of a number is that between percentiles of what the resamples give.

>>> resample(points=4, resamples=2, seed=0)  # how often each point is drawn
array([[2., 1., 0., 1.],
       [0., 0., 0., 4.]])
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxdl.scaling.fits import Fit, held_out_residuals
from jaxdl.scaling.laws import Law

RESAMPLES = 4000

WIDE = 10.0
"""A constant is not identified where the ends of its interval differ by more than this factor ..."""

WIDE_EXPONENT = 1.0
"""... or, of an exponent, by more than this share of it; or where it is below `NEGLIGIBLE` of the values."""

NEGLIGIBLE = 1e-3


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """A law fitted to resamples of its points.

    Attributes:
      law: the form.
      theta: float64 [R, K], of the resamples whose fit converged.
      failed: how many did not.
      level: the share of resamples within the intervals.
    """

    law: Law
    theta: np.ndarray
    failed: int
    level: float = 0.95

    @functools.cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """The constants of each resample, float64 [R] by name."""
        return self.law.constants_of(self.theta)

    def standard_errors(self) -> dict[str, float]:
        """The standard deviation of each constant over the resamples."""
        return {name: float(values.std()) for name, values in self.constants.items()}

    def interval(self, number: Callable[[Mapping[str, np.ndarray]], np.ndarray]) -> tuple[float, float]:
        """The interval of a number that follows from the constants.

        Args:
          number: number(constants), float [R] from the constants of all resamples; NaN where a resample has none, as
            a law whose loss rises with D has no compute-optimal run.
        """
        return percentiles(number(self.constants), self.level)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The interval of each constant."""
        return {name: percentiles(values, self.level) for name, values in self.constants.items()}


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The values between which the middle share of all lies; an infinite end stays so, and NaN counts for nothing."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
    return float(low), float(high)


def resample(points: int, resamples: int, seed: int) -> np.ndarray:
    """How often each point is drawn in each resample, float64 [R, P].

    The generator is NumPy's old one: its numbers are promised to stay as they are in all versions.
    """
    generator = np.random.RandomState(seed)
    counts = np.empty((resamples, points))
    for row in counts:
        row[:] = np.bincount(generator.choice(points, size=points), minlength=points)
    return counts


def bootstrap(fit: Fit, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Bootstrap:
    """Fits the law to resamples of the points.

    Args:
      fit: to the points themselves.
      resamples: how many.
      seed: of the draws.
      level: the share of resamples within the intervals.
    """
    theta, converged = fit.refit(resample(len(fit.values), resamples, seed))
    return Bootstrap(fit.law, theta[converged], int((~converged).sum()), level)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The error on one budget, from the fit to all others.

    Attributes:
      flops: the budget.
      points: how many points it has.
      error: the mean absolute residual of log L: 0.01 is one percent of the loss. NaN where the others have no minimum.
      bias: the mean residual: above 0 the loss was higher than predicted.
    """

    flops: float
    points: int
    error: float
    bias: float


def leave_one_budget_out(fit: Fit, budgets: Sequence[np.ndarray], flops: np.ndarray) -> list[HeldOut]:
    """Predicts each budget from the others.

    Args:
      fit: to all points.
      budgets: the points of each, index arrays.
      flops: of the points, float [P].
    """
    residuals = held_out_residuals(fit, budgets)
    return [
        HeldOut(
            flops=float(np.exp(np.log(flops[budget]).mean())),
            points=len(budget),
            error=float(np.abs(residuals[budget]).mean()),
            bias=float(residuals[budget].mean()),
        )
        for budget in budgets
    ]


def unidentified(fit: Fit, resamples: Bootstrap) -> list[str]:
    """A line for each constant that the points do not tell, and for a bootstrap in which many fits failed."""
    lines = []
    total = len(resamples.theta) + resamples.failed
    if resamples.failed > 0.02 * total:
        lines.append(f"{resamples.failed} of {total} resamples have no minimum: the intervals leave them out.")
    if not len(resamples.theta):
        return lines
    for name, (low, high) in resamples.intervals().items():
        value = fit.constants[name]
        if name in fit.law.logarithms:
            if name == "E" and value < NEGLIGIBLE * fit.values.min():
                lines.append("E is nothing: the points show no loss below which the law does not fall.")
            elif high > WIDE * low:
                lines.append(f"{name} is known to a factor of {_factor(high, low)} only ({low:.3g} to {high:.3g}).")
        elif high - low > WIDE_EXPONENT * abs(value):
            lines.append(f"{name} is {value:.3g}, and may be {low:.3g} to {high:.3g}: the points do not tell it.")
    return lines


def _factor(high: float, low: float) -> str:
    factor = high / low if low > 0 else np.inf
    return f"{factor:.0f}" if factor < 1e4 else "more than 10,000"
