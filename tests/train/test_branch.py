"""Branches: one stable run serves several lengths, each to the bit the run that it would have been alone."""

import pathlib

import jax
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.errors import InputError
from jaxdl.train.checkpoints import finished_steps

FLAGS = ["--model=mlp", "--model.widths=8", "--model.dropout_rate=0.2", "--dataset=digits", "--batch_size=32"]
FLAGS += ["--schedule=wsd", "--schedule.warmup_steps=4", "--log_every=7", "--eval_every=10", "--checkpoint_every=10"]
FLAGS += ["--plots=false", "--tensorboard=false", "--progress=off", "--mesh=data:1", "--ema_decay=0.9"]
STABLE = ["--schedule.decay_fraction=0", "--steps=30", "--keep_checkpoints=9"]
DECAY = ["--schedule.decay_fraction=0.33", "--steps=24"]  # from step 16.08 on


def train(workdir, *flags):
    return experiment.run(experiment.parse([*FLAGS, *flags, f"--workdir={workdir}"]))


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable") / "run"
    train(folder, *STABLE)
    assert finished_steps(folder) == [10, 20, 30]
    return folder


def test_a_branch_is_to_the_bit_the_whole_run(stable, tmp_path):
    whole = train(tmp_path / "whole", *DECAY)
    branch = train(tmp_path / "branch", *DECAY, f"--branch_from={stable}", "--branch_step=10")
    for one, other in zip(jax.tree.leaves(whole.state), jax.tree.leaves(branch.state), strict=True):
        np.testing.assert_array_equal(one, other)
    one, other = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "branch"))
    assert one == other
    # It is a run like others: done, and not begun again.
    again = train(tmp_path / "branch", *DECAY, f"--branch_from={stable}", "--branch_step=10")
    assert again.step == 24 and again.metrics == branch.metrics


def test_a_branch_that_has_a_checkpoint_needs_its_stem_no_more(stable, tmp_path):
    flags = [*DECAY, f"--branch_from={stable}", "--branch_step=10"]
    first = train(tmp_path / "run", *flags)
    moved = stable.rename(stable.with_name("moved"))
    try:
        assert train(tmp_path / "run", *flags, "--log_every=5").metrics == first.metrics
    finally:
        moved.rename(stable)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--branch_step=10"], "stand together"),
        (["--branch_from={stable}"], "stand together"),
        (["--branch_from={stable}", "--branch_step=15"], "no checkpoint of that step (there are: 10, 20, 30)"),
        (["--branch_from={stable}/..", "--branch_step=10"], "is no run directory"),
        (["--branch_from={stable}", "--branch_step=10", "--steps=9"], "beyond the 9 steps"),
        (["--branch_from={stable}", "--branch_step=10", "--seed=1"], "it has --seed=0"),
        (["--branch_from={stable}", "--branch_step=10", "--learning_rate=0.01"], "it has --learning_rate=0.001"),
        (["--branch_from={stable}", "--branch_step=20"], "at step 17 its learning rate is 0.001, and here 0.0"),
        (["--branch_from={stable}", "--branch_step=10", "--schedule.warmup_steps=5"], "at step 1 its learning rate"),
    ],
)
def test_what_is_no_beginning_of_the_run_is_told_before_anything_is_written(stable, tmp_path, flags, told):
    flags = [flag.format(stable=stable) for flag in flags]
    with pytest.raises(InputError) as error:
        train(tmp_path / "run", *DECAY, *flags)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert not pathlib.Path(tmp_path / "run").exists()
