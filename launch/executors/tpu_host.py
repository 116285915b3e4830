"""Runs a job on one host of a TPU; `gcloud compute tpus tpu-vm ssh --worker=all` calls it on all of them.

    python -m launch.executors.tpu_host FOLDER

FOLDER lies on the share that the sweep's machine and the hosts have. The call leaves at once, and a process stays that
runs the job and is spoken with through files, so that no connection must last as long as the job:

    job.json    {"command": [...], "log": ..., "hosts": [addresses, in the order of the slice]}
    alive.I     host I has begun; a number that grows while the job runs
    stop        asks the job to save and leave
    exit.I      how it ended on host I
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from jaxdl.errors import InputError
from jaxdl.train.record import replace_file
from launch import cli

PORT = 8476
"""Of the coordinator, on the first host."""

SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_A_SIGN = 10


def main(argv: Sequence[str]) -> int:
    """Begins the job on this host, unless it has begun here, or stays with it."""
    folder = pathlib.Path(argv[0])
    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read on {socket.gethostname()}: {error.strerror}; the share with the sweep directory "
            "must be mounted there, at the same path."
        ) from None
    if argv[1:]:
        return stay(folder, job, int(argv[1]))
    index = find_index(job["hosts"])
    try:
        os.close(os.open(folder / f"alive.{index}", os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:  # the call is repeated when it failed on another host
        return 0
    with open(log_of(job, index), "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "launch.executors.tpu_host", str(folder), str(index)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it stays when the connection ends
        )
    return 0


def stay(folder: pathlib.Path, job: dict[str, Any], index: int) -> int:
    """Runs the command to its end; gives its exit status, and writes it down."""
    environment = dict(os.environ)
    if len(job["hosts"]) > 1:
        environment["JAX_COORDINATOR_ADDRESS"] = f"{job['hosts'][0]}:{PORT}"
        environment["JAX_NUM_PROCESSES"] = str(len(job["hosts"]))
        environment["JAX_PROCESS_ID"] = str(index)
    try:
        child = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        print(f"error: {job['command'][0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        replace_file(folder / f"exit.{index}", "127")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # the host is taken away
    looks, asked = 0, False
    while True:
        if looks % LOOKS_A_SIGN == 0:
            replace_file(folder / f"alive.{index}", str(looks))
        if not asked and (folder / "stop").exists():
            child.terminate()
            asked = True
        try:
            status = child.wait(SECONDS_BETWEEN_LOOKS)
        except subprocess.TimeoutExpired:
            looks += 1
            continue
        replace_file(folder / f"exit.{index}", str(status))
        return status


def find_index(hosts: Sequence[str]) -> int:
    """Which of the hosts this is, by the address from which it reaches the first.

    Raises:
      InputError: none of them.
    """
    if len(hosts) == 1:
        return 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((hosts[0], PORT))  # sends nothing
        own = probe.getsockname()[0]
    if own not in hosts:
        raise InputError(f"{socket.gethostname()} has the address {own}; expected one of {', '.join(hosts)}.")
    return hosts.index(own)


def log_of(job: dict[str, Any], index: int) -> pathlib.Path:
    """The log of a host: the first has the job's own; appending from several hosts would tear lines."""
    path = pathlib.Path(job["log"])
    return path.with_name(f"{path.stem}.host{index}.log") if index else path


if __name__ == "__main__":
    cli.main(main)
