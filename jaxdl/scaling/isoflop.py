"""Chinchilla's approaches 1 and 2: the envelope of training curves, and parabolas through runs of equal FLOPs.

Hoffmann et al. 2022 (arXiv 2203.15556), sections 3.1 and 3.2. A parabola in log N is only the beginning of the law's
Taylor series about its minimum: on a wide grid of sizes, on one that is not centred on the minimum, and for alpha
other than beta, its minimum is not the law's, without any noise (arXiv 2603.22339). `parabola_bias` tells by how much.

>>> besiroglu = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
>>> f"{parabola_bias(besiroglu, 1e20, np.geomspace(1e8, 1e10, 9)) - 1:.1%}"
'-1.5%'
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdl.errors import InputError
from jaxdl.scaling import predictions
from jaxdl.scaling.laws import FLOPS_PER_TOKEN, chinchilla
from jaxdl.scaling.uncertainty import percentiles

TOLERANCE = 0.1
"""Points are of one budget where their FLOPs are within this share of it."""

LEAST = 5
"""Points that a budget has at least: a parabola takes three, and two to see that it fits."""

LEAST_SHARE = 1 / 3
"""Points that a budget has at least as a share of those of the fullest, where budgets are not given."""

KNOWN = 10.0
"""A minimum whose interval is wider than this factor counts for nothing."""

FAR = 2.0
"""Decades beyond the sizes that were trained; a resample whose minimum is farther away counts as being there."""


def group_budgets(
    flops: np.ndarray, budgets: Sequence[float] = (), tolerance: float = TOLERANCE, least: int = LEAST
) -> list[np.ndarray]:
    """The points of each budget, as index arrays, from the smallest budget to the largest.

    Args:
      flops: of each point, float [P].
      budgets: FLOPs. By default those that have the most points: the fullest window is a budget, then the fullest of
        what is left, and so on.
      tolerance: by what share a point's FLOPs may differ from its budget's.
      least: budgets with fewer points are left out.
    """
    logs, half = np.log(flops), np.log1p(tolerance)
    left = np.ones(len(logs), bool)
    centres = list(np.log(np.asarray(budgets, np.float64)))
    groups = []
    while True:
        if budgets:
            if not centres:
                break
            members = left & (np.abs(logs - centres.pop()) <= half)
        else:
            windows = left & (np.abs(logs - logs[:, None]) <= half) & left[:, None]
            members = windows[np.argmax(windows.sum(axis=1))]
            least = max(least, LEAST_SHARE * members.sum())
            if members.sum() < least:
                break
        if members.sum() >= least:
            groups.append(np.flatnonzero(members))
        left &= ~members
    return sorted(groups, key=lambda group: logs[group].mean())


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """The parabola of one budget: L = c0 + c1 u + c2 u^2, u = log10 N.

    Attributes:
      flops: the budget, the geometric mean of its points' FLOPs.
      points: its points, an index array.
      coefficients: (c2, c1, c0), as `np.polyval` takes them.
      N, D, loss: at the minimum; NaN where the parabola has none.
      inside: whether the minimum lies within the sizes that were trained.
      width: decades of N from the smallest run to the largest.
      offset: decades from the middle of the sizes to the minimum.
      N_interval: 95 % interval of N, over resamples of the points; NaN where most of them have no minimum.
      bias: N over the N of the fitted law's own minimum, when the parabola is fitted to the law without noise; None
        where no law was given.
    """

    flops: float
    points: np.ndarray
    coefficients: np.ndarray
    N: float
    D: float
    loss: float
    inside: bool
    width: float
    offset: float
    N_interval: tuple[float, float]
    bias: float | None = None

    @property
    def known(self) -> bool:
        """Whether the points tell the minimum: within their sizes, and to less than a factor of `KNOWN`."""
        low, high = self.N_interval
        return self.inside and high < KNOWN * low


@dataclasses.dataclass(frozen=True)
class Frontier:
    """Compute-optimal runs, N = k C^a and D = C^b / (6 k), as straight lines through logarithms.

    Attributes:
      flops, N, D, loss: of each compute-optimal run, float [B].
      a, b: exponents of N and of D.
      log_k: the logarithm of k.
      a_interval: 95 % interval of a; of b it is one less that.
      a_bias: a of the law's parabolas, less the law's own a; None where no law was given.
    """

    flops: np.ndarray
    N: np.ndarray
    D: np.ndarray
    loss: np.ndarray
    a: float
    b: float
    log_k: float
    a_interval: tuple[float, float] | None = None
    a_bias: float | None = None

    def parameters(self, flops):
        """The compute-optimal number of parameters for a budget."""
        return np.exp(self.log_k + self.a * np.log(flops))


def fit_isoflop(
    N,
    D,
    loss,
    budgets: Sequence[np.ndarray],
    constants: Mapping[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[list[IsoFlop], Frontier | None]:
    """Approach 2: a parabola for each budget, and the line through their minima.

    Args:
      N, D, loss: of each point, [P].
      budgets: index arrays, from `group_budgets`.
      constants: of Chinchilla's law, for the bias.
      resamples: of the points of each budget, for the intervals.
      seed: of the resamples.

    Returns:
      The parabolas; the frontier through the minima that are known, None where there are fewer than two.
    """
    N, D, loss = (np.asarray(array, np.float64) for array in (N, D, loss))
    generator = np.random.RandomState(seed)
    curves, draws = [], []
    for budget in budgets:
        flops = float(np.exp(np.log(FLOPS_PER_TOKEN * N[budget] * D[budget]).mean()))
        sizes = np.log10(N[budget])
        coefficients = np.polyfit(sizes, loss[budget], 2)
        minimum = _minimum(coefficients)
        picked = [generator.choice(budget, size=len(budget)) for _ in range(resamples)]
        minima = np.array([_drawn_minimum(np.log10(N[pick]), loss[pick]) for pick in picked])
        minima = np.clip(minima, sizes.min() - FAR, sizes.max() + FAR)
        draws.append(minima * np.log(10))
        bias = None
        if constants is not None:
            clean = chinchilla(10**sizes, flops / FLOPS_PER_TOKEN / 10**sizes, **constants)
            best, _ = predictions.compute_optimal(constants, flops)
            bias = float(10 ** _minimum(np.polyfit(sizes, clean, 2)) / best)
        known = minima[np.isfinite(minima)]
        interval = percentiles(10**known) if len(known) > 0.5 * resamples else (np.nan, np.nan)
        curves.append(
            IsoFlop(
                flops=flops,
                points=budget,
                coefficients=coefficients,
                N=float(10**minimum),
                D=float(flops / FLOPS_PER_TOKEN / 10**minimum),
                loss=float(np.polyval(coefficients, minimum)),
                inside=bool(sizes.min() < minimum < sizes.max()),
                width=float(np.ptp(sizes)),
                offset=float(minimum - (sizes.min() + sizes.max()) / 2),
                N_interval=interval,
                bias=bias,
            )
        )
    known = [index for index, curve in enumerate(curves) if curve.known]
    if len(known) < 2:
        return curves, None
    frontier = _line(*(np.array([getattr(curves[i], name) for i in known]) for name in ("flops", "N", "D", "loss")))
    slopes = _slopes(frontier.flops, np.stack([draws[index] for index in known], axis=1))
    interval = percentiles(slopes) if len(slopes) > 0.5 * resamples else None
    bias = None
    if constants is not None:
        optimum, _ = predictions.compute_optimal(constants, frontier.flops)
        biased = np.log(optimum * [curves[index].bias for index in known])
        bias = float(np.polyfit(np.log(frontier.flops), biased, 1)[0] - predictions.exponents(constants)[0])
    return curves, dataclasses.replace(frontier, a_interval=interval, a_bias=bias)


def _minimum(coefficients: np.ndarray) -> float:
    """Where a parabola is least; NaN for one that is not bent upwards."""
    bend, slope, _ = coefficients
    return float(-slope / (2 * bend)) if bend > 0 else np.nan


def _drawn_minimum(sizes: np.ndarray, loss: np.ndarray) -> float:
    return _minimum(np.polyfit(sizes, loss, 2)) if len(np.unique(sizes)) > 2 else np.nan


def _slopes(flops: np.ndarray, log_n: np.ndarray) -> np.ndarray:
    """The exponent of each resample, through the minima that exist in it; log_n is [R, B]."""
    exist = np.isfinite(log_n)
    log_n, exist = log_n[exist.sum(axis=1) > 1], exist[exist.sum(axis=1) > 1]
    middle = (exist * np.log(flops)).sum(axis=1, keepdims=True) / exist.sum(axis=1, keepdims=True)
    centred = exist * (np.log(flops) - middle)
    return (centred * np.where(exist, log_n, 0)).sum(axis=1) / (centred**2).sum(axis=1)


def _line(flops, N, D, loss) -> Frontier:
    a, log_k = np.polyfit(np.log(flops), np.log(N), 1)
    return Frontier(flops, N, D, loss, a=float(a), b=float(1 - a), log_k=float(log_k))


def parabola_bias(constants: Mapping[str, float], flops: float, N) -> float:
    """N of the parabola's minimum over N of the law's, for runs of these sizes and FLOPs without any noise."""
    N = np.asarray(N, np.float64)
    losses = chinchilla(N, flops / FLOPS_PER_TOKEN / N, **constants)
    return float(10 ** _minimum(np.polyfit(np.log10(N), losses, 2)) / predictions.compute_optimal(constants, flops)[0])


@dataclasses.dataclass(frozen=True)
class Curve:
    """A run's loss as it trained.

    Attributes:
      N: parameters.
      D: tokens seen so far, float [S], rising.
      loss: float [S].
    """

    N: float
    D: np.ndarray
    loss: np.ndarray


def envelope(curves: Sequence[Curve], points: int = 200) -> Frontier:
    """Approach 1: at each number of FLOPs the run that has the least loss there, and the line through its sizes.

    Losses between two measurements are interpolated in log D. FLOPs at which only the smallest or only the largest
    size is the best are left out: there the best size is not among those that were trained.

    Args:
      curves: of runs of several sizes.
      points: numbers of FLOPs, evenly spaced in their logarithm.

    Raises:
      InputError: curves of fewer than three sizes, or none of which is the best between others.
    """
    sizes = np.array([curve.N for curve in curves])
    if len(np.unique(sizes)) < 3:
        raise InputError(f"an envelope takes training curves of at least 3 sizes; there are {len(np.unique(sizes))}.")
    spans = [np.log(FLOPS_PER_TOKEN * curve.N * curve.D) for curve in curves]
    grid = np.linspace(min(span[0] for span in spans), max(span[-1] for span in spans), points)
    losses = np.array(
        [np.interp(grid, span, curve.loss, np.inf, np.inf) for span, curve in zip(spans, curves)]
    )  # [curves, points]
    best = np.argmin(losses, axis=0)
    least, size = losses.min(axis=0), sizes[best]
    running = np.minimum.accumulate(np.where(np.isfinite(least), least, np.inf))
    kept = np.isfinite(least) & (least <= running) & (size > sizes.min()) & (size < sizes.max())
    if len(np.unique(size[kept])) < 2:
        raise InputError("no two sizes between the smallest and the largest are ever the best; train more sizes.")
    flops = np.exp(grid[kept])
    return _line(flops, size[kept], flops / FLOPS_PER_TOKEN / size[kept], least[kept])
