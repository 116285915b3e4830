"""Splits cover everything once, keep their proportions, and follow from their flags."""

import numpy as np
import pytest

from jaxdl.data import splits
from jaxdl.data.sources import ArraySource, materialize, read
from jaxdl.errors import InputError

ROWS = np.arange(100)
LABELS = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
SOURCE = ArraySource({"row": ROWS})


def _rows(parts):
    return {name: getattr(part, "indices", np.arange(len(part))) for name, part in parts.items()}


def _covers_once(parts):
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), ROWS)


@pytest.mark.parametrize("kind", ["stratified", "random", "ordered"])
@pytest.mark.parametrize("validation, test", [(0.1, 0.2), (0.3, 0.0), (0.0, 0.2), (0.0, 0.0)])
def test_fractions(kind, validation, test):
    flags = splits.SplitFlags(validation_fraction=validation, split_kind=kind)
    parts = _rows(flags.split(SOURCE, LABELS, test))
    _covers_once(parts)
    sizes = {"train": 100 - round(100 * (validation + test)), "validation": round(100 * validation)}
    assert {name: len(rows) for name, rows in parts.items()} == {
        name: size for name, size in (sizes | {"test": round(100 * test)}).items() if size
    }
    if kind == "stratified":
        for rows in parts.values():
            np.testing.assert_allclose(np.bincount(LABELS[rows]) / len(rows), [0.4, 0.3, 0.2, 0.1], atol=0.02)
    if kind == "ordered":
        np.testing.assert_array_equal(np.concatenate(list(parts.values())), ROWS)


@pytest.mark.parametrize("kind", ["stratified", "random"])
def test_folds_partition(kind):
    held = []
    for fold in range(5):
        flags = splits.SplitFlags(folds=5, fold=fold, split_kind=kind)
        parts = _rows(flags.split(SOURCE, LABELS, 0.1))
        _covers_once(parts)
        held.append(parts["validation"])
    assert sorted(np.concatenate(held)) == sorted(set(ROWS) - set(parts["test"]))


def test_stratified_folds_keep_proportions():
    for fold in range(5):
        _, held = splits.stratified_k_fold(ROWS, LABELS, 5, fold, seed=0)
        np.testing.assert_array_equal(np.bincount(LABELS[held]), [8, 6, 4, 2])


def test_forward_chaining_never_trains_on_the_future():
    for fold in range(4):
        train, held = splits.forward_chaining(ROWS, 4, fold)
        np.testing.assert_array_equal(np.concatenate([train, held]), np.arange(20 * (fold + 2)))
        assert len(held) == 20


def test_seed_decides_and_label_presence_chooses_the_kind():
    def validation(seed, labels=LABELS):
        return tuple(_rows(splits.SplitFlags(split_seed=seed).split(SOURCE, labels, 0.2))["validation"])

    assert validation(0) == validation(0) != validation(1)
    assert np.bincount(LABELS[list(validation(0))]).tolist() == [4, 3, 2, 1]
    assert validation(0, None) != validation(0)


@pytest.mark.parametrize(
    "flags, labels, message",
    [
        (dict(folds=1), LABELS, "folds must be 0 or at least 2"),
        (dict(folds=5, fold=5), LABELS, "fold from 0 to folds - 1"),
        (dict(fold=2), LABELS, "folds=0 and fold=2"),
        (dict(split_kind="stratified"), None, "needs class labels"),
        (dict(validation_fraction=0.9), LABELS, "cannot be split|leave no training"),
        (dict(validation_fraction=0.001), LABELS, "'validation' is empty"),
        (dict(), np.arange(100), "cannot be split"),
        (dict(folds=90, split_kind="random"), None, "cannot be split"),
    ],
)
def test_impossible_splits_are_refused_in_one_line(flags, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        splits.SplitFlags(**flags).split(SOURCE, labels, 0.2)
    assert "\n" not in str(caught.value)


def test_label_noise_makes_that_share_of_the_training_labels_wrong_and_no_others():
    labels = np.arange(1000, dtype=np.int32) % 5
    source = ArraySource({"inputs": np.arange(1000), "labels": labels})
    clean = splits.SplitFlags().split(source, labels, 0.2)
    noisy = splits.SplitFlags(label_noise=0.3).split(source, labels, 0.2)
    for name, part in noisy.items():
        found, wanted = materialize(part), materialize(clean[name])
        np.testing.assert_array_equal(found["inputs"], wanted["inputs"])
        wrong = found["labels"] != wanted["labels"]
        assert wrong.mean() == (pytest.approx(0.3, abs=0.04) if name == "train" else 0)
        assert found["labels"].dtype == np.int32 and [part[7]["labels"]] == read(part, np.array([7]))["labels"]
        if name == "train":  # each class becomes each other about as often
            pairs = np.zeros((5, 5))
            np.add.at(pairs, (wanted["labels"][wrong], found["labels"][wrong]), 1)
            assert pairs.diagonal().sum() == 0 and pairs[~np.eye(5, dtype=bool)].min() > 0


def test_label_noise_is_of_the_split_seed_and_needs_labels():
    labels = np.arange(50) % 3
    one, same, other = (splits.with_noise(labels, 0.2, seed) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any() and (one != labels).sum() == 10
    with pytest.raises(InputError, match="needs class labels in memory"):
        splits.SplitFlags(label_noise=0.1).split(ArraySource({"inputs": labels}))
