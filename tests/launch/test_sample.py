"""launch.sample: texts on the screen and in the run directory, and one line for what is wrong."""

import pytest

from jaxdl import experiment
from jaxdl.errors import InputError
from launch import sample


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    (folder / "text.txt").write_text("abcd\n" * 40)
    flags = ["--model=tests.tasks.tiny_language_model:TinyLanguageModel", "--task=language_modeling", "--dataset=text"]
    flags += [f"--data_dir={folder}", "--dataset.path=text.txt", "--dataset.length=8", "--steps=3", "--batch_size=8"]
    experiment.run(experiment.parse([*flags, f"--workdir={folder / 'run'}", "--progress=off", "--mesh=data:1"]))
    return folder / "run"


def test_samples_are_printed_and_written(run, capsys):
    assert (run / "samples" / "sample_2.txt").read_text().startswith("\n")  # of the run itself, from a line break on
    arguments = [f"--workdir={run}", "--prompt=ab", "--max_tokens=20", "--num_samples=1", "--mesh=data:1"]
    texts = []
    for seed in (0, 0, 1):
        assert sample.main([*arguments, f"--seed={seed}"]) == 0
        texts.append((run / "samples" / "sample_0.txt").read_text())
        told = capsys.readouterr().out
        assert texts[-1] in told and told.strip().endswith(f"step 3, written to {run / 'samples'}")
    assert len(texts[0]) == 22 and texts[0].startswith("ab")
    assert texts[0] == texts[1] != texts[2]


def test_help_shows_the_flags_of_the_task(run, capsys):
    assert sample.main([f"--workdir={run}", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--temperature=0.8" in told and "--checkpoint=best" in told and "below 1 prefers the probable" in told
    assert sample.main(["--help"]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--workdir is not given"),
        (["--workdir={run}/nothing"], "is no run directory"),
        (["--workdir={run}", "--prompt=x"], "character 'x'"),
        (["--workdir={run}", "--promt=a"], "there is no flag --promt.*sampler's flags are --prompt, --num_samples"),
        (["--workdir={run}", "--temperature=-1"], "--temperature=-1: expected a number, at least 0"),
        (["--workdir={run}", "--checkpoint=7"], "--checkpoint=7: expected best, latest, or one of the steps 3"),
    ],
)
def test_one_line_for_what_is_wrong(run, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        sample.main([argument.format(run=run) for argument in arguments])
    assert "\n" not in str(caught.value)


def test_a_task_that_generates_nothing_is_told(tmp_path):
    flags = ["--model=mlp", "--model.widths=4", "--dataset=digits", "--steps=1", "--plots=false", "--progress=off"]
    experiment.run(experiment.parse([*flags, f"--workdir={tmp_path}", "--mesh=data:1"]))
    with pytest.raises(InputError, match="task 'classification' generates nothing"):
        sample.main([f"--workdir={tmp_path}"])
