"""A run that is killed anywhere ends with the same bits, and the same lines of metrics, as one that never was."""

import functools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxdl.train.record import read_metrics

STEPS = 240
# Everything that could lose state: dropout, augmentation, batch statistics, averaging, mixed precision, microbatches.
FLAGS = [
    *("--model=resnet", "--model.stage_sizes=1", "--model.width=4", "--dataset=digits", "--batch_size=32"),
    *("--augment=flip,crop,mixup", "--ema_decay=0.9", "--gradient_accumulation=2", "--optimizer=adamw"),
    *("--schedule=cosine", "--schedule.warmup_steps=20", f"--steps={STEPS}", "--eval_every=50", "--log_every=7"),
    *("--checkpoint_every=20", "--steps_per_dispatch=3", "--plots=false", "--model.stochastic_depth_rate=0.2"),
]
ENVIRONMENT = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}


def start(workdir, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.train", *FLAGS, *flags, f"--workdir={workdir}"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, status: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    return out + err


def wait_for_step(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns once the metrics have reached `step`."""
    while process.poll() is None:
        records = read_metrics(workdir)
        if records and records[-1]["step"] >= step:
            return
        time.sleep(0.002)


def arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, by path."""
    step = max(int(entry.name) for entry in (workdir / "checkpoints").iterdir() if entry.name.isdigit())
    assert step == STEPS
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(workdir / "checkpoints" / str(step) / "default")
    flat = ocp.tree.to_flat_dict(tree, sep="/")
    return {name: np.asarray(value) for name, value in flat.items() if value is not None}


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    first, second = arrays(ours), arrays(theirs)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def undisturbed_runs(tmp_path_factory):
    """Gives a precision flag, and the run directory of an uninterrupted run with it, which is made once."""
    folder = tmp_path_factory.mktemp("undisturbed")

    @functools.cache
    def run(precision: str):
        flag = f"--precision={precision}"
        finish(start(folder / precision, flag))
        return flag, folder / precision

    return run


@pytest.fixture
def undisturbed(request, undisturbed_runs):
    return undisturbed_runs(request.param)


@pytest.mark.parametrize("undisturbed, kills", [("float16", 1), ("bfloat16", 3)], indirect=["undisturbed"])
def test_kill_at_random_steps(undisturbed, kills, tmp_path):
    flag, reference = undisturbed
    workdir = tmp_path / "killed"
    steps = sorted(random.sample(range(1, STEPS - 20), kills))
    print(f"killed at {steps}")  # truly random: shown with a failure
    for step in steps:
        process = start(workdir, flag)
        wait_for_step(process, workdir, step)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(workdir, flag))
    assert_same_run(workdir, reference)
    assert json.loads((workdir / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("undisturbed", ["bfloat16"], indirect=True)
def test_signals_save_and_leave(undisturbed, tmp_path):
    flag, reference = undisturbed
    workdir = tmp_path / "stopped"
    for number, status, state in ((signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "preempted")):
        process = start(workdir, flag)
        wait_for_step(process, workdir, 49 if number == signal.SIGTERM else 99)
        process.send_signal(number)
        said = finish(process, status)
        recorded = json.loads((workdir / "status.json").read_text())
        assert recorded["state"] == state and 0 < recorded["step"] < STEPS
        assert (workdir / "checkpoints" / str(recorded["step"])).is_dir(), "what was done is saved, to the step"
        assert "To go on: python -m launch.train" in said
    finish(start(workdir, flag))
    assert_same_run(workdir, reference)


@pytest.mark.parametrize("undisturbed", ["bfloat16"], indirect=True)
def test_damaged_checkpoint_is_set_aside(undisturbed, tmp_path):
    flag, reference = undisturbed
    workdir = tmp_path / "damaged"
    shutil.copytree(reference, workdir)
    newest = workdir / "checkpoints" / str(STEPS)
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    said = finish(start(workdir, flag))
    assert f"checkpoint {STEPS} is damaged" in said
    assert (workdir / "checkpoints" / "damaged" / str(STEPS)).is_dir()
    assert_same_run(workdir, reference)
