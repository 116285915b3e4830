"""Robust regression of many problems at once: the Huber loss of the residuals, or their absolute values.

    objective(theta) = sum_i w_i H(f(theta, x_i) - y_i),   H(r) = r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2)

Huber 1964, Robust estimation of a location parameter. A problem is a start with its weights: 4,500 starts of one fit,
or one start for each resample of a bootstrap. All are advanced together, by the Levenberg-Marquardt method with exact
Jacobians in float64:

1. The curvature is that of the quadratic that touches H at r and lies above it (weights delta / |r| outside of delta:
   iteratively reweighted least squares), which is never negative: this leads near a minimum from far away.
2. Then the exact Hessian, which ends it: steps of Newton converge quadratically.

Damping is relative to the curvature of each parameter (Marquardt 1963), so neither the scale of the objective nor that
of a parameter matters. Problems that have ended are no longer computed.

>>> line = lambda theta, x: theta[0] * x + theta[1]
>>> solve(line, [np.arange(5.0)], np.array([1.0, 3.0, 5.0, 7.0, 90.0]), np.zeros((1, 2))).theta.round(2)
array([[2., 1.]])
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 256
"""Problems that are advanced together, whether there are as many or not, so that one program serves all."""

ROUND = 10
"""Iterations between looks at what has ended."""

TOLERANCE = 1e-11
"""A problem has ended where the next step would lower the objective by less than this share of it."""

MAX_STEP = 2.0
"""What a step changes in a component of theta at most: beyond that the linearisation means nothing."""

SMOOTHING = tuple(10.0**-power for power in range(4, 11))
"""Deltas of Huber losses that lead to the least absolute error. Madsen and Nielsen 1993, A finite smoothing algorithm
for linear l1 estimation: below some delta the same residuals are zero."""


@dataclasses.dataclass(frozen=True)
class Solutions:
    """Where problems ended.

    Attributes:
      theta: float64 [S, K].
      objective: float64 [S]: the sum of Huber losses, or of absolute residuals.
      converged: bool [S]: a minimum: the objective would fall no more, and is curved upwards.
    """

    theta: np.ndarray
    objective: np.ndarray
    converged: np.ndarray


def huber(residuals, delta):
    """Huber's loss of each residual."""
    size = abs(residuals)
    return jnp.where(size <= delta, residuals**2 / 2, delta * (size - delta / 2))


def solve(
    predict: Callable,
    axes: Sequence[np.ndarray],
    target: np.ndarray,
    starts: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    free: Sequence[bool] | None = None,
    delta: float = 1e-3,
    absolute: bool = False,
    max_iterations: int = 400,
    polish: int = 60,
) -> Solutions:
    """Minimises the objective from each start.

    Args:
      predict: predict(theta [K], *axes) -> float [P], of `jax.numpy`.
      axes: what is predicted from, each float [P].
      target: float [P].
      starts: theta, float [S, K].
      weights: of the points in each problem, float [S, P]; ones by default.
      free: which components of theta are sought, [K]; the others stay as they start. All by default.
      delta: where the Huber loss turns from a parabola to a line.
      absolute: least absolute errors, sum_i w_i |r_i|, in place of Huber's loss.
      max_iterations, polish: of the first way and of the second at most.
    """
    starts = np.asarray(starts, np.float64)
    free = np.ones(starts.shape[1]) if free is None else np.asarray(free, np.float64)
    weights = np.broadcast_to(1.0 if weights is None else weights, (len(starts), len(target)))
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        data = tuple(np.asarray(array, np.float64) for array in (*axes, target))
        theta, _ = _advance_all(predict, data, starts, weights, free, delta, False, max_iterations)
        for smaller in (delta, *(step * delta / 1e-3 for step in SMOOTHING)) if absolute else (delta,):
            theta, converged = _advance_all(predict, data, theta, weights, free, smaller, True, polish)
        objective = _objectives(predict, data, theta, weights, 0.0 if absolute else delta)
    return Solutions(theta, objective, converged & np.isfinite(objective))


def objective(
    predict: Callable,
    axes: Sequence[np.ndarray],
    target: np.ndarray,
    theta: np.ndarray,
    *,
    delta: float,
    absolute: bool,
) -> float:
    """The objective at one theta [K], as `solve` has it."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        data = tuple(np.asarray(array, np.float64) for array in (*axes, target))
        ones = np.ones((1, len(target)))
        return float(_objectives(predict, data, np.asarray(theta)[None], ones, 0.0 if absolute else delta)[0])


def _objectives(predict, data, theta, weights, delta: float) -> np.ndarray:
    """float [S]; delta 0 stands for absolute residuals."""
    residuals = np.asarray(_all_residuals(predict, theta, *data))
    losses = np.asarray(huber(residuals, delta)) if delta else np.abs(residuals)
    return (weights * losses).sum(axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _all_residuals(predict, theta, *data):
    return jax.vmap(lambda theta: predict(theta, *data[:-1]) - data[-1])(theta)


def _advance_all(predict, data, theta, weights, free, delta, newton: bool, max_iterations: int):
    """Where each problem ends, float [S, K], and whether it converged, bool [S]."""
    theta, converged = np.array(theta), np.zeros(len(theta), bool)
    damping = np.full(len(theta), 1e-6 if newton else 1e-2)
    alive = np.arange(len(theta))
    for _ in range(0, max_iterations, ROUND):
        for begin in range(0, len(alive), CHUNK):
            part = alive[begin : begin + CHUNK]
            full = np.resize(part, CHUNK)  # the same problems again where there are fewer
            ended = _advance(predict, newton, data, theta[full], damping[full], weights[full], free, delta)
            theta[part], damping[part], converged[part] = (np.asarray(array)[: len(part)] for array in ended)
        alive = alive[~converged[alive]]
        if not len(alive):
            break
    return theta, converged


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(predict, newton, data, theta, damping, weights, free, delta):
    """`ROUND` iterations of a chunk of problems."""
    return jax.vmap(functools.partial(_iterate, predict, newton, data, free, delta))(theta, damping, weights)


def _iterate(predict, newton, data, free, delta, theta, damping, weights):
    """One problem's theta, damping, and whether it has converged."""
    model = functools.partial(_local_model, predict, newton, data, free, delta, weights)

    def iterate(_, state):
        theta, damping, (value, gradient, curvature, scale), _ = state
        step, decrease, is_convex = _step(gradient, curvature, scale, damping)
        trial = theta + step
        at_trial = model(trial)
        accepted = at_trial[0] < value
        ended = is_convex & (decrease <= TOLERANCE * value + 1e-24)
        keep = lambda new, old: jnp.where(accepted, new, old)
        damping = jnp.clip(jnp.where(accepted, damping / 5, damping * 4), 1e-12, 1e12)
        return keep(trial, theta), damping, jax.tree.map(keep, at_trial, state[2]), ended

    state = (theta, damping, model(theta), jnp.asarray(False))
    theta, damping, _, ended = jax.lax.fori_loop(0, ROUND, iterate, state)
    return theta, damping, ended


def _local_model(predict, newton, data, free, delta, weights, theta):
    """The objective [], its gradient [K], its curvature [K, K] and the scale of each parameter [K]."""
    *axes, target = data
    residuals = predict(theta, *axes) - target
    jacobian = jax.jacfwd(predict)(theta, *axes) * free[None, :]  # [P, K]
    pull = weights * jnp.clip(residuals, -delta, delta)
    touching = weights * delta / jnp.maximum(jnp.abs(residuals), delta)
    curvature = jacobian.T @ (jacobian * touching[:, None])
    scale = jnp.sqrt(jnp.where(free > 0, jnp.maximum(jnp.diagonal(curvature), 1e-100), 1.0))
    if newton:
        inside = weights * (jnp.abs(residuals) <= delta)
        bend = jax.hessian(lambda theta: pull @ predict(theta, *axes))(theta)
        curvature = jacobian.T @ (jacobian * inside[:, None]) + bend * jnp.outer(free, free)
    curvature += jnp.diag((1 - free) * scale**2)
    return weights @ huber(residuals, delta), jacobian.T @ pull, curvature, scale


def _step(gradient, curvature, scale, damping):
    """The damped step [K]; what the undamped one would lower the objective by []; whether the curvature is upwards."""
    size = len(gradient)
    scaled = curvature / jnp.outer(scale, scale) + 1e-15 * jnp.eye(size)
    pull = gradient / scale
    values, vectors = jnp.linalg.eigh(scaled)
    along = vectors.T @ pull
    step = -(vectors @ (along / (jnp.maximum(values, 0) + damping))) / scale
    decrease = (along**2 / jnp.maximum(values, 1e-15)).sum() / 2
    # The bound shrinks with the damping: a term too small to matter asks for long steps, and would hold up the others.
    bound = MAX_STEP / (1 + damping)
    return jnp.clip(step, -bound, bound), decrease, values[0] > 0
