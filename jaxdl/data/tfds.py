"""Any image-classification dataset of TensorFlow Datasets, by its name there, read without TensorFlow.

A dataset is prepared once (`python -m launch.prepare_data`), in array_record files, which have random access. It is
read from those files alone: the code that made it is not imported, so its requirements are not needed.
"""

import dataclasses
import io
import os
import pathlib
import re

import numpy as np

from jaxdl.catalog import nearest
from jaxdl.data import images
from jaxdl.data.base import Data
from jaxdl.data.sources import stack
from jaxdl.data.splits import SplitFlags
from jaxdl.errors import InputError, RunError
from jaxdl.types import PositiveInt

_DEFAULT_DIR = "~/tensorflow_datasets"  # TFDS's own


@dataclasses.dataclass(frozen=True)
class Tfds(SplitFlags, images.ImageFlags):
    """A prepared TFDS dataset: images uint8 [B, H, W, C], labels int32 [B].

    Attributes:
      name: its TFDS name: mnist, or name/config, or name:version. https://www.tensorflow.org/datasets/catalog
      train_split: the split that trains and gives up the validation part; TFDS slices are allowed (train[:80%]).
      test_split: the split that tests. none: "test", or else "validation", or else test_fraction of train_split.
      image_size: images are resized to this height and width; needed where they differ in size.
      image_key: feature that is the image. none: what the dataset declares.
      label_key: feature that is the label. none: what the dataset declares.
      test_fraction: part of train_split that becomes "test", where the dataset has no split to test on.
    """

    name: str = "mnist"
    train_split: str = "train"
    test_split: str | None = None
    image_size: PositiveInt | None = None
    image_key: str | None = None
    label_key: str | None = None

    def load(self, data_dir: str = "") -> Data:
        """Opens the prepared files under `data_dir` (empty: ~/tensorflow_datasets).

        Raises:
          InputError: an unknown, unprepared or half-prepared dataset, or one that is no image classification.
        """
        builder = open_prepared(self.name, data_dir)
        image_key, label_key = self._keys(builder)
        classes = builder.info.features[label_key]
        names = tuple(classes.names or map(str, range(classes.num_classes)))
        image = builder.info.features[image_key]
        if image.np_dtype != np.uint8:
            raise InputError(f"the images of {self.name} are {image.np_dtype}, not bytes.")
        if None in image.shape[:2] and self.image_size is None:
            raise InputError(f"the images of {self.name} differ in size: give --dataset.image_size, such as 64.")

        def source(split: str):
            records = data_source(builder, split, self.name, data_dir)
            what = f"{self.name}, split '{split}'"
            records = _Records(records, what, image_key, label_key, image.shape[-1] or 3, self.image_size)
            return images.hold(records, split, classes.num_classes, self.memory_gib)

        test_split = self.test_split or next((s for s in ("test", "validation") if s in builder.info.splits), None)
        for split in filter(None, (self.train_split, test_split)):
            check_files(builder, split, self.name, data_dir)
        pool = source(self.train_split)
        splits = self.split(pool, images.labels_at_hand(pool), 0.0 if test_split else self.test_fraction)
        if test_split:
            splits["test"] = source(test_split)
        return self.data(splits, names)

    def _keys(self, builder) -> tuple[str, str]:
        """The names of the image and label features."""
        features = builder.info.features
        kinds = {key: type(feature).__name__ for key, feature in features.items()}
        declared = builder.info.supervised_keys or (None, None)

        def key(given: str | None, declared: str | None, kind: str, flag: str) -> str:
            found = [key for key in kinds if kinds[key] == kind]
            chosen = given or (declared if declared in found else found[0] if len(found) == 1 else None)
            if chosen not in found:
                raise InputError(
                    f"{self.name} is no image classification as it stands: features {kinds}, of which"
                    f" --dataset.{flag} must name one of kind {kind}."
                )
            return chosen

        return (
            key(self.image_key, declared[0], "Image", "image_key"),
            key(self.label_key, declared[-1], "ClassLabel", "label_key"),
        )


class _Records:
    """A TFDS data source as a `Source` of `inputs` and `labels`; images are decoded by Pillow."""

    def __init__(self, records, what: str, image_key: str, label_key: str, channels: int, image_size: int | None):
        self.records, self.what, self.image_key, self.label_key = records, what, image_key, label_key
        self.channels, self.image_size = channels, image_size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._examples([index])[0]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return stack(self._examples([int(index) for index in indices]))

    def _examples(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        try:
            found = self.records.__getitems__(indices)
        except Exception as error:  # array_record and protocol buffers each raise their own for damaged bytes
            raise RunError(f"{self.what}: records {indices[:3]}, ... cannot be read: {error}.") from error
        return [self._example(record, index) for record, index in zip(found, indices)]

    def _example(self, record, index: int) -> dict[str, np.ndarray]:
        file = io.BytesIO(record[self.image_key])
        image = images.decode(file, self.channels, self.image_size, f"{self.what}: record {index}")
        return {"inputs": image, "labels": np.int32(record[self.label_key])}


def _folder(data_dir: str) -> pathlib.Path:
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or _DEFAULT_DIR).expanduser()


def prepare_command(name: str, data_dir: str) -> str:
    """What a person types to download and prepare a dataset."""
    return f"python -m launch.prepare_data --name={name}" + (f" --data_dir={data_dir}" if data_dir else "")


def check_name(name: str) -> None:
    """Raises InputError for a name that TFDS does not know, with the nearest that it does."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    base = re.split(r"[/:]", name)[0]
    if base not in known:
        raise InputError(
            f"TFDS has no dataset '{base}'.{nearest(base, known)}"
            " https://www.tensorflow.org/datasets/catalog lists them."
        )


def _refuse(name: str, data_dir: str, reason: str):
    raise InputError(
        f"TFDS dataset '{name}' {reason} in {_folder(data_dir)}. `{prepare_command(name, data_dir)}` downloads and"
        " prepares it, once; that needs `pip install 'jaxdl[tfds]'`."
    )


def open_prepared(name: str, data_dir: str):
    """The builder of a prepared dataset, made from its files.

    They lie in DIR/name/version or DIR/name/config/version; the latest version is taken where none is given.
    """
    import tensorflow_datasets as tfds

    matched = re.fullmatch(r"([\w-]+)(?:/([^:]+))?(?::([\d.]+))?", name)
    if not matched:
        raise InputError(f"'{name}' is no TFDS name: it is NAME, NAME/CONFIG or NAME:VERSION.")
    base, config, wanted = matched.groups()
    folder = _folder(data_dir) / base
    if not config and folder.is_dir() and not _versions(folder):
        configs = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and _versions(child)]
        if len(configs) > 1:
            raise InputError(f"{base} is prepared in several configs: give --dataset.name={base}/X, X of {configs}.")
        config = configs[0] if configs else None
    folder = folder / config if config else folder
    versions = [version for version in _versions(folder) if wanted in (None, version)]
    if not versions:
        if not folder.is_dir():
            check_name(name)
        began = folder.is_dir() and any("incomplete" in child.name for child in folder.iterdir())
        _refuse(name, data_dir, "was left half prepared" if began else "is not prepared")
    latest = max(versions, key=lambda version: tuple(map(int, version.split("."))))
    try:
        builder = tfds.builder_from_directory(folder / latest)
        number = len(builder.info.splits)
    except Exception as error:  # truncated or missing JSON: TFDS has no error of its own for it
        _refuse(name, data_dir, f"is damaged ({type(error).__name__} in its description)")
    if not number:
        _refuse(name, data_dir, "has no split")
    return builder


def _versions(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [p.name for p in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and any(p.glob("*.json"))]


def check_files(builder, split: str, name: str, data_dir: str) -> None:
    """Refuses a split that is not there, or whose files are not."""
    base = re.split(r"[\[+]", split)[0]
    if base not in builder.info.splits:
        splits = ", ".join(builder.info.splits)
        raise InputError(f"{name} has no split '{base}'.{nearest(base, builder.info.splits)} It has {splits}.")
    missing = [path.name for path in builder.info.splits[base].filepaths if not path.exists()]
    if missing:
        _refuse(name, data_dir, f"was left half prepared (no {missing[0]})")


def data_source(builder, split: str, name: str, data_dir: str):
    """Random access to the records of a split, images still encoded."""
    from tensorflow_datasets import decode

    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        found = file_format.value if file_format else "an unknown format"
        _refuse(name, data_dir, f"is prepared as {found}, which has no random access: delete it and prepare it anew;")
    try:
        kinds = {key: type(feature).__name__ for key, feature in builder.info.features.items()}
        decoders = {key: decode.SkipDecoding() for key, kind in kinds.items() if kind == "Image"}
        records = builder.as_data_source(split, decoders=decoders)
        if len(records):
            records[0]  # it is the first read that opens the files
        return records
    except Exception as error:  # array_record raises RuntimeError for a truncated file, TFDS ValueError for a slice
        _refuse(name, data_dir, f"cannot be opened, split '{split}' ({str(error).splitlines()[0]})")
