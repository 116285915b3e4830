"""A person's own arrays (.npz) and tables (.csv), for classification and regression."""

import csv
import dataclasses
import pathlib
import zipfile
from typing import Literal

import numpy as np

from jaxdl.data import checks
from jaxdl.data.base import Data, moments
from jaxdl.data.files import folder_of
from jaxdl.data.sources import ArraySource
from jaxdl.data.splits import SplitFlags
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Own(SplitFlags):
    """What a person's own data in memory share.

    Attributes:
      path: the file, relative to --data_dir.
      standardize: inputs to mean 0 and standard deviation 1, by the statistics of the training split.
      standardize_targets: the targets of a regression, too; metrics stay in the original unit.
    """

    path: str = ""
    standardize: bool = True
    standardize_targets: bool = False

    def _data(self, arrays: dict, test: dict | None = None, class_names: tuple[str, ...] | None = None) -> Data:
        labels = arrays.get("labels")
        splits = self.split(ArraySource(arrays), labels, 0.0 if test else self.test_fraction)
        if test:
            splits["test"] = ArraySource(test)
        mean, std = moments(splits["train"]) if self.standardize else (None, None)
        if labels is not None:
            return Data(splits, num_classes=len(class_names), class_names=class_names, mean=mean, std=std)
        of_targets = moments(splits["train"], "targets") if self.standardize_targets else (None, None)
        number = arrays["targets"].shape[-1]
        return Data(splits, num_targets=number, mean=mean, std=std, target_mean=of_targets[0], target_std=of_targets[1])


@dataclasses.dataclass(frozen=True)
class Arrays(_Own):
    """An .npz file with `inputs` and `labels` or `targets`; `test_inputs` and `test_labels` where there are.

    Inputs are uint8 images [N, H, W, C], or numbers [N, ...] that become float32. Labels are whole numbers from 0,
    [N]; targets numbers [N] or [N, T].

    Attributes:
      class_names: what the labels 0, 1, 2, ... are called. Empty: by their numbers.
    """

    class_names: tuple[str, ...] = ()

    def load(self, data_dir: str = "") -> Data:
        """Reads the file without unpickling anything.

        Raises:
          InputError: another kind of file, Python objects in it, missing arrays, wrong shapes, NaN, wrong labels.
        """
        path = folder_of(data_dir, self.path)
        found = read_npz(path)
        answers = [name for name in ("labels", "targets") if name in found]
        if "inputs" not in found or len(answers) != 1:
            raise InputError(f"{path} holds {sorted(found)}; it must hold inputs, and labels or targets.")
        train = self._arrays(path, found, answers[0], "")
        test = self._arrays(path, found, answers[0], "test_") if "test_inputs" in found else None
        names = self.class_names or tuple(map(str, range(int(train.get("labels", np.zeros(1)).max(initial=0)) + 1)))
        for prefix, arrays in (("", train), ("test_", test)):
            if arrays:
                checks.check_arrays(arrays, f"{path}, {prefix}inputs and {prefix}{answers[0]}", len(names))
        if test and test["inputs"].shape[1:] != train["inputs"].shape[1:]:
            shapes = f"{train['inputs'].shape[1:]} and {test['inputs'].shape[1:]}"
            raise InputError(f"{path}: inputs and test_inputs are of different shapes, {shapes}.")
        return self._data(train, test, names)

    def _arrays(self, path: pathlib.Path, found: dict, answer: str, prefix: str) -> dict[str, np.ndarray]:
        if prefix + answer not in found:
            raise InputError(f"{path} holds {prefix}inputs but no {prefix}{answer}.")
        inputs, values = found[f"{prefix}inputs"], found[prefix + answer]
        if inputs.ndim < 2:
            raise InputError(f"{path}: {prefix}inputs is {list(inputs.shape)}; it must be [examples, features, ...].")
        for array in (inputs, values):
            if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
                raise InputError(f"{path}: an array of {array.dtype}; inputs, labels and targets must be numbers.")
        if inputs.dtype != np.uint8:
            inputs = inputs.astype(np.float32)
        if answer == "targets":
            values = values.astype(np.float32).reshape(len(values), -1)
        elif np.issubdtype(values.dtype, np.integer):
            values = values.astype(np.int32)
        return {"inputs": inputs, answer: values}


@dataclasses.dataclass(frozen=True)
class Csv(_Own):
    """A table of numbers with a header line.

    Attributes:
      targets: the columns to predict; empty is the last one. Every other column is an input.
      kind: classification (one target column, of numbers or names) or regression.
      delimiter: what stands between two values; tab for a tab.
    """

    targets: tuple[str, ...] = ()
    kind: Literal["classification", "regression"] = "classification"
    delimiter: str = ","

    def load(self, data_dir: str = "") -> Data:
        """Inputs float32 [B, columns], and labels int32 [B] or targets float32 [B, T].

        Raises:
          InputError: no such column; a line of another length; a value that is missing or no finite number, by line.
        """
        path = folder_of(data_dir, self.path)
        header, lines = read_csv(path, self.delimiter)
        targets = self.targets or header[-1:]
        unknown = [name for name in targets if name not in header]
        if unknown or len(targets) == len(header):
            raise InputError(f"{path}: --dataset.targets={','.join(targets)} must be some of its columns {header}.")
        if self.kind == "classification" and len(targets) > 1:
            raise InputError(f"{path}: a classification has one target column, not {list(targets)}.")
        inputs = _numbers(path, header, lines, [name for name in header if name not in targets])
        if self.kind == "regression":
            return self._data({"inputs": inputs, "targets": _numbers(path, header, lines, targets)})
        column = header.index(targets[0])
        values = [line[column].strip() for _, line in lines]
        if "" in values:
            raise InputError(f"{path}, line {lines[values.index('')][0]}, column '{targets[0]}': the label is missing.")
        names = tuple(sorted(set(values), key=numerically))
        numbers = {name: number for number, name in enumerate(names)}
        labels = np.array([numbers[value] for value in values], np.int32)
        return self._data({"inputs": inputs, "labels": labels}, class_names=names)


def read_csv(path: pathlib.Path, delimiter: str = ",") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a table, and each line after it that is not empty, with its number.

    Args:
      delimiter: what stands between two values; tab for a tab.

    Raises:
      InputError: no such table, a header that does not name every column once, or a line of another length.
    """
    delimiter = "\t" if delimiter == "tab" else delimiter
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise InputError(f"{path} is no CSV file: {error}.") from None
    if len(lines) < 2:
        raise InputError(f"{path} must have a header line and lines of numbers.")
    header = [name.strip() for name in lines[0][1]]
    if len(set(header)) < len(header) or len(header) < 2:
        raise InputError(f"{path}: its header must name two or more columns, all different, but is {header}.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise InputError(f"{path}, line {number}: {len(line)} values, but {len(header)} columns.")
    return header, lines[1:]


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises InputError for any other file, and for one with pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise InputError(f"{path} is one array; an .npz is np.savez(path, inputs=..., labels=...).")
            return {name: file[name] for name in file.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        pickled = "pickle" in str(error).lower() or "object array" in str(error).lower()
        reason = "it holds pickled Python objects, which are never loaded" if pickled else str(error)
        raise InputError(f"{path} is no .npz file of numbers: {reason}.") from None


def _numbers(path, header, lines, names) -> np.ndarray:
    """Those columns: float32 [lines, len(names)]."""
    columns = [header.index(name) for name in names]
    result = np.empty((len(lines), len(names)), np.float32)
    for row, (number, line) in enumerate(lines):
        for place, column in enumerate(columns):
            try:
                result[row, place] = float(line[column])
            except ValueError:
                result[row, place] = np.nan
            if not np.isfinite(result[row, place]):
                value = line[column].strip()
                what = f"'{value}' is no finite number" if value else "the value is missing"
                raise InputError(f"{path}, line {number}, column '{header[column]}': {what}.")
    return result


def numerically(name: str) -> tuple[bool, float, str]:
    """Sorts 2 before 10, and names after numbers."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
