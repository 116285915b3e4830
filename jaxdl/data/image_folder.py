"""A folder of images, one sub-folder a class."""

import dataclasses
import pathlib
from typing import Literal

import numpy as np

from jaxdl.data import images
from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.splits import SplitFlags
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclasses.dataclass(frozen=True)
class ImageFolder(SplitFlags, images.ImageFlags):
    """Images in path/CLASS/*, split by fractions, or in path/train/CLASS/* and path/test/CLASS/* (and validation).

    Attributes:
      path: the folder, relative to --data_dir.
      image_size: every image is resized to this height and width.
      color: rgb, or gray with one channel.
      test_fraction: part of all images that becomes "test", where there is no folder of that name.
      validation_fraction: part of all images that becomes "validation", where there is no folder of that name.
    """

    path: str = ""
    image_size: PositiveInt = 32
    color: Literal["rgb", "gray"] = "rgb"

    def load(self, data_dir: str = "") -> Data:
        """Inputs uint8 [B, image_size, image_size, channels], labels int32 [B]; classes in alphabetical order.

        Raises:
          InputError: no images, classes that differ between splits, or a damaged file where they are held in memory.
        """
        root = folder_of(data_dir, self.path)
        own = {name: root / name for name in ("train", "validation", "test") if (root / name).is_dir()}
        folders = own if "train" in own else {"train": root}
        names = _classes(folders["train"])
        for folder in folders.values():
            unknown = set(_classes(folder)) - set(names)
            if unknown:
                raise InputError(f"{folder}: class '{min(unknown)}' is not among the training classes {list(names)}.")
        files = {split: _Images(folder, names, self.image_size, self.color) for split, folder in folders.items()}
        held = {split: images.hold(found, split, len(names), self.memory_gib) for split, found in files.items()}
        flags = dataclasses.replace(self, validation_fraction=0.0) if "validation" in held else self
        test_fraction = 0.0 if "test" in held else self.test_fraction
        splits = flags.split(held.pop("train"), np.array(files["train"].labels), test_fraction)
        return self.data(splits | held, names)


class _Images:
    """The images under one split's folder, decoded when they are read."""

    def __init__(self, folder: pathlib.Path, names: tuple[str, ...], image_size: int, color: str):
        self.image_size, self.channels = image_size, {"rgb": 3, "gray": 1}[color]
        self.paths, self.labels = [], []
        for label, name in enumerate(names):
            found = [p for p in sorted((folder / name).glob("*")) if p.suffix.lower() in _SUFFIXES]
            self.paths += found
            self.labels += [label] * len(found)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        path = self.paths[index]
        image = images.decode(path, self.channels, self.image_size, str(path))
        return {"inputs": image, "labels": np.int32(self.labels[index])}


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    found = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not found:
        raise InputError(f"{folder} has no sub-folders: there must be one for each class, with its images in it.")
    return found
