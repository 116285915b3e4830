"""What is wrong with data, in words that name the place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.errors import InputError


def fault(
    arrays: Mapping[str, np.ndarray], num_classes: int | None = None, rows: Sequence[int] | None = None
) -> str | None:
    """The first fault of a batch or of a whole split; None where there is none.

    Args:
      arrays: name -> array [n, ...]. Floating arrays must be finite; `labels` are whole numbers from 0.
      num_classes: labels must be below it.
      rows: the numbers by which the n rows are called in the message, where they are not 0 to n - 1.
    """
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating):
            finite = np.isfinite(array)
            if not finite.all():
                row, *place = np.argwhere(~finite)[0]
                where = f"row {_number(row, rows)}" + (_place(place) if place else "")
                return f"{name} has {array[row][tuple(place)]} at {where}; every value must be a finite number."
        elif array.dtype == object:
            return f"{name} holds Python objects; it must hold numbers."
    labels = arrays.get("labels")
    if labels is None:
        return None
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        return f"labels are {labels.dtype} {list(labels.shape)}; they must be whole numbers, one an example."
    wrong = (labels < 0) | (labels >= (np.inf if num_classes is None else num_classes))
    if wrong.any():
        row = int(np.argmax(wrong))
        bounds = "at least 0" if num_classes is None else f"from 0 to {num_classes - 1} ({num_classes} classes)"
        return f"label {labels[row]} at row {_number(row, rows)}; labels must be {bounds}."
    return None


def check_arrays(arrays: Mapping[str, np.ndarray], where: str, num_classes: int | None = None) -> None:
    """Checks arrays in memory before they become a source.

    Args:
      arrays: name -> array [n, ...].
      where: what they are, for the message: "split 'train'", or a file.
      num_classes: labels must be below it.

    Raises:
      InputError: nothing in them, different lengths, NaN, or labels out of range.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        counts = " but ".join(f"{count} {name}" for name, count in lengths.items())
        raise InputError(f"{where}: there are {counts}; there must be as many of each.")
    if 0 in lengths.values():
        raise InputError(f"{where}: there are no examples.")
    found = fault(arrays, num_classes)
    if found:
        raise InputError(f"{where}: {found}")


def check_image_shapes(splits: Mapping[str, Any]) -> None:
    """Checks that the images of all splits have one shape; the first of each split is looked at.

    Args:
      splits: name -> source. Inputs that are no images [height, width, channels] are not looked at.

    Raises:
      InputError: images of several sizes, or numbers of channels.
    """
    shapes = {split: np.shape(source[0].get("inputs")) for split, source in splits.items() if len(source)}
    shapes = {split: shape for split, shape in shapes.items() if len(shape) == 3}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{'x'.join(map(str, shape))} in '{split}'" for split, shape in shapes.items())
        raise InputError(f"images must be of one size and number of channels; they are {told}.")


def _number(row: int, rows: Sequence[int] | None) -> int:
    return int(row if rows is None else rows[row])


def _place(place: Sequence[int]) -> str:
    return f", column {place[0]}" if len(place) == 1 else f", position {tuple(int(p) for p in place)}"
