"""Compares searches on the same budget: the best setting that one may expect to have found after so many trials.

    python -m launch.compare_sweeps --sweeps='/tmp/grid,/tmp/random_*' --out=grid_random.png

Sweeps that differ in their search seed alone are one search, made several times. The settings of a grid or of a random
search may as well have been tried in any other order, so the best of n is known over all sets of n of them:

    E[best of n] = sum_i v_i C(i - 1, n - 1) / C(N, n)        v_1, ..., v_N from the worst to the best

For random search this estimates, without bias, what another search of n trials finds. (Bergstra and Bengio 2012,
Random search for hyper-parameter optimization, JMLR 13; Dodge et al. 2019, Show your work, arXiv 1909.03004; Tang et
al. 2020, Showing your work doesn't always work, arXiv 2004.13705, on the bias of drawing with replacement.) A search
that learns from its trials (TPE) is taken in the order in which it ran, over its sweeps.

Several seeds of one setting count as one trial, by their mean. A setting of which a trial diverged or failed counts
as one, too, with the worst value of all. Exit status: 0 done; 2 the flags are wrong, or a directory is no sweep.
"""

import collections
import dataclasses
import functools
import glob
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdl.errors import InputError
from launch import cli
from launch.sweeps.axes import parse_axis
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.results import LOST, Row, Setting, read_rows, settings_of

IN_ANY_ORDER = ("grid", "random")
"""Searches whose trials do not depend on each other."""


@dataclasses.dataclass(frozen=True)
class CompareSweeps:
    """Flags of this command.

    Attributes:
      sweeps: sweep directories, separated by commas; each may be a pattern: '/tmp/random_*'.
      metric: what to compare: NAME:max or NAME:min, a name in the runs' metrics.jsonl and whether its max or min is
        best; the sweeps' own if empty.
      out: the PNG file of the plot; empty for the table alone.
    """

    sweeps: tuple[str, ...] = ()
    metric: str = ""
    out: str = "sweeps.png"

    def run(self) -> None:
        """Prints the table and writes the plot.

        Raises:
          InputError: a directory that is no sweep, or a sweep without the metric.
        """
        groups = find_sweeps(self.sweeps)
        metric = choose_metric(self.metric, groups)
        searches = read_searches(groups, metric)
        print("\n".join(table(searches, metric[0])))
        if self.out:
            from jaxdl.plots import to_png

            try:
                pathlib.Path(self.out).write_bytes(to_png(figure(searches, *metric)))
            except OSError as error:
                raise InputError(f"--out={self.out} cannot be written: {error.strerror}.") from None
            print(f"\nplot: {self.out}")


@dataclasses.dataclass(frozen=True)
class Search:
    """One way of searching, tried in one sweep or in several.

    Attributes:
      label: grid, random, ...
      sweeps: for each sweep, the values of its settings in the order in which they were tried, float [S, 2]: the
        metric by which the best is chosen, and the metric on the test split (NaN where there is none).
      mode: whether "max" or "min" is best.
      in_any_order: whether the order of its trials says nothing.
      rows: the trials of all its sweeps.
      scales: flag of an axis -> log, linear or categorical.
    """

    label: str
    sweeps: Sequence[np.ndarray]
    mode: str
    in_any_order: bool
    rows: Sequence[Row] = ()
    scales: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def budget(self) -> int:
        """How many settings each of its sweeps has tried."""
        return min(map(len, self.sweeps))

    @functools.cached_property
    def pool(self) -> np.ndarray:
        """The settings of all sweeps, from the worst to the best."""
        values = np.concatenate(self.sweeps)
        return values[np.argsort(self._scores(values), kind="stable")]

    def _scores(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self.mode == "max" else -values[:, 0]

    def best_of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """What the best of `number` settings may be.

        Returns:
          values, float [M, 2] as in `sweeps`, from the worst to the best; the chance of each, float [M].
        """
        if self.in_any_order:
            return self.pool, chance_to_be_best(len(self.pool), number)
        found = [sweep[:number][np.argmax(self._scores(sweep[:number]))] for sweep in self.sweeps]
        found = np.array(sorted(found, key=lambda pair: pair[0], reverse=self.mode == "min"))
        return found, np.full(len(found), 1 / len(found))

    def expected(self, number: int) -> np.ndarray:
        """The means of the two values of the best of `number` settings, float [2]."""
        values, chances = self.best_of(number)
        return chances @ values

    def quantile(self, number: int, share: float) -> float:
        """The value by which the best of `number` is chosen, below which (from the worst) so many searches end."""
        values, chances = self.best_of(number)
        return float(values[min(np.searchsorted(np.cumsum(chances), share), len(values) - 1), 0])


def chance_to_be_best(total: int, number: int) -> np.ndarray:
    """For each of `total` settings, from the worst to the best, its chance to be the best of `number` different ones.

    The i-th is the best of the sets whose others all come before it: C(i - 1, n - 1) of C(N, n).
    """
    chances = np.zeros(total)
    chance = number / total  # of the last: that it is among them
    for index in range(total - 1, number - 2, -1):
        chances[index] = chance
        chance *= (index - number + 1) / max(index, 1)
    return chances


# Reading.


def find_sweeps(patterns: Sequence[str]) -> dict[str, list[SweepDirectory]]:
    """The sweeps that the patterns name, by search; those that differ in the search seed alone stand together.

    Raises:
      InputError: none were given, a pattern matches nothing, or what it names is no sweep directory.
    """
    if not patterns:
        raise InputError("which sweeps? --sweeps=DIR,DIR or --sweeps='DIR_*'.")
    paths = {}
    for pattern in patterns:
        matches = sorted(glob.glob(str(pathlib.Path(pattern).expanduser())))
        if not matches:
            raise InputError(f"--sweeps: there is no directory {pattern}.")
        paths |= dict.fromkeys(map(pathlib.Path, matches))
    groups: dict[tuple, list[SweepDirectory]] = collections.defaultdict(list)
    for sweep in map(SweepDirectory, paths):
        if not sweep.is_sweep():
            raise InputError(f"--sweeps: {sweep.path} is no sweep directory: it has no sweep.json.")
        plan = sweep.read_plan()
        groups[plan["search"], tuple(plan["base"]), tuple(plan["axes"])].append(sweep)
    kinds = [kind for kind, _, _ in groups]
    told = [
        kind if kinds.count(kind) == 1 else f"{kind} {sweeps[0].path.name}"
        for kind, sweeps in zip(kinds, groups.values())
    ]
    labels = told if len(set(told)) == len(told) else [str(sweeps[0].path) for sweeps in groups.values()]
    return dict(zip(labels, groups.values()))


def choose_metric(asked: str, groups: Mapping[str, Sequence[SweepDirectory]]) -> tuple[str, str]:
    """Name, and whether "max" or "min" is best. Raises: InputError, where sweeps have no metric in common."""
    own = {sweep.read_plan()["metric"] for sweeps in groups.values() for sweep in sweeps}
    if not asked and len(own) > 1:
        raise InputError(
            f"the sweeps have different metrics ({', '.join(sorted(own))}); give --metric=NAME:max or :min."
        )
    name, _, mode = (asked or own.pop()).partition(":")
    if not name or mode not in ("max", "min"):
        raise InputError(f"--metric={asked}: expected NAME:max or NAME:min, such as --metric=loss:min.")
    return name, mode


def read_searches(groups: Mapping[str, Sequence[SweepDirectory]], metric: tuple[str, str]) -> list[Search]:
    """The settings of sweeps, by search. Raises: InputError, where a sweep has no setting that has ended."""
    name, mode = metric
    rows = {label: [read_rows(sweep, metric) for sweep in sweeps] for label, sweeps in groups.items()}
    counted = [row for sweeps in rows.values() for sweep in sweeps for row in sweep if row.counts]
    if not counted:
        raise InputError(f"no trial has ended with a finite '{name}'; --metric names one that the runs have.")
    to_the_worst = min if mode == "max" else max
    tests = [row.test for row in counted if row.test is not None]
    worst = to_the_worst(row.best for row in counted), to_the_worst(tests, default=np.nan)
    searches = []
    for label, sweeps in groups.items():
        values = [_values(sweep, mode, worst) for sweep in rows[label]]
        for sweep, of_sweep in zip(sweeps, values):
            if not len(of_sweep):
                raise InputError(f"{sweep.path} has no setting yet whose trials have all ended with a {name}.")
        plan = sweeps[0].read_plan()
        scales = {column.flag: column.scale for text in plan["axes"] for column in parse_axis(text).columns}
        trials = [row for sweep in rows[label] for row in sweep]
        searches.append(Search(label, values, mode, plan["search"] in IN_ANY_ORDER, trials, scales))
    return searches


def _values(rows: Sequence[Row], mode: str, worst: Sequence[float]) -> np.ndarray:
    """What each setting of a sweep that has ended reached, in the order in which they were tried."""
    order = {row.trial: index for index, row in enumerate(rows)}
    settings = sorted(settings_of(rows, mode), key=lambda setting: order[setting.rows[0].trial])
    values = [worst if _is_lost(setting) else _reached(setting) for setting in settings if _has_ended(setting)]
    return np.array(values, np.float64).reshape(-1, 2)


def _is_lost(setting: Setting) -> bool:
    return any(row.state in LOST or row.state == "done" and row.best is None for row in setting.rows)


def _has_ended(setting: Setting) -> bool:
    return _is_lost(setting) or all(row.counts for row in setting.rows)


def _reached(setting: Setting) -> tuple[float, float]:
    test = setting.mean("test")
    return setting.mean(), np.nan if test is None else test


# Telling.


def table(searches: Sequence[Search], metric: str) -> list[str]:
    """What one may expect of the best of 1, 2, 4, ... trials, in aligned columns: the metric, and its test value."""
    budget = min(search.budget for search in searches)
    numbers = _doubling(budget)
    lines = []
    for column, told in enumerate((f"expected best {metric} after", f"test {metric} of that setting")):
        expected = [[search.expected(number)[column] for number in numbers] for search in searches]
        if not np.isfinite(expected).any():
            continue
        lines.append([told, "sweeps", *(f"{number} trial{'s' * (number > 1)}" for number in numbers)])
        for search, values in zip(searches, expected):
            cells = ["-" if np.isnan(value) else f"{value:.4g}" for value in values]
            lines.append([f"  {search.label}", str(len(search.sweeps)), *cells])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def _doubling(budget: int) -> list[int]:
    """1, 2, 4, ... and the budget."""
    numbers = [2**power for power in range(budget.bit_length()) if 2**power < budget]
    if len(numbers) > 1 and 4 * numbers[-1] > 3 * budget:  # too near to the budget to stand beside it
        numbers.pop()
    return [*numbers, budget]


def figure(searches: Sequence[Search], metric: str, mode: str):
    """The best of n trials over n; and why: what each search tried along the axis that matters most."""
    from matplotlib.figure import Figure

    from launch.sweeps.view import View, axes_of, effect

    rows = [row for search in searches for row in search.rows]
    scales = {flag: scale for search in searches for flag, scale in search.scales.items()}
    view = View(rows, axes_of(rows, scales), metric, mode)
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_expected(left, searches, metric.replace("_", " "))
    if view.axes:
        _draw_tried(right, searches, view, max(view.axes, key=lambda axis: effect(view, axis)))
    else:
        right.remove()
    return figure


def _draw_expected(axes, searches: Sequence[Search], metric: str) -> None:
    from matplotlib import ticker

    from jaxdl.plots import GRAY, PALETTE, style

    drawn = []
    for search, color in zip(searches, PALETTE):
        numbers = np.arange(1, search.budget + 1)
        expected = np.array([search.expected(number) for number in numbers])
        low, high = ([search.quantile(number, share) for number in numbers] for share in (0.25, 0.75))
        sweeps = f", {len(search.sweeps)} sweeps" if len(search.sweeps) > 1 else ""
        axes.plot(numbers, expected[:, 0], color=color, marker="o", markersize=3, label=f"{search.label}{sweeps}")
        axes.fill_between(numbers, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(numbers, expected[:, 1], color=color, linestyle="--", linewidth=1.1)
        drawn.append(np.column_stack([expected, low, high])[len(numbers) // 8 :])  # the first find anything at all
    axes.fill_between([], [], [], color=GRAY, alpha=0.15, linewidth=0, label="middle half of searches")
    if np.isfinite(np.concatenate(drawn)[:, 1]).any():
        axes.plot([], [], color=GRAY, linestyle="--", linewidth=1.1, label="its value on the test split")
    low, high = np.nanmin(np.concatenate(drawn)), np.nanmax(np.concatenate(drawn))
    margin = 0.06 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log", base=2)
    axes.set_xticks(_doubling(max(search.budget for search in searches)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.0f}"))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    style(axes, "trials", f"{metric} of the best setting", "expected of a search of so many trials")


def _draw_tried(axes, searches: Sequence[Search], view, axis) -> None:
    from jaxdl.plots import PALETTE, style
    from launch.sweeps.view import spread_out

    for search, color, marker in zip(searches, PALETTE, "osDv^P*X"):
        rows = [row for row in search.rows if row.counts and axis.flag in row.values]
        look = {"s": 22, "alpha": 0.6, "linewidths": 0, "clip_on": False}
        values = view.within(np.array([row.best for row in rows]))
        axes.scatter(spread_out(axis, rows, 0.2), values, color=color, marker=marker, label=search.label, **look)
    view.set_limits(axes)
    if axis.scale == "log":
        axes.set_xscale("log")
    elif axis.scale == "categorical":
        axes.set_xticks(range(len(axis.values)), axis.values)
    axes.legend(frameon=False, fontsize=8)
    clipped = any(view.within(row.best) != row.best for row in view.counted)
    title = "along the axis that matters most" + (";\nfar worse trials stand at the edge" if clipped else "")
    style(axes, f"{axis.flag} (log scale)" if axis.scale == "log" else axis.flag, view.label, title)


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(CompareSweeps, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
