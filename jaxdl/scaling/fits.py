"""Fits of scaling laws: `fit_parametric(N, D, loss)` and its kin, which need no run directory.

The objective is the sum over the points of Huber's loss, delta 1e-3, of log L - log L_hat: Hoffmann et al. 2022 (arXiv
2203.15556), equation 3. It is a sum on purpose, and is solved by a method that its scale does not matter to: with an
average, a quasi-Newton method with absolute tolerances stops near its start (Besiroglu et al. 2024, arXiv 2404.10102).

>>> N, D = np.repeat([1e6, 1e7, 1e8], 3), np.tile([1e8, 1e9, 1e10], 3)
>>> fit = fit_parametric(N, D, 1.7 + 400 / N**0.34 + 410 / D**0.28)
>>> [f"{fit.constants[name]:.3f}" for name in ("E", "alpha", "beta")]
['1.700', '0.340', '0.280']
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxdl.errors import InputError
from jaxdl.scaling.laws import FLOPS_PER_TOKEN, LAWS, Law
from jaxdl.scaling.solver import objective, solve

Loss = Literal["huber", "absolute"]

DELTA = 1e-3
"""Where Huber's loss of log L turns from a parabola to a line. Hoffmann et al. 2022, equation 3."""

SAME_OBJECTIVE = 1e-6
"""A start has reached the optimum where its objective is that of the best one to this share."""

BUDGET_WIDTH = 1.02
"""Points whose FLOPs differ by less than this factor are of one budget: no law of N and D can be fitted to them."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law fitted to points.

    Attributes:
      law: the form.
      theta: float64 [K]: what was found.
      axes: the points, by axis, each float64 [P].
      values: the loss or metric of each point, float64 [P].
      loss: "huber" or "absolute": what of the residuals was minimised.
      delta: of Huber's loss.
      objective: the minimum: the sum over the points.
      converged: whether it is a minimum. One that is not must not be plotted or used as if it were.
      starts: how many starts there were.
      reached: the share of them that reached the minimum.
      seconds: how long it took.
    """

    law: Law
    theta: np.ndarray
    axes: Mapping[str, np.ndarray]
    values: np.ndarray
    loss: Loss
    delta: float
    objective: float
    converged: bool
    starts: int
    reached: float
    seconds: float

    @property
    def constants(self) -> dict[str, float]:
        """The law's constants by name."""
        return {name: float(value) for name, value in self.law.constants_of(self.theta).items()}

    def predict(self, *axes) -> np.ndarray:
        """The law's value at other points; arrays broadcast."""
        return self.law.function(*(np.asarray(axis, np.float64) for axis in axes), **self.constants)

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        """Measured less predicted, float64 [P]: of log y, or of y for a law that is fitted to y itself."""
        return self.law.target(self.values) - self.law.target(self.predict(*self.axes.values()))

    def objective_of(self, constants: Mapping[str, float]) -> float:
        """The objective that other constants have on the same points."""
        theta, absolute = self.law.theta_of(constants), self.loss == "absolute"
        return objective(self.law.predict, *self._problem(), theta, delta=self.delta, absolute=absolute)

    def refit(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fits to the same points with other weights, each begun at this fit.

        Args:
          weights: float [R, P]: 0 leaves a point out, 2 takes it twice.

        Returns:
          theta, float64 [R, K]; whether each converged, bool [R].
        """
        starts = np.broadcast_to(self.theta, (len(weights), len(self.theta)))
        options = {"delta": self.delta, "absolute": self.loss == "absolute"}
        found = solve(self.law.predict, *self._problem(), starts, weights, **options)
        return found.theta, found.converged

    def _problem(self):
        return [np.log(axis) for axis in self.axes.values()], self.law.target(self.values)


def fit(
    law: Law, axes: Sequence, values, *, loss: Loss = "huber", delta: float = DELTA, starts: np.ndarray | None = None
) -> Fit:
    """Fits a law from all its starts, and keeps the best.

    Args:
      law: one of `laws.LAWS`.
      axes: the points, an array [P] for each axis of the law.
      values: the loss or metric of each point, [P].
      loss: "huber", or "absolute" for the least sum of absolute residuals.
      delta: of Huber's loss, in the units of the residuals.
      starts: theta, float [S, K], to begin at; the law's own by default.

    Raises:
      InputError: points that no law can be fitted to; the line says which and why.
    """
    began = time.perf_counter()
    points = dict(zip(law.axes, (np.asarray(axis, np.float64) for axis in axes), strict=True))
    values = np.asarray(values, np.float64)
    check_points(points, values, len(law.constants), positive=law.residuals == "log")
    logs, target = [np.log(axis) for axis in points.values()], law.target(values)
    starts = law.starts(logs, values) if starts is None else np.atleast_2d(starts)
    found = solve(law.predict, logs, target, starts, delta=delta)
    count, share = len(starts), _reached(found.objective)
    if loss == "absolute":  # begun again where Huber's loss has its best minima
        best = np.argsort(np.where(found.converged, found.objective, np.inf))[:CANDIDATES]
        found = solve(law.predict, logs, target, found.theta[best], delta=delta, absolute=True)
    best = int(np.argmin(np.where(np.isfinite(found.objective), found.objective, np.inf)))
    return Fit(
        law=law,
        theta=found.theta[best],
        axes=points,
        values=values,
        loss=loss,
        delta=delta,
        objective=float(found.objective[best]),
        converged=bool(found.converged[best]),
        starts=count,
        reached=share,
        seconds=time.perf_counter() - began,
    )


CANDIDATES = 16
"""Minima of Huber's loss from which least absolute errors are sought."""


def _reached(objectives: np.ndarray) -> float:
    finite = np.where(np.isfinite(objectives), objectives, np.inf)
    return float(np.mean(finite <= finite.min() * (1 + SAME_OBJECTIVE) + 1e-20))


def fit_parametric(N, D, loss, *, kind: Loss = "huber", delta: float = DELTA) -> Fit:
    """Chinchilla's law, L = E + A / N^alpha + B / D^beta, from the 4,500 starts of Hoffmann et al. 2022.

    Args:
      N, D, loss: parameters, tokens and loss of each run, [P].
      kind: "huber", or "absolute" for least absolute errors of log L.
      delta: of Huber's loss.

    Raises:
      InputError: points that the law cannot be fitted to.
    """
    return fit(LAWS["chinchilla"], (N, D), loss, loss=kind, delta=delta)


def fit_kaplan(N, D, loss, **options) -> Fit:
    """Kaplan's law of N and D (arXiv 2001.08361, equation 1.5). Arguments as `fit_parametric`."""
    return fit(LAWS["kaplan"], (N, D), loss, loss=options.pop("kind", "huber"), **options)


def fit_power(axis: Literal["N", "D", "C", "x"], x, loss, **options) -> Fit:
    """Kaplan's laws of one axis, L = (x_c / x)^alpha: of N, D or C, or of any axis "x"."""
    name = "power" if axis == "x" else f"kaplan_{axis.lower()}"
    return fit(LAWS[name], (x,), loss, loss=options.pop("kind", "huber"), **options)


def fit_saturating(x, y, **options) -> Fit:
    """A power law that saturates: y = E + A / x^alpha where y falls with x, else y = E - A / x^alpha.

    A falling metric must be positive and is fitted in log y; a rising one (an accuracy) is fitted as it is.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    check_points({"x": x}, y, len(LAWS["falling"].constants), positive=False)
    law = LAWS["falling" if np.polyfit(np.log(x), y, 1)[0] < 0 else "rising"]
    return fit(law, (x,), y, loss=options.pop("kind", "huber"), **options)


# Variable projection.


@dataclasses.dataclass(frozen=True)
class Projection:
    """Chinchilla's law found by variable projection.

    Attributes:
      constants: of the law.
      objective: the sum of Huber's losses.
      converged: whether the search closed in, with A, B and E at their minimum.
      grids: how many grids of exponents were gone through.
    """

    constants: Mapping[str, float]
    objective: float
    converged: bool
    grids: int


GRID = 16
"""Exponents on each side of a grid."""


def variable_projection(
    N, D, loss, *, delta: float = DELTA, low: float = 0.02, high: float = 2.0, width: float = 1e-7
) -> Projection:
    """Chinchilla's law with alpha and beta sought on a grid, and A, B and E solved for at each.

    For given exponents the law is linear in the others, so their minimum is begun at a least-squares solution. The grid
    is moved to the best exponents, and narrowed around them, until it is `width` wide. (arXiv 2603.22339, section 5.)

    Args:
      N, D, loss: parameters, tokens and loss of each run, [P].
      delta: of Huber's loss.
      low, high: the exponents of the first grid.
      width: of the last grid.

    Raises:
      InputError: points that the law cannot be fitted to.
    """
    law = LAWS["chinchilla"]
    points = {"N": np.asarray(N, np.float64), "D": np.asarray(D, np.float64)}
    loss = np.asarray(loss, np.float64)
    check_points(points, loss, len(law.constants))
    logs, target = [np.log(axis) for axis in points.values()], np.log(loss)
    centre, half = np.full(2, np.log(low * high) / 2), np.log(high / low) / 2
    best, grids = None, 0
    while 2 * half > width and grids < 60:
        steps = np.linspace(-half, half, GRID)
        exponents = np.exp(np.stack(np.meshgrid(*(centre[:, None] + steps), indexing="ij"), -1).reshape(-1, 2))
        starts = np.array([_linear_start(logs, loss, *pair) for pair in exponents])
        if best is not None:  # begun where the last grid ended, which is nearer
            starts[:, :3] = best[0][:3] + (exponents - best[0][3:]) @ _drift(logs)
        found = solve(law.predict, logs, target, starts, free=(1, 1, 1, 0, 0), delta=delta)
        at = int(np.argmin(np.where(np.isfinite(found.objective), found.objective, np.inf)))
        if best is None or found.objective[at] <= best[1]:
            best = found.theta[at], float(found.objective[at]), bool(found.converged[at])
        place = np.array(divmod(at, GRID))
        centre, grids = np.log(best[0][3:]), grids + 1
        if ((place > 0) & (place < GRID - 1)).all():  # at the edge it is moved before it is narrowed
            half /= 3
    constants = {name: float(value) for name, value in law.constants_of(best[0]).items()}
    return Projection(constants, best[1], best[2] and 2 * half <= width, grids)


def _linear_start(logs, loss, alpha: float, beta: float) -> np.ndarray:
    """theta whose A, B and E are the least-squares solution of (law - L) / L = 0, where they are positive."""
    n, d = (log - log.mean() for log in logs)
    columns = np.stack([np.exp(-alpha * n), np.exp(-beta * d), np.ones_like(loss)], axis=1) / loss[:, None]
    a, b, e = np.maximum(np.linalg.lstsq(columns, np.ones_like(loss))[0], 1e-3 * loss.min())
    return np.array([np.log(a) + alpha * logs[0].mean(), np.log(b) + beta * logs[1].mean(), np.log(e), alpha, beta])


def _drift(logs) -> np.ndarray:
    """How (log A, log B, log E) go with (alpha, beta) when the terms stay what they are in the middle, [2, 3]."""
    return np.array([[logs[0].mean(), 0, 0], [0, logs[1].mean(), 0]])


# Comparing laws.


def cross_validate(
    fitted: Mapping[str, Fit], folds: Sequence[np.ndarray] | int = 10, seed: int = 0
) -> dict[str, float]:
    """The mean absolute residual of points that were left out of the fit, by law; the least is the best law.

    It is NaN for a law that has no minimum without one of the folds.

    Args:
      fitted: fits of several laws to the same points.
      folds: the points left out in turn, as index arrays; or how many random folds of equal size.
      seed: of random folds.

    Raises:
      InputError: fits of different points, or residuals in different units.
    """
    first = next(iter(fitted.values()))
    if any(not np.array_equal(each.values, first.values) for each in fitted.values()):
        raise InputError("laws are compared on the same points; fit all of them to the same.")
    if len({each.law.residuals for each in fitted.values()}) > 1:
        raise InputError("laws are compared by one kind of residual; these have residuals of y and of log y.")
    if isinstance(folds, int):
        order = np.random.RandomState(seed).permutation(len(first.values))
        folds = np.array_split(order, min(folds, len(order)))
    return {name: float(np.abs(held_out_residuals(each, folds)).mean()) for name, each in fitted.items()}


def held_out_residuals(fitted: Fit, folds: Sequence[np.ndarray]) -> np.ndarray:
    """The residual of each point of the folds, from the fit that its fold was left out of.

    It is NaN for other points, and for those without which the law has no minimum.

    Args:
      folds: index arrays.
    """
    weights = np.ones((len(folds), len(fitted.values)))
    for row, fold in zip(weights, folds):
        row[fold] = 0
    thetas, converged = fitted.refit(weights)
    residuals = np.full(len(fitted.values), np.nan)
    target = fitted.law.target(fitted.values)
    for theta, fold in zip(thetas[converged], (fold for fold, found in zip(folds, converged) if found)):
        axes = [axis[fold] for axis in fitted.axes.values()]
        predicted = fitted.law.function(*axes, **fitted.law.constants_of(theta))
        residuals[fold] = target[fold] - fitted.law.target(predicted)
    return residuals


# Bad input.


def check_points(
    axes: Mapping[str, np.ndarray],
    values: np.ndarray,
    constants: int,
    positive: bool = True,
    labels: Sequence[str] | None = None,
) -> None:
    """Refuses points that no law of these axes can be fitted to.

    Args:
      axes: an array [P] for each axis.
      values: float [P].
      constants: how many the law has: it takes one point more.
      positive: whether the values must be positive.
      labels: what a message calls each point; "point 0", ... by default.

    Raises:
      InputError: the first thing that is wrong, in a line.
    """
    labels = labels or [f"point {index}" for index in range(len(values))]
    told = {"N": "parameters", "D": "tokens", "C": "FLOPs"}
    columns = {told.get(name, name): column for name, column in axes.items()} | {"loss": values}
    for name, column in columns.items():
        if column.ndim != 1 or len(column) != len(values):
            raise InputError(f"{name} has the shape {column.shape}, and loss {values.shape}; they must be [P] alike.")
        for index in np.flatnonzero(~np.isfinite(column)):
            raise InputError(f"{labels[index]}: {name} is {column[index]}; leave the point out, or mend it.")
        if name == "loss" and not positive:
            continue
        for index in np.flatnonzero(column <= 0):
            raise InputError(
                f"{labels[index]}: {name} is {column[index]:g}, and must be positive: laws are of logarithms."
            )
    if len(values) <= constants:
        raise InputError(
            f"{len(values)} points are too few for {constants} constants; at least {constants + 1} are needed."
        )
    if values.min() == values.max():
        raise InputError(f"all points have loss {values[0]:.4g}; a law needs several values of it.")
    if len(axes) > 1:  # on one axis, two seeds may well have the same accuracy
        rows, first = np.unique(np.column_stack(list(columns.values())), axis=0, return_inverse=True)
        if len(rows) < len(values):
            again = next(index for index in range(len(values)) if (first[:index] == first[index]).any())
            other = int(np.argmax(first == first[again]))
            raise InputError(f"{labels[other]} and {labels[again]} are the same point; leave one of them out.")
    for name, column in columns.items():
        if name != "loss" and column.max() < BUDGET_WIDTH * column.min():
            raise InputError(f"all points have {name} {column[0]:.4g}; a law needs several values of it.")
    if {"N", "D"} <= set(axes):
        flops = FLOPS_PER_TOKEN * axes["N"] * axes["D"]
        if flops.max() < BUDGET_WIDTH * flops.min():
            raise InputError(
                f"all points are of one budget, {flops[0]:.3g} FLOPs; a law of N and D needs at least two budgets."
            )
