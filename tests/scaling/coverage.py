"""How often the 95 % intervals of Chinchilla's law hold the true constants, on data made from known laws.

    python -m tests.scaling.coverage --draws=200

Each draw takes one of the laws, makes losses with Gaussian noise in log L on an IsoFLOP grid, fits them and makes a
bootstrap. The share of draws whose interval holds the truth, of each constant, should be about 95 %, and is accepted
between 90 and 99 %. Four minutes of a core.
"""

import argparse

import numpy as np

from jaxdl.scaling import fits, uncertainty
from jaxdl.scaling.laws import FLOPS_PER_TOKEN, LAWS, chinchilla

TRUTHS = (
    {"A": 482.0, "B": 2085.0, "E": 1.82, "alpha": 0.35, "beta": 0.37},
    {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
    {"A": 120.0, "B": 3000.0, "E": 1.2, "alpha": 0.28, "beta": 0.40},
)


def isoflop_grid(budgets: int = 9, sizes: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and tokens of runs at budgets from 6e18 to 3e21 FLOPs, sizes over 1.5 decades about D = 20 N."""
    flops = np.repeat(np.geomspace(6e18, 3e21, budgets), sizes)
    spread = np.tile(10 ** np.linspace(-0.75, 0.75, sizes), budgets)
    N = np.sqrt(flops / FLOPS_PER_TOKEN / 20) * spread
    return N, flops / FLOPS_PER_TOKEN / N


def held(truth: dict, seed: int, resamples: int, noise: float) -> dict[str, bool]:
    """Whether the interval of each constant holds the truth in one draw."""
    N, D = isoflop_grid()
    loss = chinchilla(N, D, **truth) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N)))
    law = LAWS["chinchilla"]
    fit = fits.fit(law, (N, D), loss, starts=law.theta_of(truth))
    intervals = uncertainty.bootstrap(fit, resamples, seed).intervals()
    return {name: intervals[name][0] <= truth[name] <= intervals[name][1] for name in truth}


def coverage(draws: int, resamples: int = 400, noise: float = 0.005) -> dict[str, float]:
    """The share of draws that hold each constant."""
    found = [held(TRUTHS[draw % len(TRUTHS)], draw, resamples, noise) for draw in range(draws)]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--noise", type=float, default=0.005, help="standard deviation of log L")
    options = parser.parse_args()
    for name, share in coverage(options.draws, options.resamples, options.noise).items():
        print(
            f"{name}: {share:.1%} of {options.draws} intervals hold the truth{'' if 0.9 <= share <= 0.99 else '  <--'}"
        )


if __name__ == "__main__":
    main()
