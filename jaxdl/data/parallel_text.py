"""Parallel text: files of lines in two languages, the same line being the same sentence, as translation corpora are."""

import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.sequences import pairs
from jaxdl.data.sources import ArraySource, Source, materialize
from jaxdl.data.splits import ValidationFlags
from jaxdl.data.text import Document, TokenizerFlags, decode
from jaxdl.data.tokenizers import Tokenizer
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt


@dataclasses.dataclass(frozen=True)
class ParallelText(ValidationFlags, TokenizerFlags):
    """Pairs of files such as train.en and train.de, UTF-8, gzipped (train.en.gz) or not.

    Attributes:
      tokenizer: word, character or byte, a vocabulary for each language; or the path of a Hugging Face tokenizer.json
        that serves both, relative to --data_dir.
      path: the folder of the files, relative to --data_dir.
      source: the ending of the files that are read.
      target: the ending of the files that are to be written.
      train: the name, without its ending, of the pair of files that trains.
      validation: the pair that validates. none: validation_fraction of the training pair.
      test: the pair that tests; none for no test.
      max_length: longer training pairs, in tokens of either side, are left out; held-out ones are never.
      validation_fraction: part of the training pair that validates, where validation is none.
    """

    tokenizer: str = "word"
    path: str = ""
    source: str = "en"
    target: str = "de"
    train: str = "train"
    validation: str | None = None
    test: str | None = None
    max_length: PositiveInt = 50

    def load(self, data_dir: str = "") -> Data:
        """Inputs int32 [B, S], targets int32 [B, T]; S and T are those of the longest of a split.

        Raises:
          InputError: a missing, damaged or empty file, an empty line, or another number of lines in the other language.
        """
        folder = folder_of(data_dir, self.path)
        lines = {name: self._read(folder, name) for name in (self.train, self.validation, self.test) if name}
        train, held = self._split(lines[self.train])
        tokenizers = tuple(
            self.make_tokenizer([Document(line, f"{self.train}.{language}") for line in side], ended, data_dir)
            for language, side, ended in ((self.source, train[0], False), (self.target, train[1], True))
        )
        if tokenizers[1].end_of_text is None:
            raise InputError(f"--dataset.tokenizer={self.tokenizer} has no end-of-text token, with which targets end.")
        held = {"validation": lines[self.validation] if self.validation else held}
        held |= {"test": lines[self.test]} if self.test else {}
        splits = {"train": _source(self._short(_encode(train, tokenizers)), tokenizers)}
        splits |= {name: _source(_encode(part, tokenizers), tokenizers) for name, part in held.items() if part[0]}
        return Data(splits, tokenizer=tokenizers[0], target_tokenizer=tokenizers[1])

    def _read(self, folder: pathlib.Path, name: str) -> tuple[list[str], list[str]]:
        """The lines of both languages."""
        sides = [_read_lines(folder, f"{name}.{language}") for language in (self.source, self.target)]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{folder}: {name}.{self.source} has {len(sides[0])} lines and {name}.{self.target} has "
                f"{len(sides[1])}; there must be as many of each."
            )
        return sides[0], sides[1]

    def _split(self, pool: tuple[list[str], list[str]]) -> tuple[tuple, tuple]:
        """What of the training pair trains, and what is held out where no pair of files validates."""
        flags = dataclasses.replace(self, validation_fraction=0.0) if self.validation else self
        parts = flags.split(ArraySource({"row": np.arange(len(pool[0]))}))
        chosen = [materialize(parts[name])["row"] if name in parts else () for name in ("train", "validation")]
        return tuple(tuple([side[row] for row in rows] for side in pool) for rows in chosen)

    def _short(self, encoded: tuple[list[np.ndarray], list[np.ndarray]]):
        """Without the pairs that are too long."""
        kept = [pair for pair in zip(*encoded) if max(map(len, pair)) <= self.max_length]
        if not kept:
            raise InputError(f"every training pair is longer than --dataset.max_length={self.max_length}.")
        if len(kept) < len(encoded[0]):
            left_out = len(encoded[0]) - len(kept)
            print(f"{left_out} of {len(encoded[0])} training pairs are longer than {self.max_length} and left out.")
        return tuple(map(list, zip(*kept)))


def _read_lines(folder: pathlib.Path, name: str) -> list[str]:
    """The lines of a file or of its gzipped form, none of them empty."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise InputError(f"{folder} has neither {name} nor {name}.gz.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    lines = decode(content, str(path)).removesuffix("\n").split("\n")
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty is not None:
        what = f"line {empty} is empty" if content.strip() else "the file is empty"
        raise InputError(f"{path}: {what}; every line must be a sentence, and the other file's its translation.")
    return lines


def _encode(part: tuple[Sequence[str], Sequence[str]], tokenizers: tuple[Tokenizer, Tokenizer]):
    """The ids of each line: of the sources, and of the targets. Raises: InputError, which quotes the line."""

    def ids(line: str, tokenizer: Tokenizer) -> np.ndarray:
        try:
            return tokenizer.encode(line)
        except InputError as error:
            raise InputError(f"the line {line[:60]!r}: {error}") from None

    return tuple([ids(line, tokenizer) for line in side] for side, tokenizer in zip(part, tokenizers))


def _source(encoded: tuple[list[np.ndarray], list[np.ndarray]], tokenizers: tuple[Tokenizer, Tokenizer]) -> Source:
    return ArraySource(pairs(*encoded, tokenizers[1].end_of_text))
