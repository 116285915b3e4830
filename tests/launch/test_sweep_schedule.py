"""The controller of a sweep, with an executor that only pretends: who is started again, and when it all stops."""

import collections
import fcntl
import itertools
import json
import os
import time
import types

import pytest

from jaxdl.train.record import STOP
from launch.executors.base import Ended, Executor, train_job
from launch.sweeps import schedule
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial
from launch.sweeps.schedule import PATIENCE, Scheduler
from launch.sweeps.search import Fixed
from launch.sweeps.trial_state import TrialState, last_error

METRIC = ("accuracy", "max")


def write_status(run, state, step=0, **values):
    run.mkdir(parents=True, exist_ok=True)
    (run / "status.json.new").write_text(json.dumps({"state": state, "step": step, "steps": 100, **values}))
    (run / "status.json.new").replace(run / "status.json")


def write_metric(run, step, value, split="validation"):
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "split": split, "accuracy": value}) + "\n")


class Pretending(Executor):
    """Runs a job by calling `act(run directory, attempt)`, which gives its exit status, or None while it goes on."""

    def __init__(self, act, workers=2):
        self.act, self.workers = act, workers
        self.started, self.stopped = collections.Counter(), False
        self.running = {}

    def open(self, sweep, workers):
        self.sweep = sweep

    def jobs(self, trials):
        return [train_job(self.sweep, trial) for trial in trials]

    def room(self):
        return self.workers - len(self.running)

    def start(self, jobs):
        for job in jobs:
            assert job.name not in self.running
            self.started[job.name] += 1
            self.running[job.name] = job

    def held(self):
        return dict.fromkeys(self.running, "running")

    def poll(self):
        ended = {}
        for name in list(self.running):
            status = 75 if self.stopped else self.act(self.sweep.run(name), self.started[name])
            if status is not None:
                del self.running[name]
                ended[name] = status if isinstance(status, Ended) else Ended(status)
        return ended

    def stop(self, names=None):
        self.stopped = True


@pytest.fixture
def sweep(tmp_path):
    sweep = SweepDirectory(tmp_path / "sweep")
    sweep.open()
    yield sweep
    sweep.close()


def run(sweep, act, trials=3, search=None, **arguments):
    """Runs a sweep of trials "0", "1", ...; gives its scheduler and executor."""
    executor = Pretending(act)
    executor.open(sweep, None)
    search = search or Fixed([Trial(str(i), {"seed": str(i)}) for i in range(trials)])
    scheduler = Scheduler(sweep, executor, search, METRIC, wait=lambda seconds: None, **arguments)
    scheduler.run(ask_all=True)
    return scheduler, executor


def done(run, attempt):
    write_metric(run, 100, 0.5)
    write_status(run, "done", 100)
    return 0


def states(scheduler):
    return {name: (progress.phase, progress.seen.state) for name, progress in scheduler.trials.items()}


def test_every_trial_is_done_once_also_by_a_command_that_is_given_again(sweep):
    scheduler, executor = run(sweep, done)
    assert executor.started == {"0": 1, "1": 1, "2": 1}
    assert set(states(scheduler).values()) == {("ended", "done")}
    attempts = sweep.attempts()
    assert [attempt["trial"] for attempt in attempts] == ["0", "1", "2"]
    assert attempts[0]["state"] == "done" and attempts[0]["status"] == 0 and attempts[0]["step"] == 100
    scheduler, executor = run(sweep, done)
    assert not executor.started and scheduler.trials["2"].seen.best == 0.5
    assert scheduler.total() == "3 trials: 3 done"


@pytest.mark.parametrize("state", ["diverged", "stopped"])
def test_what_diverged_or_was_stopped_is_not_tried_again(sweep, state):
    def act(run, attempt):
        write_status(run, state, 50, error="the loss was not finite")
        return 1

    scheduler, executor = run(sweep, act, trials=1)
    assert executor.started == {"0": 1} and states(scheduler) == {"0": ("ended", state)}
    assert not scheduler.broken


@pytest.mark.parametrize("status", [-9, -11, 137, 75, -15, None])
def test_what_is_killed_or_preempted_goes_on_as_long_as_it_gets_further(sweep, status):
    def act(run, attempt):
        if attempt == 8:
            return done(run, attempt)
        write_status(run, "running", 10 * attempt)
        return Ended(status)

    scheduler, executor = run(sweep, act, trials=1, retries=0)
    assert executor.started == {"0": 8} and states(scheduler) == {"0": ("ended", "done")}
    assert {attempt["state"] for attempt in sweep.attempts()} == {"interrupted", "done"}


def test_killed_without_progress_is_a_failure_that_is_told(sweep):
    scheduler, executor = run(sweep, lambda run, attempt: Ended(-9, "out of memory?"), trials=1, retries=0)
    assert executor.started == {"0": 1} and states(scheduler)["0"][0] == "failed"
    assert scheduler.trials["0"].error == "killed by signal 9 without progress (out of memory?)"


def test_stopped_without_progress_is_forgiven_a_few_times(sweep):
    scheduler, executor = run(sweep, lambda run, attempt: 75, trials=1, retries=0)
    assert executor.started == {"0": PATIENCE}
    assert scheduler.trials["0"].error == f"was stopped {PATIENCE} times without progress"


def test_failures_are_tried_again_and_others_go_on(sweep):
    def act(run, attempt):
        if run.name == "1" and attempt < 4:
            write_status(run, "failed", error=f"the disk was full at {attempt} o'clock")
            return 1
        return done(run, attempt)

    scheduler, executor = run(sweep, act, retries=2)
    assert executor.started == {"0": 1, "1": 3, "2": 1}
    assert {phase for phase, _ in states(scheduler).values()} == {"ended", "failed"} and not scheduler.broken
    assert scheduler.trials["1"].error == "the disk was full at 3 o'clock"
    # Whoever starts the sweep again has mended something: a new chance.
    scheduler, executor = run(sweep, done)
    assert executor.started == {"1": 1} and states(scheduler)["1"] == ("ended", "done")


def test_the_same_error_twice_stops_the_sweep(sweep):
    def act(run, attempt):
        if run.name == "0":
            return None  # goes on until it is asked to stop
        with open(sweep.log(run.name), "a") as log:
            log.write(f"attempt {attempt}\nerror: --data_dir=/data: no such folder.\n")
        return 2

    scheduler, executor = run(sweep, act, trials=9, retries=5)
    assert executor.started == {"0": 1, "1": 2} and executor.stopped
    assert scheduler.broken.startswith("trial 1 failed twice in the same way: --data_dir=/data: no such folder.")
    assert str(sweep.log("1")) in scheduler.broken
    phases = collections.Counter(phase for phase, _ in states(scheduler).values())
    assert phases == {"failed": 1, "waiting": 8}


def test_an_old_error_in_status_or_log_is_not_taken_for_a_new_one(sweep):
    write_status(sweep.run("0"), "failed", error="of last week")
    sweep.log("0").write_text("error: of last week\n")
    scheduler, _ = run(sweep, lambda run, attempt: 1, trials=1, retries=0)
    assert scheduler.trials["0"].error == "exit status 1"


@pytest.mark.parametrize("late", [3, 10**6])
def test_a_run_directory_may_be_late_to_say_that_all_is_well(sweep, monkeypatch, late):
    monkeypatch.setattr(schedule, "SECONDS_TO_SHOW", 0.2)
    waits = itertools.count()

    def wait(seconds):
        time.sleep(0.01)
        if next(waits) == late:
            done(sweep.run("0"), 1)

    executor = Pretending(lambda run, attempt: 0)
    executor.open(sweep, None)
    scheduler = Scheduler(sweep, executor, Fixed([Trial("0", {})]), METRIC, wait=wait, retries=0)
    scheduler.run()
    assert executor.started == {"0": 1}
    assert scheduler.trials["0"].phase == ("ended" if late == 3 else "failed")
    assert scheduler.trials["0"].error in (None, "ended with exit status 0, and its status.json says waiting")


def test_with_a_signal_all_are_asked_to_stop_and_nothing_counts_as_failed(sweep):
    asked = []

    def act(run, attempt):
        asked.append(run.name)
        return None

    scheduler, executor = run(sweep, act, asked=lambda: 75 if len(asked) > 3 else None)
    assert executor.stopped and executor.started == {"0": 1, "1": 1}
    assert {phase for phase, _ in states(scheduler).values()} == {"waiting"}
    assert [attempt["state"] for attempt in sweep.attempts()] == ["interrupted", "interrupted"]


def test_jobs_that_outlive_the_command_are_left_alone_and_found_again(sweep):
    executor = Pretending(lambda run, attempt: None)
    executor.outlives = True
    executor.open(sweep, None)
    trials = [Trial(str(i), {"seed": str(i)}) for i in range(3)]
    polls = iter([None, None, 130])
    scheduler = Scheduler(sweep, executor, Fixed(trials), METRIC, asked=lambda: next(polls), wait=lambda seconds: None)
    scheduler.run(ask_all=True)
    assert not executor.stopped and set(executor.running) == {"0", "1"}
    executor.act = done
    Scheduler(sweep, executor, Fixed(trials), METRIC, wait=lambda seconds: None).run()
    assert executor.started == {"0": 1, "1": 1, "2": 1} and len(sweep.attempts()) == 3


def test_jobs_taken_from_a_queue_by_stopping_are_not_waited_for(sweep):
    class Queue(Pretending):
        def stop(self, names=None):
            self.running.clear()

    executor = Queue(lambda run, attempt: None)
    executor.open(sweep, None)
    scheduler = Scheduler(
        sweep, executor, Fixed([Trial("0", {})]), METRIC, asked=lambda: 75 if executor.started else None
    )
    scheduler.run()
    assert states(scheduler)["0"][0] == "waiting" and not sweep.attempts()


def test_a_run_that_another_process_holds_is_watched_and_not_started(sweep):
    directory = sweep.run("0")
    write_status(directory, "running", 50)
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, b"process 17 on elsewhere\n")
    waits = []

    def wait(seconds):
        waits.append(scheduler.trials["0"].phase)
        if len(waits) == 5:
            write_status(directory, "done", 100)
            os.close(lock)

    executor = Pretending(done)
    executor.open(sweep, None)
    trials = [Trial("0", {"seed": "0"}), Trial("1", {"seed": "1"})]
    scheduler = Scheduler(sweep, executor, Fixed(trials), METRIC, wait=wait)
    scheduler.run()
    assert waits[:5] == ["orphan"] * 5 and executor.started == {"1": 1}
    assert states(scheduler)["0"] == ("ended", "done")


class Hopeless(Fixed):
    """Ends every trial at its first measurement, and remembers what it was told."""

    def __init__(self, trials):
        super().__init__(trials)
        self.reports, self.tells = [], []

    def report(self, name, step, value):
        self.reports.append((name, step, value))
        return True

    def tell(self, name, state, value):
        self.tells.append((name, state, value))


def test_a_trial_without_hope_is_asked_to_end_by_the_file_it_looks_for(sweep):
    def act(run, attempt):
        if (run / STOP).exists():
            write_status(run, "stopped", 10)
            return 0
        write_status(run, "running", 10)
        if not (run / "metrics.jsonl").exists():
            write_metric(run, 10, 0.125, "train")
            write_metric(run, 10, 0.25)
        return None

    search = Hopeless([Trial("0", {"seed": "0"})])
    run(sweep, act, search=search)
    assert (sweep.run("0") / STOP).read_text() == "pruned at step 10: accuracy 0.25\n"
    assert search.reports == [("0", 10, 0.25)] and search.tells == [("0", "stopped", 0.25)]


def test_trials_that_a_search_gives_later_count_from_the_beginning(sweep):
    class OneByOne(Fixed):
        def ask(self, number):
            return super().ask(min(number, 1))

    told = []
    executor = Pretending(done, workers=1)
    executor.open(sweep, None)
    search = OneByOne([Trial(str(i), {"seed": str(i)}) for i in range(3)])
    scheduler = Scheduler(
        sweep, executor, search, METRIC, number=3, wait=lambda seconds: told.append(scheduler.total().partition(";")[0])
    )
    scheduler.run()
    assert told[0] == "1 trial: 1 starting, 2 to come" and told[-1] == "3 trials: 2 done, 1 starting"
    assert executor.started == {"0": 1, "1": 1, "2": 1} and sweep.trials()[-1].name == "2"


def test_the_time_left_is_that_of_the_steps_or_flops_that_are_left(sweep, monkeypatch):
    """A trial of 1e12 FLOPs in 10 seconds, and one of 3e12 that is half done 15 seconds later: 15 are left."""
    now = [0.0]
    monkeypatch.setattr(schedule, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    told = {}

    def wait(seconds):
        told[now[0]] = scheduler.total()
        now[0] += 1

    def act(run, attempt):
        step = 10 * int(now[0]) if run.name == "0" else int((now[0] - 10) / 0.3)
        write_status(run, "done" if step >= 100 else "running", min(step, 100))
        return 0 if step >= 100 else None

    executor = Pretending(act, workers=1)
    executor.open(sweep, None)
    search = Fixed([Trial(str(i), {"flops_budget": budget}) for i, budget in enumerate(("1e12", "3e12"))])
    scheduler = Scheduler(sweep, executor, search, METRIC, wait=wait)
    scheduler.run(ask_all=True)
    assert "left" not in told[5], "before a trial has ended nothing is known"
    assert told[10].endswith("about 30 s left") and told[25].endswith("about 15 s left")


def test_a_trial_is_read_on_from_where_it_was_read_and_anew_after_a_resume(tmp_path):
    seen = TrialState(tmp_path, METRIC)
    assert seen.look() == [] and seen.state == "waiting"
    write_metric(tmp_path, 10, 0.5, "train")
    write_metric(tmp_path, 10, 0.25)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "spl')  # being written
    assert seen.look() == [(10, 0.25)] and seen.step == 10 and seen.best == 0.25
    assert seen.look() == []
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('it": "validation", "accuracy": 0.75}\n{"step": 30, "split": "validation", "accuracy": null}\n')
    assert seen.look() == [(20, 0.75)] and seen.best == 0.75 and seen.step == 30
    (tmp_path / "cut").write_text((tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)[0])
    (tmp_path / "cut").replace(tmp_path / "metrics.jsonl")
    write_status(tmp_path, "running", 10)
    assert seen.look() == [] and seen.step == 10 and seen.best == 0.5


def test_the_error_in_a_log_is_the_last_one_of_this_job(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: old\n")
    start = log.stat().st_size
    assert last_error(log, start) is None and last_error(tmp_path / "none", 0) is None
    with open(log, "a") as file:
        file.write("Traceback (most recent call last):\n  File\nValueError: new\n\n")
    assert last_error(log, start) == "ValueError: new"
    with open(log, "a") as file:
        file.write("error: newer\nstep 7\n")
    assert last_error(log, start) == "newer"
