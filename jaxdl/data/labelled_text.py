"""Texts with a label each, for classification: tables of a person's own, and SST-2's as they are spread.

Inputs are padded with zeros behind their `lengths`: int32 [B, T] and int32 [B], labels int32 [B].
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.sequences import pad
from jaxdl.data.sources import ArraySource, materialize
from jaxdl.data.splits import SplitFlags
from jaxdl.data.tables import numerically
from jaxdl.data.text import Document, TokenizerFlags, read_text
from jaxdl.data.tokenizers import Tokenizer
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeInt, PositiveInt


class Line(NamedTuple):
    """A text, its label, and where they stand."""

    text: str
    label: str
    where: str


@dataclasses.dataclass(frozen=True)
class LabelledText(SplitFlags, TokenizerFlags):
    """Lines of text and label, in files of one split each, UTF-8.

    Attributes:
      path: the file that trains, relative to --data_dir.
      validation_path: the file that validates. none: validation_fraction of path.
      test_path: the file that tests. none: test_fraction of path.
      delimiter: what stands between two values; tab for a tab, and then quotes are characters like others.
      header: whether the first line names the columns.
      text_column: which column is the text, from 0.
      label_column: which column is the label, from 0.
      max_length: longer texts are cut after so many tokens; none keeps all of them.
      validation_fraction: part of path that validates, where there is no validation_path.
      test_fraction: part of path that tests, where there is no test_path.
    """

    tokenizer: str = "word"
    path: str = ""
    validation_path: str | None = None
    test_path: str | None = None
    delimiter: str = "tab"
    header: bool = False
    text_column: NonNegativeInt = 0
    label_column: NonNegativeInt = 1
    max_length: PositiveInt | None = None

    def load(self, data_dir: str = "") -> Data:
        """Reads the files. Classes are the labels of the training file, and the vocabulary is of the training split.

        Raises:
          InputError: a line that lacks a value, a text without tokens, or an unknown label, with the line's number.
        """
        given = {"validation": self.validation_path, "test": self.test_path}
        pool = self._read(folder_of(data_dir, self.path))
        lines = {"train": pool} | {
            name: self._read(folder_of(data_dir, path)) for name, path in given.items() if path is not None
        }
        names = tuple(sorted({line.label for line in pool}, key=numerically))
        unknown = next((line for part in lines.values() for line in part if line.label not in names), None)
        if unknown:
            raise InputError(f"{unknown.where}: label '{unknown.label}' is none of the training file's {list(names)}.")
        lines |= self._split(pool, names)
        tokenizer = self.make_tokenizer([Document(line.text, line.where) for line in lines["train"]], False, data_dir)
        encoded = {name: [self._encode(line, tokenizer) for line in part] for name, part in lines.items()}
        length = max(len(tokens) for part in encoded.values() for tokens in part)
        splits = {}
        for name, part in encoded.items():
            inputs, lengths = pad(part, 0, length)
            splits[name] = ArraySource({"inputs": inputs, "lengths": lengths, "labels": _labels(lines[name], names)})
        return Data(splits, num_classes=len(names), class_names=names, tokenizer=tokenizer)

    def _split(self, pool: Sequence[Line], names: Sequence[str]) -> Mapping[str, list[Line]]:
        """What the training file gives to the splits that have no file of their own."""
        flags = dataclasses.replace(self, validation_fraction=0.0) if self.validation_path is not None else self
        labels = _labels(pool, names)
        rows = ArraySource({"rows": np.arange(len(pool)), "labels": labels})
        parts = flags.split(rows, labels, 0.0 if self.test_path is not None else self.test_fraction)
        chosen = {name: materialize(part) for name, part in parts.items()}
        return {
            name: [pool[row]._replace(label=names[label]) for row, label in zip(part["rows"], part["labels"])]
            for name, part in chosen.items()
        }

    def _read(self, path: pathlib.Path) -> list[Line]:
        tab = self.delimiter == "tab"
        quoting = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tab else {"delimiter": self.delimiter}
        last = max(self.text_column, self.label_column)
        lines = []
        try:
            reader = csv.reader(read_text(path).splitlines(keepends=True), **quoting)
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if not values or (self.header and reader.line_num == 1):
                    continue
                if len(values) <= last:
                    raise InputError(f"{where}: {len(values)} values, but column {last} (from 0) is asked for.")
                lines.append(Line(values[self.text_column], values[self.label_column].strip(), where))
        except (csv.Error, TypeError) as error:  # a delimiter of two characters is a TypeError
            raise InputError(f"{path} is no table with the delimiter '{self.delimiter}': {error}.") from None
        if not lines:
            raise InputError(f"{path} has no lines of text and label.")
        return lines

    def _encode(self, line: Line, tokenizer: Tokenizer) -> np.ndarray:
        try:
            tokens = tokenizer.encode(line.text)
        except InputError as error:
            raise InputError(f"{line.where}: {error}") from None
        if not len(tokens):
            raise InputError(f"{line.where}: the text has no token, and a sequence must have one at least.")
        return tokens[: self.max_length]


def _labels(lines: Sequence[Line], names: Sequence[str]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[line.label] for line in lines], np.int32)
