"""What `launch.compare --axis=FLAG` draws: a metric against a number among the flags, and where each curve is best."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from jaxdl import plots
from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.train.record import read_json

Values = dict[float, list[float]]
"""The metric of each seed, by the axis's value; NaN where a run was lost."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over the axis, of runs that are else the same but for the seed.

    Attributes:
      label: the flags in which they differ from the other curves'.
      x: the axis's values, ascending, [X].
      values: of each seed, [X, S]; NaN where a run diverged or failed.
    """

    label: str
    x: np.ndarray
    values: np.ndarray

    def mean(self) -> np.ndarray:
        """Over the seeds, [X]; NaN where one was lost."""
        return self.values.mean(axis=1)

    def best(self, mode: str) -> int | None:
        """The index of the best mean; None where all were lost."""
        mean = self.mean()
        return None if np.isnan(mean).all() else int((np.nanargmin if mode == "min" else np.nanargmax)(mean))


def gather(
    flags: Mapping[pathlib.Path, Mapping[str, str]],
    values: Mapping[pathlib.Path, float],
    axis: str,
    panels: str,
    apart: Sequence[str],
) -> dict[str, list[Curve]]:
    """The curves of each panel.

    Args:
      flags, values: of each run; a value that is missing is of a run that has none yet, and NaN of one that was lost.
      axis: the flag that is a number.
      panels: the flag that has a panel for each value; empty for one panel.
      apart: flags in which runs of one point may differ.

    Raises:
      InputError: a flag that some run has not, an axis that is no number, or points of different numbers of seeds.
    """
    names = sorted({name for each in flags.values() for name in each})
    for flag, name in (("axis", axis), ("panels", panels)):
        if name and not all(name in each for each in flags.values()):
            raise InputError(f"--{flag}={name}: not every run has this flag.{nearest(name, names)}")
    found: dict[str, dict[tuple, Values]] = {}
    groups: dict[str, list[Mapping[str, str]]] = {}
    for path in values:
        groups.setdefault(flags[path].get(panels, ""), []).append(flags[path])
    for panel, members in groups.items():
        told = [name for name in names if len({each.get(name) for each in members}) > 1]
        told = [name for name in told if name not in (axis, panels, *apart)]
        for path, value in values.items():
            if flags[path].get(panels, "") == panel:
                key = tuple(f"{name.rpartition('.')[2]}={flags[path].get(name)}" for name in told)
                points = found.setdefault(panel, {}).setdefault(key, {})
                points.setdefault(_number(axis, flags[path][axis], path), []).append(value)
    return {
        panel: [_curve(", ".join(key), points) for key, points in sorted(curves.items(), key=_by_size)]
        for panel, curves in found.items()
    }


def _number(axis: str, text: str, path: pathlib.Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--axis={axis} is '{text}' in {path}, which is no number.") from None


def _by_size(item):
    """Labels by the numbers in them: 64 before 128."""
    return [[float(part) if part.isdigit() else 0.0 for part in text.replace("=", ",").split(",")] for text in item[0]]


def _curve(label: str, points: Values) -> Curve:
    x = np.array(sorted(points))
    counts = {len(points[value]) for value in points}
    if len(counts) > 1:
        raise InputError(
            f"the curve '{label}' has {min(counts)} to {max(counts)} seeds at its points: give all of them."
        )
    return Curve(label, x, np.array([points[value] for value in x]))


def final_value(path: pathlib.Path, records: Sequence[Mapping], split: str, metric: str) -> float | None:
    """The last value of a run that is done, NaN of one that diverged, None of one that has none (yet)."""
    state = (read_json(path / "status.json") or {}).get("state")
    if state == "diverged":
        return float("nan")
    values = [line[metric] for line in records if line.get("split") == split and line.get(metric) is not None]
    return values[-1] if values and state == "done" else None


def table(panels: Mapping[str, Sequence[Curve]], axis: str, metric: str, mode: str) -> list[str]:
    """Lines of aligned columns: where each curve is best."""
    rows = [("panel", "runs", "seeds", f"best {axis}", metric, "lost")]
    for panel, curves in panels.items():
        for curve in curves:
            best = curve.best(mode)
            told = ("none", "")
            if best is not None:
                seeds = curve.values[best]
                spread = seeds.std(ddof=1) if len(seeds) > 1 else None
                told = (f"{curve.x[best]:g}", plots.with_spread(seeds.mean(), spread))
            lost = int(np.isnan(curve.values).sum())
            rows.append((panel, curve.label, str(curve.values.shape[1]), *told, str(lost or "")))
    rows = [row[1:] for row in rows] if list(panels) == [""] else rows
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def figure(panels: Mapping[str, Sequence[Curve]], axis: str, metric: str, mode: str, title: str = "") -> Figure:
    """A panel for each, side by side: means with bars from the least to the greatest seed, the best point ringed."""
    drawn = Figure(figsize=(3.9 * len(panels) + 1.4, 3.9), layout="constrained")
    grid = drawn.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    count = max(map(len, panels.values()))
    for axes, (panel, curves) in zip(grid, panels.items()):
        for index, curve in enumerate(curves):
            color = colormaps["viridis"](0.9 * index / max(count - 1, 1))
            mean = curve.mean()
            error = np.stack([mean - curve.values.min(axis=1), curve.values.max(axis=1) - mean])
            style = {"color": color, "linewidth": 1.3, "marker": "o", "markersize": 3, "capsize": 2, "elinewidth": 0.8}
            axes.errorbar(curve.x, mean, error, label=curve.label or metric, **style)
            best = curve.best(mode)
            if best is not None:
                ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "", "color": color}
                axes.plot(curve.x[best], mean[best], **ring, markeredgewidth=1.6, zorder=4)
        plots.style(axes, axis.replace("_", " "), metric if axes is grid[0] else "", panel)
        if min(curve.x.min() for curve in curves) > 0:
            axes.set_xscale("log")
    means = np.concatenate([curve.mean() for curves in panels.values() for curve in curves])
    plots.log_if_wide(grid[0], means[np.isfinite(means)])
    grid[0].plot([], [], marker="o", markersize=9, fillstyle="none", linestyle="", color=plots.GRAY, label="best")
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels())}
    drawn.legend(handles.values(), handles.keys(), frameon=False, fontsize=8, loc="outside right center")
    if title:
        drawn.suptitle(title, fontsize=10)
    return drawn
