"""One element of a Slurm array, on its first node: runs a job, and says what is to become of it when it leaves.

    python -m launch.executors.slurm_task SUBMISSION PROCESSES GRACE

SUBMISSION is the folder that the executor made of one sbatch; of element N it holds, beside jobs.json:

    N.begun    {"restart", "node", "steps", "idle"}: the start that counts, and the progress seen so far
    N.stop     there once the job was asked to leave for good
    N.ended    {"status", "told", "final"}: how it left; unless final, Slurm may start it again

A job that leaves preempted puts itself back into the queue, so that this needs nobody who watches: on SIGTERM, which
Slurm sends GRACE seconds before the time limit, or the sweep to stop it, the run saves and leaves with status 75.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from jaxdl.train.record import read_json
from launch.sweeps.directory import lock_holder

PREEMPTED = (75, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit statuses of a run that was asked to save and leave, also where it had nothing to save yet."""

MOST_IDLE = 5
"""So many starts in a row without a further step, and the job is given up: its grace or its time is too short."""

WATCH_SECONDS = 2
LOCK_SECONDS = 300
ATTEMPTS = 5


class Task:
    """An element of an array: `run` is the whole of it.

    Args:
      folder: the submission.
      processes: 1 runs the job as a child; more are started by srun, all over the nodes.
      grace: seconds that the job gets to save when it is asked to leave.
    """

    def __init__(self, folder: pathlib.Path, processes: int, grace: float):
        self.folder, self.processes, self.grace = folder, processes, grace
        self.index = int(os.environ["SLURM_ARRAY_TASK_ID"])
        # By its own number the last element of an array cannot be told from the whole array.
        self.id = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{self.index}"
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.runs = [pathlib.Path(run) for run in read_json(folder / "jobs.json")[self.index]["runs"]]
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.child: subprocess.Popen | None = None
        self.asked_at: float | None = None  # when SIGTERM came first
        self.reminded = False

    def run(self) -> int:
        """Runs the job; gives the exit status of the batch script."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        status = self._ended_before()
        if status is not None:
            return status
        self._file("ended").unlink(missing_ok=True)
        idle = self._begin()
        if self._stopped():
            return self._end(75, "stopped before it began", final=True)
        if idle >= MOST_IDLE:
            return self._end(75, f"started {idle} times without progress", final=True)
        self._wait_for_locks()
        status = self._ended_before()
        if status is not None:
            return status
        if self._done():  # and lost before anyone could say so
            return self._end(0, "", final=True)
        status = 75 if self.asked_at is not None else self._wait_for_child()
        if status == 0 or self._done():  # also where it was asked to leave while it left
            return self._end(0, "", final=True)
        if self._superseded():
            return _shell_status(status)
        if status not in PREEMPTED and not (status == -signal.SIGKILL and self.asked_at is not None):
            return self._end(status, "out of memory?" if status == -signal.SIGKILL else "", final=True)
        if self._stopped():
            return self._end(status, "", final=True)
        return self._requeue(status)

    def _ended_before(self) -> int | None:
        """The status with which it ended for good while Slurm took it for lost; None where it has not."""
        ended = read_json(self._file("ended"))
        return _shell_status(ended["status"]) if ended and ended["final"] else None

    def _done(self) -> bool:
        return all((read_json(run / "status.json") or {}).get("state") == "done" for run in self.runs)

    # The run itself.

    def _wait_for_locks(self) -> None:
        """Gives processes of a node that Slurm had lost time to see that they are no longer wanted."""
        give_up = time.monotonic() + LOCK_SECONDS
        while any(lock_holder(run / ".lock") for run in self.runs) and time.monotonic() < give_up:
            if self.asked_at is not None or self._superseded():
                return
            time.sleep(0.5)

    def _wait_for_child(self) -> int:
        self._say(f"start {self.restart} on {self.node}")
        worker = [sys.executable, "-m", "launch.executors.worker"]
        worker += [f"--jobs={self.folder / 'jobs.json'}", f"--index={self.index}"]
        self.child = subprocess.Popen([*self._srun(), *worker], stdin=subprocess.DEVNULL)
        if self.asked_at is not None:  # it came just before there was a child to pass it on to
            self._ask_child()
        while True:
            try:
                return self.child.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                self._watch()

    def _srun(self) -> list[str]:
        if self.processes == 1:
            return []
        # All of them leave with 75, not all at once: the first one must not end the others.
        srun = ["srun", "--input=none", "--kill-on-bad-exit=0", f"--wait={max(1, int(self.grace))}"]
        cpus = os.environ.get("SLURM_CPUS_PER_TASK")  # which srun does not take from there since 22.05
        return srun + [f"--cpus-per-task={cpus}"] * bool(cpus)

    def _on_sigterm(self, number, frame) -> None:
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        if self.child is not None:
            self._ask_child()

    def _ask_child(self) -> None:
        if self.processes == 1:
            self.child.terminate()
        else:  # srun itself would kill them all
            subprocess.run(["scancel", "--signal=TERM", self.id], stdin=subprocess.DEVNULL)

    def _watch(self) -> None:
        """Between looks at the child: is it still wanted, and does it take too long to leave?"""
        now = time.monotonic()
        if self.asked_at is None and (self._superseded() or self._stopped()):
            self.asked_at = now
            self._ask_child()
        if self.asked_at is None:
            return
        if now - self.asked_at > 0.9 * self.grace:
            self._say(f"it has not saved in {0.9 * self.grace:.0f} s, and is killed")
            self.child.kill()
        elif now - self.asked_at > 0.5 * self.grace and not self.reminded:
            self.reminded = True  # JAX keeps a SIGTERM to itself that comes while processes join each other
            self._ask_child()

    # What is known of it, and what becomes of it.

    def _file(self, kind: str) -> pathlib.Path:
        return self.folder / f"{self.index}.{kind}"

    def _stopped(self) -> bool:
        return self._file("stop").exists()

    def _superseded(self) -> bool:
        """Whether Slurm has started the job elsewhere, as it does when it takes this node for lost."""
        begun = read_json(self._file("begun"))
        return begun is not None and begun["restart"] > self.restart

    def _begin(self) -> int:
        """Writes this start down; gives how many starts before it, in a row, came no further."""
        steps = sum((read_json(run / "status.json") or {}).get("step") or 0 for run in self.runs)
        before = read_json(self._file("begun"))
        idle = 0 if before is None or steps > before["steps"] else before["idle"] + 1
        self._write("begun", {"restart": self.restart, "node": self.node, "steps": steps, "idle": idle})
        return idle

    def _end(self, status: int, told: str, *, final: bool) -> int:
        self._say(f"exit status {status}" + (f", {told}" if told else ""))
        self._write("ended", {"status": status, "told": told, "final": final})
        return _shell_status(status)

    def _requeue(self, status: int) -> int:
        """Puts the job back into the queue, unless Slurm is ending or requeuing it already."""
        state = self._slurm("squeue", "--noheader", f"--jobs={self.id}", "--format=%T")
        if state != "RUNNING":
            return self._end(status, f"the job is {state or 'not known'}", final=False)
        self._end(status, "back into the queue", final=False)
        if self._slurm("scontrol", "requeue", self.id) is None:
            return self._end(status, "could not be put back into the queue", final=True)
        return _shell_status(status)

    def _slurm(self, *command: str) -> str | None:
        """What a command of Slurm prints; None where it keeps failing, as it does while the controller restarts."""
        for attempt in range(ATTEMPTS):
            result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            if result.returncode == 0:
                return result.stdout.strip()
            time.sleep(2**attempt)
        return None

    def _write(self, kind: str, values: dict) -> None:
        temporary = self.folder / f".{self.index}.{kind}.{self.restart}.tmp"
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
        os.replace(temporary, self._file(kind))

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%F %T')} {self.id}: {text}", flush=True)


def _shell_status(status: int) -> int:
    """An exit status as a shell has it: 128 + n for what signal n killed."""
    return 128 - status if status < 0 else status


def main(argv: Sequence[str]) -> int:
    folder, processes, grace = argv
    return Task(pathlib.Path(folder), int(processes), float(grace)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
