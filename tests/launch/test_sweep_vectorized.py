"""Sweeps of each kind of training, as child processes and as one program: the same trials."""

import json

import numpy as np
import pytest

from jaxdl.train.record import read_json, read_metrics
from launch import sweep
from launch.executors.base import train_job
from launch.executors.vectorized import Vectorized
from launch.sweeps.directory import SweepDirectory
from launch.sweeps.plan import Trial

COMMON = ["--steps=6", "--batch_size=16", "--log_every=3", "--eval_every=3", "--tensorboard=false"]

KINDS = {
    "classification": (
        ["--model=mlp", "--model.widths=16", "--dataset=digits"],
        ["learning_rate=0.01,0.02", "model.dropout_rate=0.1,0.2 with task.label_smoothing=0.1,0.3"],
    ),
    "images": (["--model=cnn", "--model.widths=4,4", "--dataset=digits"], ["seed=0..1"]),
    "regression": (
        ["--model=mlp", "--model.widths=8", "--task=regression", "--dataset=diabetes"],
        ["weight_decay=0.01,0.1"],
    ),
    "perceptron": (
        ["--flagfile=experiments/foundations/perceptron_breast_cancer.flags", "--eval_batch_size=120"],
        ["learning_rate=0.5,1"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_is_the_same_through_local_and_vectorized(kind, tmp_path, capsys):
    base, axes = KINDS[kind]
    flags = [*base, *COMMON, *(f"--sweep={axis}" for axis in axes)]
    for executor in ("local", "vectorized"):
        assert sweep.main([*flags, f"--executor={executor}", f"--workdir={tmp_path / executor}"]) == 0
    names = sorted(path.name for path in (tmp_path / "local" / "trials").iterdir())
    assert len(names) in (2, 4)
    assert names == sorted(path.name for path in (tmp_path / "vectorized" / "trials").iterdir())
    for name in names:
        ours, theirs = (read_metrics(tmp_path / executor / "trials" / name) for executor in ("vectorized", "local"))
        assert [(line["step"], line["split"]) for line in ours] == [(line["step"], line["split"]) for line in theirs]
        for a, b in zip(ours, theirs):
            for value in set(a) - {"split"}:
                np.testing.assert_allclose(a[value], b[value], rtol=2e-4, atol=2e-4, err_msg=f"{name} {value}")
    assert "best:" in capsys.readouterr().out


def test_programs_that_differ_in_shape_come_one_after_the_other(tmp_path, capsys):
    flags = ["--model=mlp", "--dataset=digits", *COMMON, "--sweep=model.widths=4,8", "--sweep=seed=0..1"]
    assert sweep.main([*flags, "--executor=vectorized", f"--workdir={tmp_path}"]) == 0
    assert "2 programs" in (told := capsys.readouterr().out) and "model.widths" in told
    groups = [json.loads(path.read_text()) for path in (tmp_path / "vectorized").glob("*/trials.json")]
    assert sorted(map(sorted, groups)) == [
        [f"model.widths={width}__seed=0", f"model.widths={width}__seed=1"] for width in (4, 8)
    ]
    assert all(read_json(path)["state"] == "done" for path in (tmp_path / "trials").glob("*/status.json"))


def opened(folder, its_trials, **fields):
    directory = SweepDirectory(folder)
    directory.open()
    directory.write_plan({"base": ["--model=mlp", "--dataset=digits", "--steps=5"]})
    directory.add_trials(its_trials)
    executor = Vectorized(**fields)
    executor.open(directory, None)
    return executor


def test_a_group_that_has_a_checkpoint_goes_on_together(tmp_path):
    """Also when some of its trials are done, and although others would now fit into it."""
    trials = [Trial(f"seed={seed}", {"seed": str(seed)}) for seed in range(4)]
    executor = opened(tmp_path, trials)
    [job] = executor.jobs(trials[:3])
    folder = tmp_path / "vectorized" / job.name
    (folder / "checkpoints" / "2").mkdir(parents=True)
    (folder / "trials.json").write_text(json.dumps(job.trials))
    again = executor.jobs(trials[1:])
    assert [(each.name, each.trials) for each in again[:1]] == [(job.name, ("seed=1", "seed=2"))]
    assert [each.trials for each in again[1:]] == [("seed=3",)]


def test_a_group_has_at_most_so_many_trials(tmp_path):
    trials = [Trial(f"seed={seed}", {"seed": str(seed)}) for seed in range(5)]
    jobs = opened(tmp_path, trials, trials=2).jobs(trials)
    assert [len(job.trials) for job in jobs] == [2, 2, 1]


def test_what_waits_for_its_turn_is_told_when_it_is_stopped(tmp_path, monkeypatch):
    trials = [Trial(f"seed={seed}", {"seed": str(seed)}) for seed in range(2)]
    executor = opened(tmp_path, trials)
    executor._state.free.clear()  # as if a group were running
    jobs = [train_job(executor._state.sweep, trial) for trial in trials]
    executor.start(jobs)
    assert executor.held() == {"seed=0": "queued", "seed=1": "queued"} and executor.room() == 0
    executor.stop()
    assert {name: ended.status for name, ended in executor.poll().items()} == {"seed=0": 75, "seed=1": 75}
    assert executor.held() == {}


def test_a_number_that_cannot_be_traced_stops_the_sweep_with_its_name(tmp_path, monkeypatch, write_module, capsys):
    write_module(
        "branching",
        "import flax.linen as nn\n"
        "class Branching(nn.Module):\n"
        "    threshold: float = 0.5\n"
        "    num_outputs: int = 10\n"
        "    @nn.compact\n"
        "    def __call__(self, x, *, train):\n"
        "        return nn.Dense(self.num_outputs)(x.reshape(len(x), -1) if self.threshold > 0.4 else x[:, 0, :, 0])\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    flags = ["--model=branching:Branching", "--dataset=digits", *COMMON, "--sweep=model.threshold=0.3,0.6"]
    assert sweep.main([*flags, "--executor=vectorized", f"--workdir={tmp_path / 'sweep'}"]) == 1
    assert "--model.threshold cannot vary within one program" in capsys.readouterr().err
