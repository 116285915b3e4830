"""Everything that points say of a scaling law: a JSON file, a Markdown report with pictures, and lines for a terminal.

`analyse` computes, `write` writes: report.json, report.md and one PNG a figure. A fit that did not converge is said to
have not, and nothing is drawn or predicted from it.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.errors import InputError
from jaxdl.scaling import fits, isoflop, predictions, uncertainty
from jaxdl.scaling.fits import Fit
from jaxdl.scaling.isoflop import Curve, Frontier
from jaxdl.scaling.laws import FLOPS_PER_TOKEN, LAWS, PUBLISHED, chinchilla

TOLD = {"hoffmann2022": "Hoffmann et al. 2022", "besiroglu2024": "Besiroglu et al. 2024"}
"""What a published law is called for people."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How points are analysed.

    Attributes:
      kind: what of the residuals the law minimises: "huber" or "absolute".
      delta: of Huber's loss.
      resamples: of the bootstrap.
      seed: of everything that is drawn.
      budgets: FLOPs of the IsoFLOP budgets; those that have the most points by default.
      tolerance: by what share a point's FLOPs may differ from its budget's.
      predict_flops: budgets to predict; 1, 10 and 100 times the largest run by default.
      predict_parameters, predict_tokens: runs whose loss is predicted, as many of one as of the other.
      target_losses: losses whose cost is predicted.
      published: names in `laws.PUBLISHED`, to be shown beside.
    """

    kind: fits.Loss = "huber"
    delta: float = fits.DELTA
    resamples: int = uncertainty.RESAMPLES
    seed: int = 0
    budgets: tuple[float, ...] = ()
    tolerance: float = isoflop.TOLERANCE
    predict_flops: tuple[float, ...] = ()
    predict_parameters: tuple[float, ...] = ()
    predict_tokens: tuple[float, ...] = ()
    target_losses: tuple[float, ...] = ()
    published: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What was found: `data` for the JSON file, `text` in Markdown, and the figures by name."""

    data: Mapping[str, Any]
    text: str
    figures: Mapping[str, Any]

    @property
    def converged(self) -> bool:
        """Whether the law was found."""
        return self.data["law"]["converged"]


def write(analysis: Analysis, folder: str | os.PathLike) -> None:
    """Writes report.json, report.md and NAME.png of each figure into a folder.

    Raises:
      InputError: it cannot be written.
    """
    from jaxdl.plots import to_png

    folder = pathlib.Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(_plain(analysis.data), indent=1) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(analysis.text, encoding="utf-8")
        for name, figure in analysis.figures.items():
            (folder / f"{name}.png").write_bytes(to_png(figure))
    except OSError as error:
        raise InputError(f"--out={folder} cannot be written: {error.strerror}.") from None


def _plain(value):
    """JSON has neither NaN nor infinity: they are null."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


# A law of N and D.


def analyse(
    N, D, loss, options: Options = Options(), curves: Sequence[Curve] = (), notes: Sequence[str] = ()
) -> Analysis:
    """Chinchilla's law of the points, by its three approaches, and what follows from it.

    Args:
      N, D, loss: parameters, tokens and loss of each run, [P].
      options: how.
      curves: losses of the runs as they trained, for the envelope.
      notes: lines for the top of the report, such as which runs were left out.

    Raises:
      InputError: points that the law cannot be fitted to, a loss that rises with N or D, a published law that does not
        exist, or runs to predict of which a number is missing.
    """
    N, D, loss = (np.asarray(array, np.float64) for array in (N, D, loss))
    for name in options.published:
        if name not in PUBLISHED:
            raise InputError(f"there is no published law '{name}'. There are: {', '.join(PUBLISHED)}.")
    if len(options.predict_parameters) != len(options.predict_tokens):
        raise InputError("--predict_parameters and --predict_tokens are of the same runs: give as many of each.")
    law = fits.fit_parametric(N, D, loss, kind=options.kind, delta=options.delta)
    data: dict[str, Any] = {"notes": list(notes), "points": len(loss), "options": dataclasses.asdict(options)}
    data["law"] = _told_fit(law)
    lines = ["# Scaling law", "", *(f"- {note}" for note in notes), *[""] * bool(notes)]
    if not law.converged:
        lines += _not_converged(law)
        return Analysis(data, "\n".join(lines) + "\n", {})
    _check_falling(law)
    resamples = uncertainty.bootstrap(law, options.resamples, options.seed)
    data["law"] |= _told_bootstrap(resamples)
    data["warnings"] = uncertainty.unidentified(law, resamples)
    data["other_fits"] = _other_fits(law, options)
    budgets = isoflop.group_budgets(law_flops(law), options.budgets, options.tolerance)
    constants = law.constants
    parabolas, minima = isoflop.fit_isoflop(N, D, loss, budgets, constants, seed=options.seed)
    data["isoflop"] = [dataclasses.asdict(curve) | {"known": curve.known} for curve in parabolas]
    data["isoflop_frontier"] = minima and dataclasses.asdict(minima)
    found, why = _envelope(curves)
    data["envelope_frontier"] = found and dataclasses.asdict(found)
    data["held_out_budgets"] = [
        dataclasses.asdict(held) for held in uncertainty.leave_one_budget_out(law, budgets, law_flops(law))
    ]
    data["comparison"] = _compare(law, options)
    data["frontier_laws"] = _frontier_laws(minima or found, options)
    data["predictions"] = _predictions(law, resamples, options)
    lines += _law_lines(data, law)
    lines += _frontier_lines(data, law, resamples, why)
    figures = _figures(law, resamples, parabolas, minima, found, curves, options, data)
    lines += _picture_lines(figures)
    return Analysis(data, "\n".join(lines) + "\n", figures)


def law_flops(law: Fit) -> np.ndarray:
    """C = 6ND of the points of a law of N and D."""
    return FLOPS_PER_TOKEN * law.axes["N"] * law.axes["D"]


def _check_falling(law: Fit) -> None:
    """A law with an exponent below 0 has no compute-optimal run: where its derivatives agree, the loss is greatest."""
    for name, axis in (("alpha", "parameters"), ("beta", "tokens")):
        if law.constants[name] <= 0:
            raise InputError(
                f"the loss does not fall with the {axis} ({name} is {law.constants[name]:.3g}), and no run is "
                "compute-optimal; a metric that rises is fitted against one axis, with --axis."
            )


def _told_fit(law: Fit) -> dict[str, Any]:
    return {
        "form": law.law.formula,
        "constants": law.constants,
        "minimised": _minimised(law),
        "objective": law.objective,
        "converged": law.converged,
        "starts": law.starts,
        "share_of_starts_that_reach_it": law.reached,
        "seconds": round(law.seconds, 2),
    }


def _minimised(law: Fit) -> str:
    of = "log y" if law.law.residuals == "log" else "y"
    if law.loss == "absolute":
        return f"sum of absolute residuals of {of}"
    return f"sum of Huber's losses (delta {law.delta:g}) of the residuals of {of}"


def _told_bootstrap(resamples: uncertainty.Bootstrap) -> dict[str, Any]:
    return {
        "standard_errors": resamples.standard_errors(),
        "intervals": resamples.intervals(),
        "level": resamples.level,
        "resamples": len(resamples.theta),
        "resamples_without_minimum": resamples.failed,
    }


def _other_fits(law: Fit, options: Options) -> list[dict[str, Any]]:
    """The same law found otherwise, and published ones, with both objectives on these points."""
    other = "absolute" if law.loss == "huber" else "huber"
    twin = fits.fit_parametric(*law.axes.values(), law.values, kind=other, delta=options.delta)
    huber, absolute = (law, twin) if law.loss == "huber" else (twin, law)
    projected = fits.variable_projection(*law.axes.values(), law.values, delta=options.delta)
    rows = [
        ("least Huber loss, from the starts", huber.constants, huber.converged),
        ("least Huber loss, by variable projection", projected.constants, projected.converged),
        ("least absolute error", absolute.constants, absolute.converged),
    ]
    rows += [(f"published: {TOLD[name]}", PUBLISHED[name], None) for name in options.published]
    return [
        {
            "name": name,
            "constants": dict(constants),
            "converged": converged,
            "huber": huber.objective_of(constants),
            "absolute": absolute.objective_of(constants),
        }
        for name, constants, converged in rows
    ]


def _envelope(curves: Sequence[Curve]) -> tuple[Frontier | None, str]:
    if not curves:
        return None, "there are no training curves"
    try:
        return isoflop.envelope(curves), ""
    except InputError as error:
        return None, str(error).rstrip(".")


def _compare(law: Fit, options: Options) -> dict[str, float]:
    """Cross-validated errors of forms of N and D."""
    rivals = {"chinchilla": law, "kaplan": fits.fit_kaplan(*law.axes.values(), law.values, delta=options.delta)}
    rivals = {name: rival for name, rival in rivals.items() if rival.converged}
    return fits.cross_validate(rivals, seed=options.seed)


def _frontier_laws(frontier: Frontier | None, options: Options) -> list[dict[str, Any]]:
    """L(C) of the compute-optimal runs: Kaplan's power law, and one that saturates, where there are points enough."""
    if frontier is None or len(frontier.flops) < 5:
        return []
    found = (
        fits.fit_power("C", frontier.flops, frontier.loss, delta=options.delta),
        fits.fit(LAWS["falling"], (frontier.flops,), frontier.loss, delta=options.delta),
    )
    return [_told_fit(law) for law in found if law.converged]


def _predictions(law: Fit, resamples: uncertainty.Bootstrap, options: Options) -> dict[str, list]:
    largest = float(law_flops(law).max())
    told = {"budgets": [], "runs": [], "target_losses": []}
    for flops in options.predict_flops or (largest, 10 * largest, 100 * largest):
        numbers = {
            "parameters": lambda constants, flops=flops: predictions.compute_optimal(constants, flops)[0],
            "tokens": lambda constants, flops=flops: predictions.compute_optimal(constants, flops)[1],
            "tokens_per_parameter": lambda constants, flops=flops: predictions.tokens_per_parameter(constants, flops),
            "loss": lambda constants, flops=flops: predictions.optimal_loss(constants, flops),
        }
        row = {name: (float(number(law.constants)), *resamples.interval(number)) for name, number in numbers.items()}
        told["budgets"].append({"flops": flops, "times_the_largest_run": flops / largest, **row})
    for N, D in zip(options.predict_parameters, options.predict_tokens):
        number = lambda constants, N=N, D=D: chinchilla(N, D, **constants)
        loss = (float(number(law.constants)), *resamples.interval(number))
        told["runs"].append({"parameters": N, "tokens": D, "flops": FLOPS_PER_TOKEN * N * D, "loss": loss})
    for target in options.target_losses:
        number = lambda constants, target=target: predictions.cost(constants, target)
        flops = float(number(law.constants))
        told["target_losses"].append({"loss": target, "flops": (flops, *resamples.interval(number))})
    return told


def _figures(law, resamples, parabolas, minima, found, curves, options, data) -> dict[str, Any]:
    from jaxdl.scaling import figures

    published = {TOLD[name]: PUBLISHED[name] for name in options.published}
    until = max(row["flops"] for row in data["predictions"]["budgets"])
    drawn = {"frontier": figures.frontier(law, resamples, until, minima, found, published)}
    if parabolas:
        drawn["isoflop"] = figures.isoflop(law.axes["N"], law.values, parabolas)
    if found is not None:
        drawn["envelope"] = figures.envelope(curves, found)
    drawn["contours"] = figures.contours(law)
    drawn["residuals"] = figures.residuals(law)
    drawn["bootstrap"] = figures.bootstrap_clouds(law, resamples, published)
    return drawn


# A law of one axis.


def analyse_one_axis(
    x, y, options: Options = Options(), axis: str = "x", metric: str = "loss", notes: Sequence[str] = ()
) -> Analysis:
    """A saturating power law of any metric against any axis, beside a plain power law where the metric falls.

    Where the metric falls to nothing, so that the first has no minimum, the second is taken for it, and this is noted.

    Args:
      x, y: the points, [P].
      options: how; what is about N and D does not count.
      axis, metric: names, for the report.
      notes: lines for the top of the report.

    Raises:
      InputError: points that the law cannot be fitted to.
    """
    law, notes = fits.fit_saturating(x, y, kind=options.kind, delta=options.delta), list(notes)
    rivals = {law.law.name: law}
    if law.law.name == "falling":
        power = fits.fit_power("x", x, y, kind=options.kind, delta=options.delta)
        rivals |= {"power": power} if power.converged else {}
        if power.converged and not law.converged:
            notes.append(f"{law.law.formula} has no minimum with E above zero: {power.law.formula} is taken for it")
            law, rivals = power, {"power": power}
    data: dict[str, Any] = {"notes": notes, "points": len(law.values), "options": dataclasses.asdict(options)}
    data |= {"axis": axis, "metric": metric, "law": _told_fit(law)}
    lines = [f"# {metric} against {axis}", "", *(f"- {note}" for note in notes), *[""] * bool(notes)]
    if not law.converged:
        return Analysis(data, "\n".join([*lines, *_not_converged(law)]) + "\n", {})
    resamples = uncertainty.bootstrap(law, options.resamples, options.seed)
    data["law"] |= _told_bootstrap(resamples)
    data["warnings"] = uncertainty.unidentified(law, resamples)
    data["comparison"] = fits.cross_validate(rivals, seed=options.seed)
    lines += [*_constants_table(data), "", *_warning_lines(data), *_comparison_lines(data, rivals)]
    from jaxdl.scaling import figures

    drawn = {"law": figures.one_axis(law, resamples, axis, metric), "residuals": figures.residuals(law)}
    drawn["bootstrap"] = figures.bootstrap_clouds(law, resamples)
    return Analysis(data, "\n".join([*lines, *_picture_lines(drawn)]) + "\n", drawn)


# Markdown.


def _not_converged(law: Fit) -> list[str]:
    return [
        f"**The fit of {law.law.formula} did not converge**: the best of its {law.starts:,} starts ends at no minimum. "
        "No constants are given, and nothing is drawn or predicted from it."
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines of a Markdown table."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return [lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]]


def _constants_table(data: Mapping) -> list[str]:
    law = data["law"]
    rows = []
    for name, value in law["constants"].items():
        low, high = law["intervals"][name]
        rows.append((name, f"{value:.6g}", f"{law['standard_errors'][name]:.4g}", f"{low:.4g} to {high:.4g}"))
    return [
        f"{law['form']}, fitted to {data['points']} points.",
        f"Minimum of the {law['minimised']}: {law['objective']:#.8g}.",
        f"{law['share_of_starts_that_reach_it']:.1%} of {law['starts']:,} starts reach it ({law['seconds']:.0f} s).",
        "",
        *markdown_table(("constant", "value", "standard error", "95 % interval"), rows),
        "",
        f"Intervals are percentiles of {law['resamples']:,} resamples of the points.",
    ]


def _warning_lines(data: Mapping) -> list[str]:
    return [*(f"**Not identified:** {line}" for line in data["warnings"]), *[""] * bool(data["warnings"])]


def _comparison_lines(data: Mapping, forms: Mapping[str, Any]) -> list[str]:
    if len(data["comparison"]) < 2:
        return []
    ranked = sorted(data["comparison"].items(), key=lambda pair: np.nan_to_num(pair[1], nan=np.inf))
    rows = [(LAWS[name].formula, _number(error, ".3%")) for name, error in ranked]
    title = "Error on points that the fit had not seen (mean absolute residual of log loss, ten folds):"
    return [title, "", *markdown_table(("form", "error"), rows), ""]


def _number(number: float, form: str) -> str:
    return "none" if math.isnan(number) else format(number, form)


def _law_lines(data: Mapping, law: Fit) -> list[str]:
    lines = ["## The law", "", *_constants_table(data), "", *_warning_lines(data)]
    lines += ["## Which minimum is which", ""]
    lines += [
        "The same form, found in several ways; both objectives on the same points, each least where it is minimised."
    ]
    rows = []
    for row in data["other_fits"]:
        constants = [f"{row['constants'][name]:.6g}" for name in law.law.constants]
        name = row["name"] + ("" if row["converged"] in (True, None) else " (did not converge)")
        rows.append((name, *constants, f"{row['huber']:#.8g}", f"{row['absolute']:#.6g}"))
    lines += ["", *markdown_table(("", *law.law.constants, "Huber, summed", "absolute, summed"), rows), ""]
    lines += [*_nearest_lines(data["other_fits"], law), "## Other forms", ""]
    return [*lines, *_comparison_lines(data, LAWS)]


def _nearest_lines(rows: Sequence[Mapping], law: Fit) -> list[str]:
    """For each published law, which of the minima it is nearest to in its constants."""
    minima = {row["name"]: law.law.theta_of(row["constants"]) for row in rows if row["converged"]}
    best = {kind: min(row[kind] for row in rows) for kind in ("huber", "absolute")}
    lines = []
    for row in rows:
        if row["converged"] is not None:
            continue
        theta = law.law.theta_of(row["constants"])
        name = min(minima, key=lambda name: np.abs(minima[name] - theta).max())
        distance = np.abs(minima[name] - theta).max()
        told = f"nearly the minimum of the {name}" if distance < 0.01 else "far from each of these minima"
        worse = (f"{row[kind] / best[kind] - 1:.2%} above the least {kind}" for kind in best)
        lines += [f"- {row['name'].removeprefix('published: ')} is {told}: its objective is {' and '.join(worse)} one."]
    return [*lines, *[""] * bool(lines)]


def _frontier_lines(data: Mapping, law: Fit, resamples: uncertainty.Bootstrap, no_envelope: str) -> list[str]:
    a, _ = predictions.exponents(law.constants)
    low, high = resamples.interval(lambda constants: predictions.exponents(constants)[0])
    rows = [("3, the law", f"{a:.3f}", f"{low:.3f} to {high:.3f}", f"{1 - a:.3f}")]
    minima, found = data["isoflop_frontier"], data["envelope_frontier"]
    if minima:
        interval = "-" if minima["a_interval"] is None else "{:.3f} to {:.3f}".format(*minima["a_interval"])
        rows.append(("2, IsoFLOP minima", f"{minima['a']:.3f}", interval, f"{minima['b']:.3f}"))
    if found:
        rows.append(("1, envelope of training curves", f"{found['a']:.3f}", "-", f"{found['b']:.3f}"))
    header = ("approach", "exponent of N", "95 % interval", "exponent of D")
    lines = ["## Compute-optimal size and data", "", *markdown_table(header, rows), ""]
    if no_envelope:
        lines += [f"No envelope: {no_envelope}.", ""]
    lines += [*_isoflop_lines(data), *_prediction_lines(data["predictions"])]
    if data["held_out_budgets"]:
        rows = [
            (f"{held['flops']:.3g}", str(held["points"]), _number(held["error"], ".2%"), _number(held["bias"], "+.2%"))
            for held in data["held_out_budgets"]
        ]
        told = "The error on each budget of the fit to all other points; none where that has no minimum."
        lines += ["## Budgets left out", "", told, ""]
        lines += [*markdown_table(("FLOPs", "points", "mean absolute error", "mean error"), rows), ""]
    return lines


def _isoflop_lines(data: Mapping) -> list[str]:
    if not data["isoflop"]:
        return ["No IsoFLOP parabolas: no budget has points enough. `--budgets` names them.", ""]
    rows = []
    for curve in data["isoflop"]:
        interval = "-" if math.isnan(curve["N_interval"][0]) else "{:.3g} to {:.3g}".format(*curve["N_interval"])
        minimum = _number(curve["N"], ".3g") if curve["known"] else f"({_number(curve['N'], '.3g')})"
        shape = (f"{curve['width']:.2f}", _number(curve["offset"], "+.2f"), _number(curve["bias"] - 1, "+.1%"))
        rows.append((f"{curve['flops']:.3g}", str(len(curve["points"])), minimum, interval, *shape))
    header = ("FLOPs", "points", "N of the minimum", "95 % interval", "width", "offset", "bias of N")
    lines = [
        "Parabolas (in brackets: not within the sizes, or not determined by the points; left out of the line):",
        "",
    ]
    lines += [*markdown_table(header, rows), ""]
    lines += [
        "Width: decades of N; offset: decades from the middle of the sizes to the minimum. Bias: what the parabola "
        "alone, on these sizes and without noise, makes of the N of the fitted law (arXiv 2603.22339)."
    ]
    if data["isoflop_frontier"]:
        lines[-1] += f" The exponent of N is biased by {data['isoflop_frontier']['a_bias']:+.4f} in this way."
    for law in data["frontier_laws"]:
        told = ", ".join(f"{name} {value:.4g}" for name, value in law["constants"].items())
        lines += [
            "",
            f"The loss at the minima over the FLOPs: {law['form'].replace('x', 'C').replace('y', 'L(C)')} with {told}.",
        ]
    return [*lines, ""]


def _prediction_lines(found: Mapping) -> list[str]:
    of = lambda triple: f"{triple[0]:.4g} ({triple[1]:.3g} to {triple[2]:.3g})"
    names = ("parameters", "tokens", "tokens_per_parameter", "loss")
    rows = [
        (f"{row['flops']:.3g} ({row['times_the_largest_run']:.3g} x)", *(of(row[name]) for name in names))
        for row in found["budgets"]
    ]
    header = ("FLOPs (x the largest run)", "parameters", "tokens", "tokens a parameter", "loss")
    lines = [
        "## Predictions",
        "",
        "Of compute-optimal runs, with 95 % intervals.",
        "",
        *markdown_table(header, rows),
        "",
    ]
    if found["runs"]:
        names = ("parameters", "tokens", "flops")
        rows = [(*(f"{row[name]:.4g}" for name in names), of(row["loss"])) for row in found["runs"]]
        lines += ["Of other runs:", "", *markdown_table(("parameters", "tokens", "FLOPs", "loss"), rows), ""]
    if found["target_losses"]:
        rows = [(f"{row['loss']:g}", of(row["flops"])) for row in found["target_losses"]]
        lines += [*markdown_table(("target loss", "FLOPs that it costs"), rows), ""]
    return lines


CAPTIONS = {
    "frontier": "Compute-optimal parameters, tokens and loss over the budget.",
    "isoflop": "IsoFLOP curves: loss over parameters for each budget, and the minima.",
    "envelope": "Training curves and their envelope.",
    "contours": "Lines of equal predicted loss, and the runs.",
    "residuals": "Residuals of the law.",
    "bootstrap": "Constants of the resamples.",
    "law": "The law and its points.",
}


def _picture_lines(figures: Mapping) -> list[str]:
    lines = ["## Pictures", ""]
    for name in figures:
        lines += [f"![{CAPTIONS[name]}]({name}.png)", "", CAPTIONS[name], ""]
    return lines[:-1]
