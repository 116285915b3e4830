"""What image datasets share: flags, decoding with Pillow, and the making of a `Data`."""

import dataclasses
import os
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from jaxdl.data import sources
from jaxdl.data.base import Data, moments
from jaxdl.errors import InputError, RunError
from jaxdl.types import NonNegativeFloat


@dataclasses.dataclass(frozen=True)
class ImageFlags:
    """Flags of an image-classification dataset.

    Attributes:
      standardize: each channel to mean 0 and standard deviation 1, by the statistics of the training split.
      memory_gib: splits whose decoded images take at most so many GiB are decoded once, at the start, and held;
        larger ones are decoded whenever they are read, and standardised by 10,000 evenly spaced images.
    """

    standardize: bool = True
    memory_gib: NonNegativeFloat = 2.0

    def data(self, splits: Mapping[str, sources.Source], class_names: tuple[str, ...]) -> Data:
        """The splits with their classes and statistics."""
        train = splits["train"]
        limit = None if isinstance(_root(train), sources.ArraySource) else 10_000
        mean, std = moments(train, limit=limit) if self.standardize else (None, None)
        return Data(splits, num_classes=len(class_names), class_names=class_names, mean=mean, std=std)


def hold(source: sources.Source, split: str, num_classes: int, memory_gib: float) -> sources.Source:
    """A checked source, decoded once where it fits in memory. Raises: InputError, when it is empty or damaged."""
    if len(source) == 0:
        raise InputError(f"split '{split}' is empty.")
    return sources.in_memory(sources.Checked(source, split, num_classes), memory_gib)


def labels_at_hand(source: sources.Source) -> np.ndarray | None:
    """Its labels, int32 [len(source)], where they cost nothing: in memory."""
    return source.arrays["labels"] if isinstance(source, sources.ArraySource) else None


def decode(file: str | os.PathLike | BinaryIO, channels: int, size: int | None, what: str) -> np.ndarray:
    """Decodes an image file.

    Args:
      file: its path, or the open file.
      channels: 1 (gray), 3 (RGB) or 4 (RGBA), whatever the file has.
      size: height and width to which it is resized, antialiased bilinear, its aspect ratio not kept; None: as it is.
      what: what it is, for the message.

    Returns:
      uint8 [H, W, channels].

    Raises:
      RunError: it is no image, or cut short.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            image.load()
            image = image if image.mode == mode else image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of them
        raise RunError(f"{what} cannot be decoded: {error}.") from error
    if size and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _root(source: sources.Source) -> sources.Source:
    return _root(source.source) if isinstance(source, sources.Subset) else source
