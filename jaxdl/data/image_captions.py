"""Images with captions: tables of files and sentences, and labelled images whose sentences come from templates.

An example has `inputs`, uint8 [H, W, channels], `captions`, int32 [K, T], each ending with the end-of-text token and
padded with zeros, and `caption_lengths`, int32 [K], the end included; captions that an image lacks, the last ones, have
length 0. Labelled images keep their `labels`.
"""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxdl.data import files, image_folder, images, sources
from jaxdl.data.base import Data, moments
from jaxdl.data.files import folder_of
from jaxdl.data.sequences import pad
from jaxdl.data.splits import SplitFlags
from jaxdl.data.text import Document, TokenizerFlags, read_text
from jaxdl.data.tokenizers import Tokenizer
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeFloat, PositiveInt


@dataclasses.dataclass(frozen=True)
class _Captions(TokenizerFlags):
    """How captions become tokens.

    Attributes:
      max_length: longer captions are cut to so many tokens, the end-of-text token included.
    """

    tokenizer: str = "word"
    lowercase: bool = True
    max_length: PositiveInt = 77

    def caption_tokenizer(self, captions: Sequence[Document], data_dir: str) -> Tokenizer:
        """Of the training captions. Raises: InputError, where it has no end-of-text token."""
        tokenizer = self.make_tokenizer(captions, True, data_dir)
        if tokenizer.end_of_text is None:
            raise InputError(f"--dataset.tokenizer={self.tokenizer} has no end-of-text token, with which captions end.")
        return tokenizer

    def encode(self, captions: Sequence[Document], tokenizer: Tokenizer) -> list[np.ndarray]:
        """The ids of each caption, its end included. Raises: InputError for one without tokens, with its place."""
        encoded = []
        for caption in captions:
            try:
                tokens = tokenizer.encode(caption.text)
            except InputError as error:
                raise InputError(f"{caption.where}: {error}") from None
            if not len(tokens):
                raise InputError(f"{caption.where}: the caption has no token; every image must have words with it.")
            encoded.append(np.append(tokens[: self.max_length - 1], tokenizer.end_of_text))
        return encoded


@dataclasses.dataclass(frozen=True)
class ImageCaptions(SplitFlags, _Captions):
    """A CSV table of image files and captions, a line for each caption; an image may have several.

    Splits are of images: no image is in two of them.

    Attributes:
      path: the CSV file, relative to --data_dir, with a header line.
      image_dir: the folder of the images, relative to that of the table.
      image_column: the column of the images' file names.
      caption_column: the column of the captions.
      image_size: every image is resized to this height and width.
      color: rgb, or gray with one channel.
      standardize: each channel to mean 0 and standard deviation 1, by the statistics of the training split.
      memory_gib: splits whose decoded images take at most so many GiB are decoded once, at the start, and held.
    """

    path: str = ""
    image_dir: str = "images"
    image_column: str = "image"
    caption_column: str = "caption"
    image_size: PositiveInt = 64
    color: Literal["rgb", "gray"] = "rgb"
    standardize: bool = True
    memory_gib: NonNegativeFloat = 2.0

    def load(self, data_dir: str = "") -> Data:
        """Reads the table. The vocabulary is that of the training split.

        Raises:
          InputError: a pair with a missing half, by line; no such columns; a damaged image held in memory.
        """
        path = folder_of(data_dir, self.path)
        captions = self._read(path)
        names = list(captions)
        folder = path.parent / self.image_dir
        rows = self.split(sources.ArraySource({"rows": np.arange(len(names))}), test_fraction=self.test_fraction)
        chosen = {split: [names[row] for row in sources.materialize(part)["rows"]] for split, part in rows.items()}
        tokenizer = self.caption_tokenizer([c for name in chosen["train"] for c in captions[name]], data_dir)
        encoded = {name: self.encode(found, tokenizer) for name, found in captions.items()}
        count = max(map(len, encoded.values()))
        length = max(len(tokens) for of_image in encoded.values() for tokens in of_image)
        splits = {}
        for split, part in chosen.items():
            table = [_padded(encoded[name], count, length) for name in part]
            source = _CaptionedFiles([folder / name for name in part], table, self.image_size, self.color)
            splits[split] = sources.in_memory(source, self.memory_gib)
        mean, std = moments(splits["train"], limit=10_000) if self.standardize else (None, None)
        return Data(splits, mean=mean, std=std, tokenizer=tokenizer)

    def _read(self, path: pathlib.Path) -> dict[str, list[Document]]:
        """The captions of each image, in the order of the table. Raises: InputError, with the line."""
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        try:
            header, lines = reader.fieldnames or (), [(reader.line_num, line) for line in reader]
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num + 1}: {error}; a value with commas or quotes stands in quotes, those "
                "within it doubled."
            ) from None
        columns = (self.image_column, self.caption_column)
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(
                f"{path} has no column '{missing[0]}', but {', '.join(header)}: "
                "--dataset.image_column and --dataset.caption_column name the two."
            )
        found: dict[str, list[Document]] = {}
        for number, line in lines:
            where = f"{path}, line {number}"
            if None in line:  # where the csv module puts what is beyond the columns
                raise InputError(f"{where} has more values than the header; a caption with commas stands in quotes.")
            name, caption = ((line[column] or "").strip() for column in columns)
            if not name or not caption:
                here, lacking = ("caption", "image") if caption else ("image", "caption")
                told = f"'{caption or name}'" if caption or name else "no value"
                raise InputError(f"{where}: the {here} {told} has no {lacking}; every line must be a pair.")
            if name not in found and not (path.parent / self.image_dir / name).is_file():
                raise InputError(f"{where}: there is no image {path.parent / self.image_dir / name}.")
            found.setdefault(name, []).append(Document(caption, where))
        if not found:
            raise InputError(f"{path} has no lines of image and caption.")
        return found


class _CaptionedFiles:
    """Image files with their captions, decoded when they are read."""

    def __init__(self, paths: Sequence[pathlib.Path], captions, image_size: int, color: str):
        self.paths, self.captions = paths, captions
        self.image_size, self.channels = image_size, {"rgb": 3, "gray": 1}[color]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> sources.Example:
        path, (captions, lengths) = self.paths[index], self.captions[index]
        image = images.decode(path, self.channels, self.image_size, str(path))
        return {"inputs": image, "captions": captions, "caption_lengths": lengths}


@dataclasses.dataclass(frozen=True)
class _Templates(_Captions):
    """Sentences for labelled images: the class's name put into templates.

    Attributes:
      templates: sentences in which {} stands for the name of the class; each is a caption of all images.
    """

    templates: tuple[str, ...] = ("a photo of a {}", "an image of a {}", "a picture of a {}", "this is a {}")

    def captioned(self, data: Data, data_dir: str) -> Data:
        """Labelled data with captions. Raises: InputError for a template without {}, or data without classes."""
        wrong = [template for template in self.templates if template.count("{}") != 1]
        if wrong or not self.templates:
            told = f"'{wrong[0]}'" if wrong else "nothing"
            raise InputError(f"--dataset.templates has {told}: a template has {{}} once, for the class's name.")

        def sentence(template: str, name: str) -> Document:
            return Document(template.format(name), f"the template '{template}' of class '{name}'")

        sentences = [[sentence(template, name) for template in self.templates] for name in data.class_names]
        tokenizer = self.caption_tokenizer([sentence for of_class in sentences for sentence in of_class], data_dir)
        encoded = [self.encode(of_class, tokenizer) for of_class in sentences]
        length = max(len(tokens) for of_class in encoded for tokens in of_class)
        captions, lengths = map(np.stack, zip(*(_padded(of_class, len(of_class), length) for of_class in encoded)))
        splits = {name: _CaptionedByLabel(source, captions, lengths) for name, source in data.splits.items()}
        return dataclasses.replace(data, splits=splits, tokenizer=tokenizer)


class _CaptionedByLabel:
    """A labelled source with the captions of each example's class: captions [C, K, T], lengths [C, K]."""

    def __init__(self, source: sources.Source, captions: np.ndarray, lengths: np.ndarray):
        self.source, self.captions, self.lengths = source, captions, lengths

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> sources.Example:
        example = self.source[index]
        label = int(example["labels"])
        return example | {"captions": self.captions[label], "caption_lengths": self.lengths[label]}

    def take(self, indices: np.ndarray) -> sources.Batch:
        batch = sources.read(self.source, indices)
        labels = batch["labels"]
        return batch | {"captions": self.captions[labels], "caption_lengths": self.lengths[labels]}


@dataclasses.dataclass(frozen=True)
class IdxCaptions(_Templates, files.Idx):
    """MNIST's IDX files, each image with sentences of its class (--dataset=idx without them)."""

    def load(self, data_dir: str = "") -> Data:
        """Raises InputError as `Idx` and the templates do."""
        return self.captioned(super().load(data_dir), data_dir)


@dataclasses.dataclass(frozen=True)
class Cifar10Captions(_Templates, files.Cifar10Binary):
    """CIFAR-10's binary files, each image with sentences of its class (--dataset=cifar10_binary without them)."""

    def load(self, data_dir: str = "") -> Data:
        """Raises InputError as `Cifar10Binary` and the templates do."""
        return self.captioned(super().load(data_dir), data_dir)


@dataclasses.dataclass(frozen=True)
class ImageFolderCaptions(_Templates, image_folder.ImageFolder):
    """Images in a folder for each class, with sentences of their class (--dataset=image_folder without them)."""

    def load(self, data_dir: str = "") -> Data:
        """Raises InputError as `ImageFolder` and the templates do."""
        return self.captioned(super().load(data_dir), data_dir)


def _padded(encoded: Sequence[np.ndarray], count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Captions as int32 [count, length] and lengths int32 [count]; those that are not there are of length 0."""
    rows, lengths = pad(encoded, 0, length)
    missing = count - len(encoded)
    return np.pad(rows, ((0, missing), (0, 0))), np.pad(lengths, (0, missing))
