"""Image datasets in the files that their authors published: MNIST's IDX, and CIFAR-10's binary batches."""

import dataclasses
import gzip
import math
import pathlib
import zlib

import numpy as np

from jaxdl.data import checks, images
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.data.splits import ValidationFlags
from jaxdl.errors import InputError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes


def folder_of(data_dir: str, path: str) -> pathlib.Path:
    """`path` under `data_dir`; an absolute `path` stands alone. Raises InputError when it does not exist."""
    folder = pathlib.Path(data_dir or ".").expanduser() / pathlib.Path(path).expanduser()
    if not folder.exists():
        raise InputError(f"{folder} does not exist: --dataset.path is relative to --data_dir.")
    return folder


@dataclasses.dataclass(frozen=True)
class _Published(ValidationFlags, images.ImageFlags):
    """A training and a test file set, in memory as uint8.

    Attributes:
      path: the folder of the files, relative to --data_dir.
    """

    path: str = ""

    def _data(self, train: dict, test: dict, class_names: tuple[str, ...]) -> Data:
        for split, arrays in (("train", train), ("test", test)):
            checks.check_arrays(arrays, f"split '{split}'", len(class_names))
        splits = self.split(ArraySource(train), train["labels"])
        return self.data(splits | {"test": ArraySource(test)}, class_names)


@dataclasses.dataclass(frozen=True)
class Idx(_Published):
    """MNIST's four IDX files (http://yann.lecun.com/exdb/mnist), gzipped or not; Fashion-MNIST's and EMNIST's, too.

    Attributes:
      class_names: what the labels 0, 1, 2, ... are called. Empty: by their numbers.
    """

    class_names: tuple[str, ...] = ()

    def load(self, data_dir: str = "") -> Data:
        """Inputs uint8 [B, H, W, 1], labels int32 [B]. Raises InputError for a missing or damaged file."""
        folder = folder_of(data_dir, self.path)
        train, test = (
            {
                "inputs": read_idx(_idx_path(folder, f"{prefix}-images-idx3-ubyte"), 3)[..., None],
                "labels": read_idx(_idx_path(folder, f"{prefix}-labels-idx1-ubyte"), 1).astype(np.int32),
            }
            for prefix in ("train", "t10k")
        )
        highest = max(int(train["labels"].max(initial=0)), 0)
        return self._data(train, test, self.class_names or tuple(map(str, range(highest + 1))))


@dataclasses.dataclass(frozen=True)
class Cifar10Binary(_Published):
    """CIFAR-10's binary version (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html): 32x32 RGB, 10 classes.

    Whichever of data_batch_1.bin to data_batch_5.bin are there are the training split.
    """

    def load(self, data_dir: str = "") -> Data:
        """Inputs uint8 [B, 32, 32, 3], labels int32 [B]. Raises InputError for a missing or damaged file."""
        folder = folder_of(data_dir, self.path)
        folder = folder / "cifar-10-batches-bin" if (folder / "cifar-10-batches-bin").is_dir() else folder
        batches = sorted(folder.glob("data_batch_[1-5].bin"))
        if not batches or not (folder / "test_batch.bin").is_file():
            raise InputError(f"{folder} must hold test_batch.bin, and some of data_batch_1.bin to data_batch_5.bin.")
        train = [_read_cifar10(path) for path in batches]
        train = {name: np.concatenate([part[name] for part in train]) for name in train[0]}
        if len(batches) < 5:
            print(f"{folder}: {len(train['labels'])} training images of 50000 found, in {len(batches)} of 5 files.")
        return self._data(train, _read_cifar10(folder / "test_batch.bin"), CIFAR10_CLASSES)


def read_idx(path: pathlib.Path, ndim: int) -> np.ndarray:
    """An IDX file of unsigned bytes: uint8 of `ndim` dimensions.

    The format: two zero bytes, 0x08 for bytes, the number of dimensions, each dimension as a big-endian int32, the
    values, row-major.

    Raises:
      InputError: another kind of file, or one cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        raise InputError(f"{path} is no IDX file of bytes with {ndim} dimensions.")
    shape = tuple(np.frombuffer(content, ">i4", ndim, 4).tolist())
    if len(content) - start != math.prod(shape):
        raise InputError(f"{path} is cut short: {len(content) - start} of {math.prod(shape)} bytes, for shape {shape}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _idx_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has neither {name} nor {name}.gz.")


def _read_cifar10(path: pathlib.Path) -> dict[str, np.ndarray]:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size == 0 or content.size % _CIFAR10_RECORD:
        raise InputError(f"{path} is cut short: {content.size} bytes are no multiple of {_CIFAR10_RECORD}.")
    records = content.reshape(-1, _CIFAR10_RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return {"inputs": np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), "labels": records[:, 0].astype(np.int32)}
