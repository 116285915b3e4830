"""The embedded datasets: shapes, counts, and statistics of the training split alone."""

import dataclasses

import numpy as np
import pytest

from jaxdl import catalog
from jaxdl.data import AUGMENTATIONS, DATASETS, base
from jaxdl.data.sources import ArraySource, materialize

CASES = {  # name -> examples, shape of one, classes or None, targets or None
    "digits": (1797, (8, 8, 1), 10, None),
    "iris": (150, (4,), 3, None),
    "wine": (178, (13,), 3, None),
    "breast_cancer": (569, (30,), 2, None),
    "diabetes": (442, (10,), None, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_splits_and_batches(name):
    number, shape, num_classes, num_targets = CASES[name]
    data = DATASETS[name].load()().load("")
    assert sum(len(source) for source in data.splits.values()) == number
    assert list(data.splits) == ["train", "validation", "test"]
    assert (data.num_classes, data.num_targets) == (num_classes, num_targets)
    train = materialize(data.splits["train"])
    assert train["inputs"].shape[1:] == shape and train["inputs"].dtype == np.float32
    if num_classes:
        assert train["labels"].dtype == np.int32 and set(train["labels"]) == set(range(num_classes))
        assert len(data.class_names) == num_classes
    else:
        assert train["targets"].shape[1:] == (1,) and train["targets"].dtype == np.float32
    if len(shape) == 3:
        assert 0 <= train["inputs"].min() < train["inputs"].max() == 1


@pytest.mark.parametrize("name", CASES)
def test_standardised_training_split_has_mean_zero_and_std_one(name):
    data = DATASETS[name].load()().load("")
    train = data.standardize(data.decode(materialize(data.splits["train"])))
    values = np.asarray(train["inputs"], np.float64).reshape(-1, len(data.mean))
    # float32 rounds each value to 6e-8 of its size; the largest raw mean is about 1000 stds at most.
    np.testing.assert_allclose(values.mean(0), 0, atol=2e-4)
    np.testing.assert_allclose(values.std(0), 1, atol=2e-4)
    other = data.standardize(materialize(data.splits["test"]))
    assert abs(np.asarray(other["inputs"]).mean()) > 1e-4  # by the training split's statistics, not its own


def test_flags_switch_standardisation():
    diabetes = DATASETS["diabetes"].load()
    data = diabetes(standardize=False, standardize_targets=True).load("")
    assert data.mean is None
    train = data.standardize(materialize(data.splits["train"]))
    np.testing.assert_allclose([np.mean(train["targets"]), np.std(train["targets"])], [0, 1], atol=1e-5)


def test_folds_by_flag():
    cls = DATASETS["iris"].load()
    held = [cls(folds=5, fold=fold).load("").splits["validation"].indices for fold in range(5)]
    assert len(np.unique(np.concatenate(held))) == 120


def test_moments_equal_numpys_over_chunks_bytes_and_constants():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2500, 3, 2, 3), np.uint8)
    images[..., 1] = 7
    source = ArraySource({"inputs": images})
    mean, std = base.moments(source)
    decoded = images / 255
    np.testing.assert_allclose(mean, decoded.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, [decoded[..., 0].std(), 1, decoded[..., 2].std()], rtol=1e-6)
    part, _ = base.moments(source, limit=10)
    np.testing.assert_allclose(part, decoded[::250].mean((0, 1, 2)), rtol=1e-6)


def test_decode_and_standardize_bytes():
    images = np.array([[[[0], [255]]]], np.uint8)
    data = base.Data({}, mean=np.float32([0.5]), std=np.float32([0.25]))
    decoded = data.decode({"inputs": images, "labels": np.int32([1])})
    np.testing.assert_array_equal(decoded["inputs"].ravel(), [0, 1])
    np.testing.assert_array_equal(data.standardize(decoded)["inputs"].ravel(), [-2, 2])


@pytest.mark.parametrize("entries", [DATASETS, AUGMENTATIONS])
def test_every_name_loads_and_every_flag_has_help(entries):
    from jaxdl import config

    for name in entries:
        cls = catalog.find(entries, name, "dataset").load()
        fields = config.fields_of(cls)
        assert fields.keys() == {field.name for field in dataclasses.fields(cls)}
        assert all(field.help for field in fields.values()), name
