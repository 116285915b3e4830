"""The one command that needs TensorFlow says so in one line, and what it is asked wrongly in another."""

import importlib.util

import pytest

from launch import prepare_data


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "which dataset? --name=mnist"),
        (["--name=mnit"], "Did you mean 'mnist'?"),
        (["--nme=mnist"], "Did you mean '--name'?"),
        (["--name=mnist"], "pip install 'jaxdl[tfds]'"),
    ],
)
def test_one_line_and_status_2(argv, message, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorflow" else find(name, *a))
    assert prepare_data.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
