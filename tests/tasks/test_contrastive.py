"""SimCLR: views, devices, refusals, and what is done with a trained encoder."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxdl import experiment, metrics
from jaxdl.errors import InputError
from jaxdl.models.contrastive import Contrastive
from jaxdl.models.mlp import MLP
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.contrastive import ContrastiveLearning
from jaxdl.train.evaluation import Evaluator
from launch import probe

ENCODER = ["--model=mlp", "--model.widths=16", "--model.normalization=batch", "--dataset=digits", "--batch_size=32"]
BASE = ["--task=contrastive", "--task.hidden_width=8", "--task.projection_width=4", *ENCODER]
BASE += ["--augment=crop,gaussian_noise", "--optimizer=sgd", "--learning_rate=0.1"]
QUIET = ["--plots=false", "--progress=off", "--tensorboard=false", "--mesh=data:1"]


def build(*flags):
    return experiment.build(experiment.parse([*BASE, "--steps=4", *flags]), check=False)


def test_views_are_different_and_the_augmentations_own():
    program = build()
    batch = program.data.decode(program.pipeline(8).batch(0))
    views = program._augmented(jax.random.key(0), batch)["inputs"]
    assert views.shape == (8, 2, 8, 8, 1)
    single = dataclasses.replace(program, task=dataclasses.replace(program.task))
    keys = jax.random.split(jax.random.key(0), 2)
    for view in range(2):
        expected = batch
        for index, augment in enumerate(single.augmentations):
            expected = augment(jax.random.fold_in(keys[view], index), expected)
        np.testing.assert_allclose(views[:, view], expected["inputs"], atol=1e-6)
    assert (np.abs(views[:, 0] - views[:, 1]).max(axis=(1, 2, 3)) > 0).all()


class Watched(ContrastiveLearning):
    """Tells of the views that an evaluation sees."""

    def evaluate(self, forward, batch):
        first, second = batch["inputs"][:, 0], batch["inputs"][:, 1]
        return {
            "difference": metrics.Mean.of(((first - second) ** 2).mean(axis=(1, 2, 3)), batch["weight"]),
            "by_place": metrics.Mean.of((first * second).mean(axis=(1, 2, 3)) * batch["index"], batch["weight"]),
        }


def test_views_of_an_evaluation_depend_on_the_example_alone():
    """Not on the size of the batch, and not on the devices that it is split over."""
    program = dataclasses.replace(build(), task=Watched())
    state = program.init(0, program.pipeline(8).example())
    found = {}
    for size, placement in ((40, Placement(make_mesh("data:1"))), (64, Placement(make_mesh("data:8"), "shard_map"))):
        [found[size]] = Evaluator(program, placement, size).metrics(placement.replicate(state), "validation")
    assert found[40]["difference"] > 0
    np.testing.assert_allclose(list(found[40].values()), list(found[64].values()), rtol=1e-5)


@pytest.fixture(scope="module")
def reference():
    program = build("--batch_size=64")
    batches = [program.pipeline(64).batch(step) for step in range(4)]
    return program, batches, train(program, Placement(make_mesh("data:1")), batches)


def train(program, placement, batches):
    step = placement.parallel(program.step, (None, 0))
    state = placement.replicate(program.init(0, {name: value[:1] for name, value in batches[0].items()}))
    losses = []
    for batch in batches:
        state, values = step(state, placement.place_batch(batch))
        losses.append(jax.device_get(values["loss"]).compute())
    return jax.device_get(state), losses


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_equal_one(reference, mode):
    """Augmentation, global batch statistics, and negatives of all devices."""
    program, batches, (state, losses) = reference
    sharded, sharded_losses = train(program, Placement(make_mesh("data:8"), mode), batches)
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(sharded), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4)


def test_microbatches_have_negatives_of_their_own():
    """With M of them the loss of equal projections is log(2 B / M - 1)."""
    for count in (1, 4):
        program = build(f"--gradient_accumulation={count}", "--augment=flip", "--augment.flip.horizontal=0")
        batch = {"inputs": np.ones((32, 8, 8, 1), np.float32), "labels": np.zeros(32, np.int32)}
        _, values = jax.jit(program.step)(program.init(0, batch), batch)
        assert jax.device_get(values["loss"]).compute() == pytest.approx(np.log(64 / count - 1), rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--batch_size=1"], "a single example: raise --batch_size"),
        (["--gradient_accumulation=32"], "a single example: raise --batch_size"),
        (["--augment="], "2 views of each example, which are equal without augmentation: give --augment"),
        (["--dataset=iris", "--augment=gaussian_noise"], r"needs images .*split 'train' are \[4\]"),
        (["--model=lstm_lm", "--model.hidden_size=8"], "no field num_outputs, which task"),
    ],
)
def test_refusals(flags, told):
    base = BASE if not flags[0].startswith("--model=") else [flag for flag in BASE if not flag.startswith("--model.")]
    with pytest.raises(InputError, match=told):
        experiment.build(experiment.parse([*base, "--steps=4", *flags]))


class Tokens(nn.Module):
    """Features of each of several tokens."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.Dense(8)(x)


def test_features_that_are_no_vectors_are_refused():
    with pytest.raises(InputError, match=r"Tokens gives features of shape \[2, 3, 8\], and a projection head"):
        Contrastive(Tokens()).init(jax.random.key(0), np.ones((2, 3, 5)), train=False)


def test_the_encoder_goes_on_under_a_classifier_and_is_probed(tmp_path, capsys):
    run = tmp_path / "simclr"
    first = experiment.run(experiment.parse([*BASE, *QUIET, "--steps=4", f"--workdir={run}"]))
    assert np.isfinite(first.metrics["test"]["loss"])
    flags = [*ENCODER, *QUIET, "--steps=3", f"--initialize_from={run}", "--freeze=hidden*,norm*"]
    second = experiment.run(experiment.parse([*flags, f"--workdir={tmp_path / 'linear'}"]))
    assert "hidden0, norm0; begun anew: output" in capsys.readouterr().out
    for name in ("hidden0", "norm0"):
        ours, theirs = (jax.device_get(result.state.params[name]) for result in (second, first))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for name in ("simclr", "linear"):
        assert probe.main([f"--workdir={tmp_path / name}", "--neighbors=20", "--checkpoint=latest"]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("trained", "before"))]
        assert (
            len(rows) == 2
            and rows[0][-3] == "16"
            and all(30 < float(value) <= 100 for row in rows for value in row[-2:])
        )
    for arguments, told in (
        ([], "--workdir is not given"),
        ([f"--workdir={tmp_path}"], "is no run directory"),
        ([f"--workdir={run}", "--split=train"], "held-out splits of this dataset are validation, test"),
    ):
        assert probe.main(arguments) == 2
        assert told in capsys.readouterr().err


def test_features_are_the_encoders_and_its_parameters_stand_beside_the_heads():
    model = Contrastive(MLP(widths=(6,), num_outputs=0), hidden_width=5, projection_width=3)
    inputs = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    variables = model.init(jax.random.key(0), inputs, train=False)
    assert set(variables["params"]) == {"hidden0", "projection_hidden", "projection"}
    features = model.apply(variables, inputs, train=False, method="features")
    alone = MLP(widths=(6,), num_outputs=0).apply(variables, inputs, train=False)
    np.testing.assert_array_equal(features, alone)
    assert model.apply(variables, inputs, train=False).shape == (2, 3)
