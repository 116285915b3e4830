"""launch.train as a person meets it: exit statuses, one line an error, a stall that says where it hangs."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [
    "--model=mlp",
    "--model.widths=8",
    "--dataset=digits",
    "--batch_size=32",
    "--steps=20",
    "--eval_every=10",
    "--plots=false",
]


def launch(command: str, *arguments: str, timeout: float = 120, cwd=ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", f"launch.{command}", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        cwd=cwd,
    )


def assert_one_line(result: subprocess.CompletedProcess, status: int, message: str) -> None:
    lines = result.stderr.strip().splitlines()
    assert result.returncode == status, result.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], result.stderr


def test_a_run_and_what_it_says(tmp_path):
    result = launch("train", *SMALL, f"--workdir={tmp_path}/a run")
    assert result.returncode == 0, result.stderr
    said = result.stdout
    assert "test: accuracy" in said and f"run directory: '{tmp_path}/a run'" in said
    # Every command that it tells can be typed as it stands.
    command = next(line for line in said.splitlines() if "launch.evaluate" in line).partition("python -m ")[2]
    evaluated = subprocess.run(
        f"{sys.executable} -m {command}",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads(evaluated.stdout)
    recorded = json.loads((tmp_path / "a run" / "status.json").read_text())["metrics"]["test"]
    assert metrics["accuracy"] == pytest.approx(recorded["accuracy"], abs=1e-9)


def test_repeating_a_run_gives_the_same_bytes(tmp_path):
    launch("train", *SMALL, f"--workdir={tmp_path}/one")
    launch("train", f"--flagfile={tmp_path}/one/flags.txt", f"--workdir={tmp_path}/two")
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two and one


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--stpes=1"], "Did you mean '--steps'?"),
        (["--model=rsenet18"], "Did you mean 'resnet18'?"),
        (["--flagfile=nowhere.flags"], "no such file"),
        (
            ["--dataset=tfds", "--dataset.name=mnist", "--data_dir=/nonexistent"],
            "python -m launch.prepare_data --name=mnist",
        ),
        (["--workdir=/proc/nothing/here"], "cannot be written"),
    ],
)
def test_wrong_input_is_status_2_and_one_line(arguments, message, tmp_path):
    result = launch("train", *SMALL, f"--workdir={tmp_path / 'run'}", *arguments)
    assert_one_line(result, 2, message)
    assert not (tmp_path / "run").exists()


def test_a_run_directory_in_use(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    long = [flag for flag in SMALL if not flag.startswith("--steps")] + ["--steps=1000000", f"--workdir={tmp_path}/run"]
    holder = subprocess.Popen(
        [sys.executable, "-m", "launch.train", *long],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert holder.poll() is None
            time.sleep(0.05)
        assert_one_line(launch("train", *long), 2, f"is held by process {holder.pid} on ")
        holder.send_signal(signal.SIGINT)
        assert holder.wait(timeout=60) == 130
    finally:
        holder.kill()


def test_a_disk_that_fills_midway_is_status_1(tmp_path):
    # A limit on the size of a file stands for a disk that is full: the flags and the status fit, a checkpoint does not.
    command = [
        sys.executable,
        "-m",
        "launch.train",
        *SMALL,
        "--tensorboard=false",
        "--compilation_cache=none",
        f"--workdir={tmp_path}/run",
    ]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    # tensorstore's threads print their own stacks, which no caller can stop, and in whose midst our line may stand.
    assert result.returncode == 1, result.stderr
    said = f"error: {tmp_path}/run/checkpoints cannot be written: File too large. What was saved before is whole."
    assert result.stderr.count(said) == 1
    assert {line for line in result.stderr.splitlines() if line.startswith("error:")} <= {said}
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_a_stall_says_where_it_hangs(tmp_path):
    """A dataset whose reading hangs, in a module of one's own."""
    (tmp_path / "hanging.py").write_text(
        "import dataclasses, time\nimport numpy as np\nfrom jaxdl.data.base import Data\n"
        "class Slow:\n"
        "    reads = 0\n"
        "    def __len__(self): return 64\n"
        "    def __getitem__(self, i):\n"
        "        Slow.reads += 1\n"
        "        if Slow.reads > 150: time.sleep(1000)\n"
        "        return {'inputs': np.zeros(4, np.float32), 'labels': np.int32(i % 2)}\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Hanging:\n"
        "    '''Hangs.'''\n"
        "    def load(self, data_dir): return Data({'train': Slow()}, num_classes=2)\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [
        sys.executable,
        "-m",
        "launch.train",
        "--model=mlp",
        "--dataset=hanging:Hanging",
        "--steps=50",
        "--batch_size=8",
    ]
    command += [
        "--data_mode=host",
        "--watchdog_seconds=8",
        f"--workdir={tmp_path}/run",
        "--prefetch=1",
        "--data_threads=1",
    ]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if "No progress for" in line and "compiling" not in line:  # a busy machine may compile for longer
                break
        assert "The run is: reading the batch of step" in line
        time.sleep(1)
        assert "hanging.py" in (tmp_path / "run" / "stall.txt").read_text()
    finally:
        process.kill()


def test_help_is_quick_and_says_what_this_choice_takes():
    began = time.monotonic()
    result = launch("train", "--help", "--model=resnet18", "--dataset=digits")
    assert result.returncode == 0 and "--model.stage_sizes=2,2,2,2" in result.stdout
    # Measured at 0.8 s; a machine that is busy with other tests gets ten times that before this is an error.
    assert time.monotonic() - began < 8
