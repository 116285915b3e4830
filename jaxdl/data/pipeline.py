"""Step-indexed pipelines: batch(t) is a pure function of (seed, t).

There is no iterator state: a resumed run asks for batch t and gets it, whatever the number of processes, threads
or workers that read it.
"""

import sys
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from jaxdl.data.order import Order
from jaxdl.data.sources import Batch, Collate, Source, read
from jaxdl.errors import InputError


class Pipeline:
    """Training batches of a source, by step.

    Args:
      source: the training split.
      batch_size: of the global batch.
      seed: of the order.
      shuffle: a new order in each epoch; False: the source's own, again and again.
      rows: the contiguous rows of the global batch that this process reads; None is all.
      collate: list of examples -> batch, in place of stacking.

    Raises:
      InputError: an empty source, or a batch larger than the source.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rows: slice | None = None,
        collate: Collate | None = None,
    ):
        if len(source) == 0:
            raise InputError("the training split is empty.")
        if batch_size > len(source):
            raise InputError(f"a batch of {batch_size} is larger than the training split of {len(source)} examples.")
        self.source, self.batch_size, self.collate = source, batch_size, collate
        self._rows = range(batch_size)[rows or slice(None)]
        self._order = Order(len(source), seed, shuffle)

    def block(self, step: int, steps: int) -> np.ndarray:
        """Records of this process's rows of `steps` batches, from `step` on: int64 [steps, rows].

        Epochs follow each other without a gap.
        """
        positions = np.arange(step * self.batch_size, (step + steps) * self.batch_size)
        return self._order(positions).reshape(steps, -1)[:, self._rows.start : self._rows.stop]

    def example(self) -> Batch:
        """One row of a batch, for its shapes: [1, ...]."""
        return {name: value[:1] for name, value in self.batch(0).items()}

    def batch(self, step: int) -> Batch:
        """This process's rows of batch `step`."""
        first = step * self.batch_size
        positions = np.arange(first + self._rows.start, first + self._rows.stop)
        return read(self.source, self._order(positions), self.collate)

    def iterate(
        self, start: int, stop: int | None = None, *, prefetch: int = 2, num_threads: int = 1, num_workers: int = 0
    ) -> Iterator[Batch]:
        """`batch(start)`, ..., `batch(stop - 1)`, read ahead.

        Args:
          start: the first step; any step costs the same.
          stop: the step after the last; None goes on for ever.
          prefetch: batches held ready, in each worker process where there are.
          num_threads: threads that read, each a batch; 0 reads when asked. More than one pays only where reading
            waits for a disk or a network: Python decodes one example at a time.
          num_workers: processes that read; 0 reads in this one. They pay where decoding is the bottleneck. Each
            holds a copy of the source, and the program's main module must be safe to import.
        """
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads))
        dataset = grain.MapDataset.range(start, sys.maxsize if stop is None else stop).map(self.batch)
        dataset = dataset.to_iter_dataset(options)
        if num_workers:
            if not flags.FLAGS.is_parsed():  # Grain reads its own absl flags for workers
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=prefetch))
        batches = iter(dataset)
        try:
            yield from batches
        finally:
            batches.close()  # threads and worker processes end with the generator


def eval_batches(
    source: Source, batch_size: int, rows: slice | None = None, collate: Collate | None = None
) -> Iterator[Batch]:
    """Every example once, in order, in batches of one size; read ahead in a thread.

    The last batch is filled up with copies of the last example. `weight` (float32 [rows]) is 1 for an example and 0
    for a copy; `index` (int32 [rows]) is the example's place in the split.

    Args:
      source: the split.
      batch_size: of the global batch.
      rows: the contiguous rows of the global batch that this process reads; None is all.
      collate: list of examples -> batch, in place of stacking.
    """
    chosen = range(batch_size)[rows or slice(None)]

    def batch(step: int) -> Batch:
        positions = np.arange(chosen.start, chosen.stop) + step * batch_size
        index = np.minimum(positions, len(source) - 1)
        weight = (positions < len(source)).astype(np.float32)
        return read(source, index, collate) | {"weight": weight, "index": index.astype(np.int32)}

    steps = grain.MapDataset.range(-(-len(source) // batch_size)).map(batch)
    yield from steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
