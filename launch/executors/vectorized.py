"""Trials that differ in numbers and seeds alone, as one compiled program with a trial axis."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence

from jaxdl import config
from jaxdl.settings import parse
from jaxdl.train.record import replace_file
from jaxdl.types import PositiveInt
from launch.executors.base import Ended, Job, trial_flags
from launch.executors.forked import Forked, Server
from launch.executors.local import Local, Share, find_shares
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

FEWEST = 8
"""Trials for which another process is not worth its start."""

MOST_PROCESSES = 8

GROUP = "launch.executors.group"
"""The module that trains a group."""


@dataclasses.dataclass(frozen=True)
class Vectorized(Local):
    """Trials that differ in numbers and seeds alone train as one program, a part of them on each device.

    Learning rates, decays, momenta, dropout rates, smoothing, seeds: numbers that a compiled program can take as
    arguments. Trials that differ in anything else (a width, a batch size, an optimizer; zero against not zero) are
    programs of their own. --workers is the number of trials that a search has under way.

    Attributes:
      trials: Trials in one process at most; all of them are in memory together.
      processes: Each has an equal share of the devices and of the trials; if none, one for each GPU, or without GPUs
        for each core, and at most 8.
    """

    trials: PositiveInt = 256
    processes: PositiveInt | None = None

    def warm_up(self) -> None:
        """What the groups' processes need is imported, for all of them, while the trials are checked."""
        object.__setattr__(self, "_server", Server(GROUP))

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        shares = self._shares()
        super().open(sweep, len(shares))
        object.__setattr__(self, "_groups", _Groups(workers or self.trials * len(shares)))

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        begun = self._begun()
        programs: dict[tuple | str, list[Trial]] = {}
        for trial in trials:
            key = begun.get(trial.name) or parse(trial_flags(self._state.sweep, trial)).program_key()
            programs.setdefault(key, []).append(trial)
        self._tell_apart([dict(key) for key in programs if not isinstance(key, str)])
        jobs = []
        for key, members in programs.items():
            if isinstance(key, str):  # a group of before, which goes on together
                jobs.append(self._job(key, members))
                continue
            parts = -(-len(self._shares()) // len(programs))
            size = min(max(-(-len(members) // parts), FEWEST), self.trials)
            number = -(-len(members) // size)  # dealt out, so that each has as many as another of those that take long
            groups = [members[first::number] for first in range(number)]
            jobs += [self._job(_group_name(group), group) for group in groups]
        return jobs

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        command = [sys.executable, "-m", GROUP, "SWEEP/vectorized/GROUP"]
        return [f"{config.quote_command(command)}, for each program and process"]

    def room(self) -> int:
        return 0 if self.held() else self._groups.under_way

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            folder = self._folder / job.name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "trials.json"
            if not path.exists():
                replace_file(path, json.dumps(job.trials))
        self._groups.queue.extend(jobs)
        self._start_next()

    def held(self) -> Mapping[str, str]:
        return {**dict.fromkeys((job.name for job in self._groups.queue), "queued"), **super().held()}

    def poll(self) -> dict[str, Ended]:
        ended = {**super().poll(), **self._groups.never_started}
        self._groups.never_started.clear()
        self._start_next()
        return ended

    def stop(self, names: Sequence[str] | None = None) -> None:
        for job in [job for job in self._groups.queue if names is None or job.name in names]:
            self._groups.queue.remove(job)
            self._groups.never_started[job.name] = Ended(75)
        super().stop(names)

    @property
    def _folder(self):
        return self._state.sweep.path / "vectorized"

    def _tell_apart(self, programs: Sequence[Mapping[str, object]]) -> None:
        """Says, once, by which flags trials fall into several programs."""
        names = dict.fromkeys(name for program in programs for name in program)
        differing = [name for name in names if len({repr(program.get(name)) for program in programs}) > 1]
        if differing and not self._groups.told:
            self._groups.told = True
            flags = ", ".join(f"--{name.removeprefix('trainer.').removeprefix('update.')}" for name in differing)
            print(
                f"{len(programs)} programs: {flags} cannot vary within one (numbers other than zero can); "
                "with few trials in each, --executor=local may serve better.",
                flush=True,
            )

    def _start_next(self) -> None:
        while self._groups.queue and self._state.free:
            super().start([self._groups.queue.pop(0)])

    def _start(self, job: Job, share: Share) -> Forked:
        server = getattr(self, "_server", None)
        if server is None or not server.alive:
            self.warm_up()
        return self._server.start(job.command[3:], share.environment, share.cores, job.log)

    def close(self) -> None:
        super().close()
        if hasattr(self, "_server"):
            self._server.close()

    def _shares(self) -> list[Share]:
        shares = find_shares(self.processes, "vectorized.processes")
        return shares if self.processes or len(shares) <= MOST_PROCESSES else find_shares(MOST_PROCESSES)

    def _job(self, name: str, trials: Sequence[Trial]) -> Job:
        command = (sys.executable, "-m", GROUP, str(self._folder / name))
        return Job(name, tuple(trial.name for trial in trials), command, self._state.sweep.log(name))

    def _begun(self) -> dict[str, str]:
        """The groups that have a checkpoint in common, by the names of their trials: they go on together."""
        groups = [path for path in self._folder.glob("*/trials.json") if any(path.parent.glob("checkpoints/[0-9]*"))]
        return {name: path.parent.name for path in groups for name in json.loads(path.read_text(encoding="utf-8"))}


@dataclasses.dataclass
class _Groups:
    """What an open `Vectorized` holds.

    Attributes:
      under_way: how many trials a search may have under way.
      queue: groups that wait for their turn.
      never_started: those among them that were stopped.
      told: whether it was said that there are several programs.
    """

    under_way: int
    queue: list[Job] = dataclasses.field(default_factory=list)
    never_started: dict[str, Ended] = dataclasses.field(default_factory=dict)
    told: bool = False


def _group_name(trials: Sequence[Trial]) -> str:
    names = "\n".join(trial.name for trial in trials)
    return f"{len(trials)}-{hashlib.sha256(names.encode()).hexdigest()[:10]}"
