"""Datasets read from files: what they give, and what they say of bad files."""

import gzip
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import files, image_folder, tables
from jaxdl.data.pipeline import Pipeline
from jaxdl.data.sources import ArraySource, materialize
from jaxdl.errors import InputError, RunError
from tests.data_paths import data_path

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 5, 4), np.uint8)
PIXELS = IMAGES[..., None]
LABELS = np.arange(20, dtype=np.uint8) % 4


def _idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def _write_idx(folder: pathlib.Path, zipped=True, images=IMAGES, labels=LABELS):
    for prefix, number in (("train", 20), ("t10k", 8)):
        for kind, array in (("images-idx3", images[:number]), ("labels-idx1", labels[:number])):
            content = _idx(array)
            path = folder / f"{prefix}-{kind}-ubyte"
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx(tmp_path, zipped):
    _write_idx(tmp_path, zipped)
    data = files.Idx(path=tmp_path.name, validation_fraction=0.2).load(str(tmp_path.parent))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 16, "validation": 4, "test": 8}
    assert data.class_names == ("0", "1", "2", "3")
    test = materialize(data.splits["test"])
    np.testing.assert_array_equal(test["inputs"], IMAGES[:8, :, :, None])
    np.testing.assert_array_equal(test["labels"], LABELS[:8])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train-images-idx3-ubyte.gz", None, "has neither train-images-idx3-ubyte nor"),
        ("train-images-idx3-ubyte.gz", gzip.compress(_idx(IMAGES))[:-60], "is damaged"),
        ("train-images-idx3-ubyte.gz", gzip.compress(_idx(IMAGES)[:-1]), "cut short: 399 of 400 bytes"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(_idx(IMAGES)), "is no IDX file of bytes with 1 dim"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(_idx(LABELS[:-1])), "'train': there are 20 inputs but 19 labels"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(_idx(LABELS[:8] + 3)), "split 'test': label 4 at row 1; .* 0 to 3"),
        ("train-images-idx3-ubyte.gz", gzip.compress(_idx(IMAGES[:0])), "0 inputs but 20 labels"),
    ],
    ids=lambda value: "content" if isinstance(value, bytes) else None,  # gzip writes the time into it
)
def test_bad_idx_files_are_named(tmp_path, name, content, message):
    _write_idx(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        files.Idx(path=str(tmp_path)).load()


def test_missing_folder():
    with pytest.raises(InputError, match="does not exist: --dataset.path"):
        files.Idx(path="nowhere").load("")


def test_real_fashion_mnist():
    data = files.Idx(path="fashion_mnist", standardize=False).load(str(data_path("fashion_mnist").parent))
    assert {name: len(source) for name, source in data.splits.items()} == {
        "train": 54000, "validation": 6000, "test": 10000,
    }  # fmt: skip
    assert np.bincount(materialize(data.splits["test"])["labels"]).tolist() == [1000] * 10


def _cifar(number, offset=0):
    records = RNG.integers(0, 256, (number, 3073), np.uint8)
    records[:, 0] = (np.arange(number) + offset) % 10
    return records


def test_cifar10_binary_takes_the_batches_that_are_there(tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    batch, test = _cifar(20), _cifar(10)
    batch.tofile(folder / "data_batch_3.bin")
    test.tofile(folder / "test_batch.bin")
    data = files.Cifar10Binary(path="", validation_fraction=0).load(str(tmp_path))
    assert "20 training images of 50000 found, in 1 of 5 files" in capsys.readouterr().out
    assert data.class_names[3] == "cat" and len(data.splits["train"]) == 20
    example = materialize(data.splits["train"])["inputs"][4]
    assert example.shape == (32, 32, 3)
    np.testing.assert_array_equal(example[5, 6], batch[4, [1 + 5 * 32 + 6, 1025 + 5 * 32 + 6, 2049 + 5 * 32 + 6]])


@pytest.mark.parametrize(
    "change, message", [("cut", "is cut short"), ("gone", "must hold test_batch"), ("label", "label 11")]
)
def test_bad_cifar_files(tmp_path, change, message):
    batch, test = _cifar(20), _cifar(10)
    if change == "label":
        batch[3, 0] = 11
    (tmp_path / "data_batch_1.bin").write_bytes(batch.tobytes()[: -5 if change == "cut" else None])
    if change != "gone":
        test.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(InputError, match=message):
        files.Cifar10Binary(path=str(tmp_path)).load()


@pytest.mark.parametrize(
    "arrays, num_classes, num_targets",
    [
        (dict(inputs=RNG.normal(size=(30, 4)), labels=np.arange(30) % 3), 3, None),
        (dict(inputs=PIXELS, labels=LABELS, test_inputs=PIXELS[:5], test_labels=LABELS[:5]), 4, None),
        (dict(inputs=RNG.normal(size=(30, 4)), targets=RNG.normal(size=30)), None, 1),
        (dict(inputs=RNG.normal(size=(30, 4)), targets=RNG.normal(size=(30, 2))), None, 2),
    ],
)
def test_arrays(tmp_path, arrays, num_classes, num_targets):
    np.savez(tmp_path / "own.npz", **arrays)
    data = tables.Arrays(path="own.npz", validation_fraction=0.2).load(str(tmp_path))
    assert (data.num_classes, data.num_targets) == (num_classes, num_targets)
    train = materialize(data.splits["train"])
    assert train["inputs"].dtype == (np.uint8 if arrays["inputs"].dtype == np.uint8 else np.float32)
    assert len(data.splits["test"]) == (5 if "test_inputs" in arrays else 6)
    assert all(values.dtype in (np.uint8, np.int32, np.float32) for values in train.values())


def _with_nan():
    values = np.ones((30, 4))
    values[17, 3] = np.nan
    return values


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(inputs=_with_nan(), labels=np.zeros(30, int)), "inputs and labels: inputs has nan at row 17, column 3"),
        (dict(inputs=np.ones((30, 4)), targets=_with_nan()[:, 3]), "targets has nan at row 17, column 0"),
        (dict(inputs=np.ones((30, 4)), labels=np.full(30, -1)), "label -1 at row 0"),
        (dict(inputs=np.ones((30, 4)), labels=np.zeros(29, int)), "30 inputs but 29 labels"),
        (dict(inputs=np.ones((30, 4)), labels=np.zeros(30)), "labels are float64"),
        (dict(inputs=np.ones((30, 4)), labels=np.zeros((30, 2), int)), r"labels are int32 \[30, 2\]"),
        (dict(inputs=np.ones(30), labels=np.zeros(30, int)), r"inputs is \[30\]"),
        (dict(inputs=np.array([["a"]]), labels=np.zeros(1, int)), "must be numbers"),
        (dict(inputs=np.ones((0, 4)), labels=np.zeros(0, int)), "no examples"),
        (dict(x=np.ones((30, 4))), r"holds \['x'\]; it must hold inputs"),
        (dict(inputs=np.ones((3, 1)), labels=np.arange(3), targets=np.arange(3)), "labels or targets"),
        (dict(inputs=np.ones((3, 1)), labels=np.arange(3), test_inputs=np.ones((3, 1))), "no test_labels"),
        (dict(inputs=np.array([{}]), labels=np.zeros(1, int)), "pickled Python objects, which are never loaded"),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        tables.Arrays(path="own.npz").load(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, message",
    [(b"\x80\x04K\x01.", "pickled Python objects"), (b"", "no .npz file"), (b"PK\x03\x04rest", "no .npz file")],
)
def test_files_that_are_no_npz(tmp_path, content, message):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        tables.Arrays(path="own.npz").load(str(tmp_path))


def _write_csv(tmp_path, rows, header="age,height,kind"):
    (tmp_path / "own.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(tmp_path)


ROWS = [f"{i},{i * 0.5},{'yes' if i % 2 else 'no'}" for i in range(20)]


def test_csv_classification_and_regression(tmp_path):
    folder = _write_csv(tmp_path, ROWS)
    data = tables.Csv(path="own.csv").load(folder)
    assert data.class_names == ("no", "yes")
    folder = _write_csv(tmp_path, [f"{i}, {i * 0.5}, 10" for i in range(20)])
    data = tables.Csv(path="own.csv", targets=("height", "kind"), kind="regression").load(folder)
    train = materialize(data.splits["train"])
    np.testing.assert_array_equal(train["targets"][:, 0], train["inputs"][:, 0] * 0.5)
    assert data.num_targets == 2


@pytest.mark.parametrize(
    "rows, flags, message",
    [
        ([*ROWS, "3,nan,no"], {}, "line 22, column 'height': 'nan' is no finite number"),
        ([*ROWS, "tall,3,no"], {}, "line 22, column 'age': 'tall' is no finite number"),
        ([*ROWS, ",3,no"], {}, "line 22, column 'age': the value is missing"),
        ([*ROWS, "3,3,"], {}, "line 22, column 'kind': the label is missing"),
        ([*ROWS, "3,3"], {}, "line 22: 2 values, but 3 columns"),
        (ROWS, {"targets": ("kidn",)}, "must be some of its columns"),
        (ROWS, {"targets": ("kind", "age")}, "one target column"),
        ([], {}, "must have a header line"),
    ],
)
def test_bad_csv_is_named_by_line(tmp_path, rows, flags, message):
    with pytest.raises(InputError, match=message):
        tables.Csv(path="own.csv", **flags).load(_write_csv(tmp_path, rows))


@pytest.fixture
def folder(tmp_path):
    for split, number in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(number):
                image = np.full((9, 7, 3), 20 * index + 100 * label, np.uint8)
                Image.fromarray(image).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("memory_gib", [2.0, 0.0])
@pytest.mark.parametrize("color, channels", [("rgb", 3), ("gray", 1)])
def test_image_folder(folder, memory_gib, color, channels):
    flags = image_folder.ImageFolder(
        path=folder.name, image_size=6, color=color, memory_gib=memory_gib, validation_fraction=1 / 3
    )
    data = flags.load(str(folder.parent))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 8, "validation": 4, "test": 6}
    assert data.class_names == ("cat", "dog")
    test = materialize(data.splits["test"])
    assert test["inputs"].shape == (6, 6, 6, channels) and test["inputs"].dtype == np.uint8
    np.testing.assert_array_equal(test["inputs"][:, 3, 3, 0], [0, 20, 40, 100, 120, 140])
    np.testing.assert_array_equal(test["labels"], [0, 0, 0, 1, 1, 1])
    assert isinstance(data.splits["test"], ArraySource) == (memory_gib > 0)


def test_image_folder_without_split_folders(folder):
    data = image_folder.ImageFolder(path="train", test_fraction=0.25, validation_fraction=0.25).load(str(folder))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 6, "validation": 3, "test": 3}


@pytest.mark.parametrize("memory_gib, error", [(2.0, InputError), (0.0, RunError)])
def test_truncated_image_is_named(folder, memory_gib, error):
    path = folder / "train" / "dog" / "4.png"
    path.write_bytes(path.read_bytes()[:-30])
    flags = image_folder.ImageFolder(path=str(folder), memory_gib=memory_gib, standardize=False, validation_fraction=0)
    with pytest.raises(error, match="dog/4.png cannot be decoded"):
        data = flags.load()
        list(Pipeline(data.splits["train"], batch_size=4, seed=0).iterate(0, 3))


def test_image_folder_says_what_is_missing(folder):
    (folder / "test" / "horse").mkdir()
    with pytest.raises(InputError, match="class 'horse' is not among"):
        image_folder.ImageFolder(path=str(folder)).load()
    with pytest.raises(InputError, match="has no sub-folders"):
        image_folder.ImageFolder(path=str(folder / "train" / "cat")).load()
    (folder / "test" / "horse").rmdir()
    for path in (folder / "test").glob("*/*"):
        path.unlink()
    with pytest.raises(InputError, match="split 'test' is empty"):
        image_folder.ImageFolder(path=str(folder)).load()
