"""What a vectorized sweep saves: the same trials by `launch.sweep` in two ways, and as one writes them by hand."""

import dataclasses
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent import futures

import numpy as np

from jaxdl import config
from jaxdl.data.sources import read
from jaxdl.errors import InputError, RunError
from jaxdl.settings import parse
from jaxdl.train.record import read_json, read_metrics
from jaxdl.types import PositiveInt
from launch.benchmarks import DIGITS
from launch.benchmarks.process import run_module, run_process
from launch.executors.local import find_cores
from launch.sweeps.axes import parse_axes
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial, check_trials, grid_trials

FLAGS = ("learning_rate", "seed")
TORCH_TRIAL = pathlib.Path(__file__).with_name("torch_trial.py")

WANTED = 15
"""The least ratio of the trials a minute of `vectorized` to those of `local`."""

CLOSE, CLOSE_AT_THE_END = 1e-4, 1e-3
"""How near, relatively, losses must be: of every trial in the mean over the first 50 steps; at the end in the median
over the trials, as with a high learning rate what a rounding makes different grows from step to step."""

PHASES = ("sweep command", "start-up and exit", "compiling", "training", "evaluate, record")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train trials, measured from the start of its first process to the exit of its last.

    Attributes:
      trials: how many were trained.
      phases: where the time went, in seconds: of the whole, of `local` of one trial in the mean. "sweep command" is
        what `launch.sweep` takes before its job starts and after it has ended.
      first_loss: by trial, the training loss, mean over the first 50 steps; as long as roundings make no difference.
      loss, accuracy: by trial, on the test split after the last step.
      all_seconds: of it and of its repetitions, in their order.
    """

    name: str
    trials: int
    seconds: float
    cpu_seconds: float
    phases: Mapping[str, float] = dataclasses.field(default_factory=dict)
    first_loss: Mapping[str, float] = dataclasses.field(default_factory=dict)
    loss: Mapping[str, float] = dataclasses.field(default_factory=dict)
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    all_seconds: Sequence[float] = ()

    @property
    def trials_a_minute(self) -> float:
        return 60 * self.trials / self.seconds


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a vectorized sweep saves: the same trials by `launch.sweep` in two ways, and as one writes them by hand.

    Trains the grid of learning rates and seeds of experiments/foundations/mlp_digits.flags by --executor=vectorized,
    by --executor=local, by a vmapped loop in JAX and by a loop in PyTorch with a process for each trial, one way after
    the other. Whole processes count, from start to exit, each way from an empty compilation cache of its own. The two
    by hand are given the split data in a file, keep no records, and evaluate once, at the end. The vmapped loop must
    come to the losses of `vectorized`.

    A trial a process takes minutes in all, over which a machine's whims even out, and one program a quarter of one. So
    `vectorized` and the vmapped loop are measured several times, before and after the others, and the median counts.

    Attributes:
      learning_rate: The axis of learning rates.
      seed: The axis of seeds.
      steps: Steps of a trial.
      repeats: How often the ways of one program are measured.
      workers: How many processes run at once, where each trains one trial.
      local_trials: Measure `local` on so many trials, the first ones; on all if none.
      torch_trials: The same for PyTorch.
      torch_python: The Python interpreter that has PyTorch; this one if empty.
    """

    learning_rate: str = "log(1e-4,1e-1,8)"
    seed: str = "0..7"
    steps: PositiveInt = 1000
    repeats: PositiveInt = 5
    workers: PositiveInt = 2
    local_trials: PositiveInt | None = None
    torch_trials: PositiveInt | None = None
    torch_python: str = ""

    def run(self, others: Sequence[str]) -> int:
        """Measures, prints the table, and gives the exit status."""
        if others:
            raise InputError(f"{others[0]} is no flag of this benchmark: its loops by hand know only their own model.")
        trials = self.trials()
        has_torch = self.has_torch()
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            data = folder / "digits.npz"
            write_data(data, self.base(), trials)
            one_program, processes = (self.vectorized, self.vmapped_loop), (self.local, self.torch)[: 1 + has_torch]
            before = (self.repeats + 1) // 2
            found: dict[str, list[Way]] = {}
            for measure in (*one_program * before, *processes, *one_program * (self.repeats - before)):
                name = measure.__name__
                print(f"{name} ...", file=sys.stderr, flush=True)
                place = folder / f"{name}-{len(found.setdefault(name, []))}"
                place.mkdir()
                found[name].append(measure(trials, place, data))
        order = ("vectorized", "local", "vmapped_loop", "torch")
        return report([median(found[name]) for name in order if name in found], self)

    def trials(self) -> list[Trial]:
        """The grid. Raises: InputError, for an axis that is wrong."""
        axes = parse_axes([f"learning_rate={self.learning_rate}", f"seed={self.seed}"], self.base())
        trials = grid_trials(axes, self.base())
        check_trials(self.base(), trials)
        return trials

    def vectorized(self, trials: Sequence[Trial], folder: pathlib.Path, data: pathlib.Path) -> Way:
        """All trials as one program."""
        flags = ["--executor=vectorized", f"--vectorized.trials={len(trials)}"]
        sweep, measured = self._sweep(trials, folder / "vectorized", flags)
        job = sweep.attempts()[0]["seconds"]
        phases = job_phases(sweep, [trial.name for trial in trials], job)
        phases = {"sweep command": measured["seconds"] - job, **phases}
        return read_way(sweep, "launch.sweep, vectorized", measured, phases)

    def local(self, trials: Sequence[Trial], folder: pathlib.Path, data: pathlib.Path) -> Way:
        """A process for each trial."""
        trials = trials[: self.local_trials]
        flags = ["--executor=local", f"--workers={self.workers}"]
        sweep, measured = self._sweep(trials, folder / "local", flags)
        each = [job_phases(sweep, [attempt["trial"]], attempt["seconds"]) for attempt in sweep.attempts()]
        phases = {name: statistics.mean(phases[name] for phases in each) for name in each[0]}
        return read_way(sweep, f"launch.sweep, local, {self.workers} workers", measured, phases)

    def vmapped_loop(self, trials: Sequence[Trial], folder: pathlib.Path, data: pathlib.Path) -> Way:
        """What `vectorized` could be at best."""
        command = ["launch.benchmarks.vmapped_loop", str(data), str(self.steps), str(len(find_cores()))]
        output, measured = run_module(*command, cache=folder / "vmapped_loop.cache")
        found = json.loads(output.splitlines()[-1])
        phases = {name: found[name] for name in ("compiling", "training")}
        phases = {"start-up and exit": measured["seconds"] - sum(phases.values()), **phases}
        results = {
            name: {trial.name: value for trial, value in zip(trials, found[name], strict=True)}
            for name in ("first_loss", "loss", "accuracy")
        }
        whole = (len(trials), measured["seconds"], measured["CPU seconds"])
        return Way("vmapped loop by hand", *whole, phases, **results)

    def torch(self, trials: Sequence[Trial], folder: pathlib.Path, data: pathlib.Path) -> Way:
        """What one would write instead."""
        trials, python = trials[: self.torch_trials], self.torch_python or sys.executable

        def train(trial: Trial):
            values = (trial.values["learning_rate"], trial.values["seed"])
            output, measured = run_process([python, str(TORCH_TRIAL), str(data), str(self.steps), *values])
            return json.loads(output.splitlines()[-1]), measured["CPU seconds"]

        began = time.monotonic()
        with futures.ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(train, trials))
        seconds = time.monotonic() - began
        results = {
            name: {trial.name: values[name] for trial, (values, _) in zip(trials, found, strict=True)}
            for name in ("loss", "accuracy")
        }
        cpu_seconds = sum(spent for _, spent in found)
        return Way(f"PyTorch, {self.workers} processes", len(trials), seconds, cpu_seconds, **results)

    def base(self) -> list[str]:
        """The flags that all trials share."""
        return config.expand_flagfiles([f"--flagfile={DIGITS}", f"--steps={self.steps}"])

    def _sweep(self, trials: Sequence[Trial], path: pathlib.Path, flags: Sequence[str]):
        """Runs `launch.sweep` on these trials; gives its directory and what was measured."""
        axes = self._axes()
        if len(trials) < len(self.trials()):
            axes = [" with ".join(f"{flag}={','.join(trial.values[flag] for trial in trials)}" for flag in FLAGS)]
        axes = [f"--sweep={axis}" for axis in axes]
        command = ["launch.sweep", f"--flagfile={DIGITS}", f"--steps={self.steps}", *axes, *flags]
        _, measured = run_module(*command, f"--workdir={path}", cache=f"{path}.cache")
        return SweepDirectory(path), measured

    def _axes(self) -> list[str]:
        return [f"{flag}={getattr(self, flag)}" for flag in FLAGS]

    def has_torch(self) -> bool:
        """Whether the interpreter for PyTorch has it. Raises: InputError, where there is no such interpreter."""
        python = self.torch_python or sys.executable
        try:
            found = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
        except OSError as error:
            raise InputError(f"--torch_python={python}: {error.strerror}.") from None
        if found.returncode:
            print(f"PyTorch is left out: {python} cannot import it; name one that can by --torch_python.")
        return not found.returncode


def median(ways: Sequence[Way]) -> Way:
    """The one that took the median time; of an even number the slower of the two in the middle."""
    middle = sorted(ways, key=lambda way: way.seconds)[len(ways) // 2]
    return dataclasses.replace(middle, all_seconds=[way.seconds for way in ways])


def write_data(path: pathlib.Path, base: Sequence[str], trials: Sequence[Trial]) -> None:
    """The splits that these flags make, standardised, and what the trials differ in, for the loops by hand."""
    data = parse(base).make("dataset").load()
    arrays = {}
    for split, source in data.splits.items():
        batch = read(source, np.arange(len(source)))
        arrays[f"{split}_inputs"] = (batch["inputs"] - data.mean) / data.std
        arrays[f"{split}_labels"] = batch["labels"]
    np.savez(path, **arrays, **{flag: [float(trial.values[flag]) for trial in trials] for flag in FLAGS})


def job_phases(sweep: SweepDirectory, trials: Sequence[str], seconds: float) -> dict[str, float]:
    """Where a job's time went, as the run directories of its trials tell.

    Their environment.json is written when the step is compiled and the training begins, and the last change of
    status.json when it is over.

    Args:
      seconds: from the start of its process to its exit.
    """
    runs = [sweep.run(trial) for trial in trials]
    status = [read_json(run / "status.json") for run in runs]
    compiling = read_json(runs[0] / "environment.json")["compile_seconds"]
    began = min((run / "environment.json").stat().st_mtime for run in runs)
    ended = max(each["heartbeat"] for each in status)
    return {
        "start-up and exit": seconds - compiling - (ended - began),
        "compiling": compiling,
        "training": status[0]["seconds"],
        "evaluate, record": ended - began - status[0]["seconds"],
    }


def read_way(sweep: SweepDirectory, name: str, measured: Mapping[str, float], phases: Mapping[str, float]) -> Way:
    """What a sweep has left. Raises: RunError, where a trial was not trained to its end."""
    first_loss, loss, accuracy = {}, {}, {}
    for trial in sweep.trials():
        path = sweep.run(trial.name)
        train, test = ([line for line in read_metrics(path) if line["split"] == split] for split in ("train", "test"))
        state = read_json(path / "status.json")["state"]
        if state != "done":
            raise RunError(f"trial {trial.name} of {name} is {state}, not done; the ways cannot be compared.")
        first_loss[trial.name] = train[0]["loss"]
        loss[trial.name], accuracy[trial.name] = test[-1]["loss"], test[-1]["accuracy"]
    return Way(name, len(loss), measured["seconds"], measured["CPU seconds"], phases, first_loss, loss, accuracy)


def report(ways: Sequence[Way], settings: Sweep) -> int:
    """Prints the tables; gives 0 when all is as wanted, else 1. `ways` begin with vectorized, local, vmapped loop."""
    vectorized, local, loop, *_ = ways
    cores = len(find_cores())
    print(
        f"{vectorized.trials} trials of {settings.steps:,} steps, MLP 64-64 on digits, {cores} cores, start to exit\n"
    )
    columns = ("trials", "seconds", "CPU s", "CPU s/trial", "trials/min", "to local", "accuracy")
    print(f"{'':31}" + "".join(f"{column:>12}" for column in columns))
    for way in ways:
        told = f"{way.trials:>12}{way.seconds:>12.1f}{way.cpu_seconds:>12.1f}{way.cpu_seconds / way.trials:>12.2f}"
        told += f"{way.trials_a_minute:>12.1f}{way.trials_a_minute / local.trials_a_minute:>12.2f}"
        told += f"{statistics.mean(way.accuracy.values()):>12.4f}"
        print(f"{way.name:31}{told}{f'  at least {WANTED} wanted' if way is vectorized else ''}")
    for way in ways:
        if way.trials < vectorized.trials:
            print(f"{way.name}: measured on the first {way.trials} trials alone, and its accuracy is theirs.")
        if len(way.all_seconds) > 1:
            seconds = ", ".join(f"{seconds:.1f}" for seconds in way.all_seconds)
            print(f"{way.name}: the median of {len(way.all_seconds)}, in their order {seconds} seconds.")
    print("\n" + "\n".join(bounds(vectorized, local, loop)) + "\n")
    same = [compare_losses(vectorized, other) for other in (loop, local)]
    print("\n".join(told for told, _ in same))
    failed = not all(close for _, close in same)
    if failed:
        print("The losses differ: the ways did not do the same work, and the ratios say nothing.")
    failed |= vectorized.trials_a_minute < WANTED * local.trials_a_minute
    print("not as wanted" if failed else "as wanted")
    return int(failed)


def bounds(vectorized: Way, local: Way, loop: Way) -> list[str]:
    """What bounds them, in lines to print: where the time went, and how much of the cores was used."""
    rows = {"vectorized": vectorized, "a trial of local, in the mean": local, "vmapped loop by hand": loop}
    lines = [f"{'where the seconds went':31}" + "".join(f"{phase:>20}" for phase in PHASES) + f"{'of the cores':>14}"]
    for name, way in rows.items():
        whole = sum(way.phases.values())
        spent = [way.phases.get(phase, 0.0) for phase in PHASES]
        parts = [f"{seconds:.1f} ({seconds / whole:.0%})" if seconds else "" for seconds in spent]
        used = way.cpu_seconds / way.seconds / len(find_cores())
        lines.append(f"{name:31}" + "".join(f"{part:>20}" for part in parts) + f"{used:>14.0%}")
    most = max(vectorized.phases, key=vectorized.phases.get)
    once, each = (sum(way.phases.values()) - way.phases["training"] for way in (vectorized, local))
    return [
        *lines,
        f"What is not training takes vectorized {once:.1f} s once, and local {each:.1f} s in each trial.",
        f"Most of vectorized goes into: {most}. The loop by hand, the best that it could be, takes "
        f"{loop.seconds / vectorized.seconds:.0%} of its time.",
    ]


def compare_losses(ours: Way, other: Way) -> tuple[str, bool]:
    """How far the losses of another way are from ours, as a line to print; and whether that is near enough."""
    first, last = _differences(ours.first_loss, other.first_loss), _differences(ours.loss, other.loss)
    told = f"{max(first):.0e} at most over the first 50 steps, {statistics.median(last):.0e} in the median at the end"
    told = f"{other.name}: losses differ from vectorized's by {told}"
    return told, max(first) <= CLOSE and statistics.median(last) <= CLOSE_AT_THE_END


def _differences(ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[float]:
    """Relative differences, of the trials that both have; a loss that is not a number differs without end."""
    pairs = [(ours[trial], theirs[trial]) for trial in theirs]
    return [abs(a - b) / abs(a) if math.isfinite(a - b) else math.inf for a, b in pairs]
