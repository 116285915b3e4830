"""`launch.ladder`: grids become sweeps, and what those sweeps train is read back as what was asked for."""

import json

import pytest

from jaxdl import config, experiment
from jaxdl.scaling import formulas
from jaxdl.scaling.flops import six_nd
from jaxdl.train.record import read_json
from launch import ladder, scaling_law
from launch.sweeps.axes import parse_axes
from launch.sweeps.plan import check_trials, grid_trials

BASE = """
--model=gpt
--model.max_length=16
--model.positions=rotary
--task=language_modeling
--dataset=stdlib
--dataset.max_bytes=100000
--dataset.length=16
--optimizer=adamw
--schedule=wsd
--schedule.warmup_steps=1
--batch_size=4
--eval_batch_size=64
--log_every=2
--eval_every=1000
--plots=false
--tensorboard=false
--progress=off
--mesh=data:1
--steps=2
"""
SMALL = ["--head_dim=4", "--aspect_ratio=8"]


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.flags"
    path.write_text(BASE)
    return path


def made(capsys, base, *flags):
    """The lines that the command prints, as arguments of a run, and its trials."""
    capsys.readouterr()
    assert ladder.main([f"--base={base}", *SMALL, *flags]) == 0
    text = capsys.readouterr().out
    (base.parent / "made.sweep.flags").write_text(text)
    arguments = config.expand_flagfiles([f"--flagfile={base.parent / 'made.sweep.flags'}"])
    axes = [argument.partition("=")[2] for argument in arguments if argument.startswith("--sweep=")]
    arguments = [argument for argument in arguments if not argument.startswith("--sweep=")]
    trials = grid_trials(parse_axes(axes, arguments), arguments)
    return text, arguments, trials


def test_an_isoflop_sweep_is_trained_and_read_as_what_was_asked_for(capsys, base, tmp_path):
    flags = ["--budgets=1e7,3e7", "--tokens_per_parameter=0.05", "--spacing=2", "--num_sizes=3", "--rate=inverse_width"]
    text, arguments, trials = made(capsys, base, *flags)
    assert len(trials) == 6 and text.startswith("# 6 runs of isoflop")
    settings = check_trials(arguments, trials)
    runs = tmp_path / "runs"
    for trial in trials:
        workdir = runs / trial.name
        result = experiment.run(experiment.parse([*trial.arguments(arguments), f"--workdir={workdir}"]))
        read = scaling_law.read_run(workdir, "validation", "loss")
        model = experiment.build(settings[trial.name], check=False).model
        budget = float(trial.values["flops_budget"])
        assert read.parameters == formulas.gpt_parameters(model)
        assert read.tokens[-1] == result.step * 4 * 16
        step = six_nd(read.parameters, 4 * 16)
        assert budget - step < six_nd(read.parameters, read.tokens[-1]) <= budget
        assert read.loss[-1] == result.metrics["validation"]["loss"]
    # One of them diverged, and one is not done: both are left out, and listed.
    for trial, state in zip(trials, ("diverged", "running")):
        path = runs / trial.name / "status.json"
        path.write_text(json.dumps({**read_json(path), "state": state}))
    capsys.readouterr()
    points = scaling_law.ScalingLaw(runs=(str(runs),), out=str(tmp_path / "law"))._from_runs()
    assert len(points.labels) == 4 and points.notes[0] == "4 runs"
    told = capsys.readouterr().err
    assert "diverged" in told and "running" in told and told.count("left out") == 2


def test_one_learning_rate_serves_all_sizes_by_maximal_updates(capsys, base):
    mup = ["--parametrization=mup", "--base_width=8", "--learning_rate=0.02", "--model.width=8", "--model.num_heads=2"]
    base.write_text(BASE + "\n".join(mup))
    _, arguments, trials = made(capsys, base, "--kind=isotoken", "--sizes=4e3,2e4,6e4", "--tokens=640")
    assert all("learning_rate" not in trial.values for trial in trials)
    widths = []
    for trial in trials:
        program = experiment.build(experiment.parse(trial.arguments(arguments)), check=False)
        widths.append(program.model.width)
        assert program.scales["layers/block0/mlp/hidden/kernel"].adam == pytest.approx(8 / widths[-1])
        assert program.update.learning_rate == 0.02
    assert len(set(widths)) == 3


def test_tokens_of_other_grids_become_steps(capsys, base):
    _, arguments, trials = made(capsys, base, "--kind=isotoken", "--sizes=4e3,2e4", "--tokens=640,1280")
    assert [trial.values["steps"] for trial in trials] == ["10", "10", "20", "20"]
    check_trials(arguments, trials)
    flags = ["--kind=isoparameter", "--sizes=4e3,2e4", "--tokens=640,1280", "--batch=step_law", "--rate=step_law"]
    _, arguments, trials = made(capsys, base, *flags)
    batch = [int(trial.values["batch_size"]) for trial in trials]
    assert [int(t.values["steps"]) for t in trials] == [int(d // (b * 16)) for b, d in zip(batch, [640, 1280] * 2)]
    check_trials(arguments, trials)


def test_branches_go_on_from_the_checkpoints_of_the_stable_runs(capsys, base, tmp_path):
    shared = ["--sizes=4e3", "--tokens=640,1280", "--decay_fraction=0.2"]
    _, arguments, [trial] = made(capsys, base, "--kind=stable", *shared)
    folder = tmp_path / "stable"
    stable = [*trial.arguments(arguments), f"--workdir={folder / 'trials' / trial.name}"]
    assert experiment.run(experiment.parse(stable)).step == 16
    _, arguments, trials = made(capsys, base, "--kind=branches", f"--stable={folder}", *shared)
    assert [(t.values["branch_step"], t.values["steps"]) for t in trials] == [("8", "10"), ("16", "20")]
    check_trials(arguments, trials)
    branch = [*trials[1].arguments(arguments), f"--workdir={tmp_path / 'branch'}"]
    assert experiment.run(experiment.parse(branch)).step == 20


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--base="], "whose ladder?"),
        ([], "takes --budgets"),
        (["--budgets=1e9"], "which sizes?"),
        (["--budgets=1e9", "--sizes=-1"], "must be positive"),
        (["--budgets=1e9", "--sizes=1e4", "--tokens_per_parameter=20"], "in place of --sizes"),
        (["--budgets=1e5", "--sizes=1e4"], "give more, or leave the largest sizes out"),
        (["--budgets=1e9", "--sizes=10"], "too small"),
        (["--budgets=1e9", "--sizes=1e4,1.001e4"], "one shape"),
        (["--kind=isotoken", "--sizes=1e4"], "takes --tokens"),
        (["--kind=branches", "--sizes=1e4", "--tokens=1e4"], "branches of what?"),
        (["--kind=stable", "--sizes=1e4", "--tokens=1e4,1.1e4"], "multiples of the fewest"),
        (["--kind=stable", "--sizes=1e4", "--tokens=10"], "less than a step"),
        (["--kind=stable", "--sizes=1e4", "--tokens=1e4", "--rate=deepseek"], "no rule that depends on them"),
    ],
)
def test_what_makes_no_ladder_is_one_line(capsys, base, flags, told):
    assert ladder.main([f"--base={base}", *SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_a_base_that_is_no_gpt_is_told(capsys, tmp_path):
    (tmp_path / "mlp.flags").write_text("--model=mlp\n--dataset=digits\n--epochs=1\n")
    assert ladder.main([f"--base={tmp_path / 'mlp.flags'}", "--budgets=1e9", "--sizes=1e4"]) == 2
    assert "is no run of a GPT on tokens: its model is MLP" in capsys.readouterr().err
