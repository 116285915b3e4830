"""The directory of a sweep: everything that is known of it stands here, so that any process can go on with it.

    sweep.json      the plan: base, axes, search, and the last command
    base.flags      the flags that all trials share
    trials.jsonl    one line a trial, in order: {"name": ..., "values": {flag: text}}
    attempts.jsonl  one line an ended attempt: {"trial", "executor", "status", "state", "error", "step", "seconds"}
    .lock           held by the living `launch.sweep`
    trials/NAME/    ordinary run directories
    logs/JOB.log    what a job printed
    EXECUTOR/       what an executor must remember

Files that are replaced are replaced whole; the others grow by whole lines, and a torn last line, of a process that
was killed, is cut away before the next is written.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxdl.errors import InputError
from jaxdl.train.record import guard_disk, read_json, replace_file
from launch.sweeps.plan import Trial

VERSION = 1

CHANGEABLE = ("command", "metric", "trials")
"""What of a plan may differ when a sweep is continued: where and how it runs, and `trials`, which may only grow."""

QUIET = ("--plots=false", "--progress=off")
"""Flags of every trial unless the base says otherwise: the sweep draws plots and progress of its own."""

SECONDS_TO_LOCK = 0.5
"""Another process may look for a moment whether somebody holds the lock (`holder`); it does so by taking it."""


class SweepDirectory:
    """A sweep's directory. `path` is absolute; reading needs no lock, `open` takes it for writing."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).expanduser().absolute()
        self._lock: int | None = None

    # Holding the directory.

    def open(self) -> None:
        """Makes the directory and takes it. The lock is the kernel's, so a dead holder's is free at once.

        Raises:
          InputError: it cannot be written, is no sweep directory, or is held by a living process.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
            if names and not names & {"sweep.json", ".lock"} or "flags.txt" in names:
                raise InputError(f"{self.path} is not empty and is no sweep directory; name another --workdir.")
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"--workdir={self.path} cannot be written: {error.strerror}.") from None
        try:
            self._take()
            for name in ("trials", "logs"):
                (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            raise InputError(f"{self.path} cannot be locked or written: {error.strerror}.") from None
        except InputError:
            self.close()
            raise

    def _take(self) -> None:
        give_up = time.monotonic() + SECONDS_TO_LOCK
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise InputError(
                        f"{self.path} is held by {_written_holder(self._lock)}; wait for it, or stop it with "
                        f"`python -m launch.sweep --workdir={self.path} --cancel`."
                    ) from None
                time.sleep(0.02)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def close(self) -> None:
        """Lets the directory go; one in which no sweep was begun after all is taken away again."""
        if self._lock is None:
            return
        if not self.is_sweep():
            with contextlib.suppress(OSError):
                for name in ("trials", "logs"):
                    (self.path / name).rmdir()
                (self.path / ".lock").unlink()
                self.path.rmdir()
        os.close(self._lock)
        self._lock = None

    def holder(self) -> str | None:
        """Who holds the directory: "process PID on HOST"; None where nobody does."""
        return lock_holder(self.path / ".lock")

    # The plan.

    def is_sweep(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.path / "sweep.json").exists()

    def read_plan(self) -> dict[str, Any]:
        """The plan as `write_plan` was given it. Raises: InputError, where there is none."""
        plan = read_json(self.path / "sweep.json")
        if plan is None:
            raise InputError(f"--workdir={self.path} is no sweep directory: it has no sweep.json.")
        if plan.get("version") != VERSION:
            raise InputError(f"{self.path} is a sweep of version {plan.get('version')}; this is version {VERSION}.")
        return plan

    def check_plan(self, plan: Mapping[str, Any]) -> None:
        """Compares a plan with the one that is here, if any.

        Raises:
          InputError: it makes another sweep of this one, or has fewer trials; the differences are told.
        """
        if not self.is_sweep():
            return
        theirs, ours = self.read_plan(), {"version": VERSION, **plan}
        told = [
            _difference(name, theirs.get(name), ours.get(name))
            for name in dict.fromkeys((*theirs, *ours))
            if name not in CHANGEABLE and theirs.get(name) != ours.get(name)
        ]
        if told:
            raise InputError(f"{self.path} is another sweep; yours is {'; '.join(told)}. Name another --workdir.")
        before, now = theirs.get("trials"), ours.get("trials")
        if before is not None and now is not None and now < before:
            raise InputError(f"{self.path} has --trials={before} already, and --trials={now} is fewer.")

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Writes sweep.json, and base.flags from the plan's "base"."""
        lines = ["# The flags that all trials of this sweep share.", *QUIET, *plan["base"]]
        replace_file(self.path / "base.flags", "\n".join(lines) + "\n")
        replace_file(self.path / "sweep.json", json.dumps({"version": VERSION, **plan}, indent=1) + "\n")

    # Trials and attempts.

    def trials(self) -> list[Trial]:
        """The trials so far, in order."""
        return [Trial(line["name"], line["values"]) for line in _read_lines(self.path / "trials.jsonl")]

    def add_trials(self, trials: Iterable[Trial]) -> None:
        """Appends trials."""
        self._append("trials.jsonl", [{"name": trial.name, "values": dict(trial.values)} for trial in trials])

    def attempts(self) -> list[dict[str, Any]]:
        """The attempts that have ended, in order."""
        return _read_lines(self.path / "attempts.jsonl")

    def add_attempt(self, attempt: Mapping[str, Any]) -> None:
        """Appends an attempt."""
        self._append("attempts.jsonl", [attempt])

    def run(self, name: str) -> pathlib.Path:
        """The run directory of a trial."""
        return self.path / "trials" / name

    def log(self, job_name: str) -> pathlib.Path:
        """Where a job's output goes."""
        return self.path / "logs" / f"{job_name}.log"

    # Files.

    def _append(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends lines in one write, after cutting a torn one away."""
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        with guard_disk(self.path), open(self.path / name, "a+b", buffering=0) as file:
            _cut_torn_line(file)
            file.write(data)


def lock_holder(path: pathlib.Path) -> str | None:
    """Who holds a `.lock`: "process PID on HOST"; None where nobody does, or there is no such file.

    To find out, the lock is taken for an instant, shared, so that those who look do not disturb each other. Do not
    look at the lock of what is just being started.
    """
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _written_holder(lock)
    finally:
        os.close(lock)


def _written_holder(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a torn last one is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]  # what follows the last line's end was never finished


def _cut_torn_line(file) -> None:
    size = file.seek(0, os.SEEK_END)
    with contextlib.suppress(OSError):
        file.seek(-1, os.SEEK_END)
    if size and file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _difference(name: str, theirs: Any, ours: Any) -> str:
    """What a plan has that another has not."""
    if isinstance(theirs, list) and isinstance(ours, list):
        less = [f"without {text}" for text in theirs if text not in ours]
        more = [f"with {text}" for text in ours if text not in theirs]
        return f"its {name} {', '.join([*less, *more]) or 'in another order'}"
    return f"{name}: {theirs} -> {ours}"
