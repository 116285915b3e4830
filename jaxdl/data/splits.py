"""Which examples train, validate and test: pure functions on row numbers, and the flags that choose among them.

All take and return int64 row numbers, in ascending order, and depend on their arguments alone. scikit-learn's
model_selection does the choosing.
"""

import dataclasses
from typing import Literal

import numpy as np

from jaxdl.data.sources import Relabelled, Source, Subset
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeInt, Rate

Kind = Literal["stratified", "random", "ordered"]


def hold_out(
    rows: np.ndarray, count: int, seed: int, labels: np.ndarray | None = None, ordered: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Takes `count` rows away.

    Args:
      rows: int64 [n], of which to take.
      count: how many.
      seed: of the choice.
      labels: int [n], one a row: take the same share of each class.
      ordered: take the last ones, for data in the order of time.

    Returns:
      The rows that stay [n - count], and those taken [count].
    """
    if count == 0:
        return rows, rows[:0]
    if ordered:
        return rows[:-count], rows[-count:]
    from sklearn.model_selection import train_test_split  # takes a second and 70 MB to import

    kept, taken = train_test_split(rows, test_size=count, random_state=seed % 2**32, stratify=labels)
    return np.sort(kept), np.sort(taken)


def k_fold(rows: np.ndarray, folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows outside and inside fold `fold` of `folds` random folds of equal size (within one)."""
    from sklearn.model_selection import KFold

    return _fold(KFold(folds, shuffle=True, random_state=seed % 2**32), rows, fold)


def stratified_k_fold(
    rows: np.ndarray, labels: np.ndarray, folds: int, fold: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `k_fold`, with the same share of each class (`labels`: int [n]) in every fold."""
    from sklearn.model_selection import StratifiedKFold

    return _fold(StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32), rows, fold, labels)


def forward_chaining(rows: np.ndarray, folds: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """For rows in the order of time: fold k trains on the first k + 1 of `folds` + 1 blocks and holds out the next."""
    from sklearn.model_selection import TimeSeriesSplit

    return _fold(TimeSeriesSplit(folds), rows, fold)


def with_noise(labels: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Labels int [n], of which the share `rate` is wrong: another class each, evenly drawn (Nakkiran et al. 2019, arXiv
    1912.02292, section 2). Classes are 0 to the largest label."""
    random = np.random.default_rng((seed, 1))
    wrong = random.permutation(len(labels))[: round(rate * len(labels))]
    num_classes = labels.max() + 1
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + random.integers(1, num_classes, len(wrong))) % num_classes
    return noisy


def _subset(source: Source, rows: np.ndarray) -> Source:
    """The rows of a source; the source itself, and no copy of it later, where they are all of them."""
    return source if len(rows) == len(source) else Subset(source, rows)


def _fold(splitter, rows, fold, labels=None):
    outside, inside = list(splitter.split(rows, labels))[fold]
    return rows[outside], rows[inside]


@dataclasses.dataclass(frozen=True)
class ValidationFlags:
    """Flags of a dataset whose training split gives up a part for validation.

    Attributes:
      validation_fraction: part of all examples outside a test split of its own that becomes "validation".
      split_kind: stratified (the same share of each class everywhere), random, or ordered (the last rows are held
        out; folds are forward-chaining, for time series). none: stratified where the labels are at hand.
      split_seed: of the random choice; a run's seed does not change its splits.
      folds: cross-validation with so many folds in place of validation_fraction; 0 is none.
      fold: the fold held out as "validation", from 0.
      label_noise: part of the training labels that are made wrong, each another class at random.
    """

    validation_fraction: Rate = 0.1
    split_kind: Kind | None = None
    split_seed: NonNegativeInt = 0
    folds: NonNegativeInt = 0
    fold: NonNegativeInt = 0
    label_noise: Rate = 0.0

    def split(self, source: Source, labels: np.ndarray | None = None, test_fraction: float = 0.0) -> dict[str, Source]:
        """Splits a source into "train", and "validation" and "test" where they are asked for.

        Args:
          source: all examples outside a test split of its own.
          labels: int [len(source)], for a stratified choice.
          test_fraction: set aside before anything else.

        Raises:
          InputError: flags that contradict each other, or too few examples for them.
        """
        self._check(labels)
        kind = self.split_kind or ("random" if labels is None else "stratified")
        number = len(source)
        rows = np.arange(number)
        test, validation = _count(number, test_fraction, "test"), _count(number, self.validation_fraction, "validation")
        of_class = (lambda chosen: labels[chosen]) if kind == "stratified" else lambda chosen: None
        try:
            train, tested = hold_out(rows, test, self.split_seed, of_class(rows), kind == "ordered")
            if not self.folds:
                train, held = hold_out(train, validation, self.split_seed, of_class(train), kind == "ordered")
            elif kind == "ordered":
                train, held = forward_chaining(train, self.folds, self.fold)
            elif kind == "stratified":
                train, held = stratified_k_fold(train, of_class(train), self.folds, self.fold, self.split_seed)
            else:
                train, held = k_fold(train, self.folds, self.fold, self.split_seed)
        except ValueError as error:  # scikit-learn's own words: a class with one member, more folds than examples
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(f"{number} examples cannot be split ({kind}): {reason}.") from None
        if len(train) == 0:
            raise InputError(f"validation and test fractions leave no training example of {number}.")
        parts = {"train": train, "validation": held, "test": tested}
        splits = {name: _subset(source, chosen) for name, chosen in parts.items() if len(chosen)}
        if self.label_noise:
            noisy = with_noise(labels, self.label_noise, self.split_seed)[train]
            splits["train"] = Relabelled(splits["train"], noisy)
        return splits

    def _check(self, labels: np.ndarray | None) -> None:
        if self.folds == 1 or (self.folds and self.fold >= self.folds) or (self.fold and not self.folds):
            raise InputError(
                f"folds={self.folds} and fold={self.fold}: folds must be 0 or at least 2, and fold from 0 to folds - 1."
            )
        if self.split_kind == "stratified" and labels is None:
            raise InputError("split_kind=stratified needs class labels in memory; take random or ordered.")
        if self.label_noise and labels is None:
            raise InputError(f"--dataset.label_noise={self.label_noise:g} needs class labels in memory; leave it out.")


@dataclasses.dataclass(frozen=True)
class SplitFlags(ValidationFlags):
    """Flags of a dataset that has no test split of its own.

    Attributes:
      test_fraction: part of all examples that becomes "test", set aside before validation and folds.
    """

    test_fraction: Rate = 0.2


def _count(number: int, fraction: float, split: str) -> int:
    count = round(number * fraction)
    if fraction > 0 and count == 0:
        raise InputError(f"split '{split}' is empty: {fraction:g} of {number} examples is none. Ask for more, or 0.")
    return count
