"""Runs many trials of an experiment: the flags of one, the axes along which they differ, and where they run.

    python -m launch.sweep --flagfile=experiments/foundations/mlp_digits.flags \\
        '--sweep=learning_rate=log(1e-4,1e-1,8)' --sweep=seed=0..7 --workdir=/tmp/sweep

Each trial is an ordinary run directory under WORKDIR/trials. The command may be stopped or killed at any time;
`python -m launch.sweep --workdir=/tmp/sweep` goes on with what is not done yet. At the end WORKDIR has summary.csv,
plots, and the flags of the best trial. A whole sweep can stand in a flag file, --sweep lines included.

Exit status: 0 every trial came to its end; 1 some failed, or the sweep was stopped for an error; 2 the input is
wrong; 75 asked to stop (SIGTERM), ask for me again; 130 Ctrl-C. Ctrl-C asks the trials to save and waits for them;
once more, and it leaves at once.
"""

import atexit
import collections
import gc
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxdl import config
from jaxdl.errors import InputError
from jaxdl.settings import Settings
from launch import cli
from launch.executors.base import Executor, train_job
from launch.sweeps import plan
from launch.sweeps.axes import parse_axes
from launch.sweeps.command import Command, help_text, parse
from launch.sweeps.directory import SweepDirectory, lock_holder
from launch.sweeps.interrupts import Interrupts
from launch.sweeps.schedule import Scheduler
from launch.sweeps.search import Search, known_trials, make_search
from launch.sweeps.table import Line, choose, count_states, make_view, to_text
from launch.sweeps.trial_state import FINAL

ERRORS_SHOWN = 5
STATUS_LINES = 40
COMMANDS_SHOWN = 20


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(help_text(__doc__))
        return 0
    command = parse(argv)
    if command.options.status:
        return show_status(command)
    if command.options.cancel:
        return cancel(command)
    return run(command)


def run(command: Command) -> int:
    """Checks everything, and then runs the sweep or shows what it would be."""
    options = command.options
    if not options.workdir:
        raise InputError("name a directory for the sweep: --workdir=/tmp/sweep.")
    if not options.dry_run:
        command.executor.warm_up()
    axes = parse_axes(command.axes, command.base)
    known = known_trials(options.search, axes, command.base, options.trials, options.search_seed)
    trials = plan.probe_trials(axes, command.base) if known is None else known
    settings = plan.check_trials(command.base, trials)
    metric = choose_metric(options.metric, settings.values())
    sweep = SweepDirectory(options.workdir)
    told = _make_plan(command, metric)
    sweep.check_plan(told)
    if options.dry_run:
        if known is None:
            print(f"--search={options.search} chooses {options.trials} trials as it goes; these show every value.\n")
        _show(command.executor, sweep, settings, trials)
        return 0
    sweep.open()
    try:
        command.executor.open(sweep, options.workers)
        try:
            search = make_search(
                options.search,
                axes,
                command.base,
                number=options.trials,
                seed=options.search_seed,
                metric=metric,
                prune=options.prune,
                folder=sweep.path,
            )
            sweep.write_plan(told)
            scheduler, asked = _schedule(command, sweep, search, metric, known is not None)
            return _report(command, sweep, scheduler, asked)
        finally:
            command.executor.close()
    finally:
        sweep.close()


def _show(executor: Executor, sweep: SweepDirectory, settings, trials: Sequence[plan.Trial]) -> None:
    """What `--dry_run` prints of the trials."""
    commands = executor.preview([train_job(sweep, trial) for trial in trials])
    print("\n".join(commands[:COMMANDS_SHOWN]))
    if len(commands) > COMMANDS_SHOWN:
        print(f"... and {len(commands) - COMMANDS_SHOWN:,} more")
    print()
    print("\n".join(plan.dry_run(settings, trials)))


def choose_metric(asked: str, settings: Iterable[Settings]) -> tuple[str, str]:
    """The metric that compares trials, and whether its "max" or "min" is best.

    Raises:
      InputError: trials with different tasks have none in common, or which end is best is not known.
    """
    own = {each.classes["task"].selection for each in settings}
    name, colon, mode = asked.partition(":")
    if not asked:
        if len(own) > 1:
            told = ", ".join(sorted(name for name, _ in own))
            raise InputError(f"the trials' tasks have different metrics ({told}); name one: --metric=loss.")
        return own.pop()
    if not colon:
        known = {**dict(own), "loss": "min"}
        if name not in known:
            raise InputError(f"--metric={name}: say which is best, --metric={name}:max or --metric={name}:min.")
        mode = known[name]
    if not name or mode not in ("max", "min"):
        raise InputError(f"--metric={asked}: expected NAME, NAME:max or NAME:min.")
    return name, mode


def _make_plan(command: Command, metric: tuple[str, str]) -> dict[str, Any]:
    options = command.options
    return {
        "base": list(command.base),
        "axes": list(command.axes),
        **{name: getattr(options, name) for name in ("search", "search_seed", "prune", "trials")},
        "metric": ":".join(metric),
        "command": list(command.arguments),
    }


def _schedule(command: Command, sweep, search: Search, metric, listed: bool) -> tuple[Scheduler, int | None]:
    """Runs the trials; gives the scheduler as it was left, and the exit status that was asked for, if any."""
    view = make_view()
    # Matplotlib takes nearly a second, in which this process would only wait.
    drawing = threading.Thread(target=_prepare_figures, daemon=True)
    drawing.start()
    with Interrupts() as interrupts:
        scheduler = Scheduler(
            sweep,
            command.executor,
            search,
            metric,
            number=command.options.trials,
            retries=command.options.retries,
            view=view,
            asked=lambda: interrupts.status,
            wait=interrupts.wait,
        )
        try:
            scheduler.run(ask_all=listed)
        finally:
            view.close()
            search.close()
            drawing.join()
        return scheduler, interrupts.status


def _prepare_figures() -> None:
    from launch.sweeps import figures

    figures.prepare()


def _report(command: Command, sweep: SweepDirectory, scheduler: Scheduler, asked: int | None) -> int:
    """What a person reads at the end, and the exit status."""
    phases = collections.Counter(progress.phase for progress in scheduler.trials.values())
    unfinished = phases.total() - phases["ended"]
    if phases["ended"] and (asked is None or not unfinished):
        from launch.sweeps.results import write_results

        print("\n".join(write_results(sweep, scheduler.metric)))
    if command.options.prune != "none" and not scheduler.measured:
        print(f"--prune={command.options.prune}: no trial measured {scheduler.metric[0]} on a validation split.")
    again = _again(sweep)
    if not unfinished:
        return 0
    if asked is not None:
        print(f"{count_states(scheduler.lines())}. To go on: {again}")
        if phases["held"]:
            print(f"The trials that are queued or run go on by themselves; {again} --cancel stops them.")
        return asked
    sys.stdout.flush()
    if scheduler.broken:
        print(f"error: {scheduler.broken}", file=sys.stderr)
        print(f"The sweep was stopped. To go on: {again}, with --retries=0 past trials that fail.", file=sys.stderr)
        return 1
    failed = [progress for progress in scheduler.trials.values() if progress.phase == "failed"]
    for progress in failed[:ERRORS_SHOWN]:
        print(f"error: trial {progress.trial.name}: {progress.error}", file=sys.stderr)
    more = f" The logs are in {sweep.path / 'logs'}."
    print(f"{len(failed)} of {phases.total()} trials failed.{more} To try them again: {again}", file=sys.stderr)
    return 1


def _again(sweep: SweepDirectory) -> str:
    """The command that goes on with a sweep."""
    return config.quote_command(["python", "-m", "launch.sweep", f"--workdir={sweep.path}"])


# Looking at a sweep, and stopping it, from its directory.


def show_status(command: Command) -> int:
    """Prints how the sweep stands; needs no lock."""
    from launch.sweeps.results import read_rows

    sweep = _existing(command)
    name, _, mode = sweep.read_plan()["metric"].rpartition(":")
    held = _held(command, sweep)
    failed = {attempt["trial"]: attempt["state"] == "failed" for attempt in sweep.attempts()}
    lines = []
    for row in read_rows(sweep, (name, mode)):
        state = row.state
        if state not in FINAL:
            state = held.get(row.trial) or ("failed" if state == "waiting" and failed.get(row.trial) else state)
        lines.append(Line(row.trial, state, row.step, row.steps, row.loss, row.best))
    print("\n".join(to_text(choose(lines, mode, STATUS_LINES), name)))
    holder = sweep.holder()
    again = _again(sweep)
    print(f"\n{count_states(lines)}; " + (f"run by {holder}" if holder else f"nobody runs it; to go on: {again}"))
    return 0


def cancel(command: Command) -> int:
    """Asks whoever runs the sweep, and all of its trials, to save and leave; waits until they have."""
    sweep = _existing(command)
    _terminate(sweep.path / ".lock", "the sweep")
    sweep.open()
    try:
        _stop_jobs(command.executor, sweep)
    finally:
        sweep.close()
    for trial in sweep.trials():  # children of a sweep that was killed
        _terminate(sweep.run(trial.name) / ".lock", f"trial {trial.name}")
    again = _again(sweep)
    print(f"Nothing runs any more. To go on: {again}")
    return 0


def _stop_jobs(executor: Executor, sweep: SweepDirectory) -> None:
    """Stops the jobs that live without the command that started them, and waits until they have ended."""
    executor.open(sweep, None)
    try:
        if executor.held():
            print(f"{len(executor.held())} jobs are asked to stop.", flush=True)
            executor.stop()
        while executor.held():
            time.sleep(0.5)
            executor.poll()
    finally:
        executor.close()


def _terminate(lock: pathlib.Path, what: str) -> None:
    """Sends SIGTERM to the process that holds a lock, and waits until it has let go.

    Raises:
      InputError: it is not a process of this machine, or belongs to somebody else.
    """
    holder = lock_holder(lock)
    if holder is None:
        return
    told = re.fullmatch(r"process (\d+) on (.*)", holder)
    if not told or told[2] != socket.gethostname():
        raise InputError(f"{what} is held by {holder}: cancel it there.")
    print(f"{what} ({holder}) is asked to save and leave.", flush=True)
    try:
        os.kill(int(told[1]), signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise InputError(f"{what} is held by {holder}, which belongs to another user.") from None
    while lock_holder(lock) == holder:
        time.sleep(0.1)


def _existing(command: Command) -> SweepDirectory:
    """The sweep that --status or --cancel is about; where more of it is told, it must be that one."""
    if not command.options.workdir:
        raise InputError("which sweep? --workdir=DIR.")
    sweep = SweepDirectory(command.options.workdir)
    theirs = sweep.read_plan()
    sweep.check_plan({**theirs, "base": list(command.base), "axes": list(command.axes)})
    return sweep


def _held(command: Command, sweep: SweepDirectory) -> Mapping[str, str]:
    """The jobs that the executor holds beyond this command's life; none, and a word on it, where it cannot be asked."""
    if not command.executor.outlives:
        return {}
    try:
        command.executor.open(sweep, command.options.workers)
    except InputError as error:
        print(f"the executor cannot be asked: {error}", file=sys.stderr)
        return {}
    try:
        return command.executor.held()
    finally:
        command.executor.close()


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 20)  # what is imported and drawn is much, and little of it garbage
    atexit.register(gc.freeze)  # leaving, nobody looks for garbage in all that was imported: half a second
    cli.main(main)
