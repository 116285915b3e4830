"""A sweep under kill -9, held against one that nobody disturbed; by hand, as it takes a while:

    python -m tests.launch.kill_sweep --trials=200 --kills=30

Runs a sweep through `--executor=local` twice. The second one is killed at random: its trials, and in a third of the
cases the sweep command itself, which is then started again. A trial is killed once at most: one that dies twice
without having got anywhere stops a sweep, as it seems to need more memory than there is. At the end every trial must
be done exactly once, and each metrics.jsonl must be the same, byte for byte. On two cores this takes half an hour.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from jaxdl.train.record import read_json

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ("--flagfile=experiments/foundations/mlp_digits.flags", "--eval_every=200", "--tensorboard=false")
"""Saving often makes training long against the start of a process, so that kills fall into it."""


@dataclasses.dataclass
class Outcome:
    """What was done to a sweep, how its attempts ended, and what is wrong with it after all."""

    kills: collections.Counter
    attempts: collections.Counter
    seconds: float
    wrong: list[str]


def run_both(folder: pathlib.Path, trials: int, kills: int, steps: int, seed: int) -> Outcome:
    """Runs the calm sweep and the disturbed one, and compares them."""
    calm, disturbed = folder / "calm", folder / "disturbed"
    flags = (*FLAGS, f"--steps={steps}", f"--sweep=seed=0..{trials - 1}")
    process = start(calm, flags)
    if process.wait():
        return Outcome(
            collections.Counter(),
            collections.Counter(),
            0.0,
            [f"the undisturbed sweep left with status {process.returncode}"],
        )
    began, rng, told = time.monotonic(), random.Random(seed), collections.Counter()
    process, killed = start(disturbed, flags), set()
    for number in range(kills):
        if not wait_until_done(disturbed, trials * number // kills, process):
            break
        time.sleep(rng.uniform(0, 4))
        if rng.random() < 1 / 3:
            process.kill()
            process.wait()
            told["sweep"] += 1
            process = start(disturbed, ())  # its directory says the rest
        elif kill_a_trial(process, killed, rng):
            told["trial"] += 1
    status = process.wait()
    wrong = [f"the disturbed sweep left with status {status}"] if status else []
    wrong += compare(calm, disturbed, trials)
    ends = read_lines(disturbed / "attempts.jsonl")
    attempts = collections.Counter(f"{line['state']} with status {line['status']}" for line in ends)
    return Outcome(told, attempts, time.monotonic() - began, wrong)


def start(workdir: pathlib.Path, flags) -> subprocess.Popen:
    """The sweep command, as one types it."""
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.sweep", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def wait_until_done(workdir: pathlib.Path, number: int, process: subprocess.Popen) -> bool:
    """Waits until so many trials are done; False when the sweep has ended before."""
    while process.poll() is None:
        if sum(state(path) == "done" for path in workdir.glob("trials/*")) >= number:
            return True
        time.sleep(0.5)
    return False


def kill_a_trial(process: subprocess.Popen, killed: set[str], rng: random.Random) -> bool:
    """Kills a child of the sweep whose trial was not killed before, once there is one; False when the sweep ends.

    In half of the cases it is one that has saved: most of the time of these short trials is that of their start.
    """
    anyone = rng.random() < 1 / 2
    while process.poll() is None:
        children = read(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")).split()
        commands = {child: read(pathlib.Path(f"/proc/{child}/cmdline")) for child in children}
        trials = {child: command.rpartition("--workdir=")[2] for child, command in commands.items()}
        spared = [child for child, trial in trials.items() if trial and trial not in killed]
        spared = [child for child in spared if anyone or has_saved(pathlib.Path(trials[child].rstrip("\0")))]
        if spared:
            child = rng.choice(spared)
            killed.add(trials[child])
            os.kill(int(child), signal.SIGKILL)
            return True
        time.sleep(0.05)
    return False


def compare(calm: pathlib.Path, disturbed: pathlib.Path, trials: int) -> list[str]:
    """What is wrong with the disturbed sweep."""
    names = [line["name"] for line in read_lines(disturbed / "trials.jsonl")]
    wrong = [] if len(names) == len(set(names)) == trials else [f"{len(names)} trials instead of {trials}"]
    ends = collections.Counter(
        line["trial"] for line in read_lines(disturbed / "attempts.jsonl") if line["state"] == "done"
    )
    for name in names:
        if state(disturbed / "trials" / name) != "done":
            wrong.append(f"{name} is {state(disturbed / 'trials' / name)}")
        reports = read(disturbed / "logs" / f"{name}.log").count("run directory: ")
        if ends[name] > 1 or reports > 1:
            wrong.append(f"{name} was done {max(ends[name], reports)} times")
        one, other = (read(folder / "trials" / name / "metrics.jsonl") for folder in (calm, disturbed))
        if one != other or not one:
            wrong.append(f"{name} has other metrics than undisturbed")
    return wrong


def state(run: pathlib.Path) -> str | None:
    """The state of a run directory."""
    return (read_json(run / "status.json") or {}).get("state")


def has_saved(run: pathlib.Path) -> bool:
    """Whether a run is past its first checkpoint, and not at its end."""
    status = read_json(run / "status.json") or {}
    return status.get("state") == "running" and 0 < status.get("step", 0) < status["steps"]


def read_lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in read(path).splitlines()]


def read(path: pathlib.Path) -> str:
    """The text of a file; empty where there is none (any more)."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_both(pathlib.Path(folder), options.trials, options.kills, options.steps, options.seed)
    kills = ", ".join(f"{number} of a {what}" for what, number in outcome.kills.items())
    print(f"{options.trials} trials in {outcome.seconds:.0f} s under {outcome.kills.total()} kills ({kills}); ", end="")
    print("attempts: " + ", ".join(f"{number} {state}" for state, number in outcome.attempts.items()))
    print("\n".join(outcome.wrong) or "every trial was done exactly once, and all metrics are the undisturbed ones")
    return bool(outcome.wrong or outcome.kills.total() < options.kills)


if __name__ == "__main__":
    sys.exit(main())
