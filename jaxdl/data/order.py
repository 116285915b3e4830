"""The order in which records are drawn: epochs without end, each a new permutation, addressable anywhere."""

import functools

import grain
import numpy as np

# Up to this many records an epoch's permutation is held in memory (8 MiB) and an index costs nanoseconds. Above, Grain
# computes each index by a block cipher, which holds nothing and costs 5 to 20 microseconds an index: less than reading
# a record of so large a source, but several times a training step on a small one.
_HELD_RECORDS = 2**20


class Order:
    """`order(positions)`: record indices (int64 [n]) at positions (int64 [n]) of the endless sequence of epochs.

    Epoch e holds positions e * num_records to (e + 1) * num_records - 1; its order depends on `seed` and e alone.

    Args:
      num_records: of the source.
      seed: any whole number from 0.
      shuffle: False: every epoch is 0, 1, 2, ...
    """

    def __init__(self, num_records: int, seed: int, shuffle: bool = True):
        self.num_records, self.seed, self.shuffle = num_records, int(seed), shuffle
        self._large = None
        if shuffle and num_records > _HELD_RECORDS:
            self._large = grain.MapDataset.range(num_records).seed(self.seed).shuffle().repeat(reseed_each_epoch=True)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, self.num_records)
        if not self.shuffle:
            return places
        if self._large is not None:
            return np.array([self._large[int(position)] for position in positions], np.int64)
        result = np.empty_like(places)
        for epoch in range(epochs[0], epochs[-1] + 1) if len(epochs) else ():
            inside = epochs == epoch
            result[inside] = _permutation(self.num_records, self.seed, epoch)[places[inside]]
        return result


@functools.lru_cache(maxsize=8)  # epochs that a batch and its prefetched successors touch
def _permutation(num_records: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_records)
