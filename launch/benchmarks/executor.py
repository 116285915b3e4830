"""What the local executor costs beyond the trials' own time."""

import dataclasses
import json
import pathlib
import resource
import sys
import tempfile
from collections.abc import Sequence

from jaxdl.errors import InputError, RunError
from jaxdl.train.record import read_json
from jaxdl.types import PositiveFloat, PositiveInt
from launch import cli, sweep
from launch.benchmarks import DIGITS
from launch.benchmarks.process import run_module
from launch.sweeps.directory import SweepDirectory

WANTED = 1.02
"""Bound of the time from the first trial's start to the last one's end, over that of the same trials without gaps."""

PROBE_STEPS = 2000


@dataclasses.dataclass(frozen=True)
class Timing:
    """A sweep by the local executor, timed.

    Attributes:
      trials: seconds of each trial's process, in the order in which they were started.
      span: from the first one's start to the last one's end.
      whole: of the command, from its start to its exit.
      own_cpu: CPU seconds of the command's own process.
      trials_cpu: CPU seconds of all its children.
    """

    trials: Sequence[float]
    span: float
    whole: float
    own_cpu: float
    trials_cpu: float


@dataclasses.dataclass(frozen=True)
class Executor:
    """What the local executor costs beyond the trials' own time.

    Runs trials of experiments/foundations/mlp_digits.flags, with as many steps as take about a minute, and compares
    the time from the first one's start to the last one's end with what the same processes take when each worker runs
    one right after the other. A worker that has nothing left to do while the others finish is no cost of the executor.

    Attributes:
      seconds: How long a trial is to take, about; the number of steps follows from a short sweep before.
      steps: Steps of a trial, in place of seconds.
      workers: How many trials run at once.
      rounds: Trials for each worker.
    """

    seconds: PositiveFloat = 60.0
    steps: PositiveInt | None = None
    workers: PositiveInt = 2
    rounds: PositiveInt = 2

    def run(self, others: Sequence[str]) -> int:
        """Measures, prints the table, and gives the exit status."""
        if others:
            raise InputError(f"{others[0]} is no flag of this benchmark.")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            steps = self.steps or self._steps_in_time(folder)
            print(f"{self.workers * self.rounds} trials of {steps:,} steps ...", file=sys.stderr, flush=True)
            timing = self._time(folder, "sweep", steps, self.workers * self.rounds)
        return report(timing, self.workers, steps)

    def _steps_in_time(self, folder: pathlib.Path) -> int:
        """How many steps fill `seconds`, by a sweep of one round."""
        print(f"{self.workers} trials of {PROBE_STEPS:,} steps, for their speed ...", file=sys.stderr, flush=True)
        process = max(self._time(folder, "probe", PROBE_STEPS, self.workers).trials)
        probe = SweepDirectory(folder / "probe")
        runs = [probe.run(trial.name) for trial in probe.trials()]
        training = max(read_json(run / "status.json")["seconds"] for run in runs)
        compiling = max(read_json(run / "environment.json")["compile_seconds"] for run in runs)  # once for all
        steps = PROBE_STEPS * (self.seconds - (process - training - compiling)) / training
        return max(100, 100 * round(steps / 100))

    def _time(self, folder: pathlib.Path, name: str, steps: int, trials: int) -> Timing:
        """Runs a sweep of so many seeds. The sweeps of one folder share their compiled programs."""
        path = folder / name
        flags = [f"--flagfile={DIGITS}", f"--steps={steps}", f"--eval_every={-(-steps // 4)}"]
        flags += [f"--sweep=seed=0..{trials - 1}", "--executor=local", f"--workers={self.workers}"]
        command = ["launch.benchmarks.executor", *flags, f"--workdir={path}"]
        output, measured = run_module(*command, cache=folder / "cache")
        own_cpu = json.loads(output.splitlines()[-1])
        directory = SweepDirectory(path)
        attempts = directory.attempts()
        if len(attempts) != trials:
            raise RunError(f"{trials} trials took {len(attempts)} attempts, so their time says nothing; run it again.")
        seconds = {attempt["trial"]: attempt["seconds"] for attempt in attempts}
        # The trials are written down right before the first is started, an attempt as soon as it has ended.
        began, ended = (path.stat().st_mtime for path in (path / "trials.jsonl", path / "attempts.jsonl"))
        return Timing(
            trials=[seconds[trial.name] for trial in directory.trials()],
            span=ended - began,
            whole=measured["seconds"],
            own_cpu=own_cpu,
            trials_cpu=measured["CPU seconds"] - own_cpu,
        )


def without_gaps(seconds: Sequence[float], workers: int) -> float:
    """How long these take, in this order, when each worker begins the next right after the one before."""
    free = [0.0] * workers
    for each in seconds:
        free[free.index(min(free))] += each
    return max(free)


def report(timing: Timing, workers: int, steps: int) -> int:
    """Prints the table; gives 0 when the ratio is as wanted, else 1."""
    share, least = sum(timing.trials) / workers, without_gaps(timing.trials, workers)
    ratio = timing.span / least
    print(f"{len(timing.trials)} trials of {steps:,} steps, {workers} at a time, by --executor=local")
    print(f"seconds of their processes: {', '.join(f'{seconds:.2f}' for seconds in timing.trials)}\n")
    print(f"{'':44}{'seconds':>9}{'to the sum':>12}{'to no gaps':>12}")
    rows = {
        "the processes, their sum over the workers": share,
        "the processes, without gaps between them": least,
        "from the first start to the last end": timing.span,
        "the whole command": timing.whole,
    }
    for name, seconds in rows.items():
        wanted = f"  below {WANTED} wanted" if seconds is timing.span else ""
        print(f"{name:44}{seconds:>9.2f}{seconds / share:>12.4f}{seconds / least:>12.4f}{wanted}")
    told = (
        f"{timing.own_cpu:.2f}, {timing.own_cpu / timing.trials_cpu:.2%} of the {timing.trials_cpu:.1f} of its trials"
    )
    print(f"\nCPU seconds of the command itself: {told}")
    print("as wanted" if ratio < WANTED else "not as wanted")
    return int(ratio >= WANTED)


def main(argv: Sequence[str]) -> int:
    """The process that is measured: `launch.sweep`, and then the CPU seconds that it took without its children."""
    status = sweep.main(argv)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_utime + usage.ru_stime)
    return status


if __name__ == "__main__":
    cli.main(main)
