"""The trials of a sweep: which there are, what they are called, whether they can run, and what they cost."""

import itertools
import math
import re

import pytest

from jaxdl.errors import InputError
from jaxdl.settings import parse
from launch.sweeps import plan
from launch.sweeps.axes import parse_axes
from launch.sweeps.plan import check_trials, cost, dry_run, grid_trials, make_trial, probe_trials, random_trials

BASE = ["--model=mlp", "--model.widths=8", "--dataset=digits", "--steps=20", "--batch_size=32"]
MODELS = ["model=mlp,lenet5,linear_regression", "model.widths=(8),(8,8) if model=mlp", "seed=0..2"]


def trials_of(*texts, base=BASE):
    return grid_trials(parse_axes(texts, base), base)


def values_of(trials):
    return [tuple(trial.values.values()) for trial in trials]


# Which trials there are.


def test_a_grid_is_the_product_with_the_first_axis_slowest():
    trials = trials_of("learning_rate=0.1,0.01", "seed=0..2", "model.activation=relu,tanh")
    assert values_of(trials) == list(itertools.product(("0.1", "0.01"), ("0", "1", "2"), ("relu", "tanh")))
    assert list(trials[0].values) == ["learning_rate", "seed", "model.activation"]
    assert trials[1].arguments(BASE) == [*BASE, "--learning_rate=0.1", "--seed=0", "--model.activation=tanh"]


def test_a_conditional_axis_multiplies_only_where_it_holds():
    trials = trials_of(*MODELS)
    assert len(trials) == (2 + 1 + 1) * 3
    assert [("model.widths" in trial.values) for trial in trials[::3]] == [True, True, False, False]


def test_a_condition_on_a_later_axis_changes_nothing_of_the_order():
    trials = trials_of("model.widths=(8),(8,8) if model=mlp", "seed=0..1", "model=mlp,lenet5")
    assert values_of(trials) == [
        ("0", "lenet5"),
        ("1", "lenet5"),
        ("8", "0", "mlp"),
        ("8", "1", "mlp"),
        ("8,8", "0", "mlp"),
        ("8,8", "1", "mlp"),
    ]


def test_a_condition_on_a_conditional_axis():
    trials = trials_of("a=1,2", "b=1,2 if a=1", "c=1,2 if b=2")
    assert values_of(trials) == [("1", "1"), ("1", "2", "1"), ("1", "2", "2"), ("2",)]


def test_zipped_axes_are_one_factor():
    trials = trials_of("learning_rate=0.1,0.01 with batch_size=64,32", "seed=0..1")
    assert values_of(trials) == [("0.1", "64", "0"), ("0.1", "64", "1"), ("0.01", "32", "0"), ("0.01", "32", "1")]


@pytest.mark.parametrize("text", ["learning_rate=uniform(0,1)", "model=choice(mlp,lenet5)"])
def test_a_grid_cannot_run_through_what_is_drawn(text):
    with pytest.raises(InputError, match="--search=random --trials=20"):
        trials_of(text)


def test_a_grid_that_is_too_large_is_refused_before_memory_is_full():
    with pytest.raises(InputError, match="more than 100,000 trials"):
        trials_of("a=0..9999", "b=0..9999", "c=0..9999")


DRAWN = ["learning_rate=loguniform(1e-4,1e-1)", "model=choice(mlp,lenet5)", "model.widths=(8),(8,8) if model=mlp"]


def test_more_random_trials_begin_with_the_same_ones():
    axes = parse_axes(DRAWN)
    many = random_trials(axes, (), 60, seed=3)
    assert random_trials(axes, (), 25, seed=3) == many[:25]
    assert random_trials(axes, (), 25, seed=4) != many[:25]
    assert len({trial.name for trial in many}) == 60
    assert all(("model.widths" in trial.values) == (trial.values["model"] == "mlp") for trial in many)
    # Of two models each is drawn 30 ± 3.9 times (binomial).
    assert 10 < sum(trial.values["model"] == "mlp" for trial in many) < 50


def test_as_many_random_trials_as_there_are_are_all_of_them():
    axes = parse_axes(["model=mlp,lenet5", "seed=randint(0,3)", "model.widths=(8),(8,8) if model=mlp"])
    trials = random_trials(axes, (), 12, seed=0)
    assert len({trial.name for trial in trials}) == 12
    with pytest.raises(InputError, match="--trials=13: the axes make only 12 different trials"):
        random_trials(axes, (), 13, seed=0)


def test_draws_that_are_rounded_to_the_same_text_do_not_go_on_for_ever(monkeypatch):
    monkeypatch.setattr(plan, "_REDRAWS", 50)
    with pytest.raises(InputError, match="hardly any is left"):
        random_trials(parse_axes(["learning_rate=uniform(0.1,0.1000001)"]), (), 10, seed=0)


@pytest.mark.parametrize("texts", [MODELS, DRAWN, ["a=1..3", "b=1,2 if a=3", "c=randint(1,9) if b=2"]])
def test_probes_have_every_value_and_both_ends(texts):
    axes = parse_axes(texts)
    probes = probe_trials(axes)
    for axis in axes:
        for column in axis.columns:
            wanted = set(column.values or axis.distribution.ends())
            assert {trial.values[column.flag] for trial in probes if column.flag in trial.values} == wanted
    assert len({trial.name for trial in probes}) == len(probes)
    # A value of a conditional axis stands only where its condition holds.
    assert all(axis.holds(t.values) for axis in axes for t in probes if axis.flags[0] in t.values)


# What they are called.


@pytest.mark.parametrize(
    "values, name",
    [
        ({"learning_rate": "0.001", "seed": "3"}, "learning_rate=0.001__seed=3"),
        ({"model.widths": "64,64"}, "model.widths=64+64"),
        ({"a": "1e-7"}, "a=1e-7"),
        ({"a": "", "b": "-1"}, "a=__b=-1"),
    ],
)
def test_a_name_tells_what_varies(values, name):
    assert make_trial(values).name == name


def test_names_are_safe_and_each_trial_has_its_own():
    awkward = ["a/b", "a b", "a;b", "a\nb", "a+b", "a,b", "a__b", "a_b", "a=b", "../../x", "$HOME", "ü", "*", "'", "-"]
    awkward += ["x" * 200, "x" * 201, "1__b=2"]
    trials = [make_trial({"a": value}) for value in awkward] + [make_trial({"a": "1", "b": "2"})]
    names = {trial.name for trial in trials}
    assert len(names) == len(trials)
    assert all(re.fullmatch(r"[A-Za-z0-9._=+-]{1,120}", name) for name in names)


# Whether they can run.


def test_settings_of_every_trial():
    trials = trials_of("learning_rate=0.1,0.01", "seed=0..1")
    settings = check_trials(BASE, trials)
    assert list(settings) == [trial.name for trial in trials]
    assert settings["learning_rate=0.01__seed=1"].values["update"]["learning_rate"] == 0.01


@pytest.mark.parametrize(
    "texts, base, told",
    [
        (["learning_rat=0.1"], BASE, "axis learning_rat: there is no flag --learning_rat. Did you mean"),
        (["learning_rate=0.1,abc"], BASE, "axis learning_rate: --learning_rate=abc: expected a number"),
        (["seed=0,1,0.5"], BASE, "axis seed: --seed=0.5: expected a whole number"),
        (["optimizer.momentum=0.9"], BASE, "axis optimizer.momentum:"),
        (["model=mlp,no_such"], BASE, "trial model=no_such: no model is called"),
        (["model=mlp,lenet5"], BASE, "trial model=lenet5: model 'lenet5' has no flag --model.widths"),
        (["learning_rate=0.1,0.2"], [*BASE, "--learning_rat=1"], "there is no flag --learning_rat. Did you mean"),
        (["seed=0,1"], ["--model=mlp", "--dataset=digits"], "give --steps, --epochs or --flops_budget"),
        (["learning_rate=0.1,1e-1"], BASE, "trials learning_rate=0.1 and learning_rate=1e-1 have the same flags"),
        (["workdir=a,b"], BASE, "--workdir cannot be an axis: the sweep gives every trial its own."),
        (["process_id=0,1"], BASE, "--process_id cannot be an axis"),
        (["flagfile=a.flags"], BASE, "--flagfile cannot be an axis: name the flags that differ."),
        (["sweep=a,b"], BASE, "axis sweep: there is no flag --sweep"),
    ],
)
def test_what_cannot_run_is_told_in_a_line_with_its_axis_or_trial(texts, base, told):
    with pytest.raises(InputError) as error:
        check_trials(base, trials_of(*texts, base=base))
    message = str(error.value)
    assert told in message and "\n" not in message
    if told.startswith(("there", "give")):  # the base's fault: no trial is blamed
        assert message.startswith(told)


# What they will cost.


def test_the_cost_of_a_linear_model_by_hand():
    base = ["--model=mlp", "--model.widths=", "--dataset=digits", "--steps=10", "--batch_size=32", "--optimizer=sgd"]
    found = cost(parse([*base, "--keep_checkpoints=1"]))
    parameters = 64 * 10 + 10
    assert (found.steps, found.examples, found.parameters) == (10, 320, parameters)
    # Forward and weight gradient of one dense layer are 2 x 2 x 32 x 64 x 10 a step; softmax and update are the rest.
    dense = 10 * 4 * 32 * 64 * 10
    assert dense <= found.flops < 1.2 * dense
    # The parameters, and some numbers beside them; the latest and the best.
    assert 0 <= found.checkpoint_bytes - 2 * 4 * parameters < 200


def test_microbatches_cost_what_the_whole_batch_costs():
    assert cost(parse([*BASE, "--gradient_accumulation=4"])) == cost(parse(BASE))


def test_a_dry_run_shows_the_trials_their_programs_and_the_sum():
    trials = trials_of("model.widths=(8),(8,8)", "learning_rate=log(1e-4,1e-1,8)", "seed=0..3")
    lines = dry_run(check_trials(BASE, trials), trials)
    assert lines[0].split() == ["trial", "model.widths", "learning_rate", "seed"]
    assert lines[1].split() == ["1", "8", "0.0001", "0"]
    assert lines[21] == "... 24 more ..."
    assert lines[41].split() == ["64", "8,8", "0.1", "3"]
    assert lines[43] == "2 programs, for each trial of it:"
    small, large = (line.split() for line in lines[45:47])
    assert small[:5] == ["model.widths=8", "32", "20", "640", str(64 * 8 + 8 + 8 * 10 + 10)]
    assert large[:5] == ["model.widths=8,8", "32", "20", "640", str(64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10)]
    assert lines[-2].startswith("in all: 64 trials of 2 programs, 1,280 steps, 40,960 examples, ")
    in_all = float(re.search(r"([\d.e+]+) training FLOPs", lines[-2])[1])
    # Each number is told with three digits.
    assert math.isclose(in_all, 32 * (float(small[5]) + float(large[5])), rel_tol=0.01)


def test_a_dry_run_names_the_trial_that_cannot_be_built():
    trials = trials_of("batch_size=32,5000")
    with pytest.raises(InputError, match="trial batch_size=5000: --batch_size=5000 is larger"):
        dry_run(check_trials(BASE, trials), trials)
