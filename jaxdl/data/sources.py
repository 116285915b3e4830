"""Sources: anything with a length and integer indexing that gives one example, a dictionary of arrays.

Three more operations are defined on every source here: `read` (a batch of given rows), `materialize` (all rows
as arrays) and `in_memory` (decode once, when it fits). A source may have a method `take(indices)` that gives a
stacked batch faster than row by row; one that lacks it works all the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from jaxdl.data import checks
from jaxdl.errors import InputError, RunError

Example = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]
Collate = Callable[[list[Example]], Batch]

_CHUNK = 1024  # rows read at a time where a whole source is passed over


@runtime_checkable
class Source(Protocol):
    """Random access to examples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class ArraySource:
    """Examples that are the rows of arrays in memory.

    Attributes:
      arrays: name -> array [num_examples, ...], all of one length.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"arrays of one source differ in length: {lengths}.")
        self.arrays = {name: _aligned(np.asarray(array)) for name, array in arrays.items()}

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Example:
        return {name: array[index] for name, array in self.arrays.items()}

    def take(self, indices: np.ndarray) -> Batch:
        return {name: array[indices] for name, array in self.arrays.items()}


class Subset:
    """The rows `indices` (int64 [n]) of another source, in that order."""

    def __init__(self, source: Source, indices: np.ndarray):
        self.source = source
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]

    def take(self, indices: np.ndarray) -> Batch:
        return read(self.source, self.indices[indices])


class Relabelled:
    """Another source with other `labels`: [len(source)]."""

    def __init__(self, source: Source, labels: np.ndarray):
        self.source, self.labels = source, labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[index], "labels": self.labels[index]}

    def take(self, indices: np.ndarray) -> Batch:
        return {**read(self.source, indices), "labels": self.labels[indices]}


class Checked:
    """A source read lazily whose values are checked as they are read.

    Args:
      source: what is read.
      split: the split's name, for the message.
      num_classes: labels must be below it.

    Raises:
      RunError: while reading, for NaN or a label out of range, with the record's number.
    """

    def __init__(self, source: Source, split: str, num_classes: int | None = None):
        self.source, self.split, self.num_classes = source, split, num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        self._check({name: np.asarray(value)[None] for name, value in example.items()}, [index])
        return example

    def take(self, indices: np.ndarray) -> Batch:
        batch = read(self.source, indices)
        self._check(batch, indices)
        return batch

    def _check(self, batch: Batch, rows: Sequence[int]) -> None:
        fault = checks.fault(batch, self.num_classes, rows)
        if fault:
            raise RunError(f"split '{self.split}': {fault}")


def stack(examples: list[Example]) -> Batch:
    """The default collation: every array of an example gains a leading batch axis.

    Raises:
      RunError: examples of different shapes, said by name and shape.
    """
    try:
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    except ValueError:
        for name in examples[0]:
            shapes = sorted({np.shape(example[name]) for example in examples})
            if len(shapes) > 1:
                shapes = " and ".join(str(shape) for shape in shapes[:2])
                raise RunError(f"examples of one batch must have one shape, but {name} is {shapes}.") from None
        raise


def read(source: Source, indices: np.ndarray, collate: Collate | None = None) -> Batch:
    """The rows `indices` (int64 [n]) of a source as one batch; `collate` replaces `stack`."""
    if collate is None and hasattr(source, "take"):
        return source.take(indices)
    return (collate or stack)([source[int(index)] for index in indices])


def chunks(length: int, size: int = _CHUNK):
    """`range(length)` in consecutive int64 arrays of at most `size`."""
    for start in range(0, length, size):
        yield np.arange(start, min(start + size, length))


def materialize(source: Source) -> Batch:
    """All rows of a source, stacked: name -> array [len(source), ...]. Peak memory: the result and one chunk."""
    if isinstance(source, ArraySource):
        return source.arrays
    if isinstance(source, Subset) and isinstance(source.source, ArraySource):
        return {
            name: np.take(
                array, source.indices, axis=0, out=aligned_empty((len(source), *array.shape[1:]), array.dtype)
            )
            for name, array in source.source.arrays.items()
        }
    result: Batch = {}
    for rows in chunks(len(source)):
        for name, values in read(source, rows).items():
            if name not in result:
                result[name] = aligned_empty((len(source), *values.shape[1:]), values.dtype)
            if values.shape[1:] != result[name].shape[1:]:
                shapes = f"{result[name].shape[1:]} and {values.shape[1:]}"
                raise RunError(f"examples of one source must have one shape, but {name} is {shapes}.")
            result[name][rows] = values
    return result


def aligned_empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array that begins at a multiple of 64 bytes, which JAX on a CPU uses without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _aligned(array: np.ndarray) -> np.ndarray:
    if array.ctypes.data % 64 == 0 and array.flags.c_contiguous or array.dtype.hasobject:
        return array
    result = aligned_empty(array.shape, array.dtype)
    result[...] = array
    return result


def in_memory(source: Source, limit_gib: float) -> Source:
    """The source decoded once into arrays when they take at most `limit_gib` (GiB); otherwise the source itself.

    Raises:
      InputError: what reading it would raise midway, now that nothing has begun.
    """
    try:
        size = sum(np.asarray(value).nbytes for value in source[0].values()) * len(source)
        return ArraySource(materialize(source)) if size <= limit_gib * 2**30 else source
    except RunError as error:
        raise InputError(str(error)) from error
