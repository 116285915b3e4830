"""How batches reach the device: from the host one by one, or from a training split that lives there.

Both give the same batch t. A feed hands out `rows`, and its `batch` turns them into one batch inside the compiled
chunk of steps.
"""

from collections.abc import Mapping

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

    def __init__(self, pipeline: Pipeline, placement: Placement, arrays, *, most_steps: int):
        self._pipeline, self._placement, self.most_steps = pipeline, placement, most_steps
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
        return {name: array.at[rows[index]].get(mode="promise_in_bounds") for name, array in resident.items()}


def make_feed(pipeline: Pipeline, placement: Placement, config, most_steps: int) -> HostFeed | DeviceFeed:
    """The feed that `--data_mode` says, or that the size of the split suggests.

    Args:
      most_steps: of one dispatch, where the split is on the device.
    """
    source = pipeline.source
    example = source[0]
    size = len(source) * sum(np.asarray(value).nbytes for value in example.values())
    if config.data_mode == "device" or (config.data_mode == "auto" and size <= DEVICE_LIMIT):
        return DeviceFeed(pipeline, placement, materialize(source), most_steps=most_steps)
    return HostFeed(
        pipeline, placement, prefetch=config.prefetch, threads=config.data_threads, workers=config.data_workers
    )
