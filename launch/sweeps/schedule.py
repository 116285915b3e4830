"""The controller of a sweep: starts trials where there is room, sees how they end, and starts some of them again.

Everything that must survive a kill stands in the sweep's directory: a controller that starts anew finds final trials
by their status.json, living ones by the lock of their run directory or by their job, and goes on with the others.

How a trial's attempt ends:

- final (done, diverged, stopped): its result counts, it is never started again.
- interrupted: it was asked to stop, its node was lost, it was killed. It goes on from its checkpoint, for nothing if
  it had got further since it was started. A kill without progress is a failure (most likely it needs more memory
  than there is); being asked to stop without progress becomes one when it has happened `PATIENCE` times.
- failed: it is tried again up to `retries` times in the life of this controller; a person who mends something and
  starts the sweep again gives every failed trial a new chance. Twice the same error of one trial stops the sweep.
"""

import collections
import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from jaxdl.train.record import STOP, guard_disk
from jaxdl.train.settings import LENGTHS
from launch.executors.base import Ended, Executor, Job
from launch.sweeps.directory import SweepDirectory, lock_holder
from launch.sweeps.plan import Trial
from launch.sweeps.search import Search
from launch.sweeps.table import Line, View, count_states, duration
from launch.sweeps.trial_state import FINAL, TrialState, last_error

POLL_SECONDS = 0.2

LOOKS_A_SECOND = 200
"""Run directories that are looked at in a second, at most, and each at most twice: it takes some 20 us on a disk."""

SECONDS_TO_SHOW = 90.0
"""For which a job of another machine may have ended well before its run directory says so: NFS shows files late."""

PATIENCE = 5
ASKED_TO_STOP = (75, 130, -signal.SIGTERM, -signal.SIGINT)


@dataclasses.dataclass
class Progress:
    """One trial under the controller.

    Attributes:
      phase: waiting, held (its job has not ended), orphan (a process that is not ours holds it), ended, or failed
        (and not tried again).
      job: the name of its job, where it is held.
      failures, error: how often it failed under this controller, and the last time with what error.
      stops: how often in a row it was asked to stop without having got further.
      from_step, from_change: where its run stood when its job was started.
      speed_from: time and step since which its speed is measured.
    """

    trial: Trial
    seen: TrialState
    phase: str = "waiting"
    job: str = ""
    failures: int = 0
    error: str | None = None
    stops: int = 0
    from_step: int = 0
    from_change: tuple | None = None
    speed_from: tuple[float, int] | None = None

    def line(self, queue: Mapping[str, str]) -> Line:
        """As a line of a table. `queue` is what the executor tells of its jobs."""
        seen, left = self.seen, self._seconds_left()
        return Line(self.trial.name, self._state(queue), seen.step, seen.steps, seen.loss, seen.best, left)

    def _state(self, queue: Mapping[str, str]) -> str:
        if self.phase == "held":
            if queue.get(self.job) == "queued":
                return "queued"
            begun = self.seen.change != self.from_change
            return self.seen.state if begun and self.seen.state in ("running", *FINAL) else "starting"
        if self.phase == "waiting":
            return "waiting" if self.seen.state == "waiting" else "interrupted"
        return self.seen.state if self.phase == "ended" else self.phase

    def _seconds_left(self) -> float | None:
        """How long it still takes at the speed that it has shown; None before that is known."""
        if self.phase != "held" or self.seen.state != "running" or self.seen.steps is None or not self.speed_from:
            return None
        since, step = self.speed_from
        if self.seen.step <= step:
            return None
        return (self.seen.steps - self.seen.step) * (time.monotonic() - since) / (self.seen.step - step)

    def work(self) -> tuple[float, float]:
        """How much of it is done, and the whole: in steps, epochs or FLOPs where these vary, else 1."""
        lengths = [self.trial.values[name] for name in LENGTHS if self.trial.values.get(name, "none") != "none"]
        whole = float(lengths[0]) if lengths else 1.0
        if self.phase in ("ended", "failed"):
            return whole, whole
        return whole * min(1.0, self.seen.step / self.seen.steps) if self.seen.steps else 0.0, whole


class Scheduler:
    """Runs the trials of a sweep.

    Args:
      sweep: held by this process.
      executor: open.
      metric: by which trials are compared: its name, and whether its "max" or "min" is best.
      number: how many trials there will be, where the search does not give them all at once.
      retries: how often a trial that failed is tried again.
      view: shows how it goes.
      asked: gives the exit status with which the command was asked to leave, or None.
      wait: waits for so many seconds, or until there may be something new.
    """

    def __init__(
        self,
        sweep: SweepDirectory,
        executor: Executor,
        search: Search,
        metric: tuple[str, str],
        *,
        number: int | None = None,
        retries: int = 1,
        view: View | None = None,
        asked: Callable[[], int | None] = lambda: None,
        wait: Callable[[float], None] = time.sleep,
    ):
        self.sweep, self.executor, self.search, self.metric, self.retries = sweep, executor, search, metric, retries
        self._number, self._view, self._asked, self._wait = number or 0, view or View(), asked, wait
        self.trials: dict[str, Progress] = {}
        self.broken: str | None = None
        self.measured = False
        self._waiting: collections.deque[str] = collections.deque()
        self._orphans: set[str] = set()
        self._jobs: dict[str, _Held] = {}
        self._ended: dict[str, tuple[Ended, float]] = {}
        self._due: collections.deque[str] = collections.deque()
        self._credit, self._looked = 0.0, time.monotonic()
        self._began, self._done, self._work_before = time.monotonic(), 0, 0.0

    def run(self, ask_all: bool = False) -> None:
        """Until every trial has ended, the command is asked to leave, or a trial fails twice in the same way.

        After it, `trials` tells what became of each, and `broken` why the sweep was stopped, if it was.

        Args:
          ask_all: the search does not depend on how trials end, so that all can be known from the beginning.
        """
        for trial in self.sweep.trials():
            self._add(trial)
        self._adopt()
        self._work_before = self._work()[0]
        while ask_all and not self.search.exhausted and self._ask(1000):
            pass
        stopping = False
        while True:
            self._collect(stopping)
            self._look()
            self._watch_orphans()
            leaving = self._asked() is not None
            if leaving and self.executor.outlives:
                break
            if (leaving or self.broken) and not stopping:
                stopping = True
                self._view.say(f"stopping: {len(self._jobs)} jobs are asked to save and leave")
                self.executor.stop()
            if not stopping:
                self._fill()
            if not self._jobs and (stopping or not (self._waiting or self._orphans)):
                break
            self._view.update(self)
            self._wait(POLL_SECONDS)
        self._view.update(self, last=True)

    def lines(self) -> list[Line]:
        """Every trial as a line of a table."""
        queue = self.executor.held()
        return [progress.line(queue) for progress in self.trials.values()]

    def total(self) -> str:
        """How it goes, in a line."""
        told = count_states(self.lines())
        over = sum(progress.phase in ("ended", "failed") for progress in self.trials.values())
        left = max(len(self.trials), self._number) - over
        if len(self.trials) < self._number:
            told += f", {self._number - len(self.trials)} to come"
        if self._asked() is not None or self.broken:
            return f"{told}; stopping: {len(self._jobs)} to save and leave"
        work, rest = self._work()
        if not left or not self._done or work <= self._work_before:
            return told
        speed = (work - self._work_before) / (time.monotonic() - self._began)
        return f"{told}; about {duration(rest / speed)} left"

    def _work(self) -> tuple[float, float]:
        """How much is done, and how much is left, trials to come being like those that are known."""
        amounts = [progress.work() for progress in self.trials.values()]
        done, whole = (sum(amount) for amount in zip(*amounts)) if amounts else (0.0, 0.0)
        whole *= max(1.0, self._number / max(len(amounts), 1))
        return done, whole - done

    # Which trials there are, and where they stand.

    def _add(self, trial: Trial) -> None:
        self.trials[trial.name] = Progress(trial, TrialState(self.sweep.run(trial.name), self.metric))

    def _ask(self, number: int) -> bool:
        """Whether the search gave any trials; those that are new are written down before they can start."""
        asked = self.search.ask(number)
        new = [trial for trial in asked if trial.name not in self.trials]
        if new:
            self.sweep.add_trials(new)
        for trial in new:
            self._add(trial)
            self._place(self.trials[trial.name])
        return bool(asked)

    def _adopt(self) -> None:
        """Finds where each trial of before stands."""
        steps = {attempt["trial"]: attempt["step"] for attempt in self.sweep.attempts()}
        held = self.executor.held()
        for name, progress in self.trials.items():
            if name in held:
                job = self.executor.jobs([progress.trial])[0]
                self._hold(job, [progress])
                progress.from_step = steps.get(name, 0)
                self._report(progress)
            else:
                self._place(progress)

    def _place(self, progress: Progress) -> None:
        """A trial that no job of ours has: final, held by a process that is not ours, or waiting."""
        name = progress.trial.name
        self._orphans.discard(name)
        self._report(progress)
        holder = lock_holder(self.sweep.run(name) / ".lock")
        if holder is not None:
            progress.phase = "orphan"
            self._orphans.add(name)
            self._view.say(f"{name}: held by {holder}, which is not of this sweep; waiting for it to end")
        elif progress.seen.state in FINAL:
            progress.phase = "ended"
            self.search.tell(name, progress.seen.state, progress.seen.best)
        else:
            progress.phase = "waiting"
            self._waiting.append(name)

    def _watch_orphans(self) -> None:
        for name in list(self._orphans):
            if lock_holder(self.sweep.run(name) / ".lock") is None:
                self._place(self.trials[name])
                if self.trials[name].phase == "ended":
                    self._say_ended(self.trials[name])

    # Starting.

    def _fill(self) -> None:
        """Starts as many jobs as there is room for."""
        room = self.executor.room()
        if room <= 0:
            return
        while len(self._waiting) < room and not self.search.exhausted:
            if not self._ask(room - len(self._waiting)):
                break
        if not self._waiting:
            return
        jobs = self.executor.jobs([self.trials[name].trial for name in self._waiting])[:room]
        taken = {name for job in jobs for name in job.trials}
        self._waiting = collections.deque(name for name in self._waiting if name not in taken)
        for job in jobs:
            self._hold(job, [self.trials[name] for name in job.trials])
        self.executor.start(jobs)
        self._note_begun()

    def _hold(self, job: Job, trials: Sequence[Progress]) -> None:
        self._jobs[job.name] = _Held(job, job.log.stat().st_size if job.log.exists() else 0)
        for progress in trials:
            progress.phase, progress.job, progress.speed_from = "held", job.name, None
            progress.from_step, progress.from_change = progress.seen.saved, progress.seen.change
            if progress.trial.name not in self._due:
                self._due.append(progress.trial.name)

    # Looking.

    def _look(self) -> None:
        """Looks at the run directories of trials that run, in turn: each twice a second, fewer when there are many."""
        now = time.monotonic()
        most = min(2 * len(self._due), LOOKS_A_SECOND)
        self._credit = min(self._credit + most * (now - self._looked), len(self._due))
        self._looked = now
        while self._due and self._credit >= 1:
            self._credit -= 1
            progress = self.trials[self._due.popleft()]
            if progress.phase == "held":
                self._due.append(progress.trial.name)
                self._report(progress)

    def _report(self, progress: Progress) -> None:
        """Reads what is new of a trial, tells the search, and ends the trial if that finds it hopeless."""
        name, seen, step = progress.trial.name, progress.seen, progress.seen.step
        for at, value in seen.look():
            self.measured = True
            if self.search.report(name, at, value) and progress.phase == "held" and seen.state == "running":
                stop = self.sweep.run(name) / STOP
                if not stop.exists():
                    with guard_disk(stop.parent):
                        stop.write_text(f"pruned at step {at}: {self.metric[0]} {value:.6g}\n", encoding="utf-8")
        if seen.step != step and (progress.speed_from is None or seen.step < progress.speed_from[1]):
            progress.speed_from = time.monotonic(), seen.step

    # Ends.

    def _collect(self, stopping: bool) -> None:
        """Sees which jobs have ended, and which of those in a queue have begun."""
        queue, now = self._note_begun(), time.monotonic()
        for name, ended in self.executor.poll().items():
            if name in self._jobs:
                self._ended[name] = ended, now + SECONDS_TO_SHOW
        for name, (ended, until) in list(self._ended.items()):
            if ended.status != 0 or now > until or self._all_final(self._jobs[name].job):
                held = self._jobs.pop(name)
                del self._ended[name]
                for trial in held.job.trials:
                    self._end(self.trials[trial], held, ended)
        for name in [name for name in self._jobs if name not in (*queue, *self._ended)] if stopping else ():
            for trial in self._jobs.pop(name).job.trials:  # it was taken out of the queue before it began
                self.trials[trial].phase = "waiting"

    def _all_final(self, job: Job) -> bool:
        """Whether the run directories say what an exit status of 0 promises."""
        for name in job.trials:
            self._report(self.trials[name])
        return all(self.trials[name].seen.state in FINAL for name in job.trials)

    def _note_begun(self) -> Mapping[str, str]:
        """Notes since when jobs run; gives what the executor tells of all."""
        queue = self.executor.held()
        for name, held in self._jobs.items():
            if held.began is None and queue.get(name) == "running":
                held.began = time.monotonic()
        return queue

    def _end(self, progress: Progress, held: "_Held", ended: Ended) -> None:
        """Judges how an attempt ended, writes it down, and puts the trial where it belongs."""
        self._report(progress)
        seen, name = progress.seen, progress.trial.name
        error = None
        if seen.state in FINAL:
            state = seen.state
        elif lock_holder(seen.path / ".lock") is not None:
            state = "orphan"
        else:
            state, error = self._judge(progress, held, ended)
        self.sweep.add_attempt(
            {
                "trial": name,
                "executor": type(self.executor).__module__.rpartition(".")[2],
                "status": ended.status,
                "state": state,
                "error": error,
                "step": seen.step,
                "seconds": None if held.began is None else round(time.monotonic() - held.began, 3),
            }
        )
        if state in FINAL:
            progress.phase = "ended"
            self.search.tell(name, state, seen.best)
            self._say_ended(progress)
        elif state == "orphan":
            self._place(progress)
        elif state == "failed":
            self._fail(progress, error, held.job)
        else:
            progress.phase = "waiting"
            self._waiting.appendleft(name)

    def _judge(self, progress: Progress, held: "_Held", ended: Ended) -> tuple[str, str | None]:
        """Whether an attempt that did not reach its end was "interrupted" or "failed", and with what error."""
        seen, status = progress.seen, _signal(ended.status)
        further = seen.saved > progress.from_step
        if status is None or status in ASKED_TO_STOP:
            if further or self._asked() is not None or self.broken:
                progress.stops = 0
                return "interrupted", None
            progress.stops += 1
            if progress.stops < PATIENCE:
                return "interrupted", None
            progress.stops = 0
            return "failed", f"was stopped {PATIENCE} times without progress{_in_brackets(ended.told)}"
        if status < 0:
            if further:
                return "interrupted", None
            return "failed", f"killed by signal {-status} without progress{_in_brackets(ended.told)}"
        if status == 0:
            return "failed", f"ended with exit status 0, and its status.json says {seen.state}"
        if seen.state == "failed" and seen.change != progress.from_change and seen.error:
            return "failed", seen.error
        told = f"exit status {status}{_in_brackets(ended.told)}"
        return "failed", last_error(held.job.log, held.log_size) or told

    def _fail(self, progress: Progress, error: str, job: Job) -> None:
        """A failure: tried again at once, so that an error that all trials have is seen soon."""
        name = progress.trial.name
        progress.failures += 1
        again = progress.failures <= self.retries
        if progress.error == error and not self.broken:
            self.broken, again = f"trial {name} failed twice in the same way: {error} (its log: {job.log})", False
        progress.error = error
        if again:
            progress.phase = "waiting"
            self._waiting.appendleft(name)
            self._view.say(f"{name} failed, and is tried again: {error}")
            return
        progress.phase = "failed"
        self.search.tell(name, "failed", None)
        self._view.say(f"{name} failed: {error}")

    def _say_ended(self, progress: Progress) -> None:
        """Shows that a trial has come to its end."""
        self._done += 1
        seen, name = progress.seen, self.metric[0]
        ended = sum(other.phase == "ended" for other in self.trials.values())
        best = "" if seen.best is None else f", best {name} {seen.best:.4g}"
        told = f": {seen.error}" if seen.state == "diverged" else f" at step {seen.step:,}{best}"
        self._view.ended(f"[{ended}/{max(len(self.trials), self._number)}] {progress.trial.name} {seen.state}{told}")


@dataclasses.dataclass
class _Held:
    """A job that has not ended: how long its log was before, and since when, on the monotonic clock, it runs."""

    job: Job
    log_size: int
    began: float | None = None


def _signal(status: int | None) -> int | None:
    """An exit status as `Ended` has it: a shell says 128 + n of what signal n killed."""
    return 128 - status if status is not None and 128 < status <= 128 + 64 and status != 130 else status


def _in_brackets(told: str) -> str:
    return f" ({told})" if told else ""
