"""Compares runs: a table and a plot of one metric, averaged over the seeds of runs that are else the same.

    python -m launch.compare --runs='/tmp/activations/*' --metric=accuracy --out=activations.png

    python -m launch.compare --runs='/tmp/sweep/trials/*' --axis=learning_rate --metric=loss --split=train --best=min

The second draws the last value of each run that is done against a number among the flags, and rings the best.

Runs are told apart by the flags in which they differ; `seed` and `workdir` do not count. Means are over the steps
that all seeds of a label have, with the standard deviation beside them. Exit status: 0 done; 2 the flags are
wrong, or a directory is no run.
"""

import dataclasses
import glob
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.train.record import read_flags, read_metrics
from launch import cli

NOT_COMPARED = ("seed", "workdir")

Curve = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Compare:
    """Flags of this command.

    Attributes:
      runs: run directories, separated by commas; each may be a pattern: '/tmp/activations/*'.
      metric: what to compare: a name in metrics.jsonl.
      split: the split on which it was measured: train, validation or test.
      best: whether the max or the min of the metric is best: the order of the table and of the legend.
      out: the PNG file of the plot; empty for the table alone.
      title: above the plot.
      axis: a flag that is a number, such as learning_rate, to draw the last values against, in place of the steps.
      panels: with axis, a flag of which each value has a panel of its own.
    """

    runs: tuple[str, ...] = ()
    metric: str = "accuracy"
    split: str = "validation"
    best: Literal["max", "min"] = "max"
    out: str = "comparison.png"
    title: str = ""
    axis: str = ""
    panels: str = ""

    def run(self) -> None:
        """Prints the table and writes the plot.

        Raises:
          InputError: a directory that is no run, or a metric that none has.
        """
        from jaxdl import plots

        paths = find_runs(self.runs)
        records = {path: read_metrics(path) for path in paths}
        if self.axis:
            return self._over_axis(records)
        if self.panels:
            raise InputError(f"--panels={self.panels} needs --axis, such as --axis=learning_rate.")
        curves, missing = {}, []
        for label, group in group_runs({path: read_flags(path / "flags.txt") for path in paths}).items():
            measured = [curve for path in group if len((curve := self._curve(records[path]))[0])]
            if len(measured) < len(group):
                count = len(group) - len(measured)
                missing.append(f"{label}: {count} of {len(group)} runs have no {self.split} {self.metric} yet")
            if measured:
                curves[label] = measured
        if not curves:
            raise self._no_metric(records)
        for label, runs in curves.items():
            if not len(plots.common_steps(runs)[0]):
                raise InputError(f"the runs of '{label}' have no step in common at which {self.metric} was measured.")
        for line in missing:
            print(line, file=sys.stderr)
        print("\n".join(self._table(curves)))
        if self.out:
            self._write(plots.comparison(curves, self.metric, self.best, self.title))

    def _over_axis(self, records: Mapping[pathlib.Path, Sequence[Mapping[str, Any]]]) -> None:
        from launch import compare_axis

        found = {path: compare_axis.final_value(path, records[path], self.split, self.metric) for path in records}
        values = {path: value for path, value in found.items() if value is not None}
        if not any(np.isfinite(value) for value in values.values()):
            raise self._no_metric(records)
        if len(values) < len(found):
            print(f"left out: {len(found) - len(values)} of {len(found)} runs are not done", file=sys.stderr)
        flags = {path: read_flags(path / "flags.txt") for path in values}
        panels = compare_axis.gather(flags, values, self.axis, self.panels, NOT_COMPARED)
        label = f"{self.split} {self.metric}"
        print("\n".join(compare_axis.table(panels, self.axis, label, self.best)))
        if self.out:
            self._write(compare_axis.figure(panels, self.axis, label, self.best, self.title))

    def _no_metric(self, records: Mapping[pathlib.Path, Sequence[Mapping[str, Any]]]) -> InputError:
        lines = [line for run in records.values() for line in run if line.get("split") == self.split]
        names = {name for line in lines for name in line} - {"step", "split"}
        return InputError(
            f"no run has the metric '{self.metric}' of the split '{self.split}'.{nearest(self.metric, names)} "
            f"There are: {', '.join(sorted(names)) or 'none'}."
        )

    def _write(self, figure) -> None:
        from jaxdl import plots

        try:
            pathlib.Path(self.out).write_bytes(plots.to_png(figure))
        except OSError as error:
            raise InputError(f"--out={self.out} cannot be written: {error.strerror}.") from None
        print(f"\nplot: {self.out}")

    def _curve(self, records: Sequence[Mapping[str, Any]]) -> Curve:
        """Steps and values of the metric in one run; a null, which stands for NaN, is left out."""
        lines = [line for line in records if line.get("split") == self.split and line.get(self.metric) is not None]
        return np.array([line["step"] for line in lines]), np.array([line[self.metric] for line in lines], np.float64)

    def _table(self, curves: Mapping[str, Sequence[Curve]]) -> list[str]:
        """Lines of aligned columns, best last value first."""
        from jaxdl import plots

        rows = []
        for label, runs in curves.items():
            steps, values = plots.common_steps(runs)
            last = values[:, -1]
            spread = last.std(ddof=1) if len(last) > 1 else None
            cells = (label, str(len(runs)), f"{steps[-1]:,}", plots.with_spread(last.mean(), spread))
            rows.append((last.mean(), cells))
        rows.sort(key=lambda row: row[0], reverse=self.best == "max")
        table = [("run", "seeds", "step", f"{self.split} {self.metric}"), *(cells for _, cells in rows)]
        widths = [max(map(len, column)) for column in zip(*table)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in table]


def find_runs(patterns: Sequence[str]) -> list[pathlib.Path]:
    """The run directories that the patterns name, each once.

    Raises:
      InputError: none were given, a pattern matches nothing, or what it names is no run directory.
    """
    if not patterns:
        raise InputError("which runs? --runs=DIR,DIR or --runs='DIR/*'.")
    paths = {}
    for pattern in patterns:
        matches = sorted(glob.glob(str(pathlib.Path(pattern).expanduser())))
        if not matches:
            raise InputError(f"--runs: there is no directory {pattern}.")
        for path in map(pathlib.Path, matches):
            if not (path / "flags.txt").is_file():
                hint = f" Its runs are --runs='{path}/*'." if any(path.glob("*/flags.txt")) else ""
                raise InputError(f"--runs: {path} is no run directory: it has no flags.txt.{hint}")
            paths[path] = None
    return list(paths)


def group_runs(runs: Mapping[pathlib.Path, Mapping[str, str]]) -> dict[str, list[pathlib.Path]]:
    """Runs that differ in nothing but `NOT_COMPARED`, by the flags in which they differ from the others.

    A label is made of the flags that all runs have, for short; where these do not tell the groups apart (a flag
    that only one model has), of all that differ. One differing flag is labelled by its value alone.

    Args:
      runs: the flags of each run directory.

    Raises:
      InputError: two runs are the same, seed included, and would count twice.
    """
    names = sorted({name for values in runs.values() for name in values} - set(NOT_COMPARED))
    differing = [name for name in names if len({values.get(name) for values in runs.values()}) > 1]
    groups: dict[tuple, list[pathlib.Path]] = {}
    for path, values in runs.items():
        groups.setdefault(tuple(values.get(name) for name in differing), []).append(path)
    for paths in groups.values():
        by_seed = {}
        for path in paths:
            other = by_seed.setdefault(runs[path].get("seed"), path)
            if other != path:
                raise InputError(f"--runs: {other} and {path} are the same run, seed included; give one of them.")
    shared = [name for name in differing if all(name in values for values in runs.values())]
    for candidates in (shared, differing):
        labels = [_label(dict(zip(differing, key)), candidates) for key in groups]
        if len(set(labels)) == len(labels):
            break
    return dict(zip(labels, groups.values()))


def _label(values: Mapping[str, str | None], names: Sequence[str]) -> str:
    given = {name: values[name] for name in names if values[name] is not None}
    if len(names) == 1 and given:
        return next(iter(given.values()))
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in given.items()) or "all runs"


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(Compare, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
