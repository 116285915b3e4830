"""What a sweep found: a row for each trial, summary.csv, best.flags, plots, and what a person reads at the end.

Trials that differ in `seed` alone are one setting, told as mean ± sample standard deviation. Trials that failed,
diverged or have not ended count in no mean. A setting that lacks one of its seeds for that stands behind all that
lack none: the seeds that survive flatter it.
"""

import collections
import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from jaxdl.config import quote_command
from jaxdl.errors import InputError
from jaxdl.train.record import guard_disk, read_json, read_metrics, replace_file
from jaxdl.train.stopping import best_record
from launch.sweeps.axes import parse_axis
from launch.sweeps.directory import SweepDirectory, lock_holder
from launch.sweeps.plan import Trial
from launch.sweeps.search import SAMPLERS, importance
from launch.sweeps.table import count_states
from launch.sweeps.trial_state import FINAL

COUNTED = ("done", "stopped")
"""States of trials whose metric counts: those that ran to their end, or to where a pruner ended them."""

LOST = ("diverged", "failed")

SHOWN = 20
"""Settings in the terminal's table."""

DPI = 120
"""Of the plots: legible, and drawn in a third less time than at 150."""

OF_THE_SWEEP = ("plots", "progress")
"""Flags that a sweep sets for its own sake, and that best.flags leaves out."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One trial, as its run directory tells it; None is what it does not tell (yet).

    Attributes:
      trial: its name.
      values: the axes' flags, as text.
      state: done, diverged, stopped, failed, preempted, running, waiting, or dead (no process holds what runs).
      step, steps: how far it is, and how far it goes.
      seconds: of all its attempts that ended, imports and compilation included (the whole job's, where several trials
        are one); else those of its steps.
      attempts: how many ended.
      split: the split of `best`: validation, or train where there is none.
      best, best_step: the metric at its best evaluation, and the step of that.
      test: the metric on the test split at that step.
      loss: the loss on `split` at that step.
      error: why it failed, in a line.
      curve: steps and values of the metric on `split`, those that are finite.
    """

    trial: str
    values: Mapping[str, str]
    state: str = "waiting"
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    attempts: int = 0
    split: str = "validation"
    best: float | None = None
    best_step: int | None = None
    test: float | None = None
    loss: float | None = None
    error: str | None = None
    curve: tuple[Sequence[int], Sequence[float]] = dataclasses.field(default=((), ()), repr=False, compare=False)

    @property
    def counts(self) -> bool:
        """Whether its metric enters means."""
        return self.best is not None and self.state in COUNTED


@dataclasses.dataclass(frozen=True)
class Setting:
    """Trials that differ in `seed` alone.

    Attributes:
      values: the axes' flags but for `seed`.
      rows: its trials.
    """

    values: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def counted(self) -> list[Row]:
        """The trials that enter the mean."""
        return [row for row in self.rows if row.counts]

    def mean(self, name: str = "best") -> float | None:
        """The mean of a number of its rows: `best`, `test` or `loss`; None where no row has it."""
        values = self._numbers(name)
        return statistics.fmean(values) if values else None

    def spread(self, name: str = "best") -> float | None:
        """The sample standard deviation; None of fewer than two."""
        values = self._numbers(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def _numbers(self, name: str) -> list[float]:
        return [value for row in self.counted if (value := getattr(row, name)) is not None]


def read_rows(sweep: SweepDirectory, metric: tuple[str, str]) -> list[Row]:
    """The trials so far, in order.

    Args:
      metric: name, and whether its "max" or "min" is best.
    """
    attempts = collections.defaultdict(list)
    for attempt in sweep.attempts():
        attempts[attempt["trial"]].append(attempt)
    return [_read_row(trial, sweep.run(trial.name), attempts[trial.name], metric) for trial in sweep.trials()]


def _read_row(trial: Trial, run: pathlib.Path, attempts: Sequence[Mapping], metric: tuple[str, str]) -> Row:
    name, mode = metric
    status = read_json(run / "status.json") or {}
    state, error = status.get("state", "waiting"), status.get("error")
    if state == "running" and lock_holder(run / ".lock") is None:
        state = "dead"
    if attempts and attempts[-1]["state"] == "failed" and state not in FINAL:  # one that was killed cannot say so
        state, error = "failed", attempts[-1]["error"]
    records = read_metrics(run)
    split, best = "validation", best_record(records, name, mode, "validation")
    if best is None and not any(record["split"] == "validation" for record in records):
        split, best = "train", best_record(records, name, mode, "train")
    best = best or {}
    tests = [record for record in records if record["split"] == "test" and record["step"] == best.get("step")]
    points = [(r["step"], v) for r in records if r["split"] == split and (v := r.get(name)) is not None]
    seconds = [attempt["seconds"] for attempt in attempts if attempt.get("seconds") is not None]
    return Row(
        trial=trial.name,
        values=trial.values,
        state=state,
        step=status.get("step"),
        steps=status.get("steps"),
        seconds=round(sum(seconds), 3) if seconds else status.get("seconds"),
        attempts=len(attempts),
        split=split,
        best=best.get(name),
        best_step=best.get("step"),
        test=tests[-1].get(name) if tests else None,
        loss=best.get("loss"),
        error=error,
        curve=tuple(zip(*points)) if points else ((), ()),
    )


def settings_of(rows: Sequence[Row], mode: str) -> list[Setting]:
    """The settings, best first; those without a metric last."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple((flag, text) for flag, text in row.values.items() if flag != "seed")].append(row)
    sign = -1 if mode == "max" else 1

    def rank(setting: Setting):
        mean = setting.mean()
        lost = any(row.state in LOST for row in setting.rows)
        return (mean is None, lost or len(setting.counted) < len(setting.rows), sign * (mean or 0))

    return sorted((Setting(dict(values), tuple(group)) for values, group in groups.items()), key=rank)


def best_row(setting: Setting, mode: str) -> Row:
    """The best trial of a setting that has a metric."""
    return (max if mode == "max" else min)(setting.counted, key=lambda row: row.best)


def write_results(sweep: SweepDirectory, metric: tuple[str, str]) -> list[str]:
    """Writes summary.csv, best.flags and plots/*.png of a sweep, finished or not.

    Args:
      metric: name, and whether its "max" or "min" is best.

    Returns:
      The lines for the terminal: the table of settings, counts of states, errors, the best trial, the commands.

    Raises:
      RunError: the disk is full, or the like.
    """
    rows = read_rows(sweep, metric)
    settings = settings_of(rows, metric[1])
    replace_file(sweep.path / "summary.csv", summary(rows, metric[0]))
    lines = [*table(settings, metric[0]), "", count_states(rows), *_errors(rows)]
    if settings and settings[0].mean() is not None:
        best = best_row(settings[0], metric[1])
        lines += [_tell_best(settings[0], best, metric)]
        if (sweep.run(best.trial) / "flags.txt").exists():
            replace_file(sweep.path / "best.flags", _best_flags(sweep, settings[0], best, metric))
            lines += [f"  to run it again:  {_again(sweep)}"]
        _write_plots(sweep, rows, metric)
        lines += [f"  plots:            {quote_command([str(sweep.path / 'plots')])}"]
    return [*lines, f"  every trial:      {quote_command([str(sweep.path / 'summary.csv')])}"]


# summary.csv


def summary(rows: Sequence[Row], metric: str) -> str:
    """summary.csv: a line a trial, with a column for each axis. What a trial does not have is left empty."""
    own = ("trial", "state", "step", "steps", "seconds", "attempts")
    axes = dict.fromkeys(flag for row in rows for flag in row.values)
    found = ("split", metric, "best_step", f"test_{metric}", "loss", "error")
    file = io.StringIO()
    columns = dict.fromkeys([*own, *axes, *found])  # an axis `steps`, or the metric `loss`, is the column of that name
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        split = row.split if row.best is not None else None
        values = zip(found, (split, row.best, row.best_step, row.test, row.loss, row.error))
        writer.writerow({**{name: getattr(row, name) for name in own}, **row.values, **dict(values)})
    return file.getvalue()


# What a person reads.


def table(settings: Sequence[Setting], metric: str) -> list[str]:
    """The best settings, best first, in aligned columns; how many more there are."""
    from jaxdl.plots import with_spread

    ranked = [setting for setting in settings if setting.mean() is not None]
    if not ranked:
        return [f"no trial has ended with a finite {metric} yet"]
    flags = list(dict.fromkeys(flag for setting in settings for flag in setting.values))
    seeds = max(len(setting.rows) for setting in settings)
    numbers = {"best": measured_name(settings, metric), "test": f"test {metric}", "loss": "loss"}
    if all(row.loss == row.best for setting in ranked for row in setting.counted):
        del numbers["loss"]  # under another name
    numbers = {name: told for name, told in numbers.items() if any(s.mean(name) is not None for s in ranked)}
    lines = [[*flags, *(["seeds"] if seeds > 1 else []), *numbers.values(), ""]]
    for setting in ranked[:SHOWN]:
        line = [setting.values.get(flag, "-") for flag in flags]
        counted = len(setting.counted)
        if seeds > 1:
            line += [str(counted) if counted == len(setting.rows) else f"{counted} of {len(setting.rows)}"]
        for name in numbers:
            mean = setting.mean(name)
            line += ["-" if mean is None else with_spread(mean, setting.spread(name))]
        others = collections.Counter(row.state for row in setting.rows if row.state != "done")
        lines += [[*line, ", ".join(f"{number} {state}" for state, number in others.items())]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    if len(ranked) > SHOWN:
        told += [f"and {len(ranked) - SHOWN} more settings"]
    if len(ranked) < len(settings):
        told += [f"{len(settings) - len(ranked)} of {len(settings)} settings have no {metric}"]
    return told


def measured_name(settings: Sequence[Setting], metric: str) -> str:
    """What `best` is: "validation accuracy", or "accuracy" where trials measured it on different splits."""
    splits = {row.split for setting in settings for row in setting.counted}
    return f"{splits.pop()} {metric}" if len(splits) == 1 else metric


def _errors(rows: Sequence[Row]) -> list[str]:
    """Each way of failing once, with how many trials failed so and the first of them."""
    failed = collections.defaultdict(list)
    for row in rows:
        if row.state in LOST:
            failed[row.error or "no reason was written"].append(row.trial)
    lines = [
        f"  {trials[0]}{f' and {len(trials) - 1} more' if len(trials) > 1 else ''}: {error}"
        for error, trials in failed.items()
    ]
    return lines if len(lines) <= 5 else [*lines[:5], f"  and {len(lines) - 5} other errors"]


def _tell_best(setting: Setting, best: Row, metric: tuple[str, str]) -> str:
    text = f"best: {best.trial}: {best.split} {metric[0]} {best.best:.4g} at step {best.best_step:,}"
    if best.test is not None:
        text += f", test {metric[0]} {best.test:.4g}"
    if len(setting.rows) > 1:
        text += f" (the best of the {len(setting.counted)} seeds of the setting that is best in the mean)"
    return text


def _again(sweep: SweepDirectory) -> str:
    return quote_command(["python", "-m", "launch.train", f"--flagfile={sweep.path / 'best.flags'}", "--workdir=NEW"])


def _best_flags(sweep: SweepDirectory, setting: Setting, best: Row, metric: tuple[str, str]) -> str:
    comment = [
        f"The best trial of the sweep {sweep.path.name}: {best.trial}.",
        f"Its {best.split} {metric[0]} is {best.best:.4g} at step {best.best_step:,}"
        + ("." if best.test is None else f", and {best.test:.4g} on the test split."),
    ]
    if setting.spread() is not None:
        comment += [
            f"It is the best seed of its setting, whose {len(setting.counted)} seeds have {setting.mean():.4g} "
            f"± {setting.spread():.2g}."
        ]
    lines = (sweep.run(best.trial) / "flags.txt").read_text(encoding="utf-8").splitlines()
    flags = [line for line in lines if line.startswith("--") and line[2:].partition("=")[0] not in OF_THE_SWEEP]
    return "\n".join([*(f"# {line}" for line in [*comment, _again(sweep)]), "", *flags]) + "\n"


# Files.


def _write_plots(sweep: SweepDirectory, rows: Sequence[Row], metric: tuple[str, str]) -> None:
    from jaxdl.plots import to_png  # Matplotlib is slow to import
    from launch.sweeps import figures

    folder = sweep.path / "plots"
    with guard_disk(folder):
        folder.mkdir(exist_ok=True)
    plan = sweep.read_plan()
    scales = {column.flag: column.scale for text in plan["axes"] for column in parse_axis(text).columns}
    shares = _importance(sweep) if plan["search"] in SAMPLERS else None
    for name, figure in figures.draw(rows, scales, metric, shares).items():
        replace_file(folder / f"{name}.png", to_png(figure, DPI))


def _importance(sweep: SweepDirectory) -> dict[str, float]:
    """The importance of each axis, or nothing where too few trials are done to tell."""
    try:
        return importance(sweep.path)
    except InputError:
        return {}
