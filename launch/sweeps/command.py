"""The command line of a sweep: the sweep's own flags, its axes, where it runs, and what every trial shares."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Literal

from absl import flags

from jaxdl import config
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeInt, PositiveInt, Seed
from launch.executors import EXECUTORS
from launch.executors.base import Executor
from launch.sweeps import axes
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.search import PRUNERS, SEARCHES


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Flags of this command, beside --sweep. The others are those of every trial.

    Attributes:
      workdir: The directory of the sweep. One that exists is continued, also with no other flag than this.
      search: How trials are found: all of a grid, drawn at random, or by a sampler of Optuna that learns from those
        before (pip install -e '.[search]').
      trials: How many trials, for all but a grid. More of them may be asked for later.
      search_seed: Seed of what is drawn.
      prune: End trials that do worse than others, also by Optuna: median ends one that is worse than the median of
        those that are done, at the same step; successive_halving all but the best third at 1, 3, 9, ... times the
        first evaluation.
      metric: By which trials are compared, on the validation split: NAME, or NAME:max or NAME:min where that is
        neither the task's own nor a loss. The task's own if empty.
      executor: Where the trials run.
      workers: How many run at once; as many as there is room for if none.
      retries: How often a trial that failed is tried again. Failing twice with the same error stops the sweep; with
        0 it goes on without the trials that fail.
      dry_run: Show the trials, what they will cost and the commands, and start nothing.
      status: Show how the sweep in --workdir stands.
      cancel: Stop the sweep in --workdir: its trials save, and can be continued.
    """

    workdir: str = ""
    search: Literal[SEARCHES] = "grid"
    trials: PositiveInt | None = None
    search_seed: Seed = 0
    prune: Literal[PRUNERS] = "none"
    metric: str = ""
    executor: Literal[tuple(EXECUTORS)] = "local"
    workers: PositiveInt | None = None
    retries: NonNegativeInt = 1
    dry_run: bool = False
    status: bool = False
    cancel: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
      options: the sweep's own flags.
      axes: what stands after `--sweep=`.
      base: the flags of every trial, one argument each.
      executor: by its flags, not opened.
      arguments: the whole command again, but for what to do with which directory.
    """

    options: Sweep
    axes: tuple[str, ...]
    base: tuple[str, ...]
    executor: Executor
    arguments: tuple[str, ...]


def parse(argv: Sequence[str]) -> Command:
    """Takes the arguments apart. A command that names nothing but a sweep's directory is completed from there.

    Raises:
      InputError: a wrong flag of this command or of the executor; those of the trials are checked later.
    """
    arguments = join_values(config.expand_flagfiles(argv))
    command = _parse(arguments)
    if command.axes or command.base or not command.options.workdir:
        return command
    sweep = SweepDirectory(command.options.workdir)
    if not sweep.is_sweep():
        if command.options.status or command.options.cancel:
            raise InputError(f"--workdir={sweep.path} is no sweep directory: it has no sweep.json.")
        return command
    before = sweep.read_plan()["command"]
    if any(re.match("--?executor=", argument) for argument in arguments):  # what only the old one understands
        old = re.compile(rf"--?({_parse(before).options.executor}\.|workers=)")
        before = [argument for argument in before if not old.match(argument)]
    return _parse([*before, *arguments])


def _parse(arguments: Sequence[str]) -> Command:
    texts = tuple(text.partition("=")[2] for text in arguments if re.match(r"--?sweep=", text))
    others = [text for text in arguments if not re.match(r"--?sweep=", text)]
    own = config.fields_of(Sweep)
    values, _ = _take(others, {"": own})
    name = values[""]["executor"]
    cls = EXECUTORS[name].load()
    values, base = _take(others, {"": own, name: config.fields_of(cls)})
    for argument in base:
        prefix = argument.lstrip("-").partition(".")[0]
        if prefix in EXECUTORS:
            raise InputError(f"{argument} is a flag of --executor={prefix}, and this is --executor={name}.")
    options = Sweep(**values[""])
    if sum((options.dry_run, options.status, options.cancel)) > 1:
        raise InputError("--dry_run, --status and --cancel: one of them at a time.")
    todo = re.compile(r"--?(no)?(workdir|dry_run|status|cancel)(=|$)")
    rest = tuple(argument for argument in arguments if not todo.match(argument))
    return Command(options, texts, tuple(base), cls(**values[name]), rest)


def _take(arguments: Sequence[str], parts) -> tuple[dict[str, dict], list[str]]:
    """The values of the flags of these parts, and the arguments that are none of them."""
    flag_values = flags.FlagValues()
    for prefix, fields in parts.items():
        config.define(flag_values, fields, prefix, "launch.sweep")
    rest = config.parse(flag_values, arguments, known_only=True)
    return {prefix: config.values(flag_values, fields, prefix) for prefix, fields in parts.items()}, rest


def join_values(arguments: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`, so that each argument stands for itself, and in a flag file on a line.

    Raises:
      InputError: an argument that is no flag, or that a line of a flag file cannot hold.
    """
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"--?[A-Za-z]", argument):
            joined.append(argument)
        elif joined and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            raise InputError(f"'{argument}' is no flag: every argument is --name=value.")
    for argument in joined:
        if argument.splitlines() != [argument.strip()]:
            raise InputError(f"{argument!r}: a flag of a sweep is one line, without blanks at its end.")
    return joined


def help_text(about: str) -> str:
    """What `--help` prints, after what the command is about."""
    lines = [about.strip(), "", "axes:", "  --sweep=FLAG=VALUES, once for each axis"]
    lines += ["      " + line if line else "" for line in axes.__doc__.strip().splitlines()]
    lines += ["", "the sweep:", *_flag_lines(Sweep, "")]
    for name, entry in EXECUTORS.items():
        cls = entry.load()
        told = inspect.getdoc(cls).partition("\n\nAttributes:")[0]
        lines += ["", f"--executor={name}: {told}", *_flag_lines(cls, f"{name}.")]
    lines += ["", "every trial: the flags of `python -m launch.train`; its --help tells those of these choices."]
    return "\n".join(lines)


def _flag_lines(cls: type, prefix: str) -> list[str]:
    return [
        f"  --{prefix}{field.name}={field.serialize(field.default)}\n      {field.help} ({field.expected()})"
        for field in config.fields_of(cls).values()
    ]
