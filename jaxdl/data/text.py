"""Texts to learn a language from: files of one's own, TFDS texts, or the Python standard library's sources.

A split is a list of documents. They are joined into one stream that windows are cut from (`packing=windows`), or packed
into rows that keep them apart (`packing=documents`); `jaxdl.data.windows` says what the examples are.
"""

import dataclasses
import pathlib
import re
import sysconfig
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdl.data import tfds
from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.sources import Source
from jaxdl.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer, WordTokenizer, read_tokenizer
from jaxdl.data.windows import ConsecutiveWindows, PackedDocuments, Windows, compact
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt, Rate

END_MARK = "<|endoftext|>"
"""What stands between documents in the files of several text collections, those made for GPT-2 among them."""


class Document(NamedTuple):
    """A text, and for messages where it is from."""

    text: str
    where: str


Documents = Sequence[Document]


@dataclasses.dataclass(frozen=True)
class TokenizerFlags:
    """How text becomes tokens.

    Attributes:
      tokenizer: byte, character or word (of the training text), or the path of a Hugging Face tokenizer.json or of a
        run's vocabulary.json, relative to --data_dir.
      min_count: words that the training text has less often become <unk>.
      max_vocabulary: ids of a word tokenizer at most, the most frequent words; none takes all.
      special_tokens: ids that a word tokenizer has beside its words, such as [MASK].
      lowercase: whether a word tokenizer reads texts in lower case.
    """

    tokenizer: str = "character"
    min_count: PositiveInt = 1
    max_vocabulary: PositiveInt | None = None
    special_tokens: tuple[str, ...] = ()
    lowercase: bool = False

    def make_tokenizer(self, documents: Documents, end_of_text: bool, data_dir: str) -> Tokenizer:
        """The tokenizer of a training split; from a file, whatever that has.

        Raises:
          InputError: no such file, or flags of words for another tokenizer.
        """
        of_words = self.min_count > 1 or self.max_vocabulary or self.special_tokens or self.lowercase
        if self.tokenizer != "word" and of_words:
            raise InputError(
                "--dataset.min_count, max_vocabulary, special_tokens and lowercase are for --dataset.tokenizer=word, "
                f"not {self.tokenizer}."
            )
        if self.tokenizer == "byte":
            return ByteTokenizer(end_of_text)
        texts = [document.text for document in documents]
        if self.tokenizer == "character":
            return CharacterTokenizer.of("".join(texts), end_of_text)
        if self.tokenizer == "word":
            return WordTokenizer.of(
                "\n".join(texts), self.min_count, self.max_vocabulary, end_of_text, self.special_tokens, self.lowercase
            )
        return read_tokenizer(pathlib.Path(data_dir).expanduser() / pathlib.Path(self.tokenizer).expanduser())


@dataclasses.dataclass(frozen=True)
class LanguageFlags(TokenizerFlags):
    """How documents become examples.

    Attributes:
      length: tokens of an example.
      packing: windows of the joined documents, which begin at any token in training and follow one another in
        evaluation; or whole documents packed into rows, with segments that attention does not cross. Windows count
        an epoch as one window from each token on, which is `length` passes over the text: give --steps.
    """

    length: PositiveInt = 128
    packing: Literal["windows", "documents"] = "windows"

    def data(self, splits: Mapping[str, Documents], data_dir: str = "") -> Data:
        """The splits as examples, and their tokenizer, made from the training split.

        Several documents are ended by the tokenizer's end-of-text token.

        Raises:
          InputError: a split that is too short, or has characters that the training split has not.
        """
        several = self.packing == "documents" or any(len(documents) > 1 for documents in splits.values())
        tokenizer = self.make_tokenizer(splits["train"], several, data_dir)
        sources = {name: self._source(name, documents, tokenizer, several) for name, documents in splits.items()}
        return Data(sources, tokenizer=tokenizer)

    def _source(self, split: str, documents: Documents, tokenizer: Tokenizer, several: bool) -> Source:
        end = [tokenizer.end_of_text] if several and tokenizer.end_of_text is not None else []
        encoded = [_encode(document, tokenizer, end) for document in documents]
        number = sum(map(len, encoded))
        bytes_per_token = sum(len(document.text.encode()) for document in documents) / max(number, 1)
        if self.packing == "documents":
            packed = PackedDocuments(encoded, self.length, bytes_per_token)
            if not len(packed):
                raise InputError(f"split '{split}': no document has two tokens, so that there is nothing to predict.")
            return packed
        needed = self.length + 1 if split == "train" else 2
        if number < needed:
            raise InputError(
                f"split '{split}' has {number} tokens, but a window takes {needed} "
                f"(--dataset.length={self.length} and the one that follows): lower --dataset.length, or give more text."
            )
        tokens = np.concatenate(encoded)
        if split == "train":
            return Windows(tokens, self.length)
        return ConsecutiveWindows(tokens, self.length, bytes_per_token)


@dataclasses.dataclass(frozen=True)
class Text(LanguageFlags):
    """Text files of one's own, UTF-8: inputs, targets int32 [B, T], token_weight float32 [B, T].

    Attributes:
      path: a file, or a folder of files, relative to --data_dir.
      validation_path: the file or folder that validates. none: the last validation_fraction of path.
      test_path: the file or folder that tests. none: the last test_fraction of path.
      validation_fraction: part of the characters of path, from the end or before the test part. none: 0.1, or 0 with
        a validation_path.
      test_fraction: part of the characters of path, from the end.
      documents: where one ends: with its file; at a blank line; with each line; or at the mark <|endoftext|>.
      pattern: which files of a folder, those of its folders included.
    """

    path: str = ""
    validation_path: str | None = None
    test_path: str | None = None
    validation_fraction: Rate | None = None
    test_fraction: Rate = 0.0
    documents: Literal["file", "blank_line", "line", "mark"] = "file"
    pattern: str = "*.txt"

    def load(self, data_dir: str = "") -> Data:
        """Reads the files.

        Raises:
          InputError: a file that is missing, empty or no UTF-8, an empty folder, a text that is too short.
        """
        for name in ("validation", "test"):
            if getattr(self, f"{name}_path") is not None and getattr(self, f"{name}_fraction"):
                raise InputError(f"give --dataset.{name}_path or --dataset.{name}_fraction, not both.")
        fraction = self.validation_fraction
        if fraction is None:
            fraction = 0.1 if self.validation_path is None else 0.0
        splits = split_documents(self._read(data_dir, self.path), fraction, self.test_fraction)
        for name, path in (("validation", self.validation_path), ("test", self.test_path)):
            if path is not None:
                splits[name] = self._read(data_dir, path)
        return self.data(splits, data_dir)

    def _read(self, data_dir: str, path: str) -> Documents:
        place = folder_of(data_dir, path)
        files = [place] if place.is_file() else sorted(file for file in place.rglob(self.pattern) if file.is_file())
        if not files:
            raise InputError(f"folder {place} has no file {self.pattern}; --dataset.pattern says which to take.")
        return [document for file in files for document in divide(read_text(file), str(file), self.documents)]


@dataclasses.dataclass(frozen=True)
class TfdsText(LanguageFlags):
    """A prepared TFDS dataset of texts, each of its records a document.

    Attributes:
      name: its TFDS name: tiny_shakespeare, or name/config, or name:version.
      text_key: the feature that is the text. none: the only one that is.
      train_split: the split that trains; TFDS slices are allowed (train[:80%]).
      validation_split: the split that validates. none: "validation" where there is one, or else the last
        validation_fraction of train_split.
      test_split: the split that tests. none: "test" where there is one.
      validation_fraction: part of the characters of train_split, where there is no split to validate on.
    """

    name: str = "tiny_shakespeare"
    text_key: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: Rate = 0.1

    def load(self, data_dir: str = "") -> Data:
        """Reads the prepared files under `data_dir` (empty: ~/tensorflow_datasets).

        Raises:
          InputError: an unknown, unprepared or half-prepared dataset, or one without texts.
        """
        builder = tfds.open_prepared(self.name, data_dir)
        kinds = {key: type(feature).__name__ for key, feature in builder.info.features.items()}
        texts = [key for key, kind in kinds.items() if kind == "Text"]
        key = self.text_key or (texts[0] if len(texts) == 1 else None)
        if key not in texts:
            raise InputError(f"{self.name} has features {kinds}: --dataset.text_key must name one of kind Text.")

        def read(split: str) -> Documents:
            tfds.check_files(builder, split, self.name, data_dir)
            records = tfds.data_source(builder, split, self.name, data_dir)
            texts = [(records[number][key], f"{self.name}, {split}, record {number}") for number in range(len(records))]
            return [Document(decode(text, where), where) for text, where in texts if text]

        named = {"validation": self.validation_split, "test": self.test_split}
        held = {split: name or (split if split in builder.info.splits else None) for split, name in named.items()}
        fraction = self.validation_fraction if held["validation"] is None else 0.0
        splits = split_documents(read(self.train_split), fraction)
        return self.data(splits | {split: read(name) for split, name in held.items() if name}, data_dir)


@dataclasses.dataclass(frozen=True)
class StandardLibrary(LanguageFlags):
    """The sources of Python's standard library, as this interpreter has them: text that needs no download.

    Its modules come first, then those of its packages, by name; tests and what an installation adds are left out. The
    text changes with Python's version.

    Attributes:
      max_bytes: files are taken while they are not more than so many bytes together.
      validation_fraction: part of the characters that validates, from the end.
      test_fraction: part of the characters that tests, from the end.
    """

    tokenizer: str = "byte"
    max_bytes: PositiveInt = 2_000_000
    validation_fraction: Rate = 0.1
    test_fraction: Rate = 0.0

    def load(self, data_dir: str = "") -> Data:
        """Reads the sources. Raises: InputError, when the first of them is larger than `max_bytes`."""
        root = pathlib.Path(sysconfig.get_path("stdlib"))
        left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
        files = [file.relative_to(root) for file in root.rglob("*.py")]
        files = [file for file in files if not left_out & set(file.parts) and not file.name.startswith("_sysconfig")]
        documents, size = [], 0
        for file in sorted(files, key=lambda file: (len(file.parts), str(file))):
            size += (root / file).stat().st_size
            if size > self.max_bytes:
                break
            if (root / file).stat().st_size:  # the __init__.py of some packages has nothing in it
                documents.append(Document(read_text(root / file), str(file)))
        if not documents:
            raise InputError(f"--dataset.max_bytes={self.max_bytes} is less than the first file of {root} has.")
        return self.data(split_documents(documents, self.validation_fraction, self.test_fraction), data_dir)


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file, line ends as they are, without a byte order mark.

    Raises:
      InputError: it cannot be read, is empty, or is no UTF-8 (with the byte offset).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    text = decode(content, str(path)).removeprefix("\ufeff")
    if not text:
        raise InputError(f"{path} is empty.")
    return text


def decode(content: bytes, where: str) -> str:
    """Bytes as text. Raises: InputError, when they are no UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} ({error.reason})."
        ) from None


def divide(text: str, where: str, documents: str) -> Documents:
    """A file's text as documents.

    Args:
      documents: what ends one: "file", "blank_line", "line" or "mark". Blank lines between lines are passed over.

    Raises:
      InputError: an empty document.
    """
    if documents == "file":
        return [Document(text, where)]
    if documents == "mark":
        parts = text.split(END_MARK)
        parts = parts[:-1] if not parts[-1].strip() else parts  # the last may be ended by a mark
        empty = [number for number, part in enumerate(parts) if not part.strip()]
        if empty:
            raise InputError(f"{where}: document {empty[0]} (from 0) of {len(parts)} is empty.")
    else:
        blank = r"\r?\n" if documents == "line" else r"\r?\n(?:[ \t]*\r?\n)+"
        parts = [part for part in re.split(blank, text) if part.strip()]
        if not parts:
            raise InputError(f"{where} has nothing but blank lines.")
    return [Document(part, f"{where}, document {number}") for number, part in enumerate(parts)]


def split_documents(
    documents: Documents, validation_fraction: float, test_fraction: float = 0.0
) -> dict[str, Documents]:
    """The last parts of the text, by characters, validate and test. A document across a border is cut there.

    Returns:
      "train", and "validation" and "test" where their fractions are not 0.

    Raises:
      InputError: a fraction of so short a text is nothing.
    """
    lengths = [len(document.text) for document in documents]
    total = sum(lengths)
    # Rounded, so that 1 - 0.3 - 0.2 of ten characters is five of them.
    shares = (0.0, 1 - validation_fraction - test_fraction, 1 - test_fraction, 1.0)
    borders = [int(round(total * share, 6)) for share in shares]
    splits = {}
    for name, start, end in zip(("train", "validation", "test"), borders, borders[1:]):
        if name != "train" and {"validation": validation_fraction, "test": test_fraction}[name] == 0:
            continue
        splits[name], place = [], 0
        for document, length in zip(documents, lengths, strict=True):
            first, last = max(start - place, 0), min(end - place, length)
            if first < last:
                whole = (first, last) == (0, length)
                where = document.where if whole else f"{document.where}, from character {first} on"
                splits[name].append(document if whole else Document(document.text[first:last], where))
            place += length
        if not splits[name]:
            raise InputError(f"split '{name}' is empty: a text of {total} characters is too short for these fractions.")
    return splits


def _encode(document: Document, tokenizer: Tokenizer, end: list[int]) -> np.ndarray:
    try:
        tokens = tokenizer.encode(document.text)
    except InputError as error:
        raise InputError(f"{document.where}: {error}") from None
    return compact(np.append(tokens, np.array(end, np.int32)), tokenizer.vocab_size)
