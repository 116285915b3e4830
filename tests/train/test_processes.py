"""Two processes on this machine equal one with the same devices, and stop and resume together."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxdl.train.record import read_metrics

FLAGS = [
    *(
        "--model=resnet",
        "--model.stage_sizes=1",
        "--model.width=4",
        "--dataset=digits",
        "--batch_size=32",
        "--steps=20",
    ),
    *(
        "--augment=flip,mixup",
        "--eval_every=10",
        "--log_every=2",
        "--plots=false",
        "--watchdog_seconds=60",
        "--progress=off",
    ),
]


def joined(by: str, port: int, count: int, index: int) -> tuple[list[str], dict[str, str]]:
    """How process `index` of `count` is told of the others: flags, and environment variables."""
    address = f"127.0.0.1:{port}"
    if count == 1:
        return [], {}
    if by == "flags":
        return [f"--coordinator_address={address}", f"--num_processes={count}", f"--process_id={index}"], {}
    if by == "environment":
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        return [], dict(zip(names, (address, str(count), str(index)), strict=True))
    # What srun sets. JAX takes the port from the job's number, or from JAX_COORDINATOR_PORT.
    slurm = {"JOB_ID": "1", "STEP_NODELIST": "127.0.0.1", "NTASKS": count, "PROCID": index, "LOCALID": index}
    slurm |= {"STEP_NUM_TASKS": count}
    return [], {"JAX_COORDINATOR_PORT": str(port)} | {f"SLURM_{name}": str(value) for name, value in slurm.items()}


def start(workdir, processes: int, *flags: str, by: str = "flags") -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}",
    }
    result = []
    for index in range(processes):
        told, variables = joined(by, port, processes, index)
        command = [sys.executable, "-m", "launch.train", *FLAGS, *flags, *told, f"--workdir={workdir}"]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        result.append(subprocess.Popen(command, env=environment | variables, **output))
    return result


def finish(processes, status=0) -> None:
    try:
        for process in processes:
            out, _ = process.communicate(timeout=240)
            assert process.returncode == status, out
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("mode, parallelism, by", [("device", "jit", "environment"), ("host", "shard_map", "slurm")])
def test_two_processes_equal_one(tmp_path, mode, parallelism, by):
    flags = [f"--data_mode={mode}", f"--parallelism={parallelism}"]
    finish(start(tmp_path / "one", 1, *flags))
    finish(start(tmp_path / "two", 2, *flags, by=by))
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert [(e["step"], e["split"]) for e in one] == [(e["step"], e["split"]) for e in two]
    for ours, theirs in zip(one, two, strict=True):
        # The same sums, added up over the network in another order; batch normalisation of a tiny network lets the
        # rounding (6e-8) grow over the steps.
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-3)


def test_a_signal_to_one_stops_both_and_they_resume(tmp_path):
    finish(start(tmp_path / "whole", 2))
    processes = start(tmp_path / "stopped", 2)
    while all(process.poll() is None for process in processes) and len(read_metrics(tmp_path / "stopped")) < 2:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    finish(processes, 75)
    finish(start(tmp_path / "stopped", 2))
    whole, stopped = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
