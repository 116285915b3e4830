"""The forms of scaling laws, as pure functions of their constants.

Kaplan et al. 2020, Scaling laws for neural language models (arXiv 2001.08361), equations 1.1, 1.2, 1.3 and 1.5;
Hoffmann et al. 2022, Training compute-optimal large language models (arXiv 2203.15556), equation 2.

N is the number of parameters, D the number of tokens, C = 6ND the training FLOPs, L the loss. A `Law` says its form
once more for the fit, in terms of theta, in which the constants that must be positive are logarithms: so the fit is
free of bounds, and sums of powers are log-sum-exps, which neither overflow nor lose digits.

>>> f"{chinchilla(70e9, 1.4e12, **PUBLISHED['hoffmann2022']):.3f}"
'1.937'
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np

FLOPS_PER_TOKEN = 6
"""Training FLOPs of a parameter and token: C = 6ND, Kaplan et al. 2020, section 2.1."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    # Hoffmann et al. 2022, equation 10 and appendix D.3, to the digits in their LaTeX source.
    "hoffmann2022": {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
    # Besiroglu et al. 2024, Chinchilla scaling: a replication attempt (arXiv 2404.10102), table 1.
    "besiroglu2024": {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658},
}
"""Constants of Chinchilla's law as they were published, by who published them."""


def chinchilla(N, D, *, A, B, E, alpha, beta):
    """L = E + A / N^alpha + B / D^beta. Hoffmann et al. 2022, equation 2. Arrays broadcast."""
    return E + A / N**alpha + B / D**beta


def kaplan_n(N, *, N_c, alpha_N):
    """L(N) = (N_c / N)^alpha_N, trained to convergence. Kaplan et al. 2020, equation 1.1."""
    return (N_c / N) ** alpha_N


def kaplan_d(D, *, D_c, alpha_D):
    """L(D) = (D_c / D)^alpha_D, of a model that is large enough. Kaplan et al. 2020, equation 1.2."""
    return (D_c / D) ** alpha_D


def kaplan_c(C, *, C_c, alpha_C):
    """L(C) = (C_c / C)^alpha_C, of the best model for the compute. Kaplan et al. 2020, equation 1.3."""
    return (C_c / C) ** alpha_C


def kaplan(N, D, *, N_c, D_c, alpha_N, alpha_D):
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D. Kaplan et al. 2020, equation 1.5."""
    return ((N_c / N) ** (alpha_N / alpha_D) + D_c / D) ** alpha_D


def power(x, *, x_c, alpha):
    """y = (x_c / x)^alpha: what falls to nothing."""
    return (x_c / x) ** alpha


def falling(x, *, A, E, alpha):
    """y = E + A / x^alpha: a loss or an error that falls to E."""
    return E + A / x**alpha


def rising(x, *, A, E, alpha):
    """y = E - A / x^alpha: an accuracy that rises to E."""
    return E - A / x**alpha


@dataclasses.dataclass(frozen=True)
class Law:
    """A form, as the fit needs it.

    Attributes:
      name: its name in `LAWS`.
      formula: for people.
      axes: names of its axes.
      constants: names of its constants, in the order of theta.
      logarithms: those of which theta holds the logarithm.
      function: the form itself: function(*axes, **constants).
      predict: predict(theta, *logarithms of the axes) in the units of the residuals: log y, or y itself.
      starts: starts(logarithms of the axes, y) -> theta, float [S, K], from which a fit begins.
      residuals: whether residuals are differences of log y ("log") or of y ("linear").
    """

    name: str
    formula: str
    axes: tuple[str, ...]
    constants: tuple[str, ...]
    logarithms: frozenset[str]
    function: Callable
    predict: Callable
    starts: Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
    residuals: Literal["log", "linear"] = "log"

    def constants_of(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The constants by name; theta is float [..., K]."""
        pairs = zip(self.constants, np.moveaxis(np.asarray(theta, np.float64), -1, 0))
        with np.errstate(over="ignore"):
            return {name: np.exp(value) if name in self.logarithms else value for name, value in pairs}

    def theta_of(self, constants: Mapping[str, float]) -> np.ndarray:
        """Theta, float [K], of the constants."""
        values = (np.asarray(constants[name], np.float64) for name in self.constants)
        logs = (np.log(value) if name in self.logarithms else value for name, value in zip(self.constants, values))
        return np.stack(list(logs), axis=-1)

    def target(self, values: np.ndarray) -> np.ndarray:
        """What `predict` should give: log y, or y."""
        return np.log(values) if self.residuals == "log" else np.asarray(values, np.float64)


def chinchilla_grid() -> np.ndarray:
    """The 4,500 starts of Hoffmann et al. 2022, appendix D.3: theta = (log A, log B, log E, alpha, beta)."""
    ten, five = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    return np.array(list(itertools.product(ten, ten, np.arange(-1, 1.1, 0.5), five, five)))


EXPONENTS = (0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5)
"""Exponents from which the other laws are begun; their other constants follow from the data."""


def _predict_chinchilla(theta, n, d):
    a, b, e, alpha, beta = theta
    return jnp.logaddexp(jnp.logaddexp(a - alpha * n, b - beta * d), e)


def _predict_kaplan(theta, n, d):
    n_c, d_c, alpha_n, alpha_d = theta
    return alpha_d * jnp.logaddexp(alpha_n / alpha_d * (n_c - n), d_c - d)


def _predict_power(theta, x):
    x_c, alpha = theta
    return alpha * (x_c - x)


def _predict_falling(theta, x):
    a, e, alpha = theta
    return jnp.logaddexp(a - alpha * x, e)


def _predict_rising(theta, x):
    a, e, alpha = theta
    return e - jnp.exp(a - alpha * x)


def _starts_power(axes, values) -> np.ndarray:
    """Each goes through the centre of the points."""
    centre, height = axes[0].mean(), np.log(values).mean()
    return np.array([(centre + height / alpha, alpha) for alpha in EXPONENTS])


def _starts_kaplan(axes, values) -> np.ndarray:
    """Each goes through the centre of the points, where both terms are equal."""
    height = np.log(values).mean()
    starts = []
    for alpha_n, alpha_d in itertools.product(EXPONENTS, EXPONENTS):
        level = height - alpha_d * np.log(2)
        starts.append((axes[0].mean() + level / alpha_n, axes[1].mean() + level / alpha_d, alpha_n, alpha_d))
    return np.array(starts)


def _saturating_lines(axes, values, sign: float) -> list[tuple[float, float, float]]:
    """(log A, E, alpha) for each exponent: the least-squares line through y over x^-alpha, and ones that level off.

    x^-alpha is measured by its largest value, so that no column underflows.
    """
    lines = []
    least, (low, high) = axes[0].min(), (values.min(), values.max())
    for alpha in EXPONENTS:
        power = np.exp(-alpha * (axes[0] - least))
        slope, level = np.polyfit(power, values, 1)
        height = max(sign * slope, 1e-3 * (high - low) or 1e-9)
        lines.append((np.log(height) + alpha * least, level, alpha))
    return lines


def _starts_falling(axes, values) -> np.ndarray:
    lines = _saturating_lines(axes, values, 1.0)
    lowest = values.min()
    return np.array(
        [(a, np.log(max(level, share * lowest)), alpha) for a, level, alpha in lines for share in (0.1, 0.9)]
    )


def _starts_rising(axes, values) -> np.ndarray:
    return np.array(_saturating_lines(axes, values, -1.0))


def _power_law(name: str, axis: str, exponent: str, function: Callable) -> Law:
    scale = f"{axis}_c"
    formula = f"{'y' if axis == 'x' else f'L({axis})'} = ({scale} / {axis})^{exponent}"
    names = (scale, exponent)
    return Law(name, formula, (axis,), names, frozenset({scale}), function, _predict_power, _starts_power)


LAWS: Mapping[str, Law] = {
    "chinchilla": Law(
        "chinchilla",
        "L(N, D) = E + A / N^alpha + B / D^beta",
        ("N", "D"),
        ("A", "B", "E", "alpha", "beta"),
        frozenset("ABE"),
        chinchilla,
        _predict_chinchilla,
        lambda axes, values: chinchilla_grid(),
    ),
    "kaplan": Law(
        "kaplan",
        "L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D",
        ("N", "D"),
        ("N_c", "D_c", "alpha_N", "alpha_D"),
        frozenset({"N_c", "D_c"}),
        kaplan,
        _predict_kaplan,
        _starts_kaplan,
    ),
    "kaplan_n": _power_law("kaplan_n", "N", "alpha_N", kaplan_n),
    "kaplan_d": _power_law("kaplan_d", "D", "alpha_D", kaplan_d),
    "kaplan_c": _power_law("kaplan_c", "C", "alpha_C", kaplan_c),
    "power": _power_law("power", "x", "alpha", power),
    "falling": Law(
        "falling",
        "y = E + A / x^alpha",
        ("x",),
        ("A", "E", "alpha"),
        frozenset("AE"),
        falling,
        _predict_falling,
        _starts_falling,
    ),
    "rising": Law(
        "rising",
        "y = E - A / x^alpha",
        ("x",),
        ("A", "E", "alpha"),
        frozenset("A"),
        rising,
        _predict_rising,
        _starts_rising,
        residuals="linear",
    ),
}
"""The laws by name."""
