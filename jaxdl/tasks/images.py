"""What tasks that generate images ask of their data."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxdl.data.sources import Subset
from jaxdl.errors import InputError
from jaxdl.tasks.base import check_in_memory

MOST_COLUMNS = 20  # classes side by side on a sheet


def check_unit_images(data, task: str) -> None:
    """Checks that every split holds images whose pixels, as models get them, are in 0 .. 1.

    Arrays in memory are looked through; of a split that is read from a disk the first image is.

    Args:
      data: what the dataset gave.
      task: whose message it is.

    Raises:
      InputError: no images, standardised ones, or pixels beyond 0 .. 1.
    """
    if data.mean is not None:
        raise InputError(
            f"task '{task}' needs pixels in 0 to 1, not standardised ones: give --dataset.standardize=false."
        )
    for split, source in data.splits.items():
        shape = np.shape(source[0]["inputs"])
        if len(shape) != 3:
            raise InputError(
                f"task '{task}' needs images [height, width, channels], and split '{split}' has inputs of "
                f"{list(shape)}."
            )
        images = getattr(_root(source), "arrays", source[0])["inputs"]
        if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):  # NaN is neither
            raise InputError(
                f"task '{task}' needs pixels in 0 to 1, or uint8, and those of split '{split}' are in "
                f"{images.min():g} to {images.max():g}."
            )


def _root(source):
    """The source whose rows a subset takes, of any depth."""
    return _root(source.source) if isinstance(source, Subset) else source


def check_classes(data, flag: str) -> None:
    """Raises InputError where data has no classes that a model could be told, or labels of a class that is none."""
    if not data.num_classes:
        raise InputError(f"{flag} needs classes, and the dataset has none.")
    check_in_memory(data, "labels")


def told_labels(batch):
    """The classes that a model is told, int32 [B]. Raises: InputError, where an image is of two."""
    if "mix" in batch:
        raise InputError("a model that is told the class takes images of one class: no mixup or cutmix in --augment.")
    return batch["labels"]


def check_labels(labels: Sequence[int], num_classes: int | None) -> None:
    """Checks the classes that a sampler is asked for.

    Args:
      num_classes: None: the model was told no classes.

    Raises:
      InputError: a class that does not exist, or any, of a model that knows none.
    """
    if labels and num_classes is None:
        raise InputError("--labels: this model was trained without classes; train one with --task.conditional.")
    wrong = [label for label in labels if label >= num_classes]
    if wrong:
        raise InputError(f"--labels: there is no class {wrong[0]}; the classes are 0 to {num_classes - 1}.")


def unit_pixels(data, inputs: np.ndarray) -> np.ndarray:
    """Inputs as a model gets them, or makes them, as pixels to look at: no longer standardised, float32 in 0 .. 1."""
    pixels = inputs if data.mean is None else inputs * data.std + data.mean
    return np.clip(pixels, 0, 1).astype(np.float32)


def signed_pixels(images):
    """Pixels in 0 .. 1 as models of noise take them, in -1 .. 1."""
    return 2 * images - 1


def from_signed(images: np.ndarray) -> np.ndarray:
    """Pixels of -1 .. 1, and what is beyond, to float32 in 0 .. 1."""
    return np.clip((images + 1) / 2, 0, 1).astype(np.float32)


def labels_in_turn(labels: Sequence[int], num_classes: int, rows: np.ndarray) -> np.ndarray:
    """The classes of generated images of these numbers, int32: those asked for, in turn, or all where none are."""
    wanted = np.asarray(labels or range(num_classes), np.int32)
    return wanted[rows % len(wanted)]


def in_batches(function: Callable[[np.ndarray], np.ndarray], count: int, size: int) -> np.ndarray:
    """`function(rows)` of the rows 0 .. count - 1 as one array [count, ...]; it gets `size` at once, or `count`."""
    size = min(count, size)
    parts = [function(np.arange(start, start + size) % count) for start in range(0, count, size)]
    return np.concatenate(parts)[:count]


def first_captions(captions: Sequence[str], count: int) -> list[str]:
    """Captions of the first of `count` images, and none of the others."""
    return [*captions, *[""] * count][:count]


def class_captions(labels: Sequence[int], data, count: int) -> tuple[list[str], int | None]:
    """Captions of `count` images of these classes (`labels_in_turn`), and how many columns a sheet of them has.

    Each class has a column, with its name on top; of more classes than fit on a sheet each image has a caption.
    """
    names = data.class_names or tuple(map(str, range(data.num_classes)))
    row = [names[label] for label in labels] or names
    if len(row) <= MOST_COLUMNS:
        return first_captions(row, count), len(row)
    return [row[index % len(row)] for index in range(count)], None
