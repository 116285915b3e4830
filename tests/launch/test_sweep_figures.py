"""The figures of a sweep: what they draw, and that they draw whatever a sweep leaves."""

import math

import numpy as np
import pytest

from jaxdl.plots import to_png
from launch.sweeps import figures
from launch.sweeps.results import Row
from launch.sweeps.view import Axis, View, axes_of, effect

RATES = ("0.001", "0.01", "0.1", "1")
SCALES = {"learning_rate": "log", "dropout": "linear", "model": "categorical"}


def row(values, best, state="done", steps=(100, 200, 300)) -> Row:
    """A trial whose metric goes to `best` from half of it."""
    name = "__".join(f"{flag}={text}" for flag, text in values.items())
    if best is None:
        return Row(name, values, state)
    curve = tuple(steps), tuple(np.linspace(best / 2, best, len(steps)))
    return Row(name, values, state, best=best, best_step=steps[-1], test=best, loss=1 - best, curve=curve)


def grid(score, states=None, **axes) -> list[Row]:
    """The trials of a grid; `score` takes the values as numbers or text."""
    rows = []
    for index, point in enumerate(np.ndindex(*(len(values) for values in axes.values()))):
        values = {flag: str(axes[flag][at]) for flag, at in zip(axes, point)}
        rows.append(row(values, score(**values), (states or {}).get(index, "done")))
    return rows


def view(rows, mode="max") -> View:
    return View(rows, axes_of(rows, SCALES), "accuracy", mode)


def by_rate(learning_rate, **others):
    """Best at 0.01; a second seed is 0.02 better, dropout costs little."""
    far = abs(math.log10(float(learning_rate)) + 2)
    return 0.9 - 0.1 * far + 0.02 * int(others.get("seed", 0)) - 0.01 * float(others.get("dropout", 0))


def texts(figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_axes_are_what_varies_but_the_seed_numbers_in_order():
    rows = grid(
        lambda **values: 0.5, model=["mlp", "cnn"], learning_rate=["0.1", "1e-3", "0.01"], seed=[0, 1], fixed=[3]
    )
    assert axes_of(rows, SCALES) == [
        Axis("model", "categorical", ("mlp", "cnn")),
        Axis("learning_rate", "log", ("1e-3", "0.01", "0.1")),
    ]


def test_the_line_is_the_mean_over_seeds_of_the_best_setting_at_each_value():
    shown = view(grid(by_rate, learning_rate=RATES, dropout=[0, 0.5], seed=[0, 1]))
    figure = figures.against_axes(shown)
    rate, dropout = figure.axes
    assert (rate.get_xscale(), dropout.get_xscale()) == ("log", "linear")
    line = rate.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [0.001, 0.01, 0.1, 1])
    np.testing.assert_allclose(line.get_ydata(), [0.81, 0.91, 0.81, 0.71])
    np.testing.assert_allclose(dropout.containers[0].lines[0].get_ydata(), [0.91, 0.905])
    (bars,) = rate.containers[0].lines[2]
    np.testing.assert_allclose(np.ptp(bars.get_segments()[0][:, 1]), 2 * 0.02 / math.sqrt(2))
    assert "the best setting at each value, mean ± SD over 2 seeds" in texts(figure)
    assert "learning_rate (log scale)" in texts(figure)


def test_of_drawn_values_the_line_is_the_median_of_neighbours():
    rng = np.random.default_rng(0)
    rows = [
        row({"learning_rate": f"{10**rate:.6g}", "dropout": f"{dropout:.6g}"}, 0.9 - 0.1 * abs(rate + 2))
        for rate, dropout in rng.uniform([-4, 0], [0, 0.5], (64, 2))
    ]
    figure = figures.against_axes(view(rows))
    y = figure.axes[0].containers[0].lines[0].get_ydata()
    assert len(y) == 8 and 2 <= np.argmax(y) <= 5
    assert np.ptp(figure.axes[1].containers[0].lines[0].get_ydata()) < 0.6 * np.ptp(y)
    assert "median and quartiles of neighbours" in texts(figure)


def test_what_is_far_worse_is_drawn_at_the_edge_and_what_was_lost_is_marked():
    score = lambda learning_rate, seed: -50.0 if learning_rate == "1" else by_rate(learning_rate, seed=seed)
    shown = view(grid(score, {0: "diverged", 1: "failed"}, learning_rate=RATES, seed=[0, 1, 2]))
    low, high = shown.limits
    assert high == pytest.approx(0.94) and 0 < low < 0.8
    told = texts(figures.against_axes(shown))
    assert "worse than drawn (3)" in told and "diverged or failed (2)" in told


def test_a_metric_that_is_minimised_and_wide_has_a_logarithmic_scale():
    shown = view(grid(lambda learning_rate: 10 * float(learning_rate), learning_rate=RATES), "min")
    assert shown.is_log and shown.limits == (0.01, 10)
    assert figures.against_axes(shown).axes[0].get_yscale() == "log"
    assert [row.best for row in shown.counted] == [10, 1, 0.1, 0.01], "the best is drawn last"
    assert shown.colors.to_rgba(0.01)[0] > 0.9, "and bright"


def test_a_heat_map_has_the_best_mean_of_each_cell():
    rows = grid(by_rate, {0: "diverged"}, dropout=[0, 1], learning_rate=RATES, model=["mlp", "cnn"], seed=[0, 1])
    figure = figures.pairs(view(rows))
    heat = next(axes for axes in figure.axes if (axes.get_xlabel(), axes.get_ylabel()) == ("learning_rate", "dropout"))
    np.testing.assert_allclose(heat.images[0].get_array(), [[0.81, 0.91, 0.81, 0.71], [0.80, 0.90, 0.80, 0.70]])
    assert "1 lost" in texts(figure) and "the best setting in each cell, mean over 2 seeds" in texts(figure)
    assert len(figure.axes) == 4, "three pairs and the colour bar"


def test_effect_finds_the_axis_that_matters():
    shown = view(grid(by_rate, learning_rate=RATES, dropout=[0, 0.25, 0.5], seed=[0, 1]))
    rate, dropout = (effect(shown, axis) for axis in shown.axes)
    assert 0.8 < rate <= 1 and dropout < 0.1


def test_curves_of_the_best_settings_are_means_within_a_band():
    shown = view(grid(by_rate, learning_rate=RATES, seed=[0, 1]))
    figure = figures.curves(shown)
    left, right = figure.axes[:2]
    assert len(left.collections[0].get_segments()) == 8
    best = right.lines[0]
    np.testing.assert_allclose(best.get_ydata(), np.array([0.5, 0.75, 1]) * 0.91)
    assert best.get_label().split() == ["learning_rate=0.01", "0.910", "±", "0.014"]
    assert right.get_title() == "the best 4 of 4 settings, mean ± SD over 2 seeds"


def test_parallel_coordinates_go_through_every_axis_that_a_trial_has():
    rows = grid(by_rate, learning_rate=RATES, dropout=[0, 0.5])
    rows.append(row({"learning_rate": "0.1"}, 0.85))
    lines = figures.parallel_coordinates(view(rows)).axes[0].collections[0].get_segments()
    assert sorted(map(len, lines)) == [2] + 8 * [3]
    best = lines[-1]  # drawn on top
    np.testing.assert_allclose(best, [[0, 1 / 3], [1, 0], [2, 1]])


def test_importance_is_ranked():
    bars = figures.importances({"dropout": 0.2, "learning_rate": 0.8}, "accuracy").axes[0]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["dropout", "learning_rate"]
    assert "80%" in texts(bars.figure)


SWEEPS = {
    "two axes and seeds": grid(by_rate, learning_rate=RATES, dropout=[0, 0.5], seed=[0, 1]),
    "seeds alone": grid(lambda seed: 0.9 + 0.01 * int(seed), seed=range(3)),
    "one trial": grid(by_rate, learning_rate=["0.1"]),
    "one evaluation": [row({"learning_rate": rate}, 0.9, steps=(100,)) for rate in RATES],
    "all equal": grid(lambda **values: 0.0, learning_rate=RATES, model=["mlp", "cnn"]),
    "one is left": grid(by_rate, {0: "diverged", 1: "failed", 2: "waiting"}, learning_rate=RATES),
    "no curve in common": [row({"seed": "0"}, 0.9, steps=(100,)), row({"seed": "1"}, 0.8, steps=(150,))],
    "many categories": grid(lambda model: len(model) / 10, model=[f"package.module:{'x' * i}Model" for i in range(30)]),
    "a conditional axis": [
        *grid(lambda model, learning_rate: 0.9, model=["linear"], learning_rate=RATES),
        *grid(lambda model, learning_rate, dropout: 0.8, model=["mlp"], learning_rate=RATES, dropout=[0, 0.5]),
    ],
    "nothing ended": grid(by_rate, {index: "running" for index in range(4)}, learning_rate=RATES),
    "1000 trials": [
        row(
            {"learning_rate": f"{10**rate:.6g}", "dropout": f"{dropout:.6g}", "model": "abc"[index % 3]},
            math.sin(index),
        )
        for index, (rate, dropout) in enumerate(np.random.default_rng(0).uniform([-4, 0], [0, 0.5], (1000, 2)))
    ],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "mode"), [*((name, "max") for name in SWEEPS), ("two axes and seeds", "min")])
def test_every_sweep_can_be_drawn(name, mode):
    rows = SWEEPS[name]
    drawn = figures.draw(rows, SCALES, ("accuracy", mode), {"learning_rate": 0.7, "dropout": 0.3})
    number = len(axes_of(rows, SCALES))
    expected = {"curves", "importance"} | ({"axes", "parallel_coordinates"} if number else set())
    expected |= {"pairs"} if number > 1 else set()
    assert set(drawn) == (set() if name == "nothing ended" else expected)
    for figure in drawn.values():
        assert to_png(figure, dpi=30).startswith(b"\x89PNG")
