"""A sweep's directory: what it remembers, who holds it, and what it makes of torn and foreign files."""

import os
import subprocess
import sys

import pytest

from jaxdl.config import expand_flagfiles
from jaxdl.errors import InputError
from launch.sweeps.directory import SweepDirectory, lock_holder
from launch.sweeps.plan import Trial

PLAN = {
    "base": ["--model=mlp", "--steps=20"],
    "axes": ["seed=0..1"],
    "search": "grid",
    "trials": None,
    "metric": "accuracy:max",
    "command": ["--model=mlp", "--steps=20", "--sweep=seed=0..1"],
}
TRIALS = [Trial("seed=0", {"seed": "0"}), Trial("seed=1", {"seed": "1"})]


@pytest.fixture
def sweep(tmp_path):
    sweep = SweepDirectory(tmp_path / "sweep")
    sweep.open()
    sweep.write_plan(PLAN)
    yield sweep
    sweep.close()


def test_another_process_reads_what_was_written(sweep):
    sweep.add_trials(TRIALS[:1])
    sweep.add_trials(TRIALS[1:])
    sweep.add_attempt({"trial": "seed=0", "state": "done"})
    other = SweepDirectory(sweep.path)
    assert other.trials() == TRIALS
    assert other.attempts() == [{"trial": "seed=0", "state": "done"}]
    assert other.read_plan() == {"version": 1, **PLAN}
    # What all trials share is a flag file, in which the flags that were given override the sweep's own.
    flags = expand_flagfiles([f"--flagfile={sweep.path / 'base.flags'}"])
    assert flags == ["--plots=false", "--progress=off", "--model=mlp", "--steps=20"]


def test_a_torn_line_is_cut_away_before_the_next(sweep):
    sweep.add_trials(TRIALS[:1])
    with open(sweep.path / "trials.jsonl", "a") as file:
        file.write('{"name": "seed=1", "val')
    assert sweep.trials() == TRIALS[:1]
    sweep.add_trials(TRIALS[1:])
    assert sweep.trials() == TRIALS


def test_one_process_holds_it_and_a_dead_one_lets_go(tmp_path):
    path = tmp_path / "sweep"
    code = (
        "from launch.sweeps.directory import SweepDirectory\n"
        f"sweep = SweepDirectory({str(path)!r})\nsweep.open()\nprint('held', flush=True)\ninput()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        sweep = SweepDirectory(path)
        assert sweep.holder().startswith(f"process {holder.pid} on ")
        with pytest.raises(InputError, match=f"held by process {holder.pid} on .* --cancel"):
            sweep.open()
    finally:
        holder.kill()
        holder.wait()
    assert sweep.holder() is None
    sweep.open()
    assert sweep.holder().startswith(f"process {os.getpid()} on ")
    sweep.close()


def test_looking_for_the_holder_does_not_hinder_one_another(sweep):
    assert lock_holder(sweep.path / "nothing") is None
    for _ in range(3):
        assert lock_holder(sweep.path / ".lock").startswith("process ")


def test_a_directory_in_which_no_sweep_was_begun_is_taken_away(tmp_path):
    sweep = SweepDirectory(tmp_path / "sweep")
    sweep.open()
    sweep.close()
    assert not sweep.path.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": ["--model=mlp", "--steps=30"]}, "its base without --steps=20, with --steps=30"),
        ({"base": PLAN["base"][::-1]}, "its base in another order"),
        ({"axes": ["seed=0..2"]}, "its axes without seed=0..1, with seed=0..2"),
        ({"search": "random", "trials": 5}, "search: grid -> random"),
    ],
)
def test_another_sweep_is_refused_with_the_differences(sweep, changes, message):
    with pytest.raises(InputError) as error:
        sweep.check_plan({**PLAN, **changes})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_may_change_when_a_sweep_is_continued(sweep):
    sweep.check_plan({**PLAN, "metric": "loss:min", "command": ["--executor=slurm"]})
    sweep.write_plan({**PLAN, "trials": 5})
    sweep.check_plan({**PLAN, "trials": 9})
    with pytest.raises(InputError, match="--trials=5 already, and --trials=3 is fewer"):
        sweep.check_plan({**PLAN, "trials": 3})


def test_other_directories_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and is no sweep directory"):
        SweepDirectory(tmp_path).open()
    with pytest.raises(InputError, match="has no sweep.json"):
        SweepDirectory(tmp_path).read_plan()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="cannot be written"):
        SweepDirectory("/proc/nothing/here").open()
