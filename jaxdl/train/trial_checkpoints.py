"""Checkpoints of runs that are trained as one program.

While they train, one Orbax checkpoint holds them all, as one of each would take longer than the steps between. When
they end, or are asked to leave, each run directory gets its own, of the latest step and of the best one, the same that
the run alone would have left: it is evaluated, and continued, like any other.
"""

import asyncio
import collections
import functools
import math
import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from jaxdl.train.checkpoints import Checkpoints
from jaxdl.train.record import guard_disk
from jaxdl.train.run import Run
from jaxdl.train.trials import Trials

SECONDS_BETWEEN = 5.0
"""Of common checkpoints, where no flag says when: small trials evaluate more often than it is worth to save them."""

AT_ONCE = 2
"""Runs whose checkpoints may wait for the disk while the next ones are made."""


class TrialCheckpoints:
    """What the loop asks of `Checkpoints`, for the members of a `Trials` program.

    Args:
      folder: where the common checkpoints are, under `checkpoints/`.
      seconds: after one, no other is written for so long, but for the last. Until then a best state is kept in memory.
    """

    def __init__(self, folder: pathlib.Path, program: Trials, seconds: float = 0.0):
        self._seconds, self._written_at, self._is_behind = seconds, -math.inf, False
        self._common = Checkpoints(folder, keep=1)
        self.directory = self._common.directory
        self._program = program
        self._best = None  # on the host, of each trial what its checkpoint at its best step so far would hold

    def open(self) -> None:
        self._common.open()

    def close(self) -> None:
        self._common.close()

    def wait(self) -> None:
        self._common.wait()

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """The newest common checkpoint, as (step, tree placed as `like` is); None without any."""
        best = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), _of_runs(like))
        restored = self._common.restore_latest({**like, "best": best})
        if restored is not None:
            self._best = restored[1].pop("best")
        return restored

    def save(self, step: int, tree: Any, best_steps: Sequence[int | None]) -> None:
        """Starts to write the common checkpoint, if it is time. `best_steps`: of each trial; the best states are kept."""
        improved = np.zeros(len(self._program.seed), bool)
        improved[: len(best_steps)] = [best == step for best in best_steps]
        if self._best is None or improved.any():
            runs = jax.device_get(_of_runs(tree))
            self._best = jax.tree.map(functools.partial(_choose, improved), runs, self._best or runs)
        self._is_behind = time.monotonic() - self._written_at < self._seconds
        if not self._is_behind:
            self._write(step, tree)

    def _write(self, step: int, tree: Any) -> None:
        if step not in self._common.steps():  # what was restored counts for nothing: who comes further must save it
            self._written_at = time.monotonic()
        self._common.save(step, {**tree, "best": self._best})

    def finish(self, tree: Any, runs: Sequence[Run]) -> list[tuple[int | None, Any]]:
        """Gives each run that is open its own checkpoints. Returns the step that counts and its state, of each."""
        if self._is_behind:
            self._write(int(np.max(tree["state"].step)), tree)
        self.wait()
        latest = self._program.split(_of_runs(tree))
        bests = latest if self._best is None else self._program.split(self._best)

        def hand_over(run: Run, last, best) -> tuple[int | None, Any]:
            best_step = run.best_step()
            kept = {} if best_step is None else {best_step: best}
            if run.ended != "diverged":
                kept[int(last["state"].step)] = last
            if run.record.writer:
                writer.replace(run.record.path / "checkpoints", kept)
            return best_step, last["state"] if best_step is None else best["state"]

        with _Writer() as writer:
            results = list(map(hand_over, runs, latest, bests))
            writer.wait()
        if all(run.ended is not None for run in runs):
            self._common.close()
            shutil.rmtree(self.directory, ignore_errors=True)
        return results


def _of_runs(tree: Any) -> dict[str, Any]:
    """What the runs' own checkpoints hold, with the trial axis."""
    return {"state": tree["state"].runs, "window": tree["window"]}


def _choose(improved: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """A new array, as Orbax may still be writing the old one, and the device takes the memory of the new one back."""
    return np.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)


class _Writer:
    """Writes checkpoints where `Checkpoints` finds them, a few at a time: while the disk has some, the next is made.

    A Checkpointer would wait for each, and rename, too, what is renamed here as a whole.
    """

    def __init__(self):
        import orbax.checkpoint as ocp

        self._handler, self._arguments = ocp.StandardCheckpointHandler(), ocp.args.StandardSave
        self._thread = futures.ThreadPoolExecutor(1)  # the caller's may have an event loop that runs
        self._begun = collections.deque()

    def replace(self, folder: pathlib.Path, kept: dict[int, Any]) -> None:
        """Begins to write checkpoints by step; when they are there, those of other steps are deleted."""
        with guard_disk(folder):
            folder.mkdir(exist_ok=True)
            begun = {}
            for step, tree in kept.items():
                path = _unfinished(folder, step)
                shutil.rmtree(path, ignore_errors=True)
                (path / "default").mkdir(parents=True)
                saving = self._handler.async_save(path / "default", args=self._arguments(tree))
                begun[step] = self._thread.submit(asyncio.run, saving).result() or ()
        self._begun.append((folder, begun))
        self.wait(leave=AT_ONCE)

    def wait(self, leave: int = 0) -> None:
        """Until no more than so many folders are being written."""
        while len(self._begun) > leave:
            folder, begun = self._begun.popleft()
            with guard_disk(folder):
                for step, parts in begun.items():
                    for part in parts:
                        part.result()
                    self._handler.finalize(_unfinished(folder, step) / "default")
                    shutil.rmtree(folder / str(step), ignore_errors=True)
                    os.replace(_unfinished(folder, step), folder / str(step))
                for entry in folder.iterdir():
                    if entry.name.isdigit() and int(entry.name) not in begun:
                        shutil.rmtree(entry)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()


def _unfinished(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f".{step}.unfinished"
