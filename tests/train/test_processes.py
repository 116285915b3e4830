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


def start(workdir, processes: int, *flags: str) -> list[subprocess.Popen]:
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
        joined = [f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={index}"]
        command = [sys.executable, "-m", "launch.train", *FLAGS, *flags, f"--workdir={workdir}"]
        command += joined if processes > 1 else []
        result.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return result


def finish(processes, status=0) -> None:
    try:
        for process in processes:
            out, _ = process.communicate(timeout=240)
            assert process.returncode == status, out
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("mode", ["device", "host"])
def test_two_processes_equal_one(tmp_path, mode):
    flags = [f"--data_mode={mode}", *(["--parallelism=shard_map"] if mode == "host" else [])]
    finish(start(tmp_path / "one", 1, *flags))
    finish(start(tmp_path / "two", 2, *flags))
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
