"""The trials of a sweep: what varies, what each is called, and what they will cost."""

import collections
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jaxdl.errors import InputError
from jaxdl.settings import Settings, parse
from jaxdl.train.settings import NOT_RECORDED
from launch.sweeps.axes import Axis, given_flags, in_dependency_order, same_value

if TYPE_CHECKING:
    import numpy as np

MOST_TRIALS = 100_000
LONGEST_NAME = 120
SHOWN = 40
"""Rows of a table that are printed; of a longer one the middle is left out."""

_REDRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      name: its directory under trials/, made of what varies.
      values: the flags that vary, as text, in the order of the axes; only those that hold for this trial.
    """

    name: str
    values: Mapping[str, str]

    def arguments(self, base: Sequence[str]) -> list[str]:
        """The flags of its run, but for --workdir."""
        return [*base, *(f"--{name}={value}" for name, value in self.values.items())]


def make_trial(values: Mapping[str, str]) -> Trial:
    """A trial with its name: "learning_rate=0.001__seed=3", a comma as +.

    Other characters than letters, digits, "." and "-" become "-"; then, and where the name is cut because it is too
    long, a hash of the whole makes it this trial's own.
    """
    text = "__".join(f"{flag}={value}" for flag, value in values.items())
    safe = {flag: re.sub(r"[^A-Za-z0-9.+_-]|__+", "-", value.replace(",", "+")) for flag, value in values.items()}
    name = "__".join(f"{flag}={value}" for flag, value in safe.items())
    told_whole = all(safe[flag].replace("+", ",") == value for flag, value in values.items())
    if not told_whole or len(name) > LONGEST_NAME:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}-{digest}"
    return Trial(name, dict(values))


# Which trials there are.


def grid_trials(axes: Sequence[Axis], base: Sequence[str] = ()) -> list[Trial]:
    """The product of the axes, the first slowest; a conditional axis multiplies only the trials for which it holds.

    Args:
      axes: as `parse_axes` gives them.
      base: the expanded flags that every trial has, on which conditions may depend.

    Raises:
      InputError: an axis that is drawn, or too many trials.
    """
    drawn = next((axis for axis in axes if axis.drawn), None)
    if drawn is not None:
        raise InputError(
            f"--sweep={drawn.text}: a grid cannot run through what is drawn; "
            "give --search=random --trials=20, or list the values."
        )
    points = list(itertools.islice(_points(axes, base), MOST_TRIALS + 1))
    if len(points) > MOST_TRIALS:
        raise InputError(f"the grid has more than {MOST_TRIALS:,} trials; --search=random --trials=N draws from it.")
    if in_dependency_order(axes) != list(axes):  # a condition on a later axis: the points came in another order
        points.sort(key=lambda values: [_place(axis, values) for axis in axes])
    return [_in_order(axes, values) for values in points]


def random_trials(axes: Sequence[Axis], base: Sequence[str], number: int, seed: int) -> list[Trial]:
    """Trials drawn independently, lists and grids as choices. Trial i depends on (seed, i) and those before it alone,
    so that more of them begin with the same ones. A trial that was drawn before is drawn again.

    Raises:
      InputError: the axes do not make so many different trials.
    """
    import numpy as np

    check_number(axes, base, number)
    trials: dict[str, Trial] = {}
    for index in range(number):
        rng = np.random.default_rng((seed, index))
        trial = draw_new(axes, base, rng, trials)
        trials[trial.name] = trial
    return list(trials.values())


def draw_new(axes: Sequence[Axis], base: Sequence[str], rng: "np.random.Generator", known: Iterable[str]) -> Trial:
    """Draws a trial whose name is not known. Raises: InputError, where hardly any is left."""
    given, ordered = given_flags(base), in_dependency_order(axes)
    rows = {axis.name: axis.rows for axis in axes}
    for _ in range(_REDRAWS):
        values: dict[str, str] = {}
        for axis in ordered:
            if axis.holds({**given, **values}):
                listed = rows[axis.name]
                values |= listed[rng.integers(len(listed))] if listed else {axis.flags[0]: axis.distribution.draw(rng)}
        trial = _in_order(axes, values)
        if trial.name not in known:
            return trial
    raise InputError(f"after {len(list(known))} trials hardly any is left that differs: give fewer --trials.")


def check_number(axes: Sequence[Axis], base: Sequence[str], number: int) -> None:
    """Refuses more trials than the axes make. Raises: InputError."""
    if number > MOST_TRIALS:
        raise InputError(f"--trials={number}: a sweep has at most {MOST_TRIALS:,} trials.")
    if any(axis.distribution is not None and axis.distribution.kind != "randint" for axis in axes):
        return
    count = sum(1 for _ in itertools.islice(_points(axes, base), number))
    if count < number:
        grid = "" if any(axis.drawn for axis in axes) else "; --search=grid, without --trials, runs them all"
        raise InputError(f"--trials={number}: the axes make only {count} different trials{grid}.")


def probe_trials(axes: Sequence[Axis], base: Sequence[str] = ()) -> list[Trial]:
    """A few trials in which every value of every axis occurs, and both ends of what is drawn.

    With these, the values of a search can be checked before it has chosen any.
    """
    given, ordered = given_flags(base), in_dependency_order(axes)
    owners = {flag: axis for axis in axes for flag in axis.flags}

    def require(axis: Axis, row: dict[str, str], wanted: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Adds a row, and rows of other axes for which this axis holds."""
        wanted[axis.name] = row
        for flag, accepted in axis.conditions.items():
            if flag in owners and owners[flag].name not in wanted:
                fitting = [other for other in _ends(owners[flag]) if any(same_value(other[flag], a) for a in accepted)]
                require(owners[flag], fitting[0] if fitting else {flag: accepted[0]}, wanted)
        return wanted

    trials = {}
    for axis in axes:
        for row in _ends(axis):
            wanted, values = require(axis, row, {}), {}
            for other in ordered:
                if other.holds({**given, **values}):
                    values |= wanted.get(other.name) or _ends(other)[0]
            trial = _in_order(axes, values)
            trials[trial.name] = trial
    return list(trials.values())


def _points(axes: Sequence[Axis], base: Sequence[str]) -> Iterator[dict[str, str]]:
    """The values of all trials, one by one, in the order of dependence."""
    given, ordered = given_flags(base), in_dependency_order(axes)
    rows = {axis.name: axis.rows for axis in axes}

    def options(axis: Axis) -> Iterable[dict[str, str]]:
        if axis.distribution is None:
            return rows[axis.name]
        whole = range(int(axis.distribution.low), int(axis.distribution.high) + 1)
        return ({axis.flags[0]: str(number)} for number in whole)

    def extend(index: int, values: dict[str, str]) -> Iterator[dict[str, str]]:
        if index == len(ordered):
            yield values
        elif not ordered[index].holds({**given, **values}):
            yield from extend(index + 1, values)
        else:
            for row in options(ordered[index]):
                yield from extend(index + 1, {**values, **row})

    return extend(0, {})


def _ends(axis: Axis) -> list[dict[str, str]]:
    return axis.rows or [{axis.flags[0]: end} for end in axis.distribution.ends()]


def _place(axis: Axis, values: Mapping[str, str]) -> int:
    row = {flag: values[flag] for flag in axis.flags if flag in values}
    return axis.rows.index(row) if row else -1


def _in_order(axes: Sequence[Axis], values: Mapping[str, str]) -> Trial:
    return make_trial({flag: values[flag] for axis in axes for flag in axis.flags if flag in values})


# Whether they can run.


def check_trials(base: Sequence[str], trials: Sequence[Trial]) -> dict[str, Settings]:
    """The settings of every trial, by name.

    Raises:
      InputError: what cannot be an axis; a wrong flag or value, with its axis or trial; two trials that are the same.
    """
    for flag in dict.fromkeys(flag for trial in trials for flag in trial.values):
        if flag in (*NOT_RECORDED, "flagfile"):
            raise InputError(
                f"--{flag} cannot be an axis: "
                + ("the sweep gives every trial its own." if flag != "flagfile" else "name the flags that differ.")
            )
    parsed: dict[str, Settings] = {}
    same: dict[tuple, str] = {}
    for trial in trials:
        try:
            settings = parse(trial.arguments(base))
        except InputError as error:
            raise InputError(_with_its_cause(str(error), base, trial, trials)) from None
        if trial.name in parsed:
            raise InputError(f"two trials are called {trial.name}; leave one out.")
        other = same.setdefault(tuple(settings.flags.items()), trial.name)
        if other != trial.name:
            raise InputError(f"the trials {other} and {trial.name} have the same flags; leave one out.")
        parsed[trial.name] = settings
    return parsed


def _with_its_cause(message: str, base: Sequence[str], trial: Trial, trials: Sequence[Trial]) -> str:
    """The message, and whose fault it is: an axis's, this trial's, or that of the base, where the last fails, too."""
    told = message.partition("Did you mean")[0]
    for flag in trial.values:
        if re.search(rf"--{re.escape(flag)}(?![\w.]*\w)", told):
            return f"axis {flag}: {message}"
    if trial is trials[0]:
        try:
            parse(trials[-1].arguments(base))
        except InputError as error:
            if str(error) == message:
                return message
    return f"trial {trial.name}: {message}"


# What they will cost.


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one trial of a program takes.

    Attributes:
      steps: updates.
      examples: how many are trained on, repeats counted.
      parameters: trained numbers.
      flops: of the matrix products and convolutions of training.
      checkpoint_bytes: on disk, when as many checkpoints are there as are kept, and the best.
    """

    steps: int
    examples: int
    parameters: int
    flops: int
    checkpoint_bytes: int


def cost(settings: Settings, data=None) -> Cost:
    """What a run with these settings takes; its step is traced and not computed.

    Args:
      data: what its dataset's flags load, where that is at hand.

    Raises:
      InputError: its parts do not fit together, or its data is not there.
    """
    import jax

    from jaxdl.experiment import build, trace
    from jaxdl.scaling.flops import parameter_count

    program, trainer = build(settings, {"dataset": data}, check=False), settings.trainer
    rows = program.pipeline(trainer.batch_size).batch(0)
    batch = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in rows.items()}
    state = jax.eval_shape(program.init, jax.ShapeDtypeStruct((), "uint32"), batch)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return Cost(
        steps=program.total_steps,
        examples=program.total_steps * trainer.batch_size,
        parameters=parameter_count(state.params),
        flops=trace(program, settings).flops * program.total_steps,
        checkpoint_bytes=state_bytes * (trainer.keep_checkpoints + 1),
    )


def dry_run(settings: Mapping[str, Settings], trials: Sequence[Trial]) -> list[str]:
    """Lines that show the trials and what they will cost.

    Args:
      settings: as `check_trials` gives them, by the trial's name.
      trials: those to show.

    Raises:
      InputError: a trial cannot be built.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed: the accelerators are left to those that train
    flags = list(dict.fromkeys(flag for trial in trials for flag in trial.values))
    lines = _table([("trial", *flags), *(_row(number, trial, flags) for number, trial in enumerate(trials, 1))])
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(settings[trial.name].program_key(), []).append(trial)
    costs, loaded, data = [], None, None
    for group in groups.values():
        first = settings[group[0].name]
        wanted = (first.names["dataset"], first.values["dataset"], first.trainer.data_dir)
        try:
            if wanted != loaded:  # the last one alone is kept: data may be large
                loaded, data = wanted, first.make("dataset").load(first.trainer.data_dir)
            costs.append(cost(first, data))
        except InputError as error:
            raise InputError(f"trial {group[0].name}: {error}") from None
    counts = [len(group) for group in groups.values()]
    head = ("program", "trials", "steps", "examples", "parameters", "training FLOPs", "checkpoints")
    rows = [(name, *_cost_row(count, each)) for name, count, each in zip(_names(groups), counts, costs)]
    lines += ["", f"{_plural(len(groups), 'program')}, for each trial of it:", *_table([head, *rows])]

    def total(name: str) -> int:
        return sum(count * getattr(each, name) for count, each in zip(counts, costs))

    lines += [
        "",
        f"in all: {_plural(len(trials), 'trial')} of {_plural(len(groups), 'program')}, {total('steps'):,} steps, "
        f"{total('examples'):,} examples, {_flops(total('flops'))} training FLOPs, "
        f"at most {_bytes(total('checkpoint_bytes'))} of checkpoints",
        "(FLOPs are those of matrix products and convolutions; nothing was computed)",
    ]
    return lines


def _row(number: int, trial: Trial, flags: Sequence[str]) -> tuple[str, ...]:
    return (str(number), *(trial.values.get(flag, "-") or "()" for flag in flags))


def _cost_row(count: int, each: Cost) -> tuple[str, ...]:
    numbers = (count, each.steps, each.examples, each.parameters)
    return (*(f"{number:,}" for number in numbers), _flops(each.flops), _bytes(each.checkpoint_bytes))


def _names(groups: Mapping[tuple, Sequence[Trial]]) -> list[str]:
    """What is the same in all trials of a program, and not in all programs."""
    names = []
    for group in groups.values():
        shared = set(group[0].values.items()).intersection(*(trial.values.items() for trial in group))
        names.append([(flag, value) for flag, value in group[0].values.items() if (flag, value) in shared])
    everywhere = collections.Counter(pair for pairs in names for pair in pairs)
    told = [", ".join(f"{f}={v or '()'}" for f, v in pairs if everywhere[f, v] < len(groups)) for pairs in names]
    return [name or str(number) for number, name in enumerate(told, 1)]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned columns, the head first; of many rows the middle is left out."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    left_out = len(rows) - 1 - SHOWN
    if left_out <= 0:
        return lines
    half = SHOWN // 2
    return [*lines[: 1 + half], f"... {left_out} more ...", *lines[-half:]]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _flops(count: int) -> str:
    return f"{count:.3g}"


def _bytes(count: int) -> str:
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
