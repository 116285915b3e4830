"""Checkpoints through Orbax: asynchronous, atomic, the latest few and the best.

A checkpoint that does not read back is set aside under `checkpoints/damaged/`, said aloud, and the one before it
is used. Directories are named by step; one that is not finished never gets its name.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from jaxdl.errors import InputError, RunError
from jaxdl.train.record import guard_disk
from jaxdl.train.run import Run


def finished_steps(workdir: pathlib.Path) -> list[int]:
    """The steps of a run directory's finished checkpoints, in order. Only looks."""
    folder = pathlib.Path(workdir) / "checkpoints"
    return sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdigit())


def choose(workdir: pathlib.Path, which: str, best_step: int | None) -> int:
    """The step of checkpoint 'best' (where one was kept), 'latest', or a number.

    Raises:
      InputError: there is no such checkpoint.
    """
    steps = finished_steps(workdir)
    if not steps:
        raise InputError(f"there is no checkpoint under {workdir}.")
    if which == "latest":
        return steps[-1]
    if which == "best":
        return best_step if best_step in steps else steps[-1]
    if which.isdigit() and int(which) in steps:
        return int(which)
    raise InputError(f"--checkpoint={which}: expected best, latest, or one of the steps {', '.join(map(str, steps))}.")


def read_state(workdir: pathlib.Path, step: int, like: Any) -> Any:
    """The train state of one checkpoint, from a run directory that may be read-only or another's.

    Args:
      like: the state's `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      InputError: the checkpoint cannot be read.
    """
    import orbax.checkpoint as ocp

    sharded = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), like)
    arguments = ocp.args.PyTreeRestore(item={"state": like}, restore_args={"state": sharded}, partial_restore=True)
    path = pathlib.Path(workdir) / "checkpoints" / str(step) / "default"
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(path, args=arguments)["state"]
    except Exception as error:  # a damaged file shows in many types: tensorstore, JSON, zstd, Orbax
        raise _unreadable(workdir, step, error) from error


def read_arrays(workdir: pathlib.Path, step: int) -> Any:
    """The train state of one checkpoint as nested dictionaries of NumPy arrays, of whatever model it is.

    Raises:
      InputError: the checkpoint cannot be read.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(workdir) / "checkpoints" / str(step) / "default"
    try:
        handler = ocp.PyTreeCheckpointHandler()
        with ocp.Checkpointer(handler) as checkpointer:
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
            return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))["state"]
    except Exception as error:  # as in `read_state`
        raise _unreadable(workdir, step, error) from error


def _unreadable(workdir: pathlib.Path, step: int, error: Exception) -> InputError:
    shapes = re.search(r"Requested shape: (\(.*?\)) is not compatible with the stored shape: (\(.*?\))", str(error))
    if shapes:
        return InputError(
            f"checkpoint {step} of {workdir} is of another model, or of data of another width: it has an array of "
            f"{shapes[2]} where these flags make one of {shapes[1]}."
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(f"checkpoint {step} of {workdir} cannot be read ({reason}); name another --checkpoint.")


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, workdir: pathlib.Path, *, keep: int = 2):
        """`keep`: how many of the latest are kept, beside the best."""
        self.directory = pathlib.Path(workdir) / "checkpoints"
        self._best_step: int | None = None
        self._keep = keep
        self._manager = None

    def open(self) -> None:
        """Makes the directory, and clears away what was not finished."""
        import orbax.checkpoint as ocp  # 24 MB and half a second: not before the step is compiled

        self._orbax = ocp
        options = ocp.CheckpointManagerOptions(preservation_policy=self, cleanup_tmp_directories=True)
        with guard_disk(self.directory):
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Orbax's question which of these, in order of their steps, stay when a new one is on disk."""
        latest = {info.step for info in checkpoints[-self._keep :]}
        return [info.step in latest or info.step == self._best_step for info in checkpoints]

    def save(self, step: int, tree: Any, best_steps: Sequence[int | None] = (None,)) -> None:
        """Starts to write `tree`; returns when its arrays may change again, not when they are on disk.

        Args:
          best_steps: the step whose checkpoint is kept beside the latest ones; of the one run.
        """
        self._best_step = best_steps[0]
        if step not in self.steps():
            with self._writing():
                self._manager.save(step, args=self._orbax.args.StandardSave(tree), force=True)

    def finish(self, tree: Any, runs: Sequence[Run]) -> list[tuple[int | None, Any]]:
        """Waits until all is on disk. Gives the step that counts, None for the last one, and the state of it.

        Args:
          tree: what was saved last.
          runs: the one run.
        """
        self.wait()
        best_step, state = runs[0].best_step(), tree["state"]
        if best_step not in self.steps():  # there is no validation split, or that checkpoint was damaged
            return [(None, state)]
        if runs[0].ended is not None and best_step != int(state.step):
            state = self.restore(best_step, tree)["state"]
        return [(best_step, state)]

    def wait(self) -> None:
        """Waits until all that was saved is on disk. Raises: RunError, when it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends the threads. What could not be written was told by the `save` or `wait` before."""
        if self._manager is None:
            return
        try:
            self._manager.close()
        except (OSError, ValueError) as error:
            logging.debug("closing %s: %s", self.directory, error)

    @contextlib.contextmanager
    def _writing(self):
        """Turns what Orbax and tensorstore raise when a file cannot be written into one line."""
        try:
            with guard_disk(self.directory):
                yield
        except ValueError as error:
            reason = str(error).splitlines()[0]
            if "writing" not in reason:
                raise
            reason = reason.rpartition(": ")[2].partition(" [")[0]
            raise RunError(f"{self.directory} cannot be written: {reason}. What was saved before is whole.") from error

    def steps(self) -> list[int]:
        """The steps of finished checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """The newest checkpoint that reads back, as (step, tree placed as `like` is); None without any.

        Args:
          like: a tree of arrays, or of `jax.ShapeDtypeStruct` with shardings.

        Raises:
          RunError: there are checkpoints, but none can be read.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                return step, self.restore(step, like)
            except Exception as error:  # a damaged file shows in many types: tensorstore, JSON, zstd, Orbax
                damaged.append(step)
                self._set_aside(step, error)
        if damaged:
            raise RunError(
                f"no checkpoint under {self.directory} can be read (steps {damaged}, set aside in damaged/); "
                "name another --workdir to begin anew."
            )
        return None

    def restore(self, step: int, like: Any) -> Any:
        """The tree of one checkpoint; where `like` has a NumPy array, on the host."""

        def shape(x):
            return x if isinstance(x, np.ndarray) else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        like = jax.tree.map(shape, like)
        return self._manager.restore(step, args=self._orbax.args.StandardRestore(like))

    def discard_after(self, step: int) -> None:
        """Deletes checkpoints later than `step`, which a rolled-back run will write again."""
        for later in [other for other in self.steps() if other > step]:
            self._manager.delete(later)

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        self._manager.close()
        if jax.process_index() == 0:
            aside = self.directory / "damaged"
            aside.mkdir(exist_ok=True)
            target = aside / str(step)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(self.directory / str(step), target)
        logging.warning("checkpoint %d is damaged (%s); it is set aside in %s/damaged", step, reason, self.directory)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoint set aside")
        self.open()
