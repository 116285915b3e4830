"""The loop: what a run writes, early stopping, divergence, and feeds that agree."""

import json
import signal
from unittest import mock

import jax
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError, RunError
from jaxdl.train import loop
from jaxdl.train.evaluation import Evaluator
from jaxdl.train.record import read_json, read_metrics

BASE = [
    *("--model=mlp", "--model.widths=8", "--dataset=digits", "--batch_size=32", "--steps=40", "--log_every=10"),
    *("--eval_every=20", "--plots=false", "--tensorboard=false", "--mesh=data:1", "--progress=off"),
]


def run(workdir, *flags: str, **given):
    replaced = [*given, *(["model"] if any(flag.startswith("--model=") for flag in flags) else [])]
    base = [flag for flag in BASE if not flag.startswith(tuple(f"--{part}{end}" for part in replaced for end in ".="))]
    return experiment.run(experiment.parse([*base, f"--workdir={workdir}", *flags], given=tuple(given)), **given)


def test_an_evaluation_that_is_interrupted_again_and_again_is_made(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    evaluate, interrupts = Evaluator.metrics, iter([True, True, False, False, True, True, False, False])

    def interrupted(*arguments):
        if next(interrupts):
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(Evaluator, "metrics", interrupted)
    results = [run(tmp_path / "run") for _ in range(5)]
    assert [(result.status, result.step) for result in results] == [(75, 20), (75, 20), (75, 40), (75, 40), (0, 40)]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_what_a_run_leaves(tmp_path):
    result = run(tmp_path / "run", "--plots=true", "--tensorboard=true", "--profile_steps=5,10")
    path = tmp_path / "run"
    assert {entry.name for entry in path.iterdir()} >= {
        *(
            "flags.txt",
            "status.json",
            "metrics.jsonl",
            "environment.json",
            "checkpoints",
            "tensorboard",
            "plots",
            "profile",
        ),
    }
    records = read_metrics(path)
    assert [entry["step"] for entry in records if entry["split"] == "train"] == [10, 20, 30, 40]
    assert [entry["step"] for entry in records if entry["split"] == "test"] == [20, 40]
    assert {"loss", "accuracy", "learning_rate", "gradient_norm"} <= set(records[0])
    status = json.loads((path / "status.json").read_text())
    assert status["state"] == "done" and status["step"] == status["steps"] == 40 and status["steps_per_second"] > 0
    assert status["metrics"] == result.metrics
    environment = json.loads((path / "environment.json").read_text())
    assert environment["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert environment["model"]["num_outputs"] == 10, "what the data filled in is told"
    # A dense layer takes 2 FLOPs a weight forward and 4 backward, but for the first layer's input gradient; in so
    # small a network the rest (softmax, Adam, metrics) comes to nearly half as much again.
    matmuls = 32 * (6 * 8 * 10 + 4 * 64 * 8)
    assert matmuls <= environment["flops_per_step"] <= 1.6 * matmuls
    assert {plot.stem for plot in (path / "plots").iterdir()} >= {
        "learning_curves",
        "confusion_matrix",
        "misclassified",
    }
    assert list((path / "profile").rglob("*.xplane.pb"))


def test_done_runs_do_nothing_again(tmp_path):
    run(tmp_path)
    before, status = (tmp_path / "metrics.jsonl").read_bytes(), read_json(tmp_path / "status.json")
    assert run(tmp_path).step == 40
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert read_json(tmp_path / "status.json") == {**status, "heartbeat": mock.ANY}


def test_more_steps_continue_and_fewer_are_refused(tmp_path, capsys):
    run(tmp_path / "long", "--steps=60")
    run(tmp_path / "grown")
    run(tmp_path / "grown", "--steps=60")
    assert "continuing" in capsys.readouterr().out
    # An evaluation at the step where the first run ended stands in the grown one alone.
    lines = [read_metrics(tmp_path / name) for name in ("grown", "long")]
    assert [e for e in lines[0] if e in lines[1]] == lines[1]
    flags = (tmp_path / "grown" / "flags.txt").read_bytes()
    with pytest.raises(InputError, match="checkpoint at step 60, beyond the 40 asked for"):
        run(tmp_path / "grown", "--steps=40")
    assert (tmp_path / "grown" / "flags.txt").read_bytes() == flags, "nothing is overwritten"


def test_another_experiment_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="--learning_rate=0.001 -> 0.5"):
        run(tmp_path, "--learning_rate=0.5")


def test_feeds_agree(tmp_path):
    device = run(tmp_path / "device", "--data_mode=device")
    host = run(tmp_path / "host", "--data_mode=host", "--data_threads=2")
    for a, b in zip(jax.tree.leaves(device.state.params), jax.tree.leaves(host.state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # two programs: other fusions, other roundings


def test_the_length_of_a_dispatch_changes_no_bit(tmp_path):
    one = run(tmp_path / "one", "--steps_per_dispatch=10", "--model.dropout_rate=0.1")
    two = run(
        tmp_path / "two", "--steps_per_dispatch=10", "--model.dropout_rate=0.1", "--log_every=7", "--checkpoint_every=3"
    )
    for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(two.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluate_agrees_with_training(tmp_path):
    result = run(tmp_path)
    for split in ("validation", "test"):
        step, values = experiment.evaluate(str(tmp_path), split)
        assert step == result.best_step
        for name, value in result.metrics[split].items():
            assert values[name] == pytest.approx(value, rel=1e-6), name
    with pytest.raises(InputError, match="this dataset has train, validation, test"):
        experiment.evaluate(str(tmp_path), "tset")
    with pytest.raises(InputError, match="expected best, latest, or one of the steps 20, 40"):
        experiment.evaluate(str(tmp_path), checkpoint="30")
    with pytest.raises(InputError, match="is no run directory"):
        experiment.evaluate(str(tmp_path / "nothing"))


def test_early_stopping_keeps_the_best_and_stays_stopped(tmp_path):
    # A learning rate this high stops improving soon.
    flags = ("--steps=2000", "--eval_every=10", "--patience=3", "--learning_rate=0.5")
    result = run(tmp_path, *flags)
    assert result.step < 2000
    evaluated = [e for e in read_metrics(tmp_path) if e["split"] == "validation"]
    best = max(evaluated, key=lambda entry: (entry["accuracy"], -entry["loss"]))
    assert result.best_step == best["step"] and result.metrics["validation"]["accuracy"] == best["accuracy"]
    assert len([e for e in evaluated if e["step"] > best["step"]]) == 3
    assert (tmp_path / "checkpoints" / str(best["step"])).is_dir()
    assert run(tmp_path, *flags).step == result.step


def poisoned(bad: range) -> Data:
    """A regression whose rows `bad` blow the loss up."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(320, 4)).astype(np.float32)
    targets = inputs @ np.array([[1.0], [2.0], [-1.0], [0.5]], np.float32)
    targets[list(bad)] = 3e38  # finite data whose square is not
    return Data(splits={"train": ArraySource({"inputs": inputs, "targets": targets})}, num_targets=1)


REGRESSION = [
    "--model=linear_regression",
    "--task=regression",
    "--steps=30",
    "--optimizer=sgd",
    "--learning_rate=0.05",
    "--checkpoint_every=4",
]


def test_halting_names_the_step_and_saves_no_nan(tmp_path):
    data = poisoned(range(100, 101))
    from jaxdl.data.pipeline import Pipeline

    pipeline = Pipeline(data.splits["train"], batch_size=32, seed=0)
    bad = next(step for step in range(30) if 100 in pipeline.block(step, 1)[0])
    with pytest.raises(RunError, match=f"not finite at step {bad};"):
        run(tmp_path, *REGRESSION, dataset=data)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "diverged" and f"step {bad}" in status["error"]
    saved = [int(entry.name) for entry in (tmp_path / "checkpoints").iterdir() if entry.name.isdigit()]
    assert all(step <= bad for step in saved)
    assert all(entry["loss"] is not None for entry in read_metrics(tmp_path))


def test_rolling_back_leaves_the_bad_batches_out(tmp_path):
    result = run(tmp_path, *REGRESSION, "--on_nonfinite=rollback", dataset=poisoned(range(100, 101)))
    assert result.step == 30 and int(result.state.skipped_batches) > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(result.state.params)))
    assert json.loads((tmp_path / "status.json").read_text())["rollbacks"] >= 1
    steps = [entry["step"] for entry in read_metrics(tmp_path)]
    assert steps == sorted(set(steps)), "no line twice"


def test_rolling_back_for_ever_ends(tmp_path):
    with pytest.raises(RunError, match="again, after 5 rollbacks"):
        run(tmp_path, *REGRESSION, "--on_nonfinite=rollback", dataset=poisoned(range(320)))


def test_a_model_from_python(tmp_path):
    import flax.linen as nn

    class Mine(nn.Module):
        @nn.compact
        def __call__(self, inputs, *, train: bool):
            return nn.Dense(10)(inputs.reshape(len(inputs), -1))

    result = run(tmp_path, model=Mine())
    assert result.metrics["test"]["accuracy"] > 0.2
    assert "Its model was given from Python: Mine." in (tmp_path / "flags.txt").read_text()


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--batch_size=33", "--mesh=data:8"), "--batch_size=33 does not divide by 8 devices; --batch_size=32 would"),
        (("--batch_size=8", "--mesh=data:8", "--gradient_accumulation=2"), "8 devices x 2 microbatches"),
        (("--mesh=data:99",), "--mesh=data:99: there are 8 devices"),
        (("--mesh=model:2",), "expected data:N"),
        (("--batch_size=1300",), "larger than the training split"),
        (("--model=lenet5", "--dataset=iris"), "do not fit"),
        (("--task=regression",), "regression needs"),
        (("--num_processes=2",), "go together"),
        (("--freeze=nothing_like_it",), "nothing_like_it"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(tmp_path, flags, message):
    kept = [flag for flag in BASE if not (flag.startswith("--model.") and "--model=lenet5" in flags)]
    with pytest.raises(InputError) as caught:
        experiment.run(experiment.parse([*kept, f"--workdir={tmp_path / 'run'}", *flags]))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_loop_moves_nothing_unasked(tmp_path, monkeypatch):
    """A hidden transfer between host and device, such as a Python number among the arguments of a step, raises."""
    steps = loop._Loop._steps

    def guarded(self):
        with jax.transfer_guard("disallow"):
            return steps(self)

    monkeypatch.setattr(loop._Loop, "_steps", guarded)
    for mode in ("device", "host"):
        assert run(tmp_path / mode, f"--data_mode={mode}").step == 40
