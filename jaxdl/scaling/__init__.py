"""What models cost, and how their loss falls with it.

>>> from jaxdl.scaling import fit_parametric, fit_saturating, bootstrap  # loads JAX when one is called for

Importing this package alone imports neither JAX nor NumPy.
"""

import importlib

_EXPORTS = {
    "fit": "fits",
    "fit_parametric": "fits",
    "fit_kaplan": "fits",
    "fit_power": "fits",
    "fit_saturating": "fits",
    "variable_projection": "fits",
    "cross_validate": "fits",
    "bootstrap": "uncertainty",
    "leave_one_budget_out": "uncertainty",
    "unidentified": "uncertainty",
    "group_budgets": "isoflop",
    "fit_isoflop": "isoflop",
    "parabola_bias": "isoflop",
    "envelope": "isoflop",
    "compute_optimal": "predictions",
    "tokens_per_parameter": "predictions",
    "optimal_loss": "predictions",
    "cost": "predictions",
    "analyse": "report",
    "analyse_one_axis": "report",
}
"""Functions by the module of this package that has them."""

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
