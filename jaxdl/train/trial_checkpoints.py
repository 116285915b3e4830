"""Checkpoints of runs that are trained as one program.

While they train, one Orbax checkpoint holds them all, as one of each would take longer than the steps between. When
they end, or are asked to leave, each run directory gets its own, of the latest step and of the best one, the same that
the run alone would have left: it is evaluated, and continued, like any other.
"""

import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.sharding import Placement
from jaxdl.train.checkpoints import Checkpoints
from jaxdl.train.record import guard_disk
from jaxdl.train.run import Run
from jaxdl.train.trials import Trials


class TrialCheckpoints:
    """What the loop asks of `Checkpoints`, for the members of a `Trials` program.

    Args:
      folder: where the common checkpoints are, under `checkpoints/`.
    """

    def __init__(self, folder: pathlib.Path, program: Trials, placement: Placement):
        self._common = Checkpoints(folder, keep=1)
        self.directory = self._common.directory
        self._program = program
        self._best = None  # of each trial what its checkpoint at its best step so far would hold

        def select(improved, new, old):
            choose = lambda a, b: jnp.where(improved.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            return jax.tree.map(choose, new, old)

        self._select = jax.jit(select, donate_argnums=2, out_shardings=placement.per_run)
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=placement.per_run)

    def open(self) -> None:
        self._common.open()

    def close(self) -> None:
        self._common.close()

    def wait(self) -> None:
        self._common.wait()

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """The newest common checkpoint, as (step, tree placed as `like` is); None without any."""
        restored = self._common.restore_latest({**like, "best": _of_runs(like)})
        if restored is not None:
            self._best = restored[1].pop("best")
        return restored

    def save(self, step: int, tree: Any, best_steps: Sequence[int | None]) -> None:
        """Starts to write the common checkpoint. `best_steps`: of each trial, so that the best states are kept."""
        if self._best is None:
            self._best = self._copy(_of_runs(tree))
        improved = np.zeros(len(self._program.seed), bool)
        improved[: len(best_steps)] = [best == step for best in best_steps]
        if improved.any():
            self._best = self._select(improved, _of_runs(tree), self._best)
        self._common.save(step, {**tree, "best": self._best})

    def finish(self, tree: Any, runs: Sequence[Run]) -> list[tuple[int | None, Any]]:
        """Gives each run that is open its own checkpoints. Returns the step that counts and its state, of each."""
        import orbax.checkpoint as ocp

        self.wait()
        latest = self._program.split(_of_runs(tree))
        bests = latest if self._best is None else self._program.split(self._best)

        def hand_over(run: Run, last, best) -> tuple[int | None, Any]:
            best_step = run.best_step()
            kept = {} if best_step is None else {best_step: best}
            if run.ended != "diverged":
                kept[int(last["state"].step)] = last
            if run.record.writer:
                _replace_checkpoints(checkpointer, run.record.path / "checkpoints", kept)
            return best_step, last["state"] if best_step is None else best["state"]

        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            results = list(map(hand_over, runs, latest, bests))
        if all(run.ended is not None for run in runs):
            self._common.close()
            shutil.rmtree(self.directory, ignore_errors=True)
        return results


def _of_runs(tree: Any) -> dict[str, Any]:
    """What the runs' own checkpoints hold, with the trial axis."""
    return {"state": tree["state"].runs, "window": tree["window"]}


def _replace_checkpoints(checkpointer, folder: pathlib.Path, kept: dict[int, Any]) -> None:
    """Writes checkpoints by step where `Checkpoints` finds them, and deletes those of other steps."""
    with guard_disk(folder):
        folder.mkdir(exist_ok=True)
        for step, tree in kept.items():
            unfinished = folder / f".{step}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            checkpointer.save(unfinished / "default", tree)
            shutil.rmtree(folder / str(step), ignore_errors=True)
            os.replace(unfinished, folder / str(step))
        for entry in folder.iterdir():
            if entry.name.isdigit() and int(entry.name) not in kept:
                shutil.rmtree(entry)
