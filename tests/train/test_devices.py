"""The number of devices and the way a step is spread over them change nothing but the order of sums."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.sharding import Placement, make_mesh
from jaxdl.train.program import Program

STEPS = 20
BASE = [
    "--dataset=digits",
    "--batch_size=64",
    f"--steps={STEPS}",
    "--learning_rate=0.05",
    "--optimizer=sgd",
    "--optimizer.momentum=0.9",
]
MLP = ["--model=mlp", "--model.widths=16,16", "--model.dropout_rate=0.3", "--augment=gaussian_noise,mixup"]
RESNET = ["--model=resnet", "--model.stage_sizes=1,1", "--model.width=4", "--augment=flip,crop"]
DIFFUSION = [
    *("--task=diffusion", "--task.class_conditional", "--task.condition_drop_rate=0.2", "--dataset.standardize=false"),
    *("--model=dit", "--model.patch_size=4", "--model.width=16", "--model.num_layers=1", "--model.num_heads=2"),
]
CASES = {
    "mlp": MLP,
    "resnet": RESNET,
    "accumulated": [*MLP, "--gradient_accumulation=2"],
    "diffusion": DIFFUSION,  # times, noise and dropped conditions are drawn by example
}


def train(program: Program, placement: Placement, batches):
    """The state and the losses of a few steps on given batches."""
    step = placement.parallel(program.step, (None, 0))
    example = {name: value[:1] for name, value in batches[0].items()}
    state = placement.replicate(program.init(0, example))
    losses = []
    for batch in batches:
        state, metrics = step(state, placement.place_batch(batch))
        losses.append(jax.device_get(metrics["loss"]).compute())
    return jax.device_get(state), np.array(losses)


@pytest.fixture(scope="module", params=CASES)
def reference(request):
    from jaxdl.data.pipeline import Pipeline

    program = experiment.build(experiment.parse([*BASE, *CASES[request.param]]))
    pipeline = Pipeline(program.data.splits["train"], batch_size=64, seed=0)
    batches = [pipeline.batch(step) for step in range(STEPS)]
    return program, batches, train(program, Placement(make_mesh("data:1")), batches)


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_equal_one(reference, mode):
    program, batches, (state, losses) = reference
    sharded_state, sharded_losses = train(program, Placement(make_mesh("data:8"), mode), batches)
    # A sum of 64 float32 terms in another order differs by some units in the last place (6e-8); twenty steps of
    # momentum, and the normalisation by a standard deviation, let that grow by two to three orders of magnitude.
    np.testing.assert_allclose(sharded_losses, losses, rtol=2e-4)
    for ours, theirs in zip(jax.tree.leaves(sharded_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4)


def test_losses_fall(reference):
    losses = reference[2][1]
    assert losses[-5:].mean() < losses[:5].mean()


def test_accumulation_equals_one_large_batch():
    program = experiment.build(
        experiment.parse([*BASE, "--model=mlp", "--model.widths=16", "--model.dropout_rate=0.3"])
    )
    split = dataclasses.replace(program, gradient_accumulation=4)
    batch = {
        "inputs": np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32),
        "labels": np.arange(64, dtype=np.int32) % 10,
    }
    state = program.init(0, batch)
    whole, _ = jax.jit(program.step)(state, batch)
    parts, _ = jax.jit(split.step)(state, batch)
    for ours, theirs in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # one step of sums in another order
