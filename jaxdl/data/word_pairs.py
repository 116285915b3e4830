"""Words with the words around them, out of a text: for skip-gram and CBOW as they are, for GloVe counted.

A text is a UTF-8 file of which each line is by itself: no pair crosses lines. Words are what whitespace divides.
Rare words are left out before anything else, as word2vec, gensim and GloVe do, so the others come closer together.
`<unk>` in a text is not taken for a word.

    FILE          the training text
    FOLDER        with train.txt, and valid.txt (or validation.txt) and test.txt where there are

How this differs from word2vec's and gensim's reading: they draw which frequent words are left out, and how far each
window reaches, anew in each epoch while they read. Here both are drawn once for each of `passes` copies of the text,
from `sampling_seed`, so that an example is a pure function of its number: `--dataset.passes=5 --epochs=1` is gensim's
`epochs=5`, but for the order, which is shuffled by stretches of `length` words.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdl.analysis.counts import cooccurrence
from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.sources import ArraySource, Batch, Example, Source
from jaxdl.data.text import read_text
from jaxdl.data.tokenizers import WordTokenizer
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeFloat, PositiveInt, Seed

SPLIT_FILES = {"train": ("train.txt",), "validation": ("valid.txt", "validation.txt"), "test": ("test.txt",)}


class Words(NamedTuple):
    """A text: `ids` int32 [words], and the number of each word's line, `lines` int32 [words]."""

    ids: np.ndarray
    lines: np.ndarray


def keep_probability(counts: np.ndarray, threshold: float) -> np.ndarray:
    """The probability with which a word stays in the text, float64 [V]: min(1, sqrt(t / f) + t / f).

    f is the word's share of the text, t the threshold; 0 keeps all. This is word2vec's program and gensim; Mikolov et
    al. 2013, arXiv 1310.4546, eq. 5, says sqrt(t / f), which keeps less.
    """
    if threshold == 0:
        return np.ones(len(counts))
    ratio = threshold * counts.sum() / np.maximum(counts, 1)
    return np.minimum(np.sqrt(ratio) + ratio, 1)


class Stretches:
    """Stretches of `length` words with the words around them; a source.

    An example has `inputs`, int32 [window + length + window], the words in the middle and those around them, and
    `reach`, uint8 [length, 2]: how many words before and after each word in the middle are in its window, at most
    `window`, none beyond its line. A place that is no word has id 0 and reach 0.

    Args:
      words: the text, without the words that are left out.
      window: the largest distance, 1 to 255.
      length: words in the middle.
      drawn: the distance that each word's window has on both sides, int [words]; None: `window`.
    """

    def __init__(self, words: Words, window: int, length: int, drawn: np.ndarray | None = None):
        self.window, self.length = window, length
        self._size = -(-len(words.ids) // length)
        self._ids = np.zeros(self._size * length + 2 * window, np.int32)
        self._ids[window : window + len(words.ids)] = words.ids
        self._reach = np.zeros((self._size * length, 2), np.uint8)
        self._reach[: len(words.ids)] = _reach(words.lines, window if drawn is None else drawn)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return {name: values[0] for name, values in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        start = np.asarray(indices)[:, None] * self.length
        return {
            "inputs": self._ids[start + np.arange(self.length + 2 * self.window)],
            "reach": self._reach[start + np.arange(self.length)],
        }


@dataclasses.dataclass(frozen=True)
class _WordFlags:
    """What both datasets share.

    Attributes:
      path: the text: a file, or a folder with train.txt, valid.txt and test.txt; relative to --data_dir.
      min_count: words that are rarer in the training text are left out.
      max_size: the vocabulary's size at most, the most frequent words; none for any.
      window: the largest distance between two words of a pair, at most 255.
    """

    path: str = ""
    min_count: PositiveInt = 5
    max_size: PositiveInt | None = None
    window: PositiveInt = 5

    def _read(self, data_dir: str) -> tuple[WordTokenizer, np.ndarray, dict[str, Words]]:
        """The vocabulary, the count of each word in the training text (int64 [V]), and the words of each split."""
        if self.window > 255:
            raise InputError(f"--dataset.window={self.window}: at most 255 words on each side are supported.")
        texts = {split: read_text(path) for split, path in _split_paths(folder_of(data_dir, self.path)).items()}
        tokenizer = WordTokenizer.of(texts["train"], self.min_count, self.max_size)
        if tokenizer.vocab_size < 3:
            found = f"{tokenizer.vocab_size - 1} words are there --dataset.min_count={self.min_count} times"
            raise InputError(f"{self.path}: {found}; a vocabulary needs at least two.")
        words = {split: _words(text, tokenizer) for split, text in texts.items()}
        empty = next((split for split, found in words.items() if not len(found.ids)), None)
        if empty:
            raise InputError(f"{self.path}: split '{empty}' has no word of the {tokenizer.vocab_size - 1} that train.")
        return tokenizer, np.bincount(words["train"].ids, minlength=tokenizer.vocab_size), words


@dataclasses.dataclass(frozen=True)
class WordPairs(_WordFlags):
    """A text's words and the words around each, for `--task=negative_sampling`; an example is a stretch of the text.

    Attributes:
      subsampling: threshold above whose share of the text a word is left out at times; 0 leaves none out.
      dynamic_window: each word's window reaches from 1 to `window`, drawn uniformly; else always `window`.
      passes: times that the text stands in the training split, drawn anew each; memory is 6 bytes a word of each.
      sampling_seed: seed of what is left out, and of the windows.
      length: predicted words in an example.
    """

    subsampling: NonNegativeFloat = 1e-3
    dynamic_window: bool = True
    passes: PositiveInt = 1
    sampling_seed: Seed = 0
    length: PositiveInt = 16

    def load(self, data_dir: str = "") -> Data:
        """Inputs int32 [B, length + 2 window] and reach uint8 [B, length, 2].

        Only the training split is subsampled; in the others each word has its whole window.

        Raises:
          InputError: no such file, a file that is empty or no UTF-8 text, fewer than two words in the vocabulary, or a
            split without words.
        """
        tokenizer, counts, words = self._read(data_dir)
        keep = keep_probability(counts, self.subsampling)
        drawn = [self._draw(words["train"], keep, index) for index in range(self.passes)]
        if not any(len(copy.ids) for copy, _ in drawn):
            raise InputError(f"--dataset.subsampling={self.subsampling:g} leaves no word of so short a text; take 0.")
        splits: dict[str, Source] = {"train": _joined(drawn, self.window, self.length)}
        splits |= {split: Stretches(words[split], self.window, self.length) for split in words if split != "train"}
        return Data(splits, tokenizer=tokenizer, token_counts=counts)

    def _draw(self, words: Words, keep: np.ndarray, index: int) -> tuple[Words, np.ndarray]:
        """The words that stay in the text's copy `index`, and how far the window of each reaches."""
        random = np.random.default_rng((self.sampling_seed, index))
        kept = random.random(len(words.ids)) < keep[words.ids]
        words = Words(words.ids[kept], words.lines[kept])
        least = 1 if self.dynamic_window else self.window
        return words, random.integers(least, self.window + 1, len(words.ids))


@dataclasses.dataclass(frozen=True)
class Cooccurrence(_WordFlags):
    """How often words of a text are near each other, for `--task=glove`; an example is some entries of the matrix.

    Attributes:
      distance_weighting: words d apart count 1 / d.
      length: entries in an example.
      order_seed: seed of the order in which entries are put into examples.
    """

    window: PositiveInt = 15
    distance_weighting: bool = True
    length: PositiveInt = 64
    order_seed: Seed = 0

    def load(self, data_dir: str = "") -> Data:
        """Inputs int32 [B, length, 2], word and context, and cooccurrences float32 [B, length], 0 where no entry is.

        The matrix is symmetric and has both halves, as GloVe's. Which entries share an example is random.

        Raises:
          InputError: no such file, a file that is empty or no UTF-8 text, fewer than two words in the vocabulary, or a
            split without pairs.
        """
        tokenizer, counts, words = self._read(data_dir)
        size = tokenizer.vocab_size
        splits = {}
        for split, (ids, lines) in words.items():
            entries = cooccurrence(ids, size, self.window, lines, self.distance_weighting).tocoo()
            if not entries.nnz:
                raise InputError(f"{self.path}: no two words of the vocabulary are near each other in split '{split}'.")
            order = np.random.default_rng(self.order_seed).permutation(entries.nnz)
            pairs = np.stack([entries.row, entries.col], axis=1).astype(np.int32)
            splits[split] = ArraySource(
                {
                    "inputs": _in_rows(pairs[order], self.length),
                    "cooccurrences": _in_rows(entries.data[order].astype(np.float32), self.length),
                }
            )
        return Data(splits, tokenizer=tokenizer, token_counts=counts)


def _reach(lines: np.ndarray, window: np.ndarray | int) -> np.ndarray:
    """How many words before and after each word are in its window and on its line: int64 [words, 2]."""
    places = np.arange(len(lines))
    first = np.searchsorted(lines, lines, side="left")
    last = np.searchsorted(lines, lines, side="right") - 1
    return np.minimum(np.stack([places - first, last - places], axis=1), np.reshape(window, (-1, 1)))


def _joined(drawn: list[tuple[Words, np.ndarray]], window: int, length: int) -> Stretches:
    """The copies of a text one after the other."""
    offsets = np.cumsum([0, *(words.lines[-1] + 1 if len(words.lines) else 0 for words, _ in drawn)])
    ids = np.concatenate([words.ids for words, _ in drawn])
    lines = np.concatenate([words.lines + offset for (words, _), offset in zip(drawn, offsets)])
    return Stretches(Words(ids, lines), window, length, np.concatenate([reach for _, reach in drawn]))


def _in_rows(values: np.ndarray, length: int) -> np.ndarray:
    """[n, ...] as [rows, length, ...], the last row filled up with zeros."""
    rows = -(-len(values) // length)
    result = np.zeros((rows * length, *values.shape[1:]), values.dtype)
    result[: len(values)] = values
    return result.reshape(rows, length, *values.shape[1:])


def _split_paths(path: pathlib.Path) -> dict[str, pathlib.Path]:
    if path.is_file():
        return {"train": path}
    found = {
        split: next((path / name for name in names if (path / name).is_file()), None)
        for split, names in SPLIT_FILES.items()
    }
    if found["train"] is None:
        raise InputError(f"{path} has no train.txt: --dataset.path is a text file, or a folder with train.txt.")
    return {split: file for split, file in found.items() if file is not None}


def _words(text: str, tokenizer: WordTokenizer) -> Words:
    """The words of a text that the vocabulary has, and their lines."""
    ids = tokenizer.encode(text)
    lengths = [len(line.split()) for line in text.split("\n")]
    lines = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    known = ids > 0  # 0 is <unk>
    return Words(ids[known], lines[known])
