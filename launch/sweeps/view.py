"""A sweep as its figures see it: which flags vary, on what scale, and how the metric is drawn.

A trial's value is the metric at its best evaluation. A value far worse than the middle of all would press the others
into a line: it is drawn at the edge.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, colors
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from launch.sweeps.results import LOST, Row, Setting, measured_name, settings_of

REACH = 4
"""How many times farther from the best than the middle one a value may be before it is drawn at the edge."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One flag that varies.

    Attributes:
      flag: its name.
      scale: log, linear or categorical.
      values: its different texts: numbers in order, categories in that of the trials.
    """

    flag: str
    scale: str
    values: tuple[str, ...]

    def position(self, row: Row | Setting) -> float:
        """Where a trial stands: the number, or the category's index; NaN where the axis does not hold."""
        text = row.values.get(self.flag)
        if text is None:
            return math.nan
        return float(self.values.index(text)) if self.scale == "categorical" else float(text)

    def unit(self, positions: np.ndarray) -> np.ndarray:
        """Positions within 0 .. 1 of the axis."""
        transform = np.log if self.scale == "log" else np.asarray
        ends = [0, len(self.values) - 1] if self.scale == "categorical" else [float(self.values[i]) for i in (0, -1)]
        low, high = transform(ends)
        return (transform(positions) - low) / (high - low)


@dataclasses.dataclass(frozen=True)
class View:
    """A sweep as its figures see it.

    Attributes:
      rows: all trials.
      axes: the flags that vary, `seed` left out.
      metric: its name.
      mode: whether "max" or "min" is best.
    """

    rows: Sequence[Row]
    axes: Sequence[Axis]
    metric: str
    mode: str

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """Those that have a metric, best first."""
        return [setting for setting in settings_of(self.rows, self.mode) if setting.mean() is not None]

    @functools.cached_property
    def counted(self) -> list[Row]:
        """The trials that have a metric, worst first, so that the best is drawn on top."""
        rows = [row for row in self.rows if row.counts]
        return sorted(rows, key=lambda row: row.best, reverse=self.mode == "min")

    @functools.cached_property
    def lost(self) -> list[Row]:
        return [row for row in self.rows if row.state in LOST]

    @property
    def seeds(self) -> int:
        """How many seeds a setting has at most."""
        return max(len(setting.counted) for setting in self.settings)

    @functools.cached_property
    def is_drawn(self) -> bool:
        """Whether values hardly repeat, as a random search draws them, so that means at each value say nothing."""
        numbers = [axis for axis in self.axes if axis.scale != "categorical"]
        held = [
            [axis.position(setting) for setting in self.settings if axis.flag in setting.values] for axis in numbers
        ]
        return len(self.axes) > 1 and any(2 * len(set(positions)) > len(positions) > 3 for positions in held)

    @functools.cached_property
    def label(self) -> str:
        return f"{measured_name(self.settings, self.metric)} (best evaluation)".replace("_", " ")

    @functools.cached_property
    def is_log(self) -> bool:
        """Whether the metric wants a logarithmic scale: one that is minimised, and spans a decade."""
        values = [row.best for row in self.counted]
        return self.mode == "min" and min(values) > 0 and max(values) > 10 * min(values)

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """From the lowest to the highest value that is drawn where it is."""
        to, back = (math.log, math.exp) if self.is_log else (float, float)
        worst, best = self.counted[0].best, self.counted[-1].best
        reach = REACH * (to(self.counted[len(self.counted) // 2].best) - to(best))
        far = abs(to(worst) - to(best)) > 1.5 * abs(reach) > 0  # nothing is cut off for a little more room
        end = back(to(best) + reach) if far else worst
        return min(best, end), max(best, end)

    def within(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values, *self.limits)

    def set_limits(self, axes) -> None:
        """The scale and the limits of a panel whose ordinate is the metric."""
        low, high = self.limits
        if self.is_log:
            axes.set_yscale("log")
            margin = (high / low) ** 0.06
            axes.set_ylim(low / margin, high * margin)
        else:
            margin = 0.06 * (high - low) or 0.05 * abs(high) or 1
            axes.set_ylim(low - margin, high + margin)

    @functools.cached_property
    def colors(self) -> ScalarMappable:
        """The metric as a colour, of which the bright end is the best."""
        low, high = self.limits
        norm = (colors.LogNorm if self.is_log else colors.Normalize)(low, high if high > low else low + 1e-9)
        return ScalarMappable(norm, colormaps["viridis" if self.mode == "max" else "viridis_r"])

    def color_bar(self, figure: Figure, panels) -> None:
        clipped = any(not self.limits[0] <= row.best <= self.limits[1] for row in self.counted)
        extend = {"max": "min", "min": "max"}[self.mode] if clipped else "neither"
        bar = figure.colorbar(self.colors, ax=panels, extend=extend, aspect=30, pad=0.02)
        small_bar(bar, self.label)


def axes_of(rows: Sequence[Row], scales: Mapping[str, str]) -> list[Axis]:
    """The flags with more than one value, `seed` left out."""
    found = []
    for flag in dict.fromkeys(flag for row in rows for flag in row.values if flag != "seed"):
        values = list(dict.fromkeys(row.values[flag] for row in rows if flag in row.values))
        scale = scales.get(flag, "categorical")
        if len(values) > 1:
            found.append(Axis(flag, scale, tuple(values if scale == "categorical" else sorted(values, key=float))))
    return found


def effect(view: View, axis: Axis) -> float:
    """The share of the variance of the settings' ranks that an axis explains by itself, at most 1.

    Kruskal and Wallis's statistic as ε² (Tomczak and Tomczak 2014, The need to report effect size estimates
    revisited): ranks, because one loss of 1e9 says no more than one of 10; less what chance would explain.
    """
    settings = [setting for setting in view.settings if not math.isnan(axis.position(setting))]
    positions = np.array([axis.position(setting) for setting in settings])
    ranks = np.argsort(np.argsort([setting.mean() for setting in settings])).astype(float)
    groups = [ranks[group] for group in groups_of(positions)]
    total = np.square(ranks - ranks.mean()).sum()
    if len(groups) < 2 or len(ranks) <= len(groups) or not total:
        return 0.0
    inside = sum(np.square(group - group.mean()).sum() for group in groups)
    chance = (len(groups) - 1) * inside / (len(ranks) - len(groups))
    return max(0.0, float((total - inside - chance) / total))


def groups_of(positions: np.ndarray) -> list[np.ndarray]:
    """Indices of equal positions; where these hardly repeat, of neighbours: eighths, of four at least."""
    order = np.argsort(positions, kind="stable")
    different = np.unique(positions)
    if 2 * len(different) <= len(positions):
        return [np.flatnonzero(positions == value) for value in different]
    return [group for group in np.array_split(order, max(1, min(8, len(order) // 4))) if len(group)]


def spread_out(axis: Axis, rows: Sequence[Row], width: float) -> np.ndarray:
    """Positions of trials; those of a category side by side, so that they do not cover each other."""
    positions = np.array([axis.position(row) for row in rows])
    if axis.scale != "categorical":
        return positions
    return positions + np.random.default_rng(0).uniform(-width, width, len(rows))


def small_bar(bar, label: str) -> None:
    """The label and the ticks of a colour bar, in small type."""
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7, which="both")
    bar.outline.set_visible(False)
