"""Autoencoding: the bound against its closed form, PCA, noise, stages, pictures, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment, losses
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource, read
from jaxdl.errors import InputError
from jaxdl.layers.distributions import DiagonalGaussian
from jaxdl.settings import parse
from jaxdl.tasks.autoencoding import Autoencoding, CodeSampler, corrupt
from jaxdl.train.record import read_metrics

QUIET = ["--plots=false", "--progress=off", "--tensorboard=false", "--mesh=data:1"]
DIGITS = ["--dataset=digits", "--dataset.standardize=false", "--task=autoencoding", "--batch_size=64"]


class Fixed:
    """A model whose codes and outputs are given: N(mean, std), and `outputs` whatever the code."""

    def __init__(self, codes, outputs):
        self.codes, self.outputs = codes, outputs

    def __call__(self, inputs, *labels, method):
        return {"represent": None, "encode": self.codes, "decode": self.outputs}[method]


def batch(inputs):
    return {"inputs": jnp.asarray(inputs), "index": jnp.arange(len(inputs))}


def test_the_bound_is_its_closed_form():
    random = np.random.default_rng(0)
    x, logits = random.uniform(size=(3, 4)).astype(np.float32), random.normal(size=(3, 4)).astype(np.float32)
    mean, std = random.normal(size=(3, 2)).astype(np.float32), np.float32([[0.5, 2.0]] * 3)
    forward = Fixed(DiagonalGaussian(jnp.asarray(mean), jnp.log(std)), jnp.asarray(logits))
    p = 1 / (1 + np.exp(-logits))
    nats = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(axis=1)
    value, told = Autoencoding(beta=3.0).loss(forward, batch(x), jax.random.key(0))
    assert float(value) == pytest.approx((nats + 3 * kl).mean(), rel=1e-5)
    told = {name: metric.compute() for name, metric in jax.device_get(told).items()}
    expected = {"loss": nats + 3 * kl, "negative_elbo": nats + kl, "reconstruction": nats, "kl": kl}
    assert told == pytest.approx({name: values.mean() for name, values in expected.items()}, rel=1e-5)
    value, _ = Autoencoding(likelihood="gaussian", std=0.5).loss(forward, batch(x), jax.random.key(0))
    nats = ((x - logits) ** 2 / (2 * 0.25) + math.log(0.5 * math.sqrt(2 * math.pi))).sum(axis=1)
    assert float(value) == pytest.approx((nats + kl).mean(), rel=1e-5)


def test_the_divergence_is_that_of_samples():
    mean, log_std = jnp.array([0.7, -0.2]), jnp.log(jnp.array([0.4, 1.5]))
    gaussian = DiagonalGaussian(jnp.tile(mean, (100_000, 1)), jnp.tile(log_std, (100_000, 1)))
    draws = gaussian.sample(jax.random.split(jax.random.key(0), 100_000))
    standard = DiagonalGaussian(jnp.zeros_like(draws), jnp.zeros_like(draws))
    estimate = (gaussian.log_probability(draws) - standard.log_probability(draws)).mean()
    assert float(losses.normal_divergence(mean, log_std)) == pytest.approx(float(estimate), rel=0.02)


def test_an_evaluation_draws_by_the_examples_place_alone():
    class Echo:
        def __call__(self, inputs, method):
            return None if method == "represent" else inputs

    task = Autoencoding(likelihood="gaussian", corruption="gaussian", corruption_level=0.5)
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    whole = jax.device_get(task.evaluate(Echo(), batch(x))["loss"]).compute()
    parts = [
        task.evaluate(Echo(), {name: v[rows] for name, v in batch(x).items()})
        for rows in map(jnp.array, ([5, 0], [1, 2, 3, 4]))
    ]
    merged = jax.device_get(parts[0]["loss"].merge(parts[1]["loss"])).compute()
    assert merged == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    "kind, level, share, values", [("mask", 0.3, 0.3, {0.0}), ("salt_and_pepper", 0.4, 0.4, {0.0, 1.0})]
)
def test_corruption_sets_a_share_of_the_numbers(kind, level, share, values):
    x = jnp.full((50, 200), 0.5)
    noisy = np.asarray(corrupt(jax.random.split(jax.random.key(0), 50), x, kind, level))
    changed = noisy != 0.5
    assert changed.mean() == pytest.approx(share, abs=0.02) and set(np.unique(noisy[changed])) == values
    assert corrupt(None, x, "none", 0.0) is x
    added = np.asarray(corrupt(jax.random.split(jax.random.key(0), 50), x, "gaussian", 0.2)) - 0.5
    assert added.std() == pytest.approx(0.2, rel=0.03) and added.mean() == pytest.approx(0, abs=0.01)


def test_a_linear_autoencoder_spans_the_principal_subspace(tmp_path):
    """Baldi and Hornik 1989, Neural networks and principal component analysis: its only minimum is there."""
    from sklearn.decomposition import PCA

    flags = [*QUIET, "--dataset=digits", "--dataset.standardize=false", "--task=autoencoding", "--model=autoencoder"]
    flags += ["--model.widths=", "--model.code_size=4", "--task.likelihood=gaussian", "--batch_size=1437"]
    flags += ["--dataset.validation_fraction=0", "--optimizer=adam", "--learning_rate=0.02", "--schedule=cosine"]
    flags += ["--steps=1500", "--log_every=500", "--eval_every=1500", f"--workdir={tmp_path}"]
    train = parse(flags).make("dataset").load("").splits["train"]
    images = read(train, np.arange(len(train)))["inputs"].reshape(len(train), -1)
    result = experiment.run(parse([*flags, f"--batch_size={len(images)}"]))
    theirs = PCA(4).fit(images).components_.T  # [64, 4], orthonormal
    ours, _ = np.linalg.qr(np.asarray(result.state.params["output"]["kernel"], np.float64).T)
    cosines = np.linalg.svd(theirs.T @ ours, compute_uv=False)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    assert angles.max() < 2, angles  # of 90; float32 and a step size that ends at zero


def stage(folder, number, *flags):
    name = "whole" if number is None else str(number)
    own = ["--model=stacked_autoencoder", "--model.widths=16,8", "--model.activation=sigmoid", "--steps=6"]
    own += [f"--model.stage={'none' if number is None else number}", "--log_every=3", "--eval_every=6"]
    return experiment.run(parse([*QUIET, *DIGITS, *own, *flags, f"--workdir={folder / name}"])).state.params


def test_a_stack_is_trained_a_layer_at_a_time_and_then_as_a_whole(tmp_path):
    noise = ["--task.corruption=mask", "--task.corruption_level=0.25"]
    first = jax.device_get(stage(tmp_path, 0, *noise))
    second = jax.device_get(stage(tmp_path, 1, *noise, f"--initialize_from={tmp_path / '0'}", "--seed=1", "--plots"))
    assert (tmp_path / "1" / "samples" / "reconstructions.png").exists(), "of images, whatever the stage"
    equal = {top: np.array_equal(first[top]["kernel"], second[top]["kernel"]) for top in first}
    assert equal == {"hidden0": True, "decoder0": True, "hidden1": False, "decoder1": False}
    assert read_metrics(tmp_path / "1")[-1]["loss"] < 2, "of 16 sigmoids, not of 64 pixels"
    whole = jax.device_get(stage(tmp_path, None, f"--initialize_from={tmp_path / '1'}"))
    assert not any(np.array_equal(whole[top]["kernel"], second[top]["kernel"]) for top in whole)
    # The encoder begins a classifier.
    classifier = ["--model=mlp", "--model.widths=16,8", "--model.activation=sigmoid", "--dataset=digits", "--steps=1"]
    classifier += ["--dataset.standardize=false", "--learning_rate=0", f"--initialize_from={tmp_path / 'whole'}"]
    tuned = experiment.run(parse([*QUIET, *classifier, f"--workdir={tmp_path / 'mlp'}"])).state.params
    np.testing.assert_array_equal(tuned["hidden1"]["kernel"], whole["hidden1"]["kernel"])


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    flags = [
        "--model=convolutional_vae",
        "--model.widths=4,8",
        "--model.code_size=3",
        "--task.conditional",
        "--steps=3",
    ]
    flags += ["--task.binarize", f"--workdir={tmp_path_factory.mktemp('vae')}"]
    experiment.run(parse([*QUIET, *DIGITS, *flags]))
    _, program, _, _, state = experiment.restore(flags[-1].partition("=")[2])
    return program, jax.device_get(program.variables(state))


def test_pictures_and_images_of_classes(conditional):
    program, variables = conditional
    sampler = CodeSampler(num_samples=6, labels=(3, 7), frames=4, num_traversed=2)
    arguments = sampler, program.model, variables, program.data, jax.random.key(0)
    figures = program.task.sample(*arguments)
    assert set(figures) == {"reconstructions", "interpolations", "samples", "traversals"}
    images, labels = program.task.images(*arguments, 7)
    assert images.shape == (7, 8, 8, 1) and images.dtype == np.float32 and 0 <= images.min() <= images.max() <= 1
    assert labels.tolist() == [3, 7, 3, 7, 3, 7, 3]


def test_classes_that_do_not_exist(conditional):
    program, variables = conditional
    arguments = program.model, variables, program.data, jax.random.key(0)
    with pytest.raises(InputError, match="there is no class 10; the classes are 0 to 9"):
        program.task.images(CodeSampler(labels=(1, 10)), *arguments, 2)


REFUSED = {
    "standardised": (["--model=vae", "--dataset=digits"], "needs pixels in 0 to 1, not standardised ones"),
    "real numbers": (
        ["--model=vae", "--dataset=wine", "--dataset.standardize=false"],
        "needs images \\[height, width, channels\\]",
    ),
    "binarised normal numbers": ([*DIGITS, "--model=vae", "--task.likelihood=gaussian", "--task.binarize"], "binarize"),
    "a deviation of pixels": ([*DIGITS, "--model=vae", "--task.std=2"], "--task.std=2 has a meaning for"),
    "noise of no kind": ([*DIGITS, "--model=vae", "--task.corruption_level=0.1"], "a level a kind"),
    "a probability of 2": (
        [*DIGITS, "--model=vae", "--task.corruption=mask", "--task.corruption_level=2"],
        "at most 1",
    ),
    "beta of a plain one": ([*DIGITS, "--model=autoencoder", "--task.beta=2"], "take --model=vae"),
    "no classes": (
        ["--model=vae", "--dataset=diabetes", "--task.likelihood=gaussian", "--task.conditional"],
        "needs classes",
    ),
    "a stage too many": ([*DIGITS, "--model=stacked_autoencoder", "--model.stage=3"], "the stages 0 to 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_line(case):
    flags, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        experiment.build(parse(["--task=autoencoding", "--steps=1", *flags]))
    assert "\n" not in str(caught.value)


def test_pixels_beyond_the_range_are_refused():
    images = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype(np.float32)
    data = Data({"train": ArraySource({"inputs": images})})
    with pytest.raises(InputError, match="needs pixels in 0 to 1, or uint8, and those of split 'train' are in -"):
        Autoencoding().check(data)
    Autoencoding(likelihood="gaussian").check(data)


def test_a_plain_autoencoder_has_nothing_to_draw_from():
    program = experiment.build(parse([*DIGITS, "--steps=1", "--model=autoencoder"]), check=False)
    with pytest.raises(InputError, match="train --model=vae"):
        program.task.images(CodeSampler(), program.model, None, program.data, jax.random.key(0), 2)
