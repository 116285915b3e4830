"""What `launch.sweep` tells at the end, on sweeps made up by hand."""

import csv
import io
import json
import math

import pytest

from jaxdl.config import expand_flagfiles
from launch.sweeps import results
from launch.sweeps.directory import SweepDirectory
from tests.launch.fake_sweep import METRIC, make_sweep, product

RATES = ("0.001", "0.01", "0.1")


def accuracy(values):
    """0.01 is the best rate; seed 1 is the better one."""
    return {"0.001": 0.8, "0.01": 0.9, "0.1": 0.7}[values["learning_rate"]] + 0.02 * int(values.get("seed", 0))


@pytest.fixture
def grid(tmp_path):
    """Three rates, two seeds each; a name with a blank, as a user's folder may have."""
    axes = ["learning_rate=0.001,0.01,0.1", "seed=0..1"]
    return make_sweep(tmp_path / "a sweep", axes, product(learning_rate=RATES, seed=range(2)), accuracy)


def test_a_row_has_the_best_evaluation_and_the_test_metric_at_its_step(tmp_path):
    sweep = make_sweep(tmp_path, ["seed=0"], product(seed=[0]), lambda values: 0.9)
    lines = [
        {"step": 10, "split": "train", "accuracy": 0.99, "loss": 0.1},
        {"step": 10, "split": "validation", "accuracy": 0.5, "loss": 2.0},
        {"step": 10, "split": "test", "accuracy": 0.4},
        {"step": 20, "split": "validation", "accuracy": 0.8, "loss": 1.0},
        {"step": 20, "split": "test", "accuracy": 0.7},
        {"step": 30, "split": "validation", "accuracy": None, "loss": None},
    ]
    metrics = sweep.run("seed=0") / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 40, "spl')
    (row,) = results.read_rows(sweep, METRIC)
    assert (row.split, row.best, row.best_step, row.test, row.loss) == ("validation", 0.8, 20, 0.7, 1.0)
    assert row.curve == ((10, 20), (0.5, 0.8))
    metrics.write_text(json.dumps(lines[0]) + "\n")
    (row,) = results.read_rows(sweep, METRIC)
    assert (row.split, row.best, row.test) == ("train", 0.99, None)


def test_states_come_from_the_run_directory_and_the_attempts(tmp_path):
    states = {0: "done", 1: "running", 2: "waiting", 3: "preempted", 4: "failed"}
    sweep = make_sweep(tmp_path, ["seed=0..5"], product(seed=range(6)), lambda values: 0.9, states=states)
    killed = sweep.run("seed=5")  # by the kernel, and so it could not say it
    (killed / "status.json").write_text(json.dumps({"state": "running", "step": 3, "steps": 1000, "error": None}))
    attempt = {"trial": "seed=5", "executor": "local", "status": -9, "step": 3, "seconds": 1.5}
    sweep.add_attempt({**attempt, "state": "failed", "error": "killed by signal 9 without progress"})
    rows = results.read_rows(sweep, METRIC)
    assert [row.state for row in rows] == ["done", "dead", "waiting", "preempted", "failed", "failed"]
    assert rows[4].error == "out of memory" and rows[5].error == "killed by signal 9 without progress"
    assert (rows[5].attempts, rows[5].seconds) == (2, 3.5)
    assert (rows[2].attempts, rows[2].seconds, rows[2].best) == (0, None, None)


def test_settings_are_ranked_by_their_mean_over_seeds(grid):
    settings = results.settings_of(results.read_rows(grid, METRIC), "max")
    assert [setting.values["learning_rate"] for setting in settings] == ["0.01", "0.001", "0.1"]
    reached = 0.1 * 8 * math.exp(-1000 / 150)
    assert settings[0].mean() == pytest.approx(0.91 - reached)
    assert settings[0].spread() == pytest.approx(0.02 / math.sqrt(2))
    assert settings[0].mean("test") == pytest.approx(0.90 - reached)
    assert results.best_row(settings[0], "max").values["seed"] == "1"
    assert results.settings_of(results.read_rows(grid, METRIC), "min")[0].values["learning_rate"] == "0.1"


def test_a_setting_that_lost_a_seed_stands_behind_those_that_lost_none(tmp_path):
    trials = product(learning_rate=RATES, seed=range(2))
    sweep = make_sweep(tmp_path, ["learning_rate=0.001,0.01,0.1"], trials, accuracy, states={2: "diverged"})
    settings = results.settings_of(results.read_rows(sweep, METRIC), "max")
    assert [setting.values["learning_rate"] for setting in settings] == ["0.001", "0.1", "0.01"]
    assert len(settings[2].counted) == 1 and settings[2].spread() is None


def test_the_terminal_tells_settings_counts_the_best_and_the_commands(grid):
    lines = results.write_results(grid, METRIC)
    assert lines[0].split() == ["learning_rate", "seeds", "validation", "accuracy", "test", "accuracy", "loss"]
    assert [line.split()[:5] for line in lines[1:4]] == [
        ["0.01", "2", "0.909", "±", "0.014"],
        ["0.001", "2", "0.809", "±", "0.014"],
        ["0.1", "2", "0.709", "±", "0.014"],
    ]
    text = "\n".join(lines)
    assert "6 trials: 6 done" in text
    assert "best: learning_rate=0.01__seed=1: validation accuracy 0.919 at step 1,000, test accuracy 0.909" in text
    assert f"python -m launch.train '--flagfile={grid.path}/best.flags' --workdir=NEW" in text
    assert f"'{grid.path}/plots'" in text
    assert {path.name for path in (grid.path / "plots").iterdir()} == {"axes.png", "curves.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (grid.path / "plots").iterdir())


def test_best_flags_are_the_trial_and_run_like_any_flag_file(grid):
    results.write_results(grid, METRIC)
    path = grid.path / "best.flags"
    assert expand_flagfiles([f"--flagfile={path}"]) == [
        *("--model=mlp", "--dataset=digits", "--seed=1", "--learning_rate=0.01")
    ]
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comment == [
        "# The best trial of the sweep a sweep: learning_rate=0.01__seed=1.",
        "# Its validation accuracy is 0.919 at step 1,000, and 0.909 on the test split.",
        "# It is the best seed of its setting, whose 2 seeds have 0.909 ± 0.014.",
        f"# python -m launch.train '--flagfile={path}' --workdir=NEW",
    ]


def test_the_summary_has_a_line_a_trial_and_a_column_an_axis(tmp_path):
    trials = [{"model": "mlp", "steps": "500"}, {"model": "cnn", "model.widths": "8,8", "steps": "500"}]
    sweep = make_sweep(tmp_path, ["model=mlp,cnn"], trials, lambda values: 0.9, states={1: "waiting"})
    results.write_results(sweep, METRIC)
    rows = list(csv.DictReader(io.StringIO((sweep.path / "summary.csv").read_text())))
    assert list(rows[0]) == [
        *("trial", "state", "step", "steps", "seconds", "attempts", "model", "model.widths"),
        *("split", "accuracy", "best_step", "test_accuracy", "loss", "error"),
    ]
    assert (rows[0]["state"], rows[0]["model.widths"], rows[0]["best_step"]) == ("done", "", "1000")
    assert float(rows[0]["accuracy"]) == pytest.approx(0.899, abs=1e-3)
    assert (rows[1]["state"], rows[1]["model.widths"], rows[1]["accuracy"]) == ("waiting", "8,8", "")
    assert rows[1]["steps"] == "500", "an axis of the name of a column is that column"


def test_of_many_settings_the_best_are_told_and_the_rest_counted(tmp_path):
    trials = product(learning_rate=[f"{rate:.3g}" for rate in range(1, 31)])
    final = lambda values: None if values["learning_rate"] == "30" else 0.01 * float(values["learning_rate"])
    sweep = make_sweep(tmp_path, ["learning_rate=1..30"], trials, final, evaluations=1)
    lines = results.table(results.settings_of(results.read_rows(sweep, METRIC), "max"), "accuracy")
    assert [line.split()[0] for line in lines[1:21]] == [str(rate) for rate in range(29, 9, -1)]
    assert lines[21:] == ["and 9 more settings", "1 of 30 settings have no accuracy"]


def test_equal_errors_are_told_once(tmp_path):
    states = {0: "failed", 1: "failed", 2: "diverged"}
    sweep = make_sweep(tmp_path, ["seed=0..3"], product(seed=range(4)), lambda values: 0.9, states=states)
    lines = results.write_results(sweep, METRIC)
    assert "4 trials: 1 done, 1 diverged, 2 failed" in lines
    assert [line for line in lines if "seed=0" in line] == ["  seed=0 and 1 more: out of memory"]
    assert [line for line in lines if "seed=2" in line] == ["  seed=2: the loss is nan at step 500"]


@pytest.mark.parametrize(
    ("states", "final"),
    [
        ({index: "waiting" for index in range(6)}, 0.9),
        ({index: "failed" for index in range(6)}, 0.9),
        ({}, None),
    ],
    ids=["nothing has begun", "all failed", "nan everywhere"],
)
def test_a_sweep_without_a_best_trial_says_so(tmp_path, states, final):
    trials = product(learning_rate=RATES, seed=range(2))
    sweep = make_sweep(tmp_path, ["learning_rate=0.001,0.01,0.1"], trials, lambda values: final, states=states)
    lines = results.write_results(sweep, METRIC)
    assert lines[0] == "no trial has ended with a finite accuracy yet"
    assert not any("best:" in line for line in lines)
    assert (sweep.path / "summary.csv").read_text().count("\n") == 7
    assert not (sweep.path / "best.flags").exists() and not (sweep.path / "plots").exists()


def test_an_unfinished_sweep_tells_what_there_is(tmp_path):
    states = {3: "running", 4: "waiting", 5: "preempted"}
    trials = product(learning_rate=RATES, seed=range(2))
    sweep = make_sweep(tmp_path, ["learning_rate=0.001,0.01,0.1", "seed=0..1"], trials, accuracy, states=states)
    lines = results.write_results(sweep, METRIC)
    assert [line.split()[0] for line in lines[1:3]] == ["0.001", "0.01"]
    assert lines[2].split()[1:4] == ["1", "of", "2"] and lines[2].endswith("1 dead")
    assert "1 of 3 settings have no accuracy" in lines
    assert "learning_rate=0.001" in (sweep.path / "best.flags").read_text()


def test_a_sweep_without_trials_has_an_empty_summary(tmp_path):
    sweep = make_sweep(tmp_path, ["seed=0..1"], [], lambda values: 0.9, search="tpe")
    assert results.write_results(SweepDirectory(sweep.path), METRIC)[0] == (
        "no trial has ended with a finite accuracy yet"
    )
    assert (sweep.path / "summary.csv").read_text().startswith("trial,state,step,")


def test_a_search_that_learned_has_plots_of_its_own(tmp_path):
    """Without a study (here, or with too few trials) the importance is left out."""
    axes = ["learning_rate=choice(0.001,0.01,0.1)"]
    sweep = make_sweep(tmp_path, axes, product(learning_rate=RATES), accuracy, search="tpe")
    results.write_results(sweep, METRIC)
    plots = {path.name for path in (sweep.path / "plots").iterdir()}
    assert plots == {"axes.png", "curves.png", "parallel_coordinates.png"}
