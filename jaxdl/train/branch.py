"""A run that takes its first steps over from another instead of making them again: `--branch_from=RUN --branch_step=S`.

So one long run at a constant learning rate serves several lengths, each of which only decays by itself (warm-up,
stable, decay: Hu et al. 2024, arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392). A branch is the run
that its flags say, to the bit: what is taken over is refused where it could not be that run's own first S steps. The
checkpoint and the metrics up to S are copied, and the run goes on from them as any run does from its checkpoint.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdl.errors import InputError
from jaxdl.train.checkpoints import finished_steps
from jaxdl.train.record import guard_disk, read_json, read_metrics
from jaxdl.train.settings import CHANGEABLE

RECORD = {"eval_every", "checkpoint_every"}
"""Flags that change what a run writes, and not what it is."""


def check(settings, program, workdir: pathlib.Path, parse: Callable) -> bool:
    """Whether the run is to take its beginning over: it has no checkpoint of its own yet, and is asked to.

    Args:
      settings: the run's `Settings`.
      program: what they make.
      workdir: its directory.
      parse: `jaxdl.settings.parse`, for the other run's flags.

    Raises:
      InputError: there is no such checkpoint, or it is not this run's own beginning.
    """
    trainer = settings.trainer
    if trainer.branch_from is None and trainer.branch_step is None:
        return False
    if trainer.branch_from is None or trainer.branch_step is None:
        raise InputError("--branch_from=RUN and --branch_step=S stand together.")
    if finished_steps(workdir):
        return False
    source, step = pathlib.Path(trainer.branch_from), trainer.branch_step
    if not (source / "flags.txt").is_file():
        raise InputError(f"--branch_from={source} is no run directory: it has no flags.txt.")
    if step not in finished_steps(source):
        there = ", ".join(map(str, finished_steps(source))) or "none"
        raise InputError(
            f"--branch_step={step}: {source} has no checkpoint of that step (there are: {there}); "
            "--checkpoint_every and --keep_checkpoints say which a run keeps."
        )
    if step > program.total_steps:
        raise InputError(f"--branch_step={step} is beyond the {program.total_steps} steps of this run.")
    _check_same_beginning(settings, program, source, parse([f"--flagfile={source / 'flags.txt'}"]))
    return True


def _check_same_beginning(settings, program, source: pathlib.Path, theirs) -> None:
    differing = {
        name
        for name in {*settings.flags, *theirs.flags}
        if settings.flags.get(name) != theirs.flags.get(name) and name not in CHANGEABLE | RECORD
    }
    of_schedule = {name for name in differing if name.partition(".")[0] == "schedule"}
    if "reduce_on_plateau" in (settings.names["schedule"], theirs.names["schedule"]):
        of_schedule = set()  # its past is part of the state
    if differing - of_schedule:
        told = (f"--{name}={theirs.flags.get(name, '(not there)')}" for name in sorted(differing - of_schedule))
        raise InputError(f"--branch_from={source} is no beginning of this run: it has {'; '.join(told)}.")
    total_steps = (read_json(source / "environment.json") or {}).get("total_steps", 0)
    peak, steps = settings.make("update").learning_rate, np.arange(settings.trainer.branch_step)
    ours = _rates(program.schedule.build(peak, program.total_steps), steps)
    before = _rates(theirs.make("schedule").build(peak, total_steps), steps)
    other = np.flatnonzero(ours != before)
    if len(other):
        at = other[0]
        raise InputError(
            f"--branch_from={source} is no beginning of this run: at step {at} its learning rate is {before[at]:g}, "
            f"and here {ours[at]:g}. Branch before the decay, and give the warm-up as --schedule.warmup_steps."
        )


def _rates(schedule: Callable, steps: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedule))(steps))


def take_over(record, trainer) -> None:
    """Copies checkpoint and metrics; the checkpoint appears last, and whole. Other processes wait for it."""
    if record.writer:
        _copy(record, trainer)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("branch taken over")


def _copy(record, trainer) -> None:
    source, step = pathlib.Path(trainer.branch_from), trainer.branch_step
    folder = record.path / "checkpoints"
    with guard_disk(record.path):
        lines = [json.dumps(entry) + "\n" for entry in read_metrics(source) if entry["step"] <= step]
        (record.path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        copied = folder / "branching"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(source / "checkpoints" / str(step), copied)
        os.replace(copied, folder / str(step))
