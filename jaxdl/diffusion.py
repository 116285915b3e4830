"""Denoising diffusion as pure functions: noise schedules, both directions of the chain, sampling, and the bound.

Ho et al. 2020, arXiv:2006.11239 (DDPM); Nichol and Dhariwal 2021, arXiv:2102.09672 (cosine schedule); Song et al. 2021,
arXiv:2010.02502 (DDIM); Salimans and Ho 2022, arXiv:2202.00512 (v); Ho and Salimans 2022, arXiv:2207.12598 (guidance).

    x_t = signal(t) x_0 + noise(t) epsilon        signal^2 = alpha_bar, noise^2 = 1 - alpha_bar

Times run from 0 to T - 1, one less than in the papers, and -1 is the data. What is called `predict` is a function
(x [B, ...], times int32 [B]) -> the network's output [B, ...].

Shapes: B examples x [B, ...], T times of the schedule, S steps of sampling.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import fold_keys

Prediction = Literal["epsilon", "x0", "v"]
"""What the network gives: the noise, the data, or v = signal epsilon - noise x_0."""

Variance = Literal["posterior", "beta"]
"""Of a reverse step: that of q(x_s | x_t, x_0), which is right for data of one point; or beta, for data that are
themselves normal. Ho et al. 2020, section 3.2."""

Spacing = Literal["trailing", "leading", "linspace"]


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """How fast noise is added.

    Attributes:
      betas: variance that each time adds, float64 [T], in (0, 1).
    """

    betas: np.ndarray

    @functools.cached_property
    def alphas_bar(self) -> np.ndarray:
        """Share of the data in the variance at the times -1, 0, ..., T - 1: float64 [T + 1], the first 1."""
        return np.concatenate([[1.0], np.cumprod(1 - np.asarray(self.betas, np.float64))])

    @property
    def num_times(self) -> int:
        """T."""
        return len(self.betas)

    def marginal(self, times) -> tuple[jax.Array, jax.Array]:
        """signal and noise of q(x_t | x_0) = N(signal x_0, noise^2): float32, of the shape of `times` (-1 .. T - 1)."""
        signal, noise = np.sqrt(self.alphas_bar), np.sqrt(1 - self.alphas_bar)
        return jnp.asarray(signal, jnp.float32)[times + 1], jnp.asarray(noise, jnp.float32)[times + 1]

    def posterior(self, times: np.ndarray, earlier: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """a, b and variance of q(x_s | x_t, x_0) = N(a x_0 + b x_t, variance). Ho et al. 2020, eq. 6 and 7.

        Args:
          times: t, int.
          earlier: s < t, of the same shape; -1 is the data, which are then certain: a = 1, b = variance = 0.

        Returns:
          float64, of that shape.
        """
        of_t, of_s = self.alphas_bar[times + 1], self.alphas_bar[earlier + 1]
        added = 1 - of_t / of_s
        return (
            np.sqrt(of_s) * added / (1 - of_t),
            np.sqrt(of_t / of_s) * (1 - of_s) / (1 - of_t),
            added * (1 - of_s) / (1 - of_t),
        )


def linear_schedule(num_times: int, first: float | None = None, last: float | None = None) -> NoiseSchedule:
    """betas from `first` to `last`, evenly. Ho et al. 2020, section 4.

    Their 1e-4 and 0.02 are for 1,000 times; unset they are scaled by 1000 / T, as Nichol and Dhariwal's code does, so
    that as much noise is added in all. Fewer than 21 times would need a beta of 1.

    Raises:
      InputError: a beta that is not in (0, 1).
    """
    first = 0.1 / num_times if first is None else first
    last = 20 / num_times if last is None else last
    if not (0 < first < 1 and 0 < last < 1):
        raise InputError(
            f"a linear schedule of {num_times} times would go from beta {first:g} to {last:g}, and every beta must be "
            "between 0 and 1; take at least 21 times, or the cosine schedule."
        )
    return NoiseSchedule(np.linspace(first, last, num_times))


def cosine_schedule(num_times: int) -> NoiseSchedule:
    """alpha_bar = cos^2((t / T + 0.008) / 1.008 pi / 2), and no beta above 0.999. Nichol and Dhariwal 2021, eq. 17."""
    alphas_bar = np.cos((np.arange(num_times + 1) / num_times + 0.008) / 1.008 * np.pi / 2) ** 2
    return NoiseSchedule(np.minimum(1 - alphas_bar[1:] / alphas_bar[:-1], 0.999))


SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {"linear": linear_schedule, "cosine": cosine_schedule}


# What the network predicts.


def add_noise(schedule: NoiseSchedule, x0, times, noise) -> jax.Array:
    """x_t of q(x_t | x_0), for noise [B, ...] of a standard normal distribution. Ho et al. 2020, eq. 4."""
    signal, rate = schedule.marginal(times)
    return _rows(signal, x0) * x0 + _rows(rate, x0) * noise


def target(schedule: NoiseSchedule, prediction: Prediction, x0, times, noise) -> jax.Array:
    """What the network should give, [B, ...]."""
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return x0
    signal, rate = schedule.marginal(times)
    return _rows(signal, x0) * noise - _rows(rate, x0) * x0


def estimates(schedule: NoiseSchedule, prediction: Prediction, output, x, times) -> tuple[jax.Array, jax.Array]:
    """The network's output as estimates of x_0 and of the noise, [B, ...] both: x = signal x_0 + noise epsilon."""
    signal, rate = (_rows(value, x) for value in schedule.marginal(times))
    if prediction == "epsilon":
        return (x - rate * output) / signal, output
    if prediction == "x0":
        return output, (x - signal * output) / rate
    return signal * x - rate * output, rate * x + signal * output


def guide(conditional, unconditional, scale) -> jax.Array:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional), of any kind of prediction.

    Scale 0 leaves the condition out, and 1 is the conditional output. Ho and Salimans 2022, eq. 6: w is scale - 1.
    """
    return unconditional + scale * (conditional - unconditional)


# Sampling.


def sampling_times(num_times: int, num_steps: int, spacing: Spacing = "trailing") -> np.ndarray:
    """The times at which the network is asked, int [S], falling.

    Lin et al. 2024, arXiv:2305.08891, table 2: `trailing` begins at T - 1, as training ends there; `leading` ends at 0;
    `linspace` does both.

    >>> sampling_times(10, 5).tolist(), sampling_times(10, 5, "leading").tolist()
    ([9, 7, 5, 3, 1], [8, 6, 4, 2, 0])

    Raises:
      InputError: more steps than times, or none.
    """
    if not 1 <= num_steps <= num_times:
        raise InputError(
            f"{num_steps} sampling steps: the noise schedule has {num_times} times, so there can be 1 to {num_times}."
        )
    if spacing == "leading":
        return (np.arange(num_steps) * (num_times // num_steps))[::-1].copy()
    if spacing == "linspace":
        return np.round(np.linspace(0, num_times - 1, num_steps))[::-1].astype(int)
    return np.round(num_times - np.arange(num_steps) * num_times / num_steps).astype(int) - 1


def ddim_steps(schedule: NoiseSchedule, times: np.ndarray, eta: float = 0.0):
    """Reverse steps from each of `times` [S] to the next, and from the last to the data. Song et al. 2021, eq. 12.

    Args:
      eta: 0 is deterministic, and 1 draws as much as the posterior's variance, which makes the step the ancestral one.

    Returns:
      a, b and deviation of x_s = a x_0 + b x_t + deviation z, float64 [S] each.
    """
    of_t, of_s = schedule.alphas_bar[times + 1], schedule.alphas_bar[_next(times) + 1]
    variance = eta**2 * schedule.posterior(times, _next(times))[2]
    of_noise = np.sqrt(np.maximum(1 - of_s - variance, 0.0))
    # x_s = signal_s x_0 + of_noise epsilon + deviation z, with epsilon = (x_t - signal_t x_0) / noise_t.
    of_x = of_noise / np.sqrt(1 - of_t)
    return np.sqrt(of_s) - of_x * np.sqrt(of_t), of_x, np.sqrt(variance)


def ancestral_steps(schedule: NoiseSchedule, times: np.ndarray, variance: Variance = "posterior"):
    """Reverse steps as `ddim_steps` gives them, by the posterior's mean. Ho et al. 2020, algorithm 2.

    The last, to the data, draws nothing.
    """
    of_x0, of_x, spread = schedule.posterior(times, _next(times))
    if variance == "beta":
        beta = 1 - schedule.alphas_bar[times + 1] / schedule.alphas_bar[_next(times) + 1]
        spread = np.where(_next(times) < 0, 0.0, beta)
    return of_x0, of_x, np.sqrt(spread)


def sample(
    predict: Callable,
    schedule: NoiseSchedule,
    prediction: Prediction,
    times: np.ndarray,
    steps: tuple[np.ndarray, np.ndarray, np.ndarray],
    x,
    keys,
    *,
    clip: bool = True,
    trajectory: bool = False,
):
    """Goes back from noise to data.

    Args:
      predict: the network, as the module says.
      prediction: what it gives.
      times: of `sampling_times`, [S].
      steps: of `ddim_steps` or `ancestral_steps`.
      x: where to begin, normal noise [B, ...].
      keys: a random key of each example, [B].
      clip: whether each estimate of the data is kept in -1 .. 1.
      trajectory: whether the way is wanted, too.

    Returns:
      samples [B, ...]; with `trajectory` also x after each step and the estimates of the data at it, [S, B, ...] both.
    """

    def step(x, row):
        time, of_x0, of_x, deviation = row
        at = jnp.full(x.shape[0], time)
        x0, _ = estimates(schedule, prediction, predict(x, at), x, at)
        x0 = jnp.clip(x0, -1, 1) if clip else x0
        x = of_x0 * x0 + of_x * x + deviation * normal(fold_keys(keys, time), x.shape[1:])
        return x, (x, x0) if trajectory else None

    rows = (jnp.asarray(times, jnp.int32), *(jnp.asarray(part, jnp.float32) for part in steps))
    x, way = jax.lax.scan(step, x, rows)
    return (x, *way) if trajectory else x


# The variational bound.


def variational_bound(
    predict: Callable,
    schedule: NoiseSchedule,
    prediction: Prediction,
    x0,
    keys,
    *,
    num_terms: int | None = None,
    variance: Variance = "posterior",
    levels: int | None = 256,
    clip: bool = True,
) -> jax.Array:
    """The bound of -log p(x_0) in nats for each example, [B]. Ho et al. 2020, eq. 5; one draw of x_t for each term.

    Args:
      predict: the network, as the module says.
      prediction: what it gives.
      x0: data [B, ...].
      keys: a random key of each example, [B].
      num_terms: how many of the T terms beside the prior's are computed. T of them, or none given, is the bound itself;
        fewer, K, are one of each K-th part of the times, drawn evenly in it: an estimate without bias.
      variance: of the reverse steps. The last takes the one before it, whose own would be zero.
      levels: values, evenly from -1 to 1, that an element of the data can have, whose probability counts (eq. 13);
        None: any, whose density counts.
      clip: whether estimates of the data are kept in -1 .. 1.

    Raises:
      InputError: more terms than the schedule has times, or none.
    """
    num_times = schedule.num_times
    num_terms = num_times if num_terms is None else num_terms
    if not 1 <= num_terms <= num_times:
        raise InputError(
            f"{num_terms} terms of the bound: there can be 1 to {num_times}, as many as the noise schedule has times."
        )
    term = functools.partial(bound_term, schedule, prediction, variance=variance, levels=levels, clip=clip)

    def add(total, number):
        number_keys = jax.vmap(jax.random.split)(fold_keys(keys, number))
        part = jax.vmap(jax.random.uniform)(number_keys[:, 0])
        times = jnp.minimum(jnp.int32((number + part) * (num_times / num_terms)), num_times - 1)
        if num_terms == num_times:  # which that is, but for rounding
            times = jnp.full_like(times, number)
        x = add_noise(schedule, x0, times, normal(number_keys[:, 1], x0.shape[1:]))
        return total + term(predict(x, times), x0, x, times), None

    total, _ = jax.lax.scan(add, jnp.zeros(x0.shape[0]), jnp.arange(num_terms))
    return prior_term(schedule, x0) + total * (num_times / num_terms)


def prior_term(schedule: NoiseSchedule, x0) -> jax.Array:
    """KL(q(x_{T-1} | x_0) || N(0, 1)) in nats, [B]."""
    share = schedule.alphas_bar[-1]
    return _sum(share * x0**2 + (1 - share) - 1 - math.log1p(-share)) / 2


def bound_term(
    schedule: NoiseSchedule,
    prediction: Prediction,
    output,
    x0,
    x,
    times,
    *,
    variance: Variance = "posterior",
    levels: int | None = 256,
    clip: bool = True,
) -> jax.Array:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, and at time 0 -log p(x_0 | x_0's first noise): [B].

    Args:
      output: the network's, [B, ...], at `x` and `times` [B].

    The others are those of `variational_bound`.
    """
    every = np.arange(schedule.num_times)
    of_x0, of_x, spread = schedule.posterior(every, every - 1)
    spread[0] = spread[min(1, len(every) - 1)] or schedule.betas[0]
    model_spread = spread if variance == "posterior" else np.concatenate([spread[:1], schedule.betas[1:]])
    at = lambda values: _rows(jnp.asarray(values, jnp.float32)[times], x)

    estimate, _ = estimates(schedule, prediction, output, x, times)
    estimate = jnp.clip(estimate, -1, 1) if clip else estimate
    distance = at(of_x0) * (x0 - estimate)
    ratio = at(spread / model_spread)
    divergence = _sum(ratio - 1 - jnp.log(ratio) + distance**2 / at(model_spread)) / 2
    mean = at(of_x0) * estimate + at(of_x) * x
    return jnp.where(times == 0, -_sum(_log_likelihood(x0, mean, at(np.sqrt(model_spread)), levels)), divergence)


def _log_likelihood(x, mean, deviation, levels: int | None):
    """Of elements under normal distributions: log density, or log probability of the level. Ho et al. 2020, eq. 13."""
    if levels is None:
        return -(((x - mean) / deviation) ** 2) / 2 - jnp.log(deviation) - math.log(2 * math.pi) / 2
    half = 1 / (levels - 1)
    upper = jnp.where(x > 1 - half, jnp.inf, (x + half - mean) / deviation)
    lower = jnp.where(x < half - 1, -jnp.inf, (x - half - mean) / deviation)
    # The tail in which both bounds are below zero loses nothing by rounding.
    flip = jnp.where(jnp.isinf(upper), lower > 0, upper + jnp.where(jnp.isinf(lower), 0.0, lower) > 0)
    high, low = log_ndtr(jnp.where(flip, -lower, upper)), log_ndtr(jnp.where(flip, -upper, lower))
    return high + jnp.log1p(-jnp.exp(jnp.minimum(low - high, -1e-7)))


# Randomness of each example by itself.


def normal(keys, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers [B, *shape], from a key for each example [B]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _next(times: np.ndarray) -> np.ndarray:
    return np.append(times[1:], -1)


def _rows(values, like) -> jax.Array:
    """[B] -> [B, 1, ..., 1], for arrays of the rank of `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def _sum(values) -> jax.Array:
    return values.reshape(values.shape[0], -1).sum(axis=-1)
