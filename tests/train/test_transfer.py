"""A run that begins with another's parameters, and vocabularies that must agree."""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxdl import experiment, weights
from jaxdl.errors import InputError
from jaxdl.train.record import read_metrics

COMMON = ["--plots=false", "--progress=off", "--tensorboard=false", "--mesh=data:1", "--batch_size=16"]
MLP = [*COMMON, "--model=mlp", "--model.widths=8,6", "--dataset=digits", "--model.normalization=batch"]


class OtherHead(nn.Module):
    """The first layers of an MLP under another head.

    Attributes:
      num_outputs: classes.
      width: units of the first layer.
    """

    num_outputs: int = 10
    width: int = 8

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        x = nn.Dense(self.width, use_bias=False, name="hidden0")(inputs.reshape(len(inputs), -1))
        return nn.Dense(self.num_outputs, name="head")(x)


class Lone(nn.Module):
    """A model that shares nothing.

    Attributes:
      num_outputs: classes.
    """

    num_outputs: int = 10

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        return nn.Dense(self.num_outputs, name="only")(inputs.reshape(len(inputs), -1))


def train(flags, workdir, **given):
    settings = experiment.parse([*flags, f"--workdir={workdir}"], given=tuple(given))
    return experiment.run(settings, **given)


def first_state(flags, initialize_from=None):
    """The state before the first step, as `run` makes it."""
    settings = experiment.parse([*flags, *([f"--initialize_from={initialize_from}"] if initialize_from else [])])
    program = experiment.build(settings)
    initial = experiment._initial(program, settings.trainer, pathlib.Path("/nowhere"))
    return program.init(0, program.pipeline(16).example(), initial)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run that keeps averaged parameters, and the state of its best step."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    train([*MLP, "--steps=20", "--eval_every=10", "--ema_decay=0.5"], workdir)
    _, _, _, _, state = experiment.restore(workdir)
    return workdir, jax.device_get(state)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_run_begins_with_all_that_is_the_same(source, capsys):
    workdir, state = source
    ours = first_state([*MLP, "--steps=5"], workdir)
    assert_equal(dict(ours.params), dict(state.ema))
    assert_equal(dict(ours.model_state), dict(state.model_state))
    assert capsys.readouterr().out.startswith("taken from step ")


def test_the_rest_begins_anew(source, capsys):
    workdir, state = source
    flags = [*COMMON, f"--model={__name__}:OtherHead", "--dataset=digits", "--steps=5"]
    ours, fresh = first_state(flags, workdir), first_state(flags)
    assert_equal(ours.params["hidden0"], state.ema["hidden0"])
    assert_equal(ours.params["head"], fresh.params["head"])
    assert "taken from step" in (told := capsys.readouterr().out) and "hidden0; begun anew: head" in told


def test_a_run_that_goes_on_has_its_own_parameters(source, tmp_path):
    workdir, _ = source
    flags = [*MLP, "--eval_every=4", "--log_every=2", f"--initialize_from={workdir}"]
    train([*flags, "--steps=4"], tmp_path / "run")
    (moved := workdir.with_name("moved")).exists() or workdir.rename(moved)
    try:
        train([*flags, "--steps=8"], tmp_path / "run")  # nothing is read from what is gone
    finally:
        moved.rename(workdir)
    train([*flags, "--steps=8"], tmp_path / "at once")
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "at once")


def test_trials_begin_with_it_and_train_as_alone(source, tmp_path):
    workdir, _ = source
    flags = [*MLP, "--optimizer=sgd", "--steps=4", "--eval_every=4", "--log_every=2", f"--initialize_from={workdir}"]
    trials = [["--learning_rate=0.01"], ["--learning_rate=0.02", "--seed=1"]]
    settings = [experiment.parse([*flags, *own, f"--workdir={tmp_path / str(i)}"]) for i, own in enumerate(trials)]
    experiment.run_trials(settings, tmp_path / "together")
    for index, own in enumerate(trials):
        train([*flags, *own], tmp_path / f"alone{index}")
        for ours, alone in zip(
            read_metrics(tmp_path / str(index)), read_metrics(tmp_path / f"alone{index}"), strict=True
        ):
            assert ours["loss"] == pytest.approx(alone["loss"], rel=2e-4)
    _, _, _, _, state = experiment.restore(tmp_path / "0")
    assert int(state.step) == 4


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--model=mlp", "--model.widths=9"],
            r"another architecture's: params/hidden0/bias is absent there and \[9\] in this model; "
            r"params/hidden0/kernel is \[64, 8\] there and \[64, 9\] in this model\.",
        ),
        ([f"--model={__name__}:Lone"], "has nothing in common with this model: it has hidden0, .*, and the model only"),
    ],
)
def test_another_architecture_is_told_array_by_array(source, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        first_state([*COMMON, *flags, "--dataset=digits", "--steps=5"], source[0])
    assert "\n" not in str(caught.value)


def test_a_safetensors_file(source, tmp_path, capsys):
    state = source[1]
    weights.save_safetensors(tmp_path / "weights.safetensors", state.params)
    ours, fresh = (first_state([*MLP, "--steps=5"], path) for path in (tmp_path / "weights.safetensors", None))
    assert_equal(dict(ours.params), dict(state.params))
    assert_equal(dict(ours.model_state), dict(fresh.model_state))
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read as a safetensors file"):
        first_state([*MLP, "--steps=5"], tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "name, message",
    [
        ("weights.pt", "a pickle may run code"),
        ("pytorch_model.bin", "a pickle may run code"),
        ("absent", "is no run directory and no .safetensors file"),
        ("absent.safetensors", "is no run directory and no .safetensors file"),
        ("", "it has no flags.txt"),
    ],
)
def test_what_holds_no_parameters_is_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        first_state([*MLP, "--steps=5"], tmp_path / name)


# Vocabularies.

TEXT = [*COMMON, "--model=tests.tasks.tiny_language_model:TinyLanguageModel", "--task=language_modeling"]
TEXT += ["--dataset=text", "--dataset.path=text.txt", "--dataset.length=8", "--steps=3"]


@pytest.fixture
def text_run(tmp_path):
    (tmp_path / "text.txt").write_text("abcd" * 40)
    flags = [*TEXT, f"--data_dir={tmp_path}"]
    train(flags, tmp_path / "run")
    return flags, tmp_path


def test_a_vocabulary_that_has_changed_is_refused(text_run):
    flags, folder = text_run
    assert json.loads((folder / "run" / "vocabulary.json").read_text())["characters"] == "abcd"
    (folder / "text.txt").write_text("abce" * 40)
    message = "run was trained with: 4 characters here, 4 there: 1 here alone, such as 'e', 1 there alone, such as 'd'"
    for use in (
        lambda: train([*flags, "--steps=6"], folder / "run"),
        lambda: experiment.evaluate(folder / "run", "validation"),
        lambda: train([*flags, f"--initialize_from={folder / 'run'}"], folder / "other"),
    ):
        with pytest.raises(InputError, match=message):
            use()
    assert not (folder / "other").exists()


def test_the_vocabulary_of_a_run_is_a_tokenizer_file(text_run):
    flags, folder = text_run
    (folder / "text.txt").write_text("dcba" * 40)
    flags = [*flags, f"--dataset.tokenizer={folder / 'run' / 'vocabulary.json'}", f"--initialize_from={folder / 'run'}"]
    train(flags, folder / "other")
    assert (folder / "other" / "vocabulary.json").read_text() == (folder / "run" / "vocabulary.json").read_text()
