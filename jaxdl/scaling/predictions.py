"""What Chinchilla's law predicts: the best size and data for a budget, the loss, and what a loss costs.

With C = 6ND the law has its least loss at (Hoffmann et al. 2022, arXiv 2203.15556, equation 4)

    N = G (C / 6)^a,  D = (C / 6)^b / G,    G = (alpha A / (beta B))^(1 / (alpha + beta)),
    a = beta / (alpha + beta),  b = alpha / (alpha + beta)

where both of its powers fall with the same exponent of C, so that it can be solved for C:

    L = E + K (C / 6)^-gamma,    gamma = alpha beta / (alpha + beta),    K = A / G^alpha + B G^beta

Constants may be arrays: those of each resample of a bootstrap. All results then are, too. Where the loss does not fall
with N or with D, alpha or beta being 0 or less, there is no compute-optimal run, and they are NaN.

>>> hoffmann = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
>>> N, D = compute_optimal(hoffmann, 5.76e23)
>>> f"{N / 1e9:.0f} billion parameters, {D / 1e9:.0f} billion tokens"
'32 billion parameters, 2982 billion tokens'
"""

from collections.abc import Mapping

import numpy as np

from jaxdl.scaling.laws import FLOPS_PER_TOKEN


def exponents(constants: Mapping) -> tuple:
    """(a, b) of N = G (C / 6)^a and D = (C / 6)^b / G; they add up to 1."""
    alpha, beta = _falling(constants)
    return beta / (alpha + beta), alpha / (alpha + beta)


def _falling(constants: Mapping) -> tuple:
    """(alpha, beta), NaN where one of them is not above 0."""
    alpha, beta = constants["alpha"], constants["beta"]
    return tuple(np.where(np.minimum(alpha, beta) > 0, value, np.nan)[()] for value in (alpha, beta))


def _log_g(constants: Mapping):
    alpha, beta = _falling(constants)
    return np.log(alpha * constants["A"] / (beta * constants["B"])) / (alpha + beta)


def compute_optimal(constants: Mapping, flops) -> tuple:
    """Parameters and tokens that have the least loss for a budget of training FLOPs."""
    a, b = exponents(constants)
    log_g, log_c = _log_g(constants), np.log(flops / FLOPS_PER_TOKEN)
    with np.errstate(over="ignore"):
        return np.exp(log_g + a * log_c), np.exp(b * log_c - log_g)


def tokens_per_parameter(constants: Mapping, flops):
    """D / N of the compute-optimal run."""
    N, D = compute_optimal(constants, flops)
    return D / N


def optimal_loss(constants: Mapping, flops):
    """The least loss for a budget of training FLOPs."""
    factor, gamma = _frontier(constants)
    return constants["E"] + factor * (flops / FLOPS_PER_TOKEN) ** -gamma


def cost(constants: Mapping, loss):
    """Training FLOPs of the cheapest run that reaches a loss; infinite for one that is not above E."""
    factor, gamma = _frontier(constants)
    above = np.asarray(loss - constants["E"], np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(above > 0, FLOPS_PER_TOKEN * (factor / np.maximum(above, 1e-300)) ** (1 / gamma), np.inf)[()]


def _frontier(constants: Mapping) -> tuple:
    """(K, gamma) of L = E + K (C / 6)^-gamma."""
    alpha, beta = _falling(constants)
    log_g = _log_g(constants)
    factor = constants["A"] * np.exp(-alpha * log_g) + constants["B"] * np.exp(beta * log_g)
    return factor, alpha * beta / (alpha + beta)
