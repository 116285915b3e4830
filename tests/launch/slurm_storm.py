"""A sweep through a real Slurm that loses jobs and nodes, held against one that nobody disturbed; by hand:

    python -m tests.launch.slurm_storm --trials=100 --requeues=10

Runs a sweep with `--executor=local`, and the same one as job arrays of a cluster that is started for it, with two
nodes of one job each. While that one runs, jobs are requeued at random; at a third of the way the power of a node is
cut (its daemon and processes are killed), half-way the sweep command is killed and started again, at two thirds the
daemon of a node is stopped alone, whose job goes on unseen while Slurm starts it again elsewhere. At the end every
trial must be done exactly once, and each metrics.jsonl must be the same, byte for byte. On two cores this takes about
15 minutes.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from tests.launch import slurm_cluster
from tests.launch.kill_sweep import FLAGS, compare, read_lines, start, state, wait_until_done
from tests.launch.slurm_cluster import Cluster

SLURM = ("--executor=slurm", "--slurm.extra=--exclusive")


@dataclasses.dataclass
class Storm:
    """The disturbed sweep in progress, and what was done to it."""

    cluster: Cluster
    workdir: pathlib.Path
    process: subprocess.Popen
    rng: random.Random
    told: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def requeue(self) -> None:
        """Takes a job that runs away from its node."""
        while not (jobs := self.jobs("RUNNING")):
            time.sleep(0.2)
        self.cluster.run("scontrol", "requeue", self.rng.choice(jobs))
        self.told["requeues"] += 1

    def lose_node(self, *, kill: bool) -> None:
        """Loses a node on which a job runs, until Slurm has found that out; then the node comes back."""
        while not (nodes := self.jobs("RUNNING", "%N")):
            time.sleep(0.2)
        node = self.rng.choice(nodes)
        self.cluster.stop_node(node, kill=kill)
        while "down" not in self.cluster.run("sinfo", "--noheader", f"--nodes={node}", "--format=%T"):
            time.sleep(0.5)
        time.sleep(10)
        self.cluster.start_node(node)
        self.told["power cuts" if kill else "stopped daemons"] += 1

    def kill_command(self) -> None:
        """Kills the sweep command, and starts it again a while later."""
        self.process.kill()
        self.process.wait()
        time.sleep(10)
        self.process = start(self.workdir, ())
        self.told["kills of the command"] += 1

    def jobs(self, state: str, form: str = "%F_%K") -> list[str]:
        return self.cluster.run("squeue", "--noheader", "--array", f"--states={state}", f"--format={form}").split()


def run_storm(cluster: Cluster, workdir: pathlib.Path, flags, trials: int, requeues: int, seed: int) -> Storm:
    """Runs the disturbed sweep to its end."""
    storm = Storm(cluster, workdir, start(workdir, (*flags, *SLURM)), random.Random(seed))
    events = [(trials * (number + 0.5) / requeues, storm.requeue) for number in range(requeues)]
    events += [
        (trials / 3, lambda: storm.lose_node(kill=True)),
        (trials / 2, storm.kill_command),
        (trials * 2 / 3, lambda: storm.lose_node(kill=False)),
    ]
    for done, event in sorted(events, key=lambda event: event[0]):
        if not wait_until_done(workdir, int(done), storm.process):
            break
        time.sleep(storm.rng.uniform(0, 3))
        event()
    storm.process.wait()
    return storm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--requeues", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if why := slurm_cluster.missing():
        print(f"error: {why}", file=sys.stderr)
        return 2
    flags = (*FLAGS, f"--steps={options.steps}", f"--sweep=seed=0..{options.trials - 1}")
    with tempfile.TemporaryDirectory() as folder:
        calm, disturbed = pathlib.Path(folder, "calm"), pathlib.Path(folder, "disturbed")
        if status := start(calm, (*flags, "--workers=2")).wait():
            print(f"error: the undisturbed sweep left with status {status}", file=sys.stderr)
            return 1
        with slurm_cluster.running() as cluster:
            os.environ["SLURM_CONF"] = str(cluster.config)
            began = time.monotonic()
            storm = run_storm(cluster, disturbed, flags, options.trials, options.requeues, options.seed)
            seconds = time.monotonic() - began
        wrong = compare(calm, disturbed, options.trials)
        if storm.process.returncode:
            wrong.append(f"the disturbed sweep left with status {storm.process.returncode}")
        if storm.told.total() < options.requeues + 3:
            wrong.append("not everything that was planned came in time")
        restarts = sum(json.loads(file.read_text())["restart"] for file in disturbed.glob("slurm/*/*.begun"))
        arrays, done = len(list(disturbed.glob("slurm/*/jobs.json"))), len(read_lines(disturbed / "attempts.jsonl"))
        states = collections.Counter(state(path) for path in disturbed.glob("trials/*"))
    told = ", ".join(f"{number} {what}" for what, number in storm.told.items())
    print(f"{options.trials} trials in {seconds:.0f} s under {told}; {dict(states)}")
    print(f"{arrays} arrays; Slurm started jobs {restarts} times again; {done} attempts were written down")
    print("\n".join(wrong) or "every trial was done exactly once, and all metrics are the undisturbed ones")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
