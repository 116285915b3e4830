"""The vocabulary that a run was trained with: a file of its directory, with which that of the data is compared."""

import pathlib

from jaxdl.data.base import Data
from jaxdl.data.tokenizers import difference
from jaxdl.errors import InputError
from jaxdl.train.record import RunDirectory

FILES = {"tokenizer": "vocabulary.json", "target_tokenizer": "target_vocabulary.json"}
"""Where each tokenizer of a `Data` stands."""


def write(record: RunDirectory, data: Data) -> None:
    """Writes what makes the data's tokenizers again."""
    for name, file in FILES.items():
        if getattr(data, name) is not None:
            record.file(file, getattr(data, name).to_json())


def check(run: pathlib.Path, data: Data) -> None:
    """Compares the data's vocabularies with those in a run directory, where both have one.

    Raises:
      InputError: they differ; a line says how.
    """
    for name, file in FILES.items():
        path = run / file
        if getattr(data, name) is None or not path.exists():
            continue
        told = difference(getattr(data, name).to_json(), path.read_text(encoding="utf-8"))
        if told:
            raise InputError(f"the vocabulary differs from the one that {run} was trained with: {told}.")
