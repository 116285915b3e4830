"""Figures of scaling laws: pure functions from points and fits to Matplotlib figures, as a paper would print them.

Colours are Okabe and Ito's (`jaxdl.plots.PALETTE`); what is ordered (budgets, losses) has the colours of viridis.
Intervals are of 95 %. A line is full where there are runs, and dashed where it goes beyond them.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import cm, colormaps, colors, ticker
from matplotlib.figure import Figure

from jaxdl.plots import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION, style
from jaxdl.scaling import predictions
from jaxdl.scaling.fits import Fit
from jaxdl.scaling.isoflop import Curve, Frontier, IsoFlop
from jaxdl.scaling.laws import FLOPS_PER_TOKEN
from jaxdl.scaling.uncertainty import Bootstrap

PARAMETERS, TOKENS, FLOPS = "parameters N", "training tokens D", "training FLOPs C"
PUBLISHED_COLORS = (PURPLE, GREEN)
SMALL = {"frameon": False, "fontsize": 8}
MOST_TICKS = 10


def isoflop(N: np.ndarray, loss: np.ndarray, curves: Sequence[IsoFlop]) -> Figure:
    """Loss over N for each budget, with its parabola and the minimum, and the interval of the minimum.

    Args:
      N, loss: of all points, [P].
      curves: the parabolas.
    """
    figure = Figure(figsize=(6.6, 4.4), layout="constrained")
    axes = figure.subplots()
    shades = _shades([curve.flops for curve in curves])
    for curve in curves:
        color, sizes = shades.to_rgba(curve.flops), N[curve.points]
        axes.scatter(sizes, loss[curve.points], s=16, color=color, linewidths=0, alpha=0.9)
        grid = np.geomspace(sizes.min() / 1.1, sizes.max() * 1.1, 100)
        axes.plot(grid, np.polyval(curve.coefficients, np.log10(grid)), color=color, linewidth=1.3)
    known = [curve for curve in curves if curve.known]
    unknown = [curve for curve in curves if curve.inside and not curve.known]
    if known:
        minima = np.array([(curve.N, curve.loss) for curve in known]).T
        ends = np.array([curve.N_interval for curve in known]).T
        width = np.abs(ends - minima[0])
        look = {"capsize": 2, "linewidth": 0, "elinewidth": 1, "color": VERMILION, "zorder": 4}
        label = "minimum, with its 95 % interval"
        axes.errorbar(*minima, xerr=width, marker="D", markersize=4.5, markeredgecolor="white", label=label, **look)
    if unknown:
        minima = np.array([(curve.N, curve.loss) for curve in unknown]).T
        look = {"s": 22, "marker": "D", "facecolors": "white", "edgecolors": VERMILION, "zorder": 4}
        axes.scatter(*minima, label="minimum that the points do not determine", **look)
    if known or unknown:
        axes.legend(**SMALL)
    axes.set_xscale("log")
    axes.set_xlim(N.min() / 1.6, N.max() * 1.6)
    left_out = sum(not curve.inside for curve in curves)
    told = f"; {left_out} without a minimum within its sizes" if left_out else ""
    style(axes, PARAMETERS, "loss", f"{len(curves)} budgets{told}")
    bar = _bar(figure, axes, shades, FLOPS)
    if len(curves) <= MOST_TICKS:
        bar.set_ticks([curve.flops for curve in curves], labels=[_scientific(curve.flops) for curve in curves])
    return figure


def frontier(
    fit: Fit,
    resamples: Bootstrap,
    until: float,
    minima: Frontier | None = None,
    envelope: Frontier | None = None,
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Compute-optimal N, D and loss over the budget, with intervals, as far as `until`.

    Args:
      fit: Chinchilla's law.
      resamples: its bootstrap.
      until: FLOPs up to which the lines go.
      minima: of the IsoFLOP parabolas.
      envelope: of training curves.
      published: other constants of the law, by the name in the legend.
    """
    flops = FLOPS_PER_TOKEN * fit.axes["N"] * fit.axes["D"]
    grid = np.geomspace(flops.min(), max(until, flops.max()), 200)
    figure = Figure(figsize=(11.4, 4.3), layout="constrained")
    panels = figure.subplots(1, 3)
    of = lambda constants: (*predictions.compute_optimal(constants, grid), predictions.optimal_loss(constants, grid))
    columns = {name: values[:, None] for name, values in resamples.constants.items()}
    bands = [np.nanquantile(values, [0.025, 0.975], axis=0) for values in of(columns)]
    measured = (fit.axes["N"], fit.axes["D"], fit.values)
    for panel, line, band, points, name in zip(panels, of(fit.constants), bands, measured, ("N", "D", "loss")):
        panel.scatter(flops, points, s=9, color=GRAY, alpha=0.35, linewidths=0, label="runs")
        panel.fill_between(grid, *band, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
        _solid_then_dashed(panel, grid, line, flops.max(), BLUE, "this fit (dashed: extrapolated)")
        for (told, constants), color in zip((published or {}).items(), PUBLISHED_COLORS):
            other = of(constants)[("N", "D", "loss").index(name)]
            panel.plot(grid, other, color=color, linewidth=3, alpha=0.55, zorder=1.5, label=told)
        for found, marker, color, told in (
            (envelope, "o", ORANGE, "envelope of training curves"),
            (minima, "D", VERMILION, "IsoFLOP minima"),
        ):
            if found is not None:
                values = getattr(found, name)
                panel.scatter(found.flops, values, s=20, marker=marker, color=color, zorder=4, label=told,
                              edgecolors="white", linewidths=0.5)  # fmt: skip
        panel.set_xscale("log")
        panel.set_yscale("log")
    a, b = predictions.exponents(fit.constants)
    style(panels[0], FLOPS, "compute-optimal parameters N", f"N = {_power(a)}")
    style(panels[1], FLOPS, "compute-optimal tokens D", f"D = {_power(b)}")
    style(panels[2], FLOPS, "loss", f"irreducible loss E = {fit.constants['E']:.4g}")
    _plain_log(panels[2])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), **SMALL)
    return figure


def _power(exponent: float) -> str:
    return f"const · $C^{{{exponent:.3f}}}$"


def _solid_then_dashed(panel, grid, line, end: float, color, label: str) -> None:
    panel.plot(grid[grid <= end], line[grid <= end], color=color, linewidth=1.6, label=label)
    panel.plot(grid[grid >= end], line[grid >= end], color=color, linewidth=1.6, linestyle=(0, (4, 1.5)))


def contours(fit: Fit) -> Figure:
    """Lines of equal predicted loss over N and D, the runs coloured by what was measured, and the frontier."""
    N, D, loss = fit.axes["N"], fit.axes["D"], fit.values
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    sizes, tokens = (np.geomspace(axis.min() / 1.7, axis.max() * 1.7, 160) for axis in (N, D))
    predicted = fit.predict(sizes[None, :], tokens[:, None])
    levels = np.unique(np.round(_evenly_below(fit.constants["E"], loss.min(), loss.max()), 2))
    shades = cm.ScalarMappable(colors.LogNorm(loss.min(), loss.max()), colormaps["viridis_r"])
    lines = axes.contour(sizes, tokens, predicted, levels=levels, colors=GRAY, linewidths=0.8)
    axes.clabel(lines, fontsize=7, fmt="%.2f", inline_spacing=2)
    axes.scatter(N, D, c=loss, norm=shades.norm, cmap=shades.cmap, s=20, edgecolors="white", linewidths=0.4, zorder=3)
    flops = FLOPS_PER_TOKEN * N * D
    best = predictions.compute_optimal(fit.constants, np.geomspace(flops.min() / 30, flops.max() * 30, 200))
    axes.plot(*best, color=BLUE, linewidth=1.6, label="compute-optimal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(sizes[0], sizes[-1])
    axes.set_ylim(tokens[0], tokens[-1])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, **SMALL)
    style(axes, PARAMETERS, TOKENS, "lines: predicted loss; points: runs")
    bar = _bar(figure, axes, shades, "measured loss")
    low, high = shades.get_clim()
    marks = [mark for mark in ticker.MaxNLocator(6).tick_values(low, high) if low <= mark <= high]
    bar.set_ticks(marks, labels=[f"{mark:g}" for mark in marks])
    return figure


def _evenly_below(floor: float, low: float, high: float) -> np.ndarray:
    """Losses whose distance to the floor rises by a constant factor, so that the lines lie evenly."""
    start = max(low - floor, 1e-3 * low) / 1.6
    return floor + np.geomspace(start, high - floor, 12)


def residuals(fit: Fit) -> Figure:
    """Measured over predicted loss, in percent, against each axis; and against C = 6ND for a law of N and D.

    The line is the mean of the points of each value, or of tenths of them: where it leaves zero, the form is wrong.
    """
    columns = dict(fit.axes)
    if {"N", "D"} <= set(columns):
        columns["C"] = FLOPS_PER_TOKEN * columns["N"] * columns["D"]
    log = fit.law.residuals == "log"
    values = 100 * np.expm1(fit.residuals) if log else fit.residuals
    figure = Figure(figsize=(3.6 * len(columns) + 0.3, 3.3), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for panel, (name, column) in zip(panels, columns.items()):
        panel.scatter(column, values, s=12, color=BLUE, alpha=0.55, linewidths=0, label="runs")
        panel.axhline(0, color=BLACK, linewidth=0.8)
        if len(column) >= 30:
            parts = _neighbors(column, most=10)
            means = np.array([(np.exp(np.log(column[part]).mean()), values[part].mean()) for part in parts]).T
            panel.plot(*means, color=VERMILION, marker="o", markersize=3.5, linewidth=1.3, label="mean of neighbours")
        panel.set_xscale("log")
        _few_ticks(panel)
        style(panel, {"N": PARAMETERS, "D": TOKENS, "C": FLOPS}.get(name, name), "")
    panels[0].set_ylabel("measured over predicted loss − 1 (%)" if log else "measured − predicted", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, **SMALL)
    return figure


def bootstrap_clouds(
    fit: Fit, resamples: Bootstrap, published: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Pairs of constants over the resamples of the points: how they go together, and how far they are known.

    Args:
      fit: the law.
      resamples: its bootstrap.
      published: other constants of the law, by the name in the legend.
    """
    names = fit.law.constants
    pairs = [("alpha", "beta"), ("A", "alpha"), ("B", "beta"), ("alpha", "E")]
    pairs = pairs if {"A", "B"} <= set(names) else [(x, y) for i, x in enumerate(names) for y in names[i + 1 :]][:4]
    rows = (len(pairs) + 1) // 2
    figure = Figure(figsize=(7.4, 3.2 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).flat
    hollow = {"facecolors": "none", "linewidths": 1.8}
    alpha = float(np.clip(300 / max(len(resamples.theta), 1), 0.08, 0.6))
    for (x, y), panel in zip(pairs, panels):
        look = {"s": 7, "color": SKY, "alpha": alpha, "linewidths": 0, "rasterized": True}
        panel.scatter(resamples.constants[x], resamples.constants[y], **look)
        panel.scatter(fit.constants[x], fit.constants[y], s=45, marker="P", color=BLUE, edgecolors="white", zorder=4)
        for constants, color, marker in zip((published or {}).values(), PUBLISHED_COLORS, "so"):
            panel.scatter(constants[x], constants[y], s=70, marker=marker, edgecolors=color, zorder=3, **hollow)
        for name, scale in ((x, panel.set_xscale), (y, panel.set_yscale)):
            cloud = resamples.constants[name]
            if name in fit.law.logarithms - {"E"} and cloud.max() > 2 * cloud.min():
                scale("log")
                _few_marks(panel.xaxis if name == x else panel.yaxis)
        style(panel, _symbol(x), _symbol(y))
    for unused in panels:
        unused.remove()
    legend = figure.axes[0]
    legend.scatter([], [], s=14, color=SKY, label=f"{len(resamples.theta):,} resamples")
    legend.scatter([], [], s=45, marker="P", color=BLUE, label="this fit")
    for told, color, marker in zip(published or {}, PUBLISHED_COLORS, "so"):
        legend.scatter([], [], s=70, marker=marker, edgecolors=color, label=told, **hollow)
    figure.legend(*legend.get_legend_handles_labels(), loc="outside lower center", ncols=4, **SMALL)
    return figure


def _few_marks(axis) -> None:
    """Plain numbers on a logarithmic axis that spans less than two decades."""
    low, high = axis.get_view_interval()
    if 0 < high < 100 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5) if high < 20 * low else (1, 3)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}" if high < 1e5 else "{x:.0e}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def _mathematics(formula: str) -> str:
    """`y = E + A / x^alpha` as mathematics."""
    powers = re.sub(r"\^(\w+)", r"^{\1}", formula)
    greek = re.sub("(alpha|beta)", r"\\\1", powers)
    return f"${greek}$"


def _symbol(name: str) -> str:
    """`alpha_N` as mathematics."""
    head, _, tail = name.partition("_")
    head = f"\\{head}" if head in ("alpha", "beta") else head
    return f"${head}_{{{tail}}}$" if tail else f"${head}$"


def one_axis(fit: Fit, resamples: Bootstrap, axis: str, metric: str) -> Figure:
    """The points of a law of one axis, the law, and what it saturates at.

    Args:
      fit: the law.
      resamples: its bootstrap.
      axis, metric: names for the labels.
    """
    (x,), y = fit.axes.values(), fit.values
    grid = np.geomspace(x.min(), x.max() * 10, 200)
    columns = {name: values[:, None] for name, values in resamples.constants.items()}
    band = np.quantile(fit.law.function(grid, **columns), [0.025, 0.975], axis=0)
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(grid, *band, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    _solid_then_dashed(axes, grid, fit.predict(grid), x.max(), BLUE, "fit (dashed: extrapolated)")
    axes.scatter(x, y, s=18, color=BLACK, alpha=0.7, linewidths=0, zorder=3, label="runs")
    if "E" in fit.constants:
        low, high = resamples.intervals()["E"]
        axes.axhline(fit.constants["E"], color=VERMILION, linewidth=1, linestyle=(0, (1, 1.2)),
                     label=f"saturates at {fit.constants['E']:.4g} ({low:.4g} to {high:.4g})")  # fmt: skip
    axes.set_xscale("log")
    if fit.law.residuals == "log" and y.max() > 2 * y.min():
        axes.set_yscale("log")
        _plain_log(axes)
    axes.legend(**SMALL)
    style(axes, axis.replace("_", " "), metric.replace("_", " "), _mathematics(fit.law.formula))
    return figure


def envelope(curves: Sequence[Curve], found: Frontier) -> Figure:
    """The loss of each run as it trained, over its FLOPs, and the least of all."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    shades = _shades([curve.N for curve in curves])
    for curve in curves:
        axes.plot(FLOPS_PER_TOKEN * curve.N * curve.D, curve.loss, color=shades.to_rgba(curve.N), linewidth=1.1)
    axes.scatter(found.flops, found.loss, s=7, color=VERMILION, zorder=3, linewidths=0, label="envelope")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_log(axes)
    axes.legend(**SMALL)
    style(axes, FLOPS, "loss", f"{len(curves)} runs; N = {_power(found.a)}")
    _bar(figure, axes, shades, PARAMETERS)
    return figure


def _shades(values: Sequence[float]) -> cm.ScalarMappable:
    low, high = min(values), max(values)
    return cm.ScalarMappable(colors.LogNorm(low, high if high > low else 2 * low), colormaps["viridis_r"])


def _bar(figure, axes, shades, label: str):
    bar = figure.colorbar(shades, ax=axes, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.ax.minorticks_off()
    return bar


def _scientific(number: float) -> str:
    mantissa, exponent = f"{number:.1e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g}\cdot"
    return rf"${factor}10^{{{int(exponent)}}}$"


def _neighbors(column: np.ndarray, most: int) -> list[np.ndarray]:
    """The indices of values that differ by less than 2 %, in order; of more than `most` such groups equal parts."""
    order = np.argsort(column, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.log(column[order])) > 0.02) + 1)
    return groups if len(groups) <= most else np.array_split(order, most)


def _few_ticks(axes) -> None:
    """On a logarithmic axis of hardly more than a decade 1, 2 and 5 are told, and on a longer one powers of ten."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axes.xaxis.set_major_formatter(lambda number, _: _scientific(number))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _plain_log(axes) -> None:
    """Plain numbers, and enough of them, on a logarithmic axis of losses."""
    low, high = axes.get_ylim()
    subs = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high < 10 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
