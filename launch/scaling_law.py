"""Turns runs, or anyone's table of (parameters, tokens, loss), into a scaling law, with intervals and pictures.

    python -m launch.scaling_law --runs=SWEEP --out=DIR
    python -m launch.scaling_law --csv=FILE --out=DIR
    python -m launch.scaling_law --csv=FILE --axis=width --loss=accuracy --out=DIR

DIR gets report.md, report.json and the pictures. With `--axis` it is a saturating power law of any metric against any
axis: a column of the table, or of runs a flag such as model.width, or parameters, tokens, examples, steps.

Of runs, parameters are those of environment.json, tokens the steps times batch size and length (examples where the
data have no length), and the loss is the last one on `--split`. Runs that diverged or are not done are left out, and
listed. Exit status: 0 done; 1 the fit did not converge; 2 the flags or the points are wrong.
"""

import csv
import dataclasses
import glob
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxdl.catalog import nearest
from jaxdl.errors import InputError, RunError
from jaxdl.train.record import read_flags, read_json, read_metrics
from jaxdl.types import NonNegativeInt, PositiveFloat, PositiveInt
from launch import cli
from launch.compare import find_runs
from launch.sweeps.directory import SweepDirectory


@dataclasses.dataclass(frozen=True)
class ScalingLaw:
    """Flags of this command.

    Attributes:
      csv: a table with a header and a line for each run.
      runs: sweeps, or run directories; each may be a pattern: '/tmp/iso/trials/*'.
      out: the directory of the report.
      parameters: the table's column of parameters.
      tokens: the table's column of tokens.
      flops: a column of training FLOPs in place of tokens, which are then C / 6N.
      loss: the column of the loss; of runs, the metric.
      curve: a column that names the run of each line, where a table has several lines of a run as it trained: the line
        of the most tokens is the point, and all are the training curve.
      axis: fit the metric against this axis alone.
      split: of runs: the split that the metric is of.
      leave_out: leave out so many points with the highest loss.
      kind: what the law minimises: huber, or absolute for the least absolute error.
      delta: where Huber's loss of log L turns from a parabola to a line.
      resamples: of the bootstrap.
      seed: of the resamples.
      budgets: FLOPs of the IsoFLOP budgets; those with the most points by default.
      tolerance: by what share a point's FLOPs may differ from its budget's.
      predict_flops: budgets to predict; 1, 10 and 100 times the largest run by default.
      predict_parameters: sizes of runs whose loss is to be predicted, one for each of predict_tokens.
      predict_tokens: tokens of these runs.
      target_losses: losses whose cost is to be predicted.
      published: laws to be shown beside: hoffmann2022, besiroglu2024.
    """

    csv: str = ""
    runs: tuple[str, ...] = ()
    out: str = ""
    parameters: str = "parameters"
    tokens: str = "tokens"
    flops: str = ""
    loss: str = "loss"
    curve: str = ""
    axis: str = ""
    split: str = "validation"
    leave_out: NonNegativeInt = 0
    kind: Literal["huber", "absolute"] = "huber"
    delta: PositiveFloat = 1e-3
    resamples: PositiveInt = 4000
    seed: NonNegativeInt = 0
    budgets: tuple[float, ...] = ()
    tolerance: PositiveFloat = 0.1
    predict_flops: tuple[float, ...] = ()
    predict_parameters: tuple[float, ...] = ()
    predict_tokens: tuple[float, ...] = ()
    target_losses: tuple[float, ...] = ()
    published: tuple[str, ...] = ()

    def run(self) -> None:
        """Prints the report's lines, and writes it.

        Raises:
          InputError: a file or points that are wrong.
          RunError: the fit did not converge.
        """
        if bool(self.csv) == bool(self.runs):
            raise InputError("which points? Either --csv=FILE or --runs=SWEEP.")
        if not self.out:
            raise InputError("where to? --out=DIR.")
        for name in ("budgets", "predict_flops", "predict_parameters", "predict_tokens", "target_losses"):
            if any(value <= 0 for value in getattr(self, name)):
                raise InputError(f"--{name}: every number must be positive.")
        points = self._from_table() if self.csv else self._from_runs()
        points = points.without_highest(self.leave_out)
        analysis = self._analyse(points)
        from jaxdl.scaling import report

        report.write(analysis, self.out)
        print(analysis.text.partition("\n## Pictures")[0].strip())
        print(f"\nwritten: {self.out}/report.md, report.json and {len(analysis.figures)} pictures")
        if not analysis.converged:
            raise RunError(f"the fit did not converge; {self.out}/report.md says so, and nothing is drawn from it.")

    def _analyse(self, points: "Points"):
        from jaxdl.scaling import fits, report
        from jaxdl.scaling.isoflop import Curve
        from jaxdl.scaling.laws import LAWS

        shared = {field.name for field in dataclasses.fields(report.Options)}
        options = report.Options(**{name: getattr(self, name) for name in shared})
        loss, labels = points.columns["loss"], points.labels
        if self.axis:
            x = points.columns[self.axis]
            fits.check_points({self.axis: x}, loss, len(LAWS["falling"].constants), positive=False, labels=labels)
            return report.analyse_one_axis(x, loss, options, self.axis, self.loss, points.notes)
        axes = {"N": points.columns["N"], "D": points.columns["D"]}
        fits.check_points(axes, loss, len(LAWS["chinchilla"].constants), labels=labels)
        curves = [Curve(N, D, values) for N, D, values in points.curves]
        return report.analyse(*axes.values(), loss, options, curves, points.notes)

    def _from_table(self) -> "Points":
        second = self.flops or self.tokens
        names = (self.axis, self.loss) if self.axis else (self.parameters, second, self.loss)
        lines = read_table(self.csv, [*names, *[self.curve] * bool(self.curve)])
        labels = [f"{self.csv} line {number}" for number, _ in lines]
        columns = {name: _numbers(name, labels, [line[name] for _, line in lines]) for name in names}
        if self.axis:
            return Points(labels, columns | {"loss": columns[self.loss]})
        N, D = columns[self.parameters], columns[second]
        if self.flops:
            from jaxdl.scaling.laws import FLOPS_PER_TOKEN

            with np.errstate(divide="ignore", invalid="ignore"):
                D = D / FLOPS_PER_TOKEN / N
        points = Points(labels, {"N": N, "D": D, "loss": columns[self.loss]})
        return points.by_run([line[self.curve] for _, line in lines]) if self.curve else points

    def _from_runs(self) -> "Points":
        runs, notes, unfinished = [], [], []
        for path in find_trials(self.runs):
            try:
                runs.append(read_run(path, self.split, self.loss))
            except LeftOut as reason:
                unfinished.append(f"left out: {path}: {reason}")
        for note in unfinished:
            print(note, file=sys.stderr)
        if not runs:
            raise InputError(f"none of the {len(unfinished)} runs is done and has a {self.split} {self.loss}.")
        notes = [f"{len(runs)} runs", *unfinished]
        labels = [str(run.path) for run in runs]
        loss = np.array([run.loss[-1] for run in runs])
        if self.axis:
            return Points(labels, {self.axis: np.array([run.number(self.axis) for run in runs]), "loss": loss}, notes)
        columns = {"N": np.array([run.parameters for run in runs]), "D": np.array([run.tokens[-1] for run in runs])}
        if not all("dataset.length" in run.flags for run in runs):
            notes.append("D counts examples where the data have no length in tokens.")
        curves = [(run.parameters, run.tokens, run.loss) for run in runs if len(run.loss) > 1]
        return Points(labels, columns | {"loss": loss}, notes, curves)


@dataclasses.dataclass(frozen=True)
class Points:
    """What a law is fitted to.

    Attributes:
      labels: what messages call each point.
      columns: float [P] by name: N, D and loss, or the axis and loss.
      notes: lines for the report.
      curves: (N, D [S], loss [S]) of each run as it trained.
    """

    labels: list[str]
    columns: dict[str, np.ndarray]
    notes: list[str] = dataclasses.field(default_factory=list)
    curves: list[tuple[float, np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def without_highest(self, count: int) -> "Points":
        """Leaves out the points of the highest loss, and notes it."""
        if not count:
            return self
        loss = self.columns["loss"]
        if count >= len(loss):
            raise InputError(f"--leave_out={count} leaves none of the {len(loss)} points.")
        order = np.argsort(loss, kind="stable")
        kept = np.sort(order[:-count])
        columns = {name: column[kept] for name, column in self.columns.items()}
        note = f"{count} of {len(loss)} points left out, those of a loss of {loss[order[-count]]:.4g} and more"
        return Points([self.labels[index] for index in kept], columns, [*self.notes, note], self.curves)

    def by_run(self, names: Sequence[str]) -> "Points":
        """The last point of each run, and the curves that its points make."""
        N, D, loss = (self.columns[name] for name in ("N", "D", "loss"))
        last, curves = [], []
        for name in dict.fromkeys(names):
            rows = np.flatnonzero(np.array(names) == name)
            rows = rows[np.argsort(D[rows], kind="stable")]
            last.append(rows[-1])
            if len(rows) > 1:
                curves.append((float(N[rows[-1]]), D[rows], loss[rows]))
        columns = {name: column[last] for name, column in self.columns.items()}
        return Points([self.labels[index] for index in last], columns, self.notes, curves)


# Tables.


def read_table(path: str, names: Sequence[str]) -> list[tuple[int, Mapping[str, str]]]:
    """The lines of a CSV file with a header, with their numbers.

    Args:
      path: the file.
      names: columns that it must have.

    Raises:
      InputError: a file that is missing, no text or empty, has not these columns, or has a line with more.
    """
    try:
        with open(pathlib.Path(path).expanduser(), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, line) for line in reader]
    except OSError as error:
        raise InputError(f"--csv={path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--csv={path} is no CSV file: {error}.") from None
    columns = [column.strip() for column in reader.fieldnames or ()]
    flags = "--parameters, --tokens (or --flops) and --loss name the columns"
    for name in names:
        if name not in columns:
            has = ", ".join(columns) or "none"
            raise InputError(
                f"--csv={path}: there is no column '{name}'.{nearest(name, columns)} There are: {has}; {flags}."
            )
    if not lines:
        raise InputError(f"--csv={path} has a header and no lines.")
    for number, line in lines:
        if None in line:
            raise InputError(
                f"{path} line {number} has more cells than the header; a number has no comma, and a text that has one "
                "stands in quotes."
            )
    return [(number, {name.strip(): value for name, value in line.items()}) for number, line in lines]


def _numbers(name: str, labels: Sequence[str], texts: Sequence[str | None]) -> np.ndarray:
    values = []
    for label, text in zip(labels, texts):
        try:
            values.append(float(text or ""))
        except ValueError:
            raise InputError(f"{label}: {name} is '{text or ''}', which is no number.") from None
    return np.array(values)


# Runs.


class LeftOut(Exception):
    """Why a run is no point."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is done.

    Attributes:
      path: its directory.
      flags: text by name.
      parameters: how many.
      steps: where the loss was measured, [S].
      tokens: seen until then, float [S].
      loss: float [S].
    """

    path: pathlib.Path
    flags: Mapping[str, str]
    parameters: float
    steps: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray

    def number(self, axis: str) -> float:
        """The run's place on an axis: parameters, tokens, examples, steps; or a flag, one number for all layers."""
        own = {"parameters": self.parameters, "tokens": self.tokens[-1], "steps": self.steps[-1]}
        own["examples"] = own["steps"] * float(self.flags["batch_size"])
        if axis in own:
            return float(own[axis])
        if axis not in self.flags:
            hint = nearest(axis, [*own, *self.flags])
            raise InputError(f"--axis={axis}: {self.path} has no such flag.{hint}")
        try:
            (number,) = {float(part) for part in self.flags[axis].split(",")}
        except ValueError:
            raise InputError(f"--axis={axis} is '{self.flags[axis]}' in {self.path}, which is no number.") from None
        return number


def find_trials(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Run directories: the trials of sweeps, the runs in a folder, or the runs themselves.

    Raises:
      InputError: a pattern that matches nothing, or no run.
    """
    found: dict[pathlib.Path, None] = {}
    for pattern in patterns:
        for match in sorted(glob.glob(str(pathlib.Path(pattern).expanduser()))) or [pattern]:
            folder = pathlib.Path(match)
            if (folder / "sweep.json").is_file():
                found |= dict.fromkeys(folder / "trials" / trial.name for trial in SweepDirectory(folder).trials())
            elif not (folder / "flags.txt").is_file() and any(folder.glob("*/flags.txt")):
                found |= dict.fromkeys(sorted(path.parent for path in folder.glob("*/flags.txt")))
            else:
                found |= dict.fromkeys(find_runs((match,)))
    return list(found)


def read_run(path: pathlib.Path, split: str, metric: str) -> Run:
    """A run's parameters, and its loss over the tokens that it saw.

    Raises:
      LeftOut: a run that diverged, is not done, or has not the metric.
    """
    status = read_json(path / "status.json") or {}
    state = status.get("state", "not begun")
    if state != "done":
        raise LeftOut(f"{state}{': ' + status['error'] if status.get('error') else ''}")
    flags = read_flags(path / "flags.txt")
    parameters = (read_json(path / "environment.json") or {}).get("parameters")
    if not parameters:
        raise LeftOut("environment.json has no parameters")
    pairs = [
        (record["step"], record[metric])
        for record in read_metrics(path)
        if record.get("split") == split and isinstance(record.get(metric), (int, float))
    ]
    if not pairs or not all(math.isfinite(value) for _, value in pairs[-1:]):
        raise LeftOut(f"no {split} {metric}")
    steps, values = np.array(pairs, np.float64).T
    tokens = steps * float(flags["batch_size"]) * float(flags.get("dataset.length", 1))
    return Run(path, flags, float(parameters), steps, tokens, values)


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(ScalingLaw, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
