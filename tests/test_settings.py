"""Flags to settings: two phases, defaults of named sizes, and a flags.txt that repeats a run."""

import pytest

from jaxdl.errors import InputError
from jaxdl.settings import help_text, parse

MLP = ["--model=mlp", "--dataset=digits", "--steps=3"]


def test_flags_repeat_exactly(tmp_path):
    first = parse(
        [*MLP, "--model.widths=3,5", "--augment=gaussian_noise", "--learning_rate=0.12345678901", "--optimizer=lion"]
    )
    path = tmp_path / "flags.txt"
    path.write_text("".join(f"--{name}={value}\n" for name, value in first.flags.items()))
    again = parse([f"--flagfile={path}"])
    assert again.flags == first.flags
    assert again.values == first.values


def test_later_flags_override_a_flag_file(tmp_path):
    path = tmp_path / "base.flags"
    path.write_text("--epochs=5\n--learning_rate=0.5\n--model=mlp\n--dataset=digits\n")
    settings = parse([f"--flagfile={path}", "--steps=7", "--learning_rate=0.25", "--model=lenet5"])
    assert (settings.trainer.steps, settings.trainer.epochs) == (7, None)
    assert settings.values["update"]["learning_rate"] == 0.25
    assert settings.names["model"] == "lenet5"
    assert settings.title == "base"
    assert parse([f"--flagfile={path}"]).trainer.epochs == 5


def test_named_sizes_set_defaults_that_flags_change():
    assert parse(["--model=resnet50", "--dataset=digits", "--steps=1"]).values["model"]["stage_sizes"] == (3, 4, 6, 3)
    changed = parse(["--model=resnet50", "--dataset=digits", "--steps=1", "--model.stage_sizes=1,1"])
    assert changed.values["model"]["stage_sizes"] == (1, 1)


def test_the_environment_and_the_place_of_a_run_are_not_in_its_flags():
    flags = parse(
        [*MLP, "--workdir=/tmp/somewhere", "--num_processes=2", "--process_id=0", "--coordinator_address=a:1"]
    ).flags
    assert not {"workdir", "num_processes", "process_id", "coordinator_address"} & set(flags)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--model=mlpp", "--dataset=digits", "--steps=1"], "no model is called 'mlpp'. Did you mean 'mlp'?"),
        (["--model=mlp", "--dataset=digit", "--steps=1"], "no dataset is called 'digit'. Did you mean 'digits'?"),
        (["--model=mlp", "--steps=1"], "--dataset is not given"),
        ([*MLP, "--optimizer=adamm"], "no optimizer is called 'adamm'. Did you mean 'adam"),
        ([*MLP, "--schedule=cosin"], "Did you mean 'cosine'?"),
        ([*MLP, "--task=classify"], "Did you mean 'classification'?"),
        ([*MLP, "--augment=flop"], "Did you mean 'flip'?"),
        ([*MLP, "--augment=flip,flip"], "each augmentation can be named once"),
        ([*MLP, "--optimizer=sgd", "--optimizer.b1=0.5"], "optimizer 'sgd' has no flag --optimizer.b1; adam"),
        ([*MLP, "--stpes=4"], "there is no flag --stpes. Did you mean '--steps'?"),
        ([*MLP, "--steps=many"], "--steps=many: expected a whole number, at least 1, or none."),
        ([*MLP, "--model.dropout_rate=2"], "--model.dropout_rate=2: expected a number, at least 0"),
        ([*MLP, "--seed=4294967296"], "--seed=4294967296: expected a whole number, at least 0 and at most"),
        ([*MLP, "--batch_size=0"], "--batch_size=0: expected a whole number, at least 1."),
        (MLP[:2], "give --steps, --epochs or --flops_budget"),
        ([*MLP, "--profile_steps=5"], "--profile_steps: expected the first and the last step"),
        ([*MLP, "--flagfile=nowhere.flags"], "no such file"),
        (["--model=no.such.module:Net", "--dataset=digits", "--steps=1"], "cannot import no.such.module"),
        (["--model=jaxdl.models.mlp:Nothing", "--dataset=digits", "--steps=1"], "has no Nothing"),
    ],
)
def test_wrong_choices_are_told_in_one_line(argv, message):
    with pytest.raises(InputError) as caught:
        parse(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_shows_what_these_choices_take():
    text = help_text(["--model=mlp", "--dataset=digits", "--optimizer=sgd"])
    assert "--model.widths=" in text and "--optimizer.momentum=" in text and "--batch_size=" in text
    assert "--model.stage_sizes" not in text and "--optimizer.b1" not in text
    full = help_text([], full=True)
    assert "--model.stage_sizes=" in full and "--optimizer.b1=" in full and "--augment.crop.padding=" in full


def test_every_flag_has_help():
    lines = help_text([], full=True).splitlines()
    for flag, text in zip(lines, lines[1:]):
        if flag.startswith("  --"):
            assert text.strip() and not text.strip().startswith("("), f"{flag.strip()} has no help"


def test_every_flag_has_its_default_as_text():
    base = ["--model=mlp", "--dataset=digits", "--steps=10", "--augment=flip"]
    settings = parse(base)
    assert settings.defaults.keys() == settings.flags.keys()
    differ = {name for name, value in settings.flags.items() if value != settings.defaults[name]}
    assert differ == {"steps", "data_dir"}, "which is told as an absolute path"
    assert parse([*base, "--model.widths=3"]).defaults == settings.defaults
