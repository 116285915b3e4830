"""The figures of a sweep: pure functions from rows to Matplotlib figures, for two axes or ten, 8 trials or 1,000."""

import collections
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, colors, ticker
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxdl.plots import BLACK, BLUE, DASHES, GRAY, PALETTE, SKY, VERMILION, common_steps, style, to_png, with_spread
from launch.sweeps.results import Row, measured_name
from launch.sweeps.view import Axis, View, axes_of, effect, groups_of, small_bar, spread_out

MAX_PANELS = 9
"""Axes that have a panel of their own."""

MAX_CELLS = 24
"""Columns of a heat map."""

MAX_BEST = 4
"""Settings whose mean and spread are drawn into one panel: the bands of more cover each other."""

MAX_COLORS = 7
"""Categories that have a colour of their own."""

_AXIS_COLORS = colors.LinearSegmentedColormap.from_list("plasma_on_white", colormaps["plasma"](np.linspace(0, 0.9, 64)))
"""Another map than the metric's, without the end that is too pale for a line on white."""


def prepare() -> None:
    """Has Matplotlib find its fonts and build its parser of formulas, for which the first figure would wait."""
    figure = Figure(figsize=(3, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    style(axes, "x", "y", "prepared")
    to_png(figure)


def draw(
    rows: Sequence[Row],
    scales: Mapping[str, str],
    metric: tuple[str, str],
    importance: Mapping[str, float] | None = None,
) -> dict[str, Figure]:
    """The figures of a sweep, by name; none where no trial has ended.

    Args:
      rows: its trials.
      scales: flag of an axis -> log, linear or categorical.
      metric: name, and whether its "max" or "min" is best.
      importance: axis -> share, of a search that learned; None where none did. Draws it, where it could be told, and
        parallel coordinates.
    """
    view = View(rows, axes_of(rows, scales), *metric)
    if not view.counted:
        return {}
    figures = {"curves": curves(view)}
    if view.axes:
        figures["axes"] = against_axes(view)
    if len(view.axes) > 1:
        figures["pairs"] = pairs(view)
    if importance is not None and view.axes:
        figures["parallel_coordinates"] = parallel_coordinates(view)
    if importance:
        figures["importance"] = importances(importance, view.label)
    return figures


# The metric against each axis.


def against_axes(view: View) -> Figure:
    """A panel for each axis: trials as points, and the mean over seeds of the best setting at each of its values.

    Where values were drawn at random, no setting has a neighbour at the same value: the line is the median of groups
    of trials that lie together.
    """
    drawn = sorted(view.axes, key=lambda axis: -effect(view, axis))[:MAX_PANELS]
    drawn = [axis for axis in view.axes if axis in drawn]
    columns = min(len(drawn), 3)
    rows = math.ceil(len(drawn) / columns)
    names = 1.0 * any(_are_long(axis) for axis in drawn)  # inches for names of categories that stand upright
    figure = Figure(figsize=(max(5.0, 3.4 * columns), (3.0 + names) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes, axis in zip(panels, drawn):
        _against_axis(view, axes, axis)
        first = axes.get_subplotspec().is_first_col()
        style(axes, f"{axis.flag} (log scale)" if axis.scale == "log" else axis.flag, view.label if first else "")
    for unused in list(panels)[len(drawn) :]:
        unused.remove()
    if len(drawn) < len(view.axes):
        figure.suptitle(f"the {len(drawn)} of {len(view.axes)} axes that explain most", fontsize=9)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    place = {"loc": "outside lower center", "ncols": 3 if columns > 1 else 2}
    figure.legend(handles.values(), handles.keys(), frameon=False, fontsize=8, **place)
    return figure


def _against_axis(view: View, axes, axis: Axis) -> None:
    if axis.scale == "log":
        axes.set_xscale("log")
    elif axis.scale == "categorical":
        _category_ticks(axes, axis)
    elif len(axis.values) <= 8:
        axes.set_xticks([float(text) for text in axis.values], map(_short, axis.values))
    view.set_limits(axes)
    rows = [row for row in view.counted if axis.flag in row.values]
    x, y = spread_out(axis, rows, 0.12), np.array([row.best for row in rows])
    inside = view.within(y) == y
    size = float(np.clip(2000 / max(len(rows), 1), 6, 22))
    points = {"s": size, "alpha": float(np.clip(100 / max(len(rows), 1), 0.4, 0.7)), "linewidths": 0}
    axes.scatter(x[inside], y[inside], color=SKY, label="a trial", **points)
    edge = {"s": size + 2, "facecolors": "none", "linewidths": 0.8, "clip_on": False}
    if not inside.all():
        beyond = sum(view.within(row.best) != row.best for row in view.counted)
        marker = "v" if view.mode == "max" else "^"
        y_edge = view.within(y[~inside])
        axes.scatter(x[~inside], y_edge, marker=marker, edgecolors=GRAY, label=f"worse than drawn ({beyond})", **edge)
    lost = spread_out(axis, [row for row in view.lost if axis.flag in row.values], 0.12)
    if len(lost):
        bottom = axes.get_xaxis_transform()
        at = 0.0 if view.mode == "max" else 1.0
        told = f"{' or '.join(sorted({row.state for row in view.lost}))} ({len(view.lost)})"
        cross = {"marker": "x", "s": 22, "linewidths": 1.1, "clip_on": False, "zorder": 4, "transform": bottom}
        axes.scatter(lost, [at] * len(lost), color=VERMILION, label=told, **cross)
    _line_of_means(view, axes, axis)
    best = view.settings[0]
    ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "color": BLACK, "linestyle": "", "zorder": 5}
    if axis.flag in best.values:
        axes.plot(axis.position(best), best.mean(), label="the best setting", **ring)


def _line_of_means(view: View, axes, axis: Axis) -> None:
    settings = [setting for setting in view.settings if axis.flag in setting.values]
    positions = np.array([axis.position(setting) for setting in settings])
    if view.is_drawn:
        groups = groups_of(positions)
        x = np.array([np.median(positions[group]) for group in groups])
        values = [[settings[i].mean() for i in group] for group in groups]
        low, y, high = np.array([np.quantile(group, [0.25, 0.5, 0.75]) for group in values]).T
        error, label = [y - low, high - y], "median and quartiles of neighbours"
    else:
        first = [int(np.flatnonzero(positions == position)[0]) for position in np.unique(positions)]  # the best there
        x, chosen = positions[first], [settings[i] for i in first]
        y = np.array([setting.mean() for setting in chosen])
        error = [setting.spread() or 0.0 for setting in chosen] if view.seeds > 1 else None
        of_seeds = [f"mean ± SD over {view.seeds} seeds"] if view.seeds > 1 else []
        label = ", ".join([*(["the best setting at each value"] if len(view.axes) > 1 else []), *of_seeds])
    shape = {"marker": "o", "markersize": 3.5, "linewidth": 1.4, "capsize": 2.5, "elinewidth": 1.0}
    line = "" if axis.scale == "categorical" else "-"
    axes.errorbar(x, y, error, color=BLUE, linestyle=line, label=label or None, zorder=3, **shape)


# Pairs of axes.


def pairs(view: View) -> Figure:
    """The metric over two axes: a heat map of a grid, coloured points of values drawn at random.

    A cell is the mean over seeds; of more than two axes, that of the best setting there. Of more than three pairs,
    those of the axes that explain most.
    """
    strongest = sorted(view.axes, key=lambda axis: -effect(view, axis))[:3]
    chosen = list(itertools.combinations([axis for axis in view.axes if axis in strongest], 2))
    figure = Figure(figsize=(4.1 * len(chosen) + 0.9, 3.9), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axes, (vertical, horizontal) in zip(panels, chosen):
        if len(vertical.values) > len(horizontal.values):
            vertical, horizontal = horizontal, vertical
        filled = {(vertical.position(row), horizontal.position(row)) for row in view.rows}
        cells = len(vertical.values) * len(horizontal.values)
        is_grid = len(horizontal.values) <= MAX_CELLS and 2 * len(filled) > cells
        (_heat_map if is_grid else _colored_points)(view, axes, horizontal, vertical)
    view.color_bar(figure, list(panels))
    lost = "; lost: diverged or failed" if view.lost else ""
    figure.suptitle(f"the best setting is framed{lost}", fontsize=9)
    return figure


def _heat_map(view: View, axes, horizontal: Axis, vertical: Axis) -> None:
    shape = len(vertical.values), len(horizontal.values)
    means = np.full(shape, np.nan)
    cell = lambda row: (
        vertical.values.index(row.values[vertical.flag]),
        horizontal.values.index(row.values[horizontal.flag]),
    )
    holds = lambda row: vertical.flag in row.values and horizontal.flag in row.values
    for setting in reversed([setting for setting in view.settings if holds(setting)]):  # the best is written last
        means[cell(setting)] = setting.mean()
    image = axes.imshow(means, cmap=view.colors.cmap, norm=view.colors.norm, aspect="auto", origin="lower")
    lost = collections.Counter(cell(row) for row in view.lost if holds(row))
    size = float(np.clip(60 / max(shape[1], shape[0] / 1.5), 4.5, 8))
    numbers = _decimals(view)
    for index, mean in np.ndenumerate(means):
        text = "" if math.isnan(mean) else numbers(mean)
        if index in lost:
            text += ("\n" if text else "") + f"{lost[index]} lost"
        if max(shape) <= 12 and text:
            dark = not math.isnan(mean) and sum(image.cmap(image.norm(mean))[:3]) < 1.4
            axes.text(*reversed(index), text, ha="center", va="center", fontsize=size, color="w" if dark else "k")
    if holds(view.settings[0]):
        row, column = cell(view.settings[0])
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=VERMILION, linewidth=2))
    axes.set_xticks(range(shape[1]), map(_short, horizontal.values), rotation=90 if shape[1] > 5 else 0)
    axes.set_yticks(range(shape[0]), map(_short, vertical.values))
    told = ["the best setting in each cell"] if len(view.axes) > 2 else []
    told += [f"mean over {view.seeds} seeds"] if view.seeds > 1 else []
    style(axes, horizontal.flag, vertical.flag, ", ".join(told))
    axes.grid(False)


def _colored_points(view: View, axes, horizontal: Axis, vertical: Axis) -> None:
    holds = lambda row: horizontal.flag in row.values and vertical.flag in row.values
    place = lambda rows: [spread_out(axis, rows, 0.3) for axis in (horizontal, vertical)]
    rows, lost = [row for row in view.counted if holds(row)], [row for row in view.lost if holds(row)]
    x, y = place(rows)
    face = view.colors.to_rgba([row.best for row in rows])
    size = float(np.clip(4000 / max(len(rows), 1), 8, 40))
    axes.scatter(x, y, c=face, s=size, edgecolors="white", linewidths=0.3)
    axes.scatter(*place(lost), marker="x", s=22, color=VERMILION, linewidths=1.1)
    best = [index for index, row in enumerate(rows) if row in view.settings[0].rows]
    axes.plot(x[best], y[best], "s", markersize=10, fillstyle="none", color=VERMILION)
    for axis, part in ((horizontal, "x"), (vertical, "y")):
        if axis.scale == "log":
            getattr(axes, f"set_{part}scale")("log")
        elif axis.scale == "categorical":
            getattr(axes, f"set_{part}ticks")(range(len(axis.values)), map(_short, axis.values))
    told = [f"{axis.flag} (log scale)" if axis.scale == "log" else axis.flag for axis in (horizontal, vertical)]
    style(axes, *told, "a point a trial" + (f"; {len(lost)} lost (×)" if lost else ""))


# Curves.


def curves(view: View) -> Figure:
    """The metric over the steps: of all trials, by colour; and of the best settings, mean and spread over seeds."""
    alone = len(view.counted) == 1
    figure = Figure(figsize=(5.0 if alone else 9.6, 4.3), layout="constrained")
    panels = figure.subplots(1, 1 if alone else 2, squeeze=False)[0]
    _all_curves(view, figure, panels[0])
    number = sum(len(row.curve[0]) > 0 for row in view.rows)
    titles = [f"{number:,} trial{'s' * (number != 1)}"]
    if not alone:
        _best_curves(view, panels[1])
        settings = [f"the best {min(len(view.settings), MAX_BEST)} of {len(view.settings):,} settings"]
        seeds = [f"mean ± SD over {view.seeds} seeds"] if view.seeds > 1 else []
        titles.append(", ".join([*(settings if len(view.settings) > 1 else []), *seeds]))
    for axes, title in zip(panels, titles):
        style(axes, "step", measured_name(view.settings, view.metric).replace("_", " "), title)
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    return figure


def _all_curves(view: View, figure: Figure, axes) -> None:
    lost = {row.trial for row in view.lost}
    order = {row.trial: rank for rank, row in enumerate(view.counted)}
    rows = sorted((row for row in view.rows if len(row.curve[0])), key=lambda row: order.get(row.trial, -1))
    by = max(view.axes, key=lambda axis: effect(view, axis), default=None)
    shades = _shades(view, by, rows)
    lines = [np.column_stack(row.curve) for row in rows]
    look = {"linewidths": float(np.clip(40 / len(rows), 0.5, 1.3)), "alpha": float(np.clip(60 / len(rows), 0.35, 0.9))}
    axes.add_collection(LineCollection(lines, colors=shades, **look))
    ends = [end for end in zip(rows, lines, shades) if len(end[1]) == 1 or end[0].trial in lost]
    for row, (*_, (x, y)), shade in ends:
        axes.plot(x, y, "x" if row.trial in lost else "o", color=shade, markersize=4)
    axes.autoscale_view()
    values = np.concatenate([line[:, 1] for line in lines])
    if view.mode == "min" and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    if by is None or by.scale == "categorical" and len(by.values) > MAX_COLORS:
        if view.limits[0] < view.limits[1]:
            view.color_bar(figure, axes)
    elif by.scale == "categorical":
        for index, text in enumerate(by.values):
            axes.plot([], [], color=PALETTE[index], label=_short(text))
        axes.legend(frameon=False, fontsize=8, title=by.flag, title_fontsize=8)
    else:
        small_bar(figure.colorbar(_axis_colors(by), ax=axes, aspect=30, pad=0.02), by.flag)


def _axis_colors(axis: Axis) -> ScalarMappable:
    norm = (colors.LogNorm if axis.scale == "log" else colors.Normalize)(float(axis.values[0]), float(axis.values[-1]))
    return ScalarMappable(norm, _AXIS_COLORS)


def _shades(view: View, by: Axis | None, rows: Sequence[Row]) -> np.ndarray:
    if by is None or by.scale == "categorical" and len(by.values) > MAX_COLORS:
        return view.colors.to_rgba([math.nan if row.best is None else row.best for row in rows])
    positions = np.array([by.position(row) for row in rows])
    if by.scale == "categorical":
        return np.array([colors.to_rgba(GRAY if math.isnan(p) else PALETTE[int(p)]) for p in positions])
    return _axis_colors(by).to_rgba(np.ma.masked_invalid(positions))


def _best_curves(view: View, axes) -> None:
    late = []
    for index, setting in enumerate(view.settings[:MAX_BEST]):
        runs = [tuple(map(np.asarray, row.curve)) for row in setting.counted]
        steps, values = common_steps(runs)
        if not len(steps):
            continue
        mean = values.mean(axis=0)
        color, dashes = PALETTE[index], DASHES[index // 3 % 3]
        label = ", ".join(f"{flag.rpartition('.')[2]}={_short(text)}" for flag, text in setting.values.items())
        told = f"{label or 'each at its best:'}  {with_spread(setting.mean(), setting.spread())}"
        marker = "o" if len(steps) == 1 else ""
        axes.plot(steps, mean, color=color, linestyle=dashes, linewidth=1.4, marker=marker, label=told)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
        axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.12, linewidth=0)
        late += [*(mean - spread)[len(steps) // 4 :], *(mean + spread)[len(steps) // 4 :]]
    low, high = min(late, default=0), max(late, default=1)
    if view.mode == "min" and 0 < 10 * low < high:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
    elif high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if late:
        axes.legend(frameon=False, fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.13))


# A search's own.


def parallel_coordinates(view: View) -> Figure:
    """Each trial as a line across all axes to its metric; the better, the brighter and the more on top."""
    scales = [*view.axes, None]
    figure = Figure(figsize=(max(5.0, 1.5 * len(scales) + 1.2), 4.0), layout="constrained")
    axes = figure.subplots()
    low, high = view.limits
    lines = []
    for row in view.counted:
        heights = [axis.unit(np.array(axis.position(row))) for axis in view.axes]
        value, ends = view.within(row.best), np.array([low, high])
        value, ends = (np.log(value), np.log(ends)) if view.is_log else (value, ends)
        heights.append((value - ends[0]) / (ends[1] - ends[0] or 1))
        held = [(x, float(height)) for x, height in enumerate(heights) if not math.isnan(height)]
        lines.append(np.array(held))
    opacity = np.linspace(0.15 if len(lines) > 40 else 0.4, 1, len(lines))
    shades = view.colors.to_rgba([row.best for row in view.counted])
    shades[:, 3] = opacity
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=np.where(opacity < 1, 0.9, 2.4)))
    for x, axis in enumerate(scales):
        axes.axvline(x, color=GRAY, linewidth=0.8, zorder=0)
        for height, text in _marks(axis) if axis else []:
            axes.annotate(text, (x, height), (3, 0), textcoords="offset points", fontsize=7, va="center", zorder=4,
                          bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.6, "linewidth": 0})  # fmt: skip
    names = [f"{axis.flag}\n(log scale)" if axis.scale == "log" else axis.flag for axis in view.axes]
    axes.set_xticks(range(len(scales)), [*names, view.metric.replace("_", " ")], fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(scales) - 0.9)
    axes.set_ylim(-0.03, 1.03)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(lines)} trials; the thick line is the best", fontsize=9)
    view.color_bar(figure, [axes])
    return figure


def importances(shares: Mapping[str, float], label: str) -> Figure:
    """What share of the metric's variation each axis explains, as the search tells it."""
    ranked = sorted(shares.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(5.0, 0.32 * len(ranked) + 1.1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([flag for flag, _ in ranked], [share for _, share in ranked], color=BLUE, height=0.65)
    axes.bar_label(bars, fmt="{:.0%}", fontsize=8, padding=2)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1.12 * max(1e-9, *shares.values()))
    style(axes, f"importance for the {label}", "")
    axes.grid(axis="y", visible=False)
    return figure


# Ticks and texts.


def _marks(axis: Axis) -> list[tuple[float, str]]:
    """Heights in 0 .. 1 and texts of a vertical axis: its values where they are few, else round numbers."""
    if axis.scale == "categorical" or len(axis.values) <= 8:
        positions = range(len(axis.values)) if axis.scale == "categorical" else map(float, axis.values)
        return [(float(axis.unit(np.array(p))), _short(text)) for p, text in zip(positions, axis.values)][:30]
    low, high = float(axis.values[0]), float(axis.values[-1])
    locator = ticker.LogLocator() if axis.scale == "log" else ticker.MaxNLocator(5)
    ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
    return [(float(axis.unit(np.array(tick))), f"{tick:g}") for tick in ticks]


def _category_ticks(axes, axis: Axis) -> None:
    axes.set_xticks(range(len(axis.values)), map(_short, axis.values), rotation=90 if _are_long(axis) else 0)
    axes.set_xlim(-0.5, len(axis.values) - 0.5)


def _are_long(axis: Axis) -> bool:
    """Whether the categories' names do not fit side by side."""
    return axis.scale == "categorical" and sum(len(_short(text)) for text in axis.values) > 30


def _decimals(view: View):
    """Tells the settings' means apart by as few digits as will do, four at most."""
    return lambda value: f"{value:.3g}" if view.is_log or abs(value) >= 10 else f"{value:.3f}"


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}" if not text.isdigit() else text
    except ValueError:
        return text if len(text) <= 18 else f"{text[:8]}…{text[-8:]}"
