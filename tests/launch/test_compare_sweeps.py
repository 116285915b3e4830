"""`launch.compare_sweeps` on sweeps made up by hand."""

import itertools
import math

import numpy as np
import pytest

from jaxdl.errors import InputError
from launch import compare_sweeps
from launch.compare_sweeps import Search, chance_to_be_best
from tests.launch.fake_sweep import make_sweep, product

RATES = ("0.001", "0.01", "0.1", "1")
GRID = ["learning_rate=log(1e-3,1,4)"]
RANDOM = ["learning_rate=loguniform(1e-3,1)"]


def accuracy(values):
    return 0.9 - 0.05 * abs(math.log10(float(values["learning_rate"])) + 2)


@pytest.fixture
def sweeps(tmp_path):
    """A grid of four, and two random searches of four, of which one trial diverged."""
    make_sweep(tmp_path / "grid", GRID, product(learning_rate=RATES), accuracy)
    for seed in (0, 1):
        rates = [f"{10**rate:.6g}" for rate in np.random.default_rng(seed).uniform(-3, 0, 4)]
        trials = product(learning_rate=rates)
        lost = {0: "diverged"} if seed else {}
        folder = tmp_path / f"random_{seed}"
        make_sweep(folder, RANDOM, trials, accuracy, search="random", search_seed=seed, states=lost)
    return tmp_path


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_the_chance_to_be_best_is_that_of_all_sets(number):
    sets = list(itertools.combinations(range(5), number))
    counted = [sum(max(each) == index for each in sets) / len(sets) for index in range(5)]
    np.testing.assert_allclose(chance_to_be_best(5, number), counted)


def test_the_chances_of_many_settings_sum_to_one():
    assert chance_to_be_best(10_000, 5_000).sum() == pytest.approx(1)


@pytest.mark.parametrize(("mode", "best"), [("max", max), ("min", min)])
def test_the_expected_best_is_the_mean_over_all_orders(mode, best):
    values = np.array([[0.3, 30], [0.1, 10], [0.7, 70], [0.5, 50]])
    search = Search("grid", [values], mode, True)
    for number in range(1, 5):
        firsts = [best(order[:number], key=lambda pair: pair[0]) for order in itertools.permutations(values.tolist())]
        np.testing.assert_allclose(search.expected(number), np.mean(firsts, axis=0))
    assert search.quantile(1, 0.25) == sorted(values[:, 0], reverse=mode == "min")[0]


def test_a_search_that_learns_is_taken_in_its_order():
    search = Search("tpe", [np.array([[0.1, 1.0], [0.5, 5.0]]), np.array([[0.3, 3.0], [0.2, 2.0]])], "max", False)
    np.testing.assert_allclose(search.expected(1), [0.2, 2.0])
    np.testing.assert_allclose(search.expected(2), [0.4, 4.0])
    assert search.quantile(2, 0.25) == 0.3 and search.quantile(2, 0.75) == 0.5


def test_sweeps_that_differ_in_the_search_seed_are_one_search(sweeps, capsys):
    out = sweeps / "plot.png"
    assert compare_sweeps.main([f"--sweeps={sweeps}/grid,{sweeps}/random_*", f"--out={out}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "expected best accuracy after sweeps 1 trial 2 trials 4 trials".split()
    assert lines[1][:2] == ["grid", "1"] and lines[2][:2] == ["random", "2"]
    reached = 0.1 * 8 * math.exp(-1000 / 150)
    finals = [accuracy({"learning_rate": rate}) - reached for rate in RATES]
    assert lines[1][2] == f"{np.mean(finals):.4g}" and lines[1][4] == f"{max(finals):.4g}"
    assert lines[3] == "test accuracy of that setting sweeps 1 trial 2 trials 4 trials".split()
    assert lines[4][4] == f"{max(finals) - 0.01:.4g}"
    assert out.read_bytes().startswith(b"\x89PNG")


def test_seeds_are_one_setting_a_lost_one_is_the_worst_and_an_unfinished_one_is_left_out(tmp_path):
    trials = product(learning_rate=RATES, seed=[0, 1])
    states = {1: "diverged", 7: "waiting"}
    final = lambda values: accuracy(values) + 0.01 * int(values["seed"])
    make_sweep(tmp_path / "grid", [*GRID, "seed=0..1"], trials, final, states=states)
    groups = compare_sweeps.find_sweeps((str(tmp_path / "grid"),))
    (search,) = compare_sweeps.read_searches(groups, ("accuracy", "max"))
    reached = 0.1 * 8 * math.exp(-1000 / 150)
    worst = accuracy({"learning_rate": "1"})
    expected = [worst, accuracy({"learning_rate": "0.01"}) + 0.005, accuracy({"learning_rate": "0.1"}) + 0.005]
    np.testing.assert_allclose(search.sweeps[0][:, 0], np.array(expected) - reached)


def test_searches_of_the_same_kind_are_told_apart_by_their_folder(sweeps):
    make_sweep(sweeps / "wider", ["learning_rate=log(1e-3,10,5)"], product(learning_rate=RATES), accuracy)
    groups = compare_sweeps.find_sweeps((f"{sweeps}/*",))
    assert list(groups) == ["grid grid", "random", "grid wider"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=x.png"], "which sweeps? --sweeps=DIR,DIR"),
        (["--sweeps={path}/nowhere"], "there is no directory {path}/nowhere"),
        (["--sweeps={path}"], "{path} is no sweep directory: it has no sweep.json"),
        (["--sweeps={path}/grid", "--metric=accuracy"], "expected NAME:max or NAME:min"),
        (["--sweeps={path}/grid", "--metric=speed:max"], "no trial has ended with a finite 'speed'"),
        (["--sweeps={path}/grid,{path}/other"], "different metrics (accuracy:max, loss:min)"),
        (["--sweeps={path}/grid,{path}/waiting"], "{path}/waiting has no setting yet"),
        (["--sweeps={path}/grid", "--out={path}/no/folder.png"], "folder.png cannot be written: No such file"),
        (["--sweep={path}/grid"], "sweeps"),
    ],
)
def test_bad_input_is_one_line_and_status_2(sweeps, capsys, arguments, message):
    make_sweep(sweeps / "other", GRID, product(learning_rate=RATES), accuracy, metric="loss")
    states = {index: "waiting" for index in range(4)}
    make_sweep(sweeps / "waiting", GRID, product(learning_rate=RATES), accuracy, states=states)
    assert compare_sweeps.main([argument.format(path=sweeps) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(path=sweeps) in error
    assert error.count("\n") == 1


def test_sweeps_are_found_once(sweeps):
    groups = compare_sweeps.find_sweeps((f"{sweeps}/grid", f"{sweeps}/gr*"))
    assert [len(group) for group in groups.values()] == [1]
    with pytest.raises(InputError, match="which sweeps"):
        compare_sweeps.find_sweeps(())
