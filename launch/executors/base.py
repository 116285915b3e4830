"""What places runs on machines: the interface that every executor has, and the jobs that it is given."""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxdl import config
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial


@dataclasses.dataclass(frozen=True)
class Job:
    """What is placed as one: a command that fills the run directories of its trials.

    Attributes:
      name: unique in the sweep, and safe as a file name; that of its trial where it has one.
      trials: the names of its trials.
      command: the argument list, which begins with a Python interpreter. It never goes through a shell.
      log: where its standard output and error go, appended.
    """

    name: str
    trials: tuple[str, ...]
    command: tuple[str, ...]
    log: pathlib.Path


def trial_flags(sweep: SweepDirectory, trial: Trial) -> list[str]:
    """The flags of a trial's run."""
    return [f"--flagfile={sweep.path / 'base.flags'}", *trial.arguments([]), f"--workdir={sweep.run(trial.name)}"]


def train_job(sweep: SweepDirectory, trial: Trial) -> Job:
    """The job of one trial: `launch.train` into its run directory."""
    command = (sys.executable, "-m", "launch.train", *trial_flags(sweep, trial))
    return Job(trial.name, (trial.name,), command, sweep.log(trial.name))


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
      status: its exit status; negative is the signal that killed it, None where that is not known (a lost node).
      told: one line of what the executor knows beside that ("NODE_FAIL", "OUT_OF_MEMORY"), or empty.
    """

    status: int | None
    told: str = ""


class Executor:
    """One place where runs can be put. Subclasses are frozen dataclasses whose fields are flags `--EXECUTOR.FIELD`.

    What becomes of a trial is read from its run directory, never from here: an executor says only which jobs it
    holds, and which have ended. It keeps what it must remember (ids of the queue) under `sweep.path / EXECUTOR`,
    so that the same command, run again, finds the jobs that are still there.
    """

    outlives: ClassVar[bool] = False
    """Whether jobs go on when the sweep command ends: a queue's do, child processes do not."""

    def warm_up(self) -> None:
        """Called first of all, before anything is checked: may begin what takes long and leaves nothing behind."""

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        """Before anything starts: finds what is needed, and the jobs of before that still live.

        Args:
          workers: how many jobs may run at once, `--workers`; None is as many as there is room for.

        Raises:
          InputError: no such command or cluster, no permission, more workers than devices.
        """
        raise NotImplementedError

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        """The jobs that trials make; one for each (`train_job`), unless an executor can put several into one."""
        raise NotImplementedError

    def room(self) -> int:
        """How many more jobs may be started now."""
        raise NotImplementedError

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """What `start` would do, one line each, for --dry_run: the commands as a shell would take them."""
        return [config.quote_command(job.command) for job in jobs]

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs, or puts them into the queue. Raises: RunError, when the place refuses them."""
        raise NotImplementedError

    def held(self) -> Mapping[str, str]:
        """The jobs that have not ended, by name: "queued" or "running"."""
        raise NotImplementedError

    def poll(self) -> dict[str, Ended]:
        """The jobs that have ended since the last call, by name."""
        raise NotImplementedError

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Asks these jobs, or all, to save and leave (SIGTERM: exit status 75); `poll` tells when they have."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what `open` took. Jobs that outlive the command go on."""
