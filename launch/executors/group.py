"""Trains a group of trials as one program: python -m launch.executors.group SWEEP/vectorized/GROUP

Exit status: as that of launch.train. The executor forks its groups from one process that has imported this module,
which therefore imports all that they will need.
"""

import os
import pathlib
import resource
from collections.abc import Sequence

import orbax.checkpoint  # noqa: F401
import sklearn.datasets  # noqa: F401
import sklearn.model_selection  # noqa: F401

import jaxdl.train.loop  # noqa: F401
from jaxdl import experiment
from jaxdl.errors import InputError
from jaxdl.settings import parse
from jaxdl.train.record import import_summary_writer, read_json
from launch import cli
from launch.executors.base import trial_flags
from launch.executors.local import find_cores
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.trial_state import FINAL

import_summary_writer()


def main(argv: Sequence[str]) -> int:
    """Trains those of the group that have not ended."""
    if len(argv) != 1:
        raise InputError("expected one folder: SWEEP/vectorized/GROUP.")
    _one_device_a_core()
    _allow_open_files()
    folder = pathlib.Path(argv[0]).absolute()
    sweep = SweepDirectory(folder.parent.parent)
    names = read_json(folder / "trials.json")
    if names is None:
        raise InputError(f"{folder} is no group of trials: it has no trials.json.")
    trials = {trial.name: trial for trial in sweep.trials()}
    settings = [parse(trial_flags(sweep, trials[name])) for name in names]
    states = [(read_json(sweep.run(name) / "status.json") or {}).get("state") for name in names]
    results = experiment.run_trials(settings, folder, [state if state in FINAL else None for state in states])
    return max(result.status for result in results)


def _allow_open_files() -> None:
    """Each trial keeps three files open, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one_device_a_core() -> None:
    """On a CPU, JAX is to see each core as a device, over which trials are split; it looks when it is first asked.

    GPUs and TPUs do not care.
    """
    flags, name = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={len(find_cores())}".strip()


if __name__ == "__main__":
    cli.main(main)
