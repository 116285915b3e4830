"""TFDS datasets are read from prepared files, without TensorFlow, and say what to type when they are not there."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxdl.data.pipeline import Pipeline
from jaxdl.data.tfds import Tfds
from jaxdl.errors import InputError, RunError
from tests.data_paths import data_path


@pytest.fixture
def prepared():
    return data_path("tfds")


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared / "mnist", tmp_path / "mnist", copy_function=shutil.copyfile)
    return tmp_path


def test_mnist_lazily(prepared):
    flags = Tfds(name="mnist", memory_gib=0, standardize=False, validation_fraction=1 / 12)
    data = flags.load(str(prepared))
    assert {name: len(source) for name, source in data.splits.items()} == {
        "train": 55000, "validation": 5000, "test": 10000,
    }  # fmt: skip
    assert data.class_names == tuple("0123456789")
    pipeline = Pipeline(data.splits["train"], batch_size=8, seed=0)
    batch = pipeline.batch(5)
    assert batch["inputs"].shape == (8, 28, 28, 1) and batch["inputs"].dtype == np.uint8
    assert batch["labels"].dtype == np.int32
    example = data.splits["train"][int(pipeline.block(5, 1)[0][3])]
    np.testing.assert_array_equal(example["inputs"], batch["inputs"][3])
    assert [int(data.splits["test"][i]["labels"]) for i in range(5)] == [2, 0, 4, 8, 7]


def test_records_equal_the_published_files(prepared):
    """Every tenth of the first 1,000 test digits is among the IDX file's, with its label; TFDS shuffles them."""
    from jaxdl.data.files import read_idx

    folder = data_path("mnist")
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1)
    published = {(image.tobytes(), int(label)) for image, label in zip(images, labels)}
    test = Tfds(memory_gib=0, standardize=False).load(str(prepared)).splits["test"]
    batch = test.take(np.arange(0, 1000, 10))
    assert all((i.tobytes(), int(l)) in published for i, l in zip(batch["inputs"], batch["labels"]))


def test_no_tensorflow_and_worker_processes(prepared):
    """In a process of its own: TensorFlow stays out, workers read the same batches, memory and disk agree."""
    program = f"""
import sys
import numpy as np
from jaxdl.data.tfds import Tfds
from jaxdl.data.pipeline import Pipeline

if __name__ == "__main__":
    flags = dict(train_split="test[:500]", validation_fraction=0.0, image_size=14)
    held = Tfds(**flags).load({str(prepared)!r})
    lazy = Tfds(**flags, memory_gib=0).load({str(prepared)!r})
    np.testing.assert_array_equal(held.mean, lazy.mean)
    pipelines = [Pipeline(data.splits["train"], batch_size=16, seed=1) for data in (held, lazy)]
    for step, batch in enumerate(pipelines[1].iterate(0, 4, num_workers=1)):
        np.testing.assert_array_equal(batch["inputs"], pipelines[0].batch(step)["inputs"])
        assert batch["inputs"].shape == (16, 14, 14, 1)
    assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    "flags, message",
    [
        (dict(name="mnit"), "TFDS has no dataset 'mnit'. Did you mean 'mnist'?"),
        (dict(name="cifar10"), "`python -m launch.prepare_data --name=cifar10 --data_dir={dir}`"),
        (dict(name="cifar10"), "pip install 'jaxdl[tfds]'"),
        (dict(name="mnist:2.0.0"), "'mnist:2.0.0' is not prepared"),
        (dict(name="tiny_shakespeare"), "is no image classification"),
        (dict(name="../mnist"), "is no TFDS name"),
        (dict(test_split="tst"), "has no split 'tst'. Did you mean 'test'?"),
        (dict(train_split="train[:x%]"), "cannot be opened"),
        (dict(image_key="img"), "--dataset.image_key must name one of kind Image"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(prepared, flags, message):
    with pytest.raises(InputError) as caught:
        Tfds(**flags, memory_gib=0).load(str(prepared))
    assert message.format(dir=prepared) in str(caught.value)
    assert "\n" not in str(caught.value)


def _remove_shard(folder):
    (folder / "mnist-train.array_record-00000-of-00001").unlink()


def _rename_incomplete(folder):
    folder.rename(folder.with_name("3.0.1.incompleteABC123_mnist"))


def _truncate_shard(folder):
    path = folder / "mnist-train.array_record-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1_000_000])


def _break_description(folder):
    (folder / "features.json").write_text('{"type')


def _remove_description(folder):
    (folder / "dataset_info.json").unlink()


def _other_format(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    for path in folder.glob("*.array_record*"):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))


@pytest.mark.parametrize(
    "damage, message",
    [
        (_remove_shard, "half prepared (no mnist-train.array_record-00000-of-00001)"),
        (_rename_incomplete, "half prepared"),
        (_truncate_shard, "cannot be opened"),
        (_break_description, "is damaged"),
        (_remove_description, "is damaged"),
        (_other_format, "prepared as tfrecord"),
    ],
)
def test_half_prepared_or_damaged(copy, damage, message):
    damage(copy / "mnist" / "3.0.1")
    with pytest.raises(InputError) as caught:
        Tfds(name="mnist", memory_gib=0, standardize=False).load(str(copy))
    assert message in str(caught.value)
    assert f"python -m launch.prepare_data --name=mnist --data_dir={copy}" in str(caught.value)


def test_damaged_record_is_named_while_reading(copy):
    path = copy / "mnist" / "3.0.1" / "mnist-train.array_record-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100_000:110_000] = bytes(10_000)
    path.write_bytes(content)
    data = Tfds(name="mnist", memory_gib=0, standardize=False).load(str(copy))
    with pytest.raises(RunError, match="mnist, split 'train'"):
        data.splits["train"].take(np.arange(2000))
