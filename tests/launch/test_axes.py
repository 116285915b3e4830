"""The texts of `--sweep`: what they mean, and what is told of wrong ones."""

import numpy as np
import pytest

from jaxdl.errors import InputError
from launch.sweeps import axes as axes_module
from launch.sweeps.axes import FORMS, parse_axes, parse_axis

LISTS = {
    "learning_rate=0.1,0.01": ["0.1", "0.01"],
    "learning_rate = 0.1 , 0.01": ["0.1", "0.01"],
    "--learning_rate=0.1,0.01": ["0.1", "0.01"],
    "model=mlp": ["mlp"],
    "model.widths=(64,64),(128,128),32": ["64,64", "128,128", "32"],
    "augment=(),(flip,crop)": ["", "flip,crop"],
    "data_dir=../a,../b": ["../a", "../b"],
    "a=(x(1)),((y))": ["x(1)", "(y)"],
    "a=(1 if 2),(1 with 2)": ["1 if 2", "1 with 2"],
    "seed=0..3": ["0", "1", "2", "3"],
    "seed=-1..1": ["-1", "0", "1"],
    "seed=5..5": ["5"],
    "model.depth=2..10..2": ["2", "4", "6", "8", "10"],
    "model.depth=2..9..3": ["2", "5", "8"],
    "learning_rate=log(1e-4,1e-1,4)": ["0.0001", "0.001", "0.01", "0.1"],
    "learning_rate=log(1e-7,1e-5,3)": ["1e-7", "1e-6", "1e-5"],
    "learning_rate=log(1,3,3)": ["1", "1.73205", "3"],
    "a=lin(0,0.5,6)": ["0", "0.1", "0.2", "0.3", "0.4", "0.5"],
    "a=lin(-1, 1, 2)": ["-1", "1"],
    "a=choice(relu,(tanh,gelu))": ["relu", "tanh,gelu"],
}


@pytest.mark.parametrize("text", LISTS)
def test_listed_values(text):
    axis = parse_axis(text)
    assert list(axis.columns[0].values) == LISTS[text]
    assert axis.distribution is None and axis.drawn == ("choice" in text)


@pytest.mark.parametrize(
    "text, numeric, scale",
    [
        ("learning_rate=log(1e-4,1e-1,4)", True, "log"),
        ("learning_rate=loguniform(1e-4,1e-1)", True, "log"),
        ("learning_rate=0.1,0.01,0.001", True, "log"),
        ("batch_size=16,32,64", True, "linear"),
        ("a=0,10,100", True, "linear"),
        ("seed=1..100", True, "linear"),
        ("a=lin(1,100,4)", True, "linear"),
        ("a=uniform(1,100)", True, "linear"),
        ("a=randint(1,100)", True, "linear"),
        ("model=mlp,cnn", False, "categorical"),
        ("a=1,none", False, "categorical"),
        ("model.widths=(64,64),(128,128)", False, "categorical"),
    ],
)
def test_how_an_axis_is_drawn(text, numeric, scale):
    column = parse_axis(text).columns[0]
    assert (column.numeric, column.scale) == (numeric, scale)


def test_zipped_flags_advance_together():
    axis = parse_axis("model.depth=2..4 with learning_rate=0.1,0.03,0.01 with model=(a),(b),(c)")
    assert axis.flags == ("model.depth", "learning_rate", "model")
    assert axis.rows[1] == {"model.depth": "3", "learning_rate": "0.03", "model": "b"}
    assert [column.scale for column in axis.columns] == ["linear", "log", "categorical"]


def test_the_same_value_may_come_twice_in_one_of_zipped_flags():
    assert len(parse_axis("model.depth=2,2,4 with learning_rate=0.1,0.03,0.1").rows) == 3


@pytest.mark.parametrize(
    "flags, holds",
    [
        ({"model": "mlp", "dataset": "digits"}, True),
        ({"model": "cnn", "dataset": "digits"}, True),
        ({"model": "vit", "dataset": "digits"}, False),
        ({"model": "mlp", "dataset": "mnist"}, False),
        ({"model": "mlp"}, False),
    ],
)
def test_conditions(flags, holds):
    axis = parse_axis("model.depth=1,2 if model=mlp,cnn and dataset=digits")
    assert axis.holds(flags) == holds


def test_conditions_compare_values_and_not_texts():
    axis = parse_axis("a=1,2 if rate=0.10 and plots=True")
    assert axis.holds({"rate": "1e-1", "plots": "true"}) and not axis.holds({"rate": "0.2", "plots": "true"})


@pytest.mark.parametrize("kind", ["uniform", "loguniform", "randint"])
def test_draws_stay_within_bounds_and_reach_all_of_them(kind):
    low, high = (1, 4) if kind == "randint" else (0.012345678, 0.98765432)
    distribution = parse_axis(f"a={kind}({low},{high})").distribution
    rng = np.random.default_rng(0)
    drawn = np.array([float(distribution.draw(rng)) for _ in range(2000)])
    assert drawn.min() >= low and drawn.max() <= high
    if kind == "randint":
        assert set(drawn) == {1, 2, 3, 4}
    else:
        # A quarter of the draws falls below the first quartile of the distribution: 500 ± 19.4 (binomial); 5 of those.
        middle = low + (high - low) / 4 if kind == "uniform" else low * (high / low) ** 0.25
        assert abs((drawn < middle).sum() - 500) < 97
    assert [float(end) for end in distribution.ends()] == [low, high]


WRONG = {
    "learning_rate": "an axis is FLAG=VALUES",
    "=1,2": "an axis is FLAG=VALUES",
    "learning_rate=": "learning_rate has no values; give some",
    "a=1,,2": "an empty value; an empty text is written ()",
    "a=(1,2": "parentheses do not match",
    "a=1)": "parentheses do not match",
    "a=1,2,1": "the value 1 stands there twice",
    "model.widths=64,64": "one with commas is written (A,B)",
    "seed=7..0": "seed=2..10..2",
    "seed=0..8..0": "seed=2..10..2",
    "seed=0..1000000": "randint(0,1000000)",
    "a=0.1..0.5": "lin(0,0.5,6)",
    "seed=0..3,7": "'0..3' stands alone",
    "a=log(1e-4,1,3),2": "'log(1e-4,1,3)' stands alone",
    "a=logg(1,2,3)": "Did you mean log(1e-4,1e-1,8)?",
    "a=zzz(0,1)": "There are log, lin, uniform, loguniform, randint, choice.",
    "a=log(0,1,3)": "bounds above 0",
    "a=loguniform(-1,1)": "bounds above 0",
    "a=lin(1,0,3)": "from the smaller to the larger",
    "a=uniform(1,1)": "from the smaller to the larger",
    "a=lin(0,1,1)": "at least 2",
    "a=lin(0,1,2.5)": "at least 2",
    "a=log(1,2)": "log takes 3 numbers",
    "a=uniform(0,1,5)": "uniform takes 2 numbers",
    "a=uniform(0,x)": "uniform takes 2 numbers",
    "a=uniform(0,inf)": "uniform takes 2 numbers",
    "a=randint(0.5,3)": "whole numbers",
    "a=choice()": "an empty value",
    "a=1,2 with b=1": "a has 2, b has 1",
    "a=1,2 with a=3,4": "a flag can stand in an axis once",
    "a=1,1 with b=2,2": "1, 2 stand together twice",
    "a=uniform(0,1) with b=1,2": "a is drawn",
    "a=1 if b": "a condition is FLAG=VALUES",
    "a=1 if b=": "a condition is FLAG=VALUES",
    "a=1 if b=1 if c=2": "further conditions follow 'and'",
    "a=1 if b=1 and b=2": "if b=A,B",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_axis_is_one_line_with_the_text_and_the_way_out(text):
    with pytest.raises(InputError) as error:
        parse_axis(text)
    message = str(error.value)
    assert message.startswith("--sweep=") and WRONG[text] in message and "\n" not in message


@pytest.mark.parametrize("name", FORMS)
def test_the_examples_in_messages_are_right(name):
    assert parse_axis(f"a={FORMS[name]}").drawn == (name not in ("log", "lin"))


@pytest.mark.parametrize(
    "texts, told",
    [
        ([], "nothing varies: give an axis"),
        (["a=1,2", "b=1,2 with a=3,4"], "a varies twice, in 'a=1,2' and in 'b=1,2 with a=3,4'"),
        (["a=1,2 if mode=x"], "mode is neither an axis nor given as --mode. Did you mean 'model'?"),
        (["a=1,2 if zzz=x"], "zzz is neither an axis nor given as --zzz."),
        (["a=1,2 if model=cnn"], "model is never cnn; it is mlp."),
        (["b=1,2", "a=1,2 if b=3"], "b is never 3; it is 1, 2."),
        (["b=randint(1,4)", "a=1,2 if b=5"], "b is never 5; it is 1..4."),
        (["b=uniform(1,4)", "a=1,2 if b=2"], "b is a drawn number"),
        (["a=1,2 if a=1"], "in a circle: a if a"),
        (["a=1,2 if b=1", "b=1,2 if c=1", "c=1,2 if a=1"], "in a circle: a if b if c if a"),
    ],
)
def test_axes_that_do_not_go_together(texts, told):
    with pytest.raises(InputError) as error:
        parse_axes(texts, ["--model=mlp"])
    assert told in str(error.value) and ".." not in str(error.value).replace("1..4", "")


def test_each_axis_comes_after_those_that_it_depends_on():
    axes = parse_axes(["a=1,2 if b=1", "b=1,2 if c=1", "c=1,2", "d=1,2"])
    assert [axis.name for axis in axes] == ["a", "b", "c", "d"]
    assert [axis.name for axis in axes_module.in_dependency_order(axes)] == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    "base, given",
    [
        (["--model=mlp", "--model=cnn"], {"model": "cnn"}),
        (["-model=mlp", "--seed", "3"], {"model": "mlp", "seed": "3"}),
        (["--a", "-3", "--data_dir=x=y"], {"a": "-3", "data_dir": "x=y"}),
        (["--plots", "--noremat", "--a=1"], {"plots": "true", "noremat": "true", "remat": "false", "a": "1"}),
    ],
)
def test_flags_of_the_base(base, given):
    assert axes_module.given_flags(base) == given
