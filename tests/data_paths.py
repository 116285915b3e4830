"""Where the real data that some tests read may be: in $JAXDL_TEST_DATA, or beside the repository."""

import os
import pathlib

import pytest


def data_path(name: str) -> pathlib.Path:
    """The folder or file of that name among the test data; the test is skipped, saying why, where there is none."""
    root = os.environ.get("JAXDL_TEST_DATA") or pathlib.Path(__file__).parents[1] / ".." / "shared" / "data"
    path = pathlib.Path(root).resolve() / name
    if not path.exists():
        pytest.skip(f"no {name} in the test data: JAXDL_TEST_DATA names the folder that holds it")
    return path
