"""launch.sweep as a person meets it: what it refuses, what it shows, and how it stops and goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxdl.errors import InputError
from launch import sweep
from launch.sweeps.command import parse
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.table import Line, choose, count_states, duration, to_text

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = (f"--flagfile={ROOT}/experiments/foundations/mlp_digits.flags", "--tensorboard=false")


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.sweep", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def states(workdir: pathlib.Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["state"] for path in workdir.glob("trials/*/status.json")}


def test_a_sweep_from_a_flag_file_and_what_it_leaves(tmp_path):
    workdir = tmp_path / "a sweep"
    (tmp_path / "digits.sweep.flags").write_text(
        f"# A sweep is a flag file, too.\n--flagfile={DIGITS[0].partition('=')[2]}\n--steps=20\n--eval_every=10\n"
        "--tensorboard=false\n--sweep=learning_rate=0.01,1e30 with seed=3,4\n"
    )
    process = start(f"--flagfile={tmp_path}/digits.sweep.flags", "--workdir", str(workdir))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err  # that a trial diverges is an answer
    names = ["learning_rate=0.01__seed=3", "learning_rate=1e30__seed=4"]
    assert states(workdir) == {names[0]: "done", names[1]: "diverged"}
    assert f"{names[0]} done at step 20" in out and f"{names[1]} diverged: the loss" in out
    assert "/2]" in out and (workdir / "summary.csv").exists() and (workdir / "best.flags").exists()
    assert sorted(line["state"] for line in SweepDirectory(workdir).attempts()) == ["diverged", "done"]
    # Given again, by its directory alone, it has nothing to do, and says what it found.
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("trials/*/*")}
    process = start(f"--workdir={workdir}")
    again, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "done at" not in again and "best: " in again, err
    assert before == {path: path.stat().st_mtime_ns for path in workdir.glob("trials/*/*")}


def test_it_is_looked_at_stopped_and_continued_from_elsewhere(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    workdir, name = tmp_path / "sweep", "seed=0"
    endless = (*DIGITS, "--steps=10000000", "--eval_every=1000", "--sweep=seed=0..1", "--workers=1")
    process = start(*endless, f"--workdir={workdir}")
    try:
        while states(workdir).get(name) != "running":
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        assert sweep.main(["--status", f"--workdir={workdir}"]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[1].split()[:2] == [name, "running"] and shown[2].split()[:2] == ["seed=1", "waiting"]
        assert shown[-1].startswith(f"2 trials: 1 running, 1 waiting; run by process {process.pid} on ")
        with pytest.raises(InputError, match=f"held by process {process.pid}"):
            sweep.main([*endless, f"--workdir={workdir}"])
        with pytest.raises(InputError, match="is another sweep; yours is its base without --steps=10000000"):
            sweep.main([*(flag for flag in endless if "--steps" not in flag), "--steps=5", f"--workdir={workdir}"])
        assert sweep.main(["--cancel", f"--workdir={workdir}"]) == 0
        out, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        assert f"To go on: python -m launch.sweep --workdir={workdir}" in out
        assert states(workdir) == {name: "preempted"}
        step = json.loads((workdir / "trials" / name / "status.json").read_text())["step"]
        process = start(f"--workdir={workdir}")
        while states(workdir)[name] != "running":
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert json.loads((workdir / "trials" / name / "status.json").read_text())["step"] >= step > 0
    finally:
        process.kill()
    assert sweep.main(["--status", f"--workdir={workdir}"]) == 0
    assert "1 preempted, 1 waiting; nobody runs it; to go on: python -m" in capsys.readouterr().out


def test_an_error_of_all_trials_stops_it_early(tmp_path):
    arguments = ["--model=mlp", "--dataset=csv", f"--dataset.path={tmp_path}/none.csv", "--steps=5"]
    process = start(*arguments, "--sweep=seed=0..9", "--workers=1", f"--workdir={tmp_path}/sweep")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: trial seed=0 failed twice in the same way: "), err
    assert "none.csv" in lines[0] and f"{tmp_path}/sweep/logs/seed=0.log" in lines[0]
    assert "To go on: python -m launch.sweep" in lines[1] and "--retries=0" in lines[1]
    assert len(SweepDirectory(tmp_path / "sweep").attempts()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep=seed=0..1"], "name a directory for the sweep: --workdir="),
        (["--workdir={tmp}/s"], "nothing varies: give an axis"),
        (["--workdir={tmp}/s", "--sweep=sed=0..1"], "axis sed: there is no flag --sed"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--stpes=5"], "Did you mean '--steps'?"),
        (["--workdir={tmp}/s", "--sweep=seed=0,x"], "axis seed: "),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--executor=slrum"], "expected one of local, vectorized, slurm"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--vectorized.trials=3"], "is a flag of --executor=vectorized"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--workers=4096"], "--workers=4096: this machine lends "),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--workers=0"], "--workers=0: expected a whole number, at least 1"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--metric=f1"], "say which is best, --metric=f1:max"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--metric=f1:most"], "expected NAME, NAME:max or NAME:min"),
        (["--workdir={tmp}/s", "--sweep=task=classification,regression"], "have different metrics (accuracy, mse)"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--status"], "is no sweep directory: it has no sweep.json"),
        (["--workdir={tmp}/none", "--cancel"], "is no sweep directory: it has no sweep.json"),
        (["--cancel"], "which sweep? --workdir=DIR"),
        (["--status", "--dry_run"], "one of them at a time"),
        (["--workdir=/proc/nothing/here", "--sweep=seed=0..1"], "cannot be written"),
        (["stray", "--sweep=seed=0..1"], "'stray' is no flag"),
        (["--workdir={tmp}/s", "--sweep=seed=0..1", "--data_dir=a\nb"], "is one line"),
    ],
)
def test_bad_input_is_told_in_a_line_and_leaves_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    base = [] if {"--cancel", "--status", "stray"} & set(arguments) else DIGITS
    with pytest.raises(InputError) as error:
        sweep.main([*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments), *base])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_dry_run_starts_nothing(tmp_path, capsys):
    workdir = tmp_path / "sweep"
    assert sweep.main([*DIGITS, "--sweep=seed=0..24", f"--workdir={workdir}", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert f"-m launch.train --flagfile={workdir}/base.flags --seed=0 --workdir={workdir}/trials/seed=0\n" in out
    assert "... and 5 more" in out and "in all: 25 trials of 1 program, 25,000 steps" in out
    assert not workdir.exists()


def test_a_command_of_a_directory_alone_is_the_last_one_with_what_is_given_now(tmp_path):
    directory = SweepDirectory(tmp_path)
    given = ["--model=mlp", "--steps", "20", "--sweep=seed=0..1", "--executor=vectorized", "--vectorized.trials=3"]
    command = parse([*given, "--workdir=elsewhere", "--retries=4"])
    assert command.base == ("--model=mlp", "--steps=20") and command.axes == ("seed=0..1",)
    assert command.executor.trials == 3 and command.options.retries == 4
    directory.open()
    directory.write_plan({"base": [], "command": list(command.arguments)})
    directory.close()
    again = parse([f"--workdir={tmp_path}", "--retries=0"])
    assert (again.base, again.axes, again.executor) == (command.base, command.axes, command.executor)
    assert again.options.retries == 0 and again.options.workdir == str(tmp_path)
    moved = parse([f"--workdir={tmp_path}", "--executor=local"])
    assert moved.options.executor == "local" and moved.base == command.base


def test_the_command_line_is_read_before_anything_slow_is_imported():
    code = (
        "import sys; from launch import sweep; from launch.sweeps.command import parse; "
        "parse(['--model=mlp', '--executor=vectorized', '--sweep=learning_rate=log(1e-4,1e-1,8)']); "
        "assert not {'numpy', 'jax', 'matplotlib', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_help_tells_flags_and_axes(capsys):
    assert sweep.main(["--help"]) == 0
    out = capsys.readouterr().out
    for told in ("Exit status", "log(1e-4,1e-1,8)", "--retries=1", "--slurm.partition", "--vectorized.trials"):
        assert told in out


# Tables.


def test_the_table_shows_what_runs_and_the_best_when_there_are_more_trials_than_lines():
    lines = [Line(str(i), "done", 100, 100, 0.5, i / 100) for i in range(100)]
    lines[40] = Line("40", "running", 7, 100, 0.25, 0.1, 150)
    lines[41] = Line("41", "failed")
    shown = choose(lines, "max", 10)
    assert [line and line.name for line in shown[:5]] == ["40", "41", None, "99", "98"] and len(shown) == 10
    assert choose(lines, "min", 10)[3].name == "0"
    assert choose(lines[:3], "max", 10) == lines[:3]
    assert count_states(lines) == "100 trials: 98 done, 1 failed, 1 running"
    text = to_text(lines[39:42], "accuracy")
    assert text[0].split() == ["trial", "state", "step", "loss", "best", "accuracy", "left"]
    assert text[2].split() == ["40", "running", "7/100", "0.25", "0.1", "2", "min"]


def test_in_a_narrow_terminal_names_give_way():
    name = "learning_rate=0.001__model.activation=relu__seed=3"
    head, line = to_text([Line(name, "running", 1, 2, 0.5, 0.25, 3)], "accuracy", 75)
    assert len(line) == len(head) == 75 and line.split()[1:] == ["running", "1/2", "0.5", "0.25", "3", "s"]
    assert line.startswith("learning_ra…") and "relu__seed=3  running" in line


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
