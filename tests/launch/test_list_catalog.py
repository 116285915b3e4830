"""`python -m launch.catalog`: its tables, and its answer to a wrong section."""

import subprocess
import sys

import pytest

from jaxdl.data import AUGMENTATIONS, DATASETS
from jaxdl.errors import InputError
from jaxdl.models import MODELS
from jaxdl.optimizers import OPTIMIZERS
from jaxdl.schedules import SCHEDULES
from jaxdl.tasks import TASKS
from launch import catalog


def rows(capsys, section):
    assert catalog.main([section]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_models(capsys, monkeypatch):
    few = ("linear_regression", "lenet5", "resnet20")
    monkeypatch.setattr("jaxdl.models.MODELS", {name: MODELS[name] for name in few})
    header, *lines = rows(capsys, "models")
    assert header.split() == ["name", "input", "parameters", "forward", "FLOPs"]
    assert [line.split()[:3] for line in lines] == [
        ["linear_regression", "10", "11"],
        ["lenet5", "28x28x1", "61,706"],
        ["resnet20", "32x32x3", "269,722"],
    ]
    assert lines[0].split()[3] == "21"
    # Numbers stand under one another.
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("section", "entries"),
    {
        "datasets": DATASETS,
        "tasks": TASKS,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "augmentations": AUGMENTATIONS,
    }.items(),
)
def test_each_entry_has_its_name_and_a_sentence(capsys, section, entries):
    lines = rows(capsys, section)
    assert [line.split()[0] for line in lines] == list(entries)
    assert all(len(line.split()) > 2 for line in lines)


def test_what_a_name_sets_is_shown(capsys):
    nadam = next(line for line in rows(capsys, "optimizers") if line.startswith("nadam"))
    assert nadam.endswith("[nesterov=True]")


def test_experiments(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "experiments"
    (folder / "vision").mkdir(parents=True)
    (folder / "vision" / "b.flags").write_text("# LeNet-5 on MNIST.\n# More.\n--model=lenet5\n")
    (folder / "a.flags").write_text("--model=mlp\n")
    (folder / "notes.md").write_text("# not a flag file\n")
    monkeypatch.setattr(catalog, "_EXPERIMENTS", folder)
    assert rows(capsys, "experiments") == ["experiments/a.flags", "experiments/vision/b.flags  LeNet-5 on MNIST."]


def test_no_experiments(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "_EXPERIMENTS", tmp_path)
    assert rows(capsys, "experiments") == ["There are no experiments."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model"], "no section is called 'model'. Did you mean 'models'?"),
        ([], "which section?"),
        (["models", "tasks"], "no section is called 'models tasks'."),
    ],
)
def test_wrong_section(arguments, message):
    with pytest.raises(InputError) as error:
        catalog.main(arguments)
    assert message in str(error.value) and "There are: models, " in str(error.value)


def test_wrong_section_on_the_command_line():
    command = [sys.executable, "-m", "launch.catalog", "model"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "Did you mean 'models'?" in result.stderr


def test_help(capsys):
    assert catalog.main(["--help"]) == 0
    assert "python -m launch.catalog models" in capsys.readouterr().out


def test_flops_of_models_that_are_named(capsys):
    assert catalog.main(["flops", "softmax_regression", "lenet5"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert "6 N D" in header and "without embeddings" in header and "XLA, compiled" in header
    name, _, parameters, inner, rule, products, _ = lines[0].split()
    assert (name, parameters, inner, rule) == ("softmax_regression", "7,850", "7,850", f"{6 * 7850:,}")
    assert products == f"{2 * 2 * 784 * 10:,}"  # forward, and the gradient of the weights; the inputs have none
    for wrong, told in (([], "of which models"), (["lenet6"], "lenet5")):
        with pytest.raises(InputError, match=told):
            catalog.main(["flops", *wrong])
