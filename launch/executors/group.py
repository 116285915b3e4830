"""Trains a group of trials as one program: python -m launch.executors.group SWEEP/vectorized/GROUP

Without the folder it imports what it will need, waits for the folder as a line of its input, and then writes to the
group's log. Exit status: as that of launch.train.
"""

import gc
import os
import pathlib
import sys
from collections.abc import Sequence

from jaxdl.errors import InputError
from jaxdl.settings import parse
from jaxdl.train.record import read_json
from launch import cli
from launch.executors.base import trial_flags
from launch.executors.local import find_cores
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.trial_state import FINAL


def main(argv: Sequence[str]) -> int:
    """Trains those of the group that have not ended."""
    if len(argv) > 1:
        raise InputError("expected one folder: SWEEP/vectorized/GROUP.")
    _one_device_a_core()
    from jaxdl import experiment  # imports JAX, which reads the environment

    folder = pathlib.Path(argv[0] if argv else _wait_for_folder()).absolute()
    sweep = SweepDirectory(folder.parent.parent)
    if not argv:
        _write_to(sweep.log(folder.name))
    names = read_json(folder / "trials.json")
    if names is None:
        raise InputError(f"{folder} is no group of trials: it has no trials.json.")
    trials = {trial.name: trial for trial in sweep.trials()}
    settings = [parse(trial_flags(sweep, trials[name])) for name in names]
    states = [(read_json(sweep.run(name) / "status.json") or {}).get("state") for name in names]
    results = experiment.run_trials(settings, folder, [state if state in FINAL else None for state in states])
    return max(result.status for result in results)


def _wait_for_folder() -> str:
    """The folder, once it is told; meanwhile everything is imported."""
    import jax
    import orbax.checkpoint  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import sklearn.model_selection  # noqa: F401

    import jaxdl.train.loop  # noqa: F401
    from jaxdl.train.record import import_summary_writer

    import_summary_writer()
    jax.devices()
    gc.freeze()  # what importing has made stays: the garbage collector need not look through it again and again
    folder = sys.stdin.readline().strip()
    if not folder:  # the sweep was refused, or has ended
        sys.exit(0)
    return folder


def _write_to(log: pathlib.Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())


def _one_device_a_core() -> None:
    """On a CPU, JAX is to see each core as a device, over which trials are split. GPUs and TPUs do not care."""
    flags, name = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={len(find_cores())}".strip()


if __name__ == "__main__":
    cli.main(main)
