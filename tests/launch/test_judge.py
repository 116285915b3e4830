"""launch.judge: what a classifier says of a run's images, as JSON, and one line for what is wrong."""

import json

import pytest

from jaxdl import experiment
from jaxdl.errors import InputError
from launch import judge

COMMON = ["--dataset=digits", "--steps=2", "--batch_size=8", "--plots=false", "--progress=off", "--mesh=data:1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    vae = [
        "--model=vae",
        "--model.widths=4",
        "--task=autoencoding",
        "--task.conditional",
        "--dataset.standardize=false",
    ]
    for name, flags in {"vae": vae, "mlp": ["--model=mlp", "--model.widths=4"]}.items():
        experiment.run(experiment.parse([*COMMON, *flags, f"--workdir={folder / name}", "--tensorboard=false"]))
    return folder


def test_a_judgement_is_printed_and_written(runs, capsys):
    arguments = [f"--workdir={runs / 'vae'}", f"--classifier={runs / 'mlp'}", "--samples=40", "--labels=1,2,3"]
    assert judge.main([*arguments, "--mesh=data:1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == json.loads((runs / "vae" / "samples" / "judgement.json").read_text())
    assert (runs / "vae" / "samples" / "judged.png").exists()
    assert told["images"] == sum(told["class_counts"]) == 40 and told["sampler"]["labels"] == [1, 2, 3]
    assert 0 <= told["accuracy"] <= 1 and 0.1 <= told["mean_max_probability"] <= 1
    # Digits of the other split are more like digits than what two steps of training make.
    assert 0 < told["fid_of_training_images"] < told["fid"]


def test_help_shows_the_flags_of_the_sampler(runs, capsys):
    assert judge.main([f"--workdir={runs / 'vae'}", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--classifier=" in told and "--samples=10000" in told and "--span=3.0" in told


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--workdir is not given: name the run directory of the generator"),
        (["--workdir={runs}/vae"], "--classifier is not given"),
        (["--workdir={runs}/vae", "--classifier={runs}/vae"], "is a run of autoencoding, no classifier"),
        (["--workdir={runs}/mlp", "--classifier={runs}/mlp"], "task 'classification' generates nothing"),
        (["--workdir={runs}/vae", "--classifier={runs}/mlp", "--split=dev"], "--split=dev: this dataset has train"),
        (["--workdir={runs}/vae", "--classifier={runs}/mlp", "--samples=1"], "--samples=1: expected .*at least 2"),
        (["--workdir={runs}/vae", "--classifier={runs}/mlp", "--labels=10"], "there is no class 10"),
        (["--workdir={runs}/vae", "--classifier={runs}/mlp", "--sapn=1"], "there is no flag --sapn"),
    ],
)
def test_one_line_for_what_is_wrong(runs, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        judge.main([*(argument.format(runs=runs) for argument in arguments), "--mesh=data:1"])
    assert "\n" not in str(caught.value)
