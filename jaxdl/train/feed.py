"""How batches reach the device: from the host one by one, or from a training split that lives there.

Both give the same batch t. A feed hands out `rows`, and its `batch` turns them into one batch inside the compiled
chunk of steps. What lives on the device are the split's examples as arrays, or what the source says (`resident`), such
as the tokens that its examples are windows of, and how to make a batch of that (`rows`).
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxdl.data.pipeline import Pipeline
from jaxdl.data.sources import materialize
from jaxdl.sharding import Placement

ROWS = 100
"""Steps whose indices are sent to the device together."""

DEVICE_LIMIT = 512 * 2**20
"""Bytes of a training split up to which `--data_mode=auto` keeps it on the device."""


class HostFeed:
    """Reads each batch ahead on the host; a dispatch is one step."""

    row_axis = 0
    most_steps = 1

    def __init__(self, pipeline: Pipeline, placement: Placement, *, prefetch: int, threads: int, workers: int):
        self._pipeline, self._placement = pipeline, placement
        self._options = {"prefetch": prefetch, "num_threads": threads, "num_workers": workers}
        self._iterator, self._next = None, None
        self.resident: Mapping[str, jax.Array] = {}

    def take(self, step: int, most: int, stop: int):
        """The rows of batch `step`; `stop` is where the run will end. Returns (rows, first, steps)."""
        if self._next != (step, stop):
            self._iterator = iter(self._pipeline.iterate(step, stop, **self._options))
        rows = self._placement.place_batch(next(self._iterator))
        self._next = (step + 1, stop)
        return rows, 0, 1

    def batch(self, resident, rows, index):
        return rows


class DeviceFeed:
    """Keeps the split on the device; a dispatch sends nothing, and every `ROWS` steps their indices are sent."""

    row_axis = 1

    def __init__(self, pipeline: Pipeline, placement: Placement, arrays, select: Callable, *, most_steps: int):
        self._pipeline, self._placement, self._select, self.most_steps = pipeline, placement, select, most_steps
        self._block, self._rows = None, None
        self.resident = placement.replicate(arrays)

    def take(self, step: int, most: int, stop: int):
        """The indices of a block of batches, int32 [ROWS, ..., B]; `step` is its `first`. Gives rows, first, count."""
        block, first = divmod(step, ROWS)
        if block != self._block:
            indices = self._pipeline.block(block * ROWS, ROWS).astype(np.int32)
            self._block, self._rows = block, self._placement.place_batch(indices, axis=1)
        return self._rows, first, min(most, self.most_steps, ROWS - first)

    def batch(self, resident, rows, index):
        return self._select(resident, rows[index])


def make_feed(pipeline: Pipeline, placement: Placement, config, most_steps: int) -> HostFeed | DeviceFeed:
    """The feed that `--data_mode` says, or that the size of the split suggests.

    Args:
      most_steps: of one dispatch, where the split is on the device.
    """
    source = pipeline.source
    if hasattr(source, "resident"):
        size = sum(array.nbytes for array in source.resident().values())
        held, select = source.resident, source.rows
    else:
        size = len(source) * sum(np.asarray(value).nbytes for value in source[0].values())
        held, select = lambda: materialize(source), _rows
    if config.data_mode == "device" or (config.data_mode == "auto" and size <= DEVICE_LIMIT):
        return DeviceFeed(pipeline, placement, held(), select, most_steps=most_steps)
    return HostFeed(
        pipeline, placement, prefetch=config.prefetch, threads=config.data_threads, workers=config.data_workers
    )


def _rows(arrays: Mapping[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    """Those rows of every array."""
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in arrays.items()}
