"""Runs as elements of Slurm job arrays, which go on by themselves when the sweep command ends.

Each sbatch has a folder of its own, SWEEP/slurm/NAME, named as its jobs are in the queue: so the same command, run
again, finds them by `squeue --name=NAME`. It holds jobs.json (what each element runs), N.out (what Slurm says of
element N), and the files in which `slurm_task` says how it stands. Neither Slurm's accounting nor its memory of
ended jobs is needed.
"""

import dataclasses
import json
import os
import pathlib
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from jaxdl import config
from jaxdl.errors import InputError, RunError
from jaxdl.train.record import guard_disk, read_json
from jaxdl.types import PositiveInt
from launch.executors.base import Ended, Executor, Job, train_job
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

SCRIPT = '#!/bin/sh\n# Everything that varies is an argument, so that no shell ever reads it.\nexec "$@"\n'

ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"),
    *("PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SLURM_CONF", "TFDS_DATA_DIR"),
)
PREFIXES = ("JAX_", "XLA_", "JAXDL_", "NCCL_", "SBATCH_")
NOT_HANDED_ON = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SBATCH_WAIT")

OWN_OPTIONS = ("a", "J", "o", "array", "job-name", "output", "wrap", "parsable", "export", "signal", "no-requeue")
"""Options of sbatch that this executor gives itself and cannot do without."""

LOOK_SECONDS = 0.5
QUEUE_SECONDS = 10
SETTLE_SECONDS = 10
"""A job that has left the queue without a word has ended when it is still so after this: shared folders lag."""

SILENCE_SECONDS = 900
ANSWER_SECONDS = 45
UNLIMITED = 100_000

QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
GONE = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
HOPELESS = re.compile(
    r"PartitionConfig|PartitionTimeLimit|BadConstraints|InvalidAccount|InvalidQOS|(QOS|Assoc)\w*PerJob\w*|"
    r"JobHoldMaxRequeue|launch[ _]failed[ _]requeued[ _]held"
)
"""Reasons for which a job waits forever: it asks for what there is not."""


@dataclasses.dataclass(frozen=True)
class Slurm(Executor):
    """Job arrays of a Slurm cluster, whose nodes see the sweep's directory and this Python under the same paths.

    The jobs go on when this command ends. One that is asked to leave (preempted, at its time limit) saves and goes
    back into the queue by itself; so --slurm.time may be shorter than a trial. With several processes that holds for
    the time limit and for --cancel; `scontrol requeue`, `scancel` and preemption without a GraceTime end srun, and
    with it the processes, at once, and the trial goes on from its last checkpoint.

    Slurm hands on the environment's PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_ALL, TZ, LD_LIBRARY_PATH, PYTHONPATH,
    VIRTUAL_ENV, CONDA_PREFIX, SLURM_CONF, TFDS_DATA_DIR, and what begins with JAX_, XLA_, JAXDL_, NCCL_ or SBATCH_;
    nothing else.

    Attributes:
      partition: where to; the cluster's default if none.
      account: who pays.
      qos: quality of service.
      time: limit of one start of a trial, as sbatch takes it: 30 (minutes), 2:00:00, 1-12:00:00.
      gpus: GPUs of a node: a number, or type:number.
      cpus: cores of a process.
      memory: of a node: 16G.
      constraint: features that the nodes must have.
      nodes: nodes of a trial.
      tasks_per_node: processes on a node; more than one in all are joined by jax.distributed.
      max_jobs: how many of an array run at once; it holds when this command has ended, too. Trials that are tried
        again come in another array. (--workers is how many are in the queue at once, while this command lives.)
      grace: seconds that a trial gets to save, before its time limit and when it is stopped.
      environment: names of further variables of the environment to hand on.
      extra: further options of sbatch: '--exclude=n1,n2 --mail-type=END'.
    """

    outlives: ClassVar[bool] = True

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    gpus: str | None = None
    cpus: PositiveInt | None = None
    memory: str | None = None
    constraint: str | None = None
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    max_jobs: PositiveInt | None = None
    grace: PositiveInt = 60
    environment: tuple[str, ...] = ()
    extra: str = ""

    def open(self, sweep: SweepDirectory, workers: int | None) -> None:
        self._extra_options()
        for name in self.environment:
            if name not in os.environ:
                raise InputError(f"--slurm.environment={name}: there is no such variable in the environment.")
        asked = _ask("scontrol", "show", "config")
        if isinstance(asked, Refusal):
            raise InputError(f"no Slurm cluster answers: {asked.told}.")
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", asked, re.M)
        state = _State(sweep, workers, int(found[1]) if found else 1)
        object.__setattr__(self, "_state", state)
        state.find()

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return [train_job(self._state.sweep, trial) for trial in trials]

    def room(self) -> int:
        workers = self._state.workers
        return UNLIMITED if workers is None else workers - len(self._state.elements)

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """The sbatch, and what its elements are. Asks no cluster."""
        folder = jobs[0].log.parents[1] / "slurm" / "SUBMISSION"
        sbatch = config.quote_command(self._sbatch(folder, "N"))
        return [sbatch, *(f"{index}: {config.quote_command(job.command)}" for index, job in enumerate(jobs))]

    def start(self, jobs: Sequence[Job]) -> None:
        state = self._state
        for first in range(0, len(jobs), state.most):
            some = jobs[first : first + state.most]
            folder = state.make_submission(some)
            asked = _ask(*self._sbatch(folder, str(len(some) - 1)), environment=self._environment())
            if isinstance(asked, Refusal):
                # The controller may have taken them and its answer have been lost.
                queue = read_queue([folder.name])
                if isinstance(queue, Refusal):
                    raise RunError(f"{asked.told}. Whether it has taken the jobs is seen by the same command later.")
                if all(row.state in GONE for row in queue.values()):
                    state.drop_submission(folder)
                    raise InputError(
                        f"sbatch refuses: {asked.told}. What a job asks for are the flags --slurm.NAME (--help); "
                        "`sinfo` tells what there is."
                    )
            state.add(folder, some)

    def held(self) -> Mapping[str, str]:
        self._state.look()
        return {name: element.state for name, element in self._state.elements.items()}

    def poll(self) -> dict[str, Ended]:
        state = self._state
        state.look()
        ended, state.ended = state.ended, {}
        return ended

    def stop(self, names: Sequence[str] | None = None) -> None:
        elements = self._state.elements
        self._state.stop([elements[name] for name in (elements if names is None else names) if name in elements])

    def close(self) -> None:
        pass

    # What sbatch is told.

    def _sbatch(self, folder: pathlib.Path, last: str) -> list[str]:
        throttle = "" if self.max_jobs is None else f"%{self.max_jobs}"
        asked = {
            "job-name": folder.name,
            "array": f"0-{last}{throttle}",
            "chdir": os.getcwd(),
            "output": f"{folder}/".replace("%", "%%") + "%a.out",
            "open-mode": "append",
            "export": "ALL",  # of the few that sbatch itself is given
            "signal": f"B:TERM@{self.grace}",
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "gpus-per-node": self.gpus,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks-per-node": self.tasks_per_node,
        }
        options = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        task = [sys.executable, "-m", "launch.executors.slurm_task", str(folder)]
        task += [str(self.nodes * self.tasks_per_node), str(self.grace)]
        return ["sbatch", "--requeue", *options, *self._extra_options(), str(folder.parent / "batch.sh"), *task]

    def _extra_options(self) -> list[str]:
        """`extra` as single options. Raises: InputError, for what is none, or is not for the user to give."""
        try:
            options = shlex.split(self.extra)
        except ValueError as error:
            raise InputError(f"--slurm.extra={self.extra}: {error}.") from None
        for option in options:
            name = re.match(r"--([a-z][a-z0-9-]*)(?:=|$)|-([a-zA-Z])", option)
            if not name:
                raise InputError(f"--slurm.extra: '{option}' is no option; each is --name=value, or -xVALUE.")
            if (name[1] or name[2]) in OWN_OPTIONS:
                raise InputError(f"--slurm.extra: {option} is given by the sweep itself.")
        return options

    def _environment(self) -> dict[str, str]:
        """What sbatch sees of the environment, and so the jobs."""
        names = (*ENVIRONMENT, *self.environment)
        return {
            name: value
            for name, value in os.environ.items()
            if (name in names or name.startswith(PREFIXES)) and name not in NOT_HANDED_ON
        }


@dataclasses.dataclass
class _Element:
    """A job that has not ended: element `index` of the submission in `folder`. `id` is ARRAY_INDEX, once it is known.

    `missing` is since when the queue does not have it any more.
    """

    folder: pathlib.Path
    index: int
    state: str = "queued"
    id: str | None = None
    missing: float | None = None

    def see(self, row: "Row") -> None:
        """Takes over what the queue says."""
        self.id, self.missing = row.id, None
        self.state = "queued" if row.state in QUEUED else "running"

    def file(self, kind: str) -> pathlib.Path:
        return self.folder / f"{self.index}.{kind}"


@dataclasses.dataclass(frozen=True)
class Row:
    """What squeue says of an element."""

    id: str
    state: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A command of Slurm that failed, and what it said, in a line."""

    told: str


class _State:
    """What an open `Slurm` knows: the jobs that it holds, and those that have ended since it was last asked."""

    def __init__(self, sweep: SweepDirectory, workers: int | None, most: int):
        self.sweep, self.workers, self.most = sweep, workers, most
        self.path = sweep.path / "slurm"
        self.elements: dict[str, _Element] = {}
        self.ended: dict[str, Ended] = {}
        self._looked = self._queue_read = -float("inf")
        self._answered = time.monotonic()

    # Submissions.

    def find(self) -> None:
        """Takes up the jobs of before that have not ended. Raises: InputError, when squeue does not answer."""
        for folder in sorted(path.parent for path in self.path.glob("*/jobs.json")):
            self.add(folder, read_json(folder / "jobs.json") or ())
        for name, element in list(self.elements.items()):
            if (read_json(element.file("ended")) or {}).get("final"):
                del self.elements[name]
        queue = read_queue({element.folder.name for element in self.elements.values()})
        if isinstance(queue, Refusal):
            raise InputError(f"squeue does not answer: {queue.told}.")
        for name, element in list(self.elements.items()):
            row = queue.get((element.folder.name, element.index))
            if row is None or row.state in GONE:
                del self.elements[name]
            else:
                element.see(row)

    def make_submission(self, jobs: Sequence[Job]) -> pathlib.Path:
        """Writes what sbatch and its jobs need; gives the folder, whose name is theirs in the queue."""
        label = re.sub(r"[^A-Za-z0-9_-]", "_", self.sweep.path.name)[:40]
        number = 1 + sum(1 for _ in self.path.glob("*/jobs.json"))
        folder = self.path / f"{number:05d}-{secrets.token_hex(3)}-{label}"
        described = [
            {
                "name": job.name,
                "command": job.command,
                "log": str(job.log),
                "runs": [str(self.sweep.run(trial)) for trial in job.trials],
            }
            for job in jobs
        ]
        with guard_disk(self.path):
            folder.mkdir(parents=True)
            (self.path / "batch.sh").write_text(SCRIPT, encoding="utf-8")
            (folder / "jobs.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        return folder

    def drop_submission(self, folder: pathlib.Path) -> None:
        """Forgets a submission that was refused."""
        (folder / "jobs.json").unlink()
        folder.rmdir()

    def add(self, folder: pathlib.Path, jobs: Iterable[Job | Mapping]) -> None:
        """Holds the jobs of a submission; a later one of the same name stands for an earlier one."""
        for index, job in enumerate(jobs):
            name = job["name"] if isinstance(job, Mapping) else job.name
            self.elements[name] = _Element(folder, index)

    # Looking.

    def look(self) -> None:
        """Finds which jobs have ended: by what they wrote, and by what the queue has no more; no oftener than need be.

        Raises:
          RunError: squeue has failed for `SILENCE_SECONDS`.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._read_ends()
        if self.elements and now - self._queue_read >= QUEUE_SECONDS:
            self._queue_read = now
            self._look_at_queue()

    def _read_ends(self) -> None:
        listed = {folder: set(os.listdir(folder)) for folder in {each.folder for each in self.elements.values()}}
        for name, element in list(self.elements.items()):
            file = element.file("ended")
            if file.name in listed[element.folder]:
                ended = read_json(file)
                if ended and ended["final"]:
                    self._end(name, Ended(ended["status"], ended["told"]))

    def _look_at_queue(self) -> None:
        queue = read_queue({element.folder.name for element in self.elements.values()})
        if isinstance(queue, Refusal):  # which says nothing of the jobs
            if time.monotonic() - self._answered > SILENCE_SECONDS:
                raise RunError(
                    f"squeue has not answered for {SILENCE_SECONDS // 60} minutes: {queue.told}. "
                    "The jobs go on by themselves; the same command finds them again."
                )
            return
        self._answered = time.monotonic()
        self._place(queue)

    def _place(self, queue: Mapping[tuple[str, int], Row]) -> None:
        now = time.monotonic()
        for name, element in list(self.elements.items()):
            row = queue.get((element.folder.name, element.index))
            if row is None or row.state in GONE:
                element.missing = element.missing or now
                cancelled = row is not None and row.state == "CANCELLED"  # and so has nothing more to say
                if cancelled or now - element.missing >= SETTLE_SECONDS:
                    left = read_json(element.file("ended")) or {"status": None, "told": ""}
                    self._end(name, Ended(left["status"], row.state if row else left["told"] or "it left the queue"))
                continue
            element.see(row)
            if element.state == "queued" and HOPELESS.fullmatch(row.reason):
                _ask("scancel", row.id)
                self._end(name, Ended(1, f"Slurm will never start it: {row.reason}"))

    def _end(self, name: str, ended: Ended) -> None:
        self.ended[name] = ended
        del self.elements[name]

    # Stopping.

    def stop(self, elements: Sequence[_Element]) -> None:
        """Takes jobs that wait out of the queue, and asks those that run to save and leave.

        Raises:
          RunError: the cluster does not answer.
        """
        with guard_disk(self.path):
            for element in elements:
                element.file("stop").touch()  # for those that start, or are requeued, in between
        queue = read_queue({element.folder.name for element in elements})
        if isinstance(queue, Refusal):
            raise RunError(f"squeue does not answer, so nothing was stopped: {queue.told}.")
        ids = [row.id for row in map(queue.get, ((each.folder.name, each.index) for each in elements)) if row]
        for first in range(0, len(ids), 500):
            for how in (["--state=PENDING"], ["--batch", "--signal=TERM"]):
                # It fails for those that have left meanwhile, and is heard by the others.
                _ask("scancel", *how, *ids[first : first + 500])
        self._queue_read = time.monotonic() - QUEUE_SECONDS + LOOK_SECONDS  # those that waited are gone soon


def read_queue(names: Iterable[str]) -> dict[tuple[str, int], Row] | Refusal:
    """What the queue has of the submissions of these names, by name and index; those that just ended, too."""
    names = sorted(names)
    if not names:
        return {}
    asked = _ask(
        *("squeue", "--noheader", "--array", "--states=all"),
        *(f"--name={','.join(names)}", "--format=%j|%F|%K|%T|%r"),
    )
    if isinstance(asked, Refusal):
        return asked
    rows = {}
    for line in asked.splitlines():
        name, array, index, state, reason = line.strip().split("|", 4)
        rows[name, int(index)] = Row(f"{array}_{index}", state, reason)
    return rows


def _ask(*command: str, environment: Mapping[str, str] | None = None) -> str | Refusal:
    """What a command of Slurm prints, or how it failed. Raises: InputError, where there is no Slurm."""
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            start_new_session=True,  # Ctrl-C is for the sweep alone
        )
    except FileNotFoundError:
        raise InputError(
            f"there is no `{command[0]}` on PATH: --executor=slurm runs where Slurm's commands are."
        ) from None
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        return Refusal(_told(said) or f"{command[0]} does not answer within {ANSWER_SECONDS} s")
    if result.returncode == 0:
        return result.stdout
    return Refusal(_told(result.stderr) or f"{command[0]} ends with status {result.returncode}")


def _told(said: str) -> str:
    """What Slurm printed as an error, in one line, without the names of its programs."""
    lines = [re.sub(r"^\w+: (?:error: |fatal: )?", "", line.strip()).rstrip(".") for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[-300:]
