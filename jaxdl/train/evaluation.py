"""Metrics of a whole split: exact whatever its size, the batch and the devices."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.stages import Lowered

from jaxdl.data.pipeline import eval_batches
from jaxdl.sharding import PER_RUN, Placement
from jaxdl.train.program import Program, TrainState


class Evaluator:
    """Evaluates states of one program on splits of its data.

    Args:
      batch_size: global; the last batch is padded with rows of weight 0.
      keep: keep the placed batches of each split on the device between evaluations.
    """

    def __init__(self, program: Program, placement: Placement, batch_size: int, *, keep: bool = False):
        self._program, self._placement, self._batch_size, self._keep = program, placement, batch_size, keep
        self._rows = placement.local_rows(batch_size)  # all of them, where the batch is not split
        self._kept: dict[str, list] = {}
        self._evaluate = placement.parallel(program.evaluate, (PER_RUN, placement.evaluation_axis))
        self._merge = jax.jit(program.merge)

    def metrics(
        self, state: TrainState, split: str, may_go_on: Callable[[], bool] = lambda: True
    ) -> list[dict[str, Any]] | None:
        """Every metric of the task by name, computed over the whole split, for each of the program's members.

        None if `may_go_on` ended it before.
        """
        state = state.for_evaluation()
        total = None
        for batch in self._batches(split):
            if not may_go_on():
                return None
            metrics = self._evaluate(state, batch)
            total = metrics if total is None else self._merge(total, metrics)
        return [{name: metric.compute() for name, metric in part.items()} for part in self._program.split(total)]

    def lower(self, state: TrainState, split: str) -> Lowered:
        """The program that `metrics` calls for each batch, not compiled yet; `state` may be shapes."""
        return self._evaluate.lower(state.for_evaluation(), next(iter(self._batches(split))))

    def predictor(self, state: TrainState) -> Callable[[Any], Any]:
        """`predict(batch, **kwargs)`: outputs for a raw host batch, for figures; this process's devices alone."""
        state = jax.device_get(state.for_evaluation())

        @functools.cache
        def compiled(**kwargs):
            return jax.jit(functools.partial(self._program.predict, **kwargs))

        return lambda batch, **kwargs: jax.device_get(compiled(**kwargs)(state, batch))

    def host_batches(self, split: str) -> Iterable[dict[str, np.ndarray]]:
        """The batches of a split, whole, on the host."""
        return eval_batches(self._program.data.splits[split], self._batch_size)

    def _batches(self, split: str) -> Iterable[Any]:
        if split in self._kept:
            return self._kept[split]
        batches = eval_batches(self._program.data.splits[split], self._batch_size, rows=self._rows)
        placed = (self._placement.place_batch(batch, self._placement.evaluation_axis) for batch in batches)
        if not self._keep:
            return placed
        self._kept[split] = list(placed)
        return self._kept[split]
