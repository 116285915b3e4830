"""The worker: it becomes the command of its index, whose arguments and status arrive as they are."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
AWKWARD = ["a b", "'", '"', "$(exit 3)", "\\", "*", "", "é\n"]


def work(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "launch.executors.worker", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def jobs(tmp_path) -> pathlib.Path:
    say = [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(75)", *AWKWARD]
    fail = [sys.executable, "-c", "raise SystemExit('wrong')"]
    file = tmp_path / "its jobs.json"
    file.write_text(
        json.dumps(
            [
                {"name": "say", "command": say, "log": str(tmp_path / "a log")},
                {"name": "fail", "command": fail},
                {"name": "nothing", "command": ["/no/such/program"], "log": str(tmp_path / "nothing.log")},
            ]
        )
    )
    return file


def test_arguments_status_and_log(jobs):
    log = jobs.parent / "a log"
    log.write_text("before\n")
    result = work(f"--jobs={jobs}", "--index=0")
    assert (result.returncode, result.stdout, result.stderr) == (75, "", "")
    assert log.read_text() == f"before\n{AWKWARD}\n"


@pytest.mark.parametrize("variable", ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"])
def test_the_index_of_the_cluster(jobs, variable):
    result = work(f"--jobs={jobs}", **{variable: "1"})
    assert (result.returncode, result.stderr) == (1, "wrong\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "which job? --index=0, or SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX in the environment."),
        (["--index=3"], "--index=3: "),
        (["--index=-1"], "--index=-1: "),
        (["--index=0", "--jobs=/no/such/file"], "--jobs=/no/such/file cannot be read"),
    ],
)
def test_wrong_input_is_status_2_and_one_line(jobs, arguments, message):
    result = work(f"--jobs={jobs}", *arguments)
    assert result.returncode == 2 and result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_no_such_program_is_told_in_the_log(jobs):
    assert work(f"--jobs={jobs}", "--index=2").returncode == 2
    assert (jobs.parent / "nothing.log").read_text() == "error: nothing: /no/such/program: No such file or directory.\n"
