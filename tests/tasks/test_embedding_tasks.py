"""Negative sampling and GloVe: losses, gradients and noise by hand; refusals; one device and eight, trials together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.data.tokenizers import WordTokenizer
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys
from jaxdl.models import create
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.embeddings import GloVe, NegativeSampling, draw_noise, neighbours, noise_thresholds

COUNTS = np.array([0, 40, 30, 10, 10, 5])
V, D, K = len(COUNTS), 3, 12
KEY = jax.random.key(7)
BATCH = {
    "inputs": jnp.array([[1, 2, 3, 4, 5, 1], [2, 2, 1, 0, 0, 0]], jnp.int32),
    "reach": jnp.array([[[1, 2], [2, 1]], [[0, 1], [0, 0]]], jnp.uint8),
}
TOKENIZER = WordTokenizer(("<unk>", "a", "b", "c", "d", "e"))


def task_of(**fields):
    return NegativeSampling(**fields).for_data(Data({}, tokenizer=TOKENIZER, token_counts=COUNTS))


def params_of(seed=0, names=("input", "output")):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=(V, D)), jnp.float32) for name in names}


def word2vec(name, params, negatives):
    """word2vec's updates of one batch at learning rate 1, predictions and loss: numbers computed one by one."""
    tables = {table: np.asarray(values, np.float64) for table, values in params.items()}
    updates = {table: np.zeros_like(values) for table, values in tables.items()}
    total, predictions = 0.0, 0
    for tokens, reach, of_example in zip(BATCH["inputs"], BATCH["reach"], negatives):
        side = (len(tokens) - len(reach)) // 2
        for place, (before, after) in enumerate(np.asarray(reach, int)):
            word = int(tokens[place + side])
            around = [int(tokens[place + side + step]) for step in range(-before, after + 1) if step]
            groups = [[other] for other in around] if name == "skip_gram" else [around] if around else []
            for group in groups:
                predictions += 1
                hidden, error = tables["input"][group].mean(axis=0), np.zeros(D)
                for position, candidate in enumerate([word, *np.asarray(of_example[place])]):
                    if position and candidate == word:
                        continue
                    sigmoid = 1 / (1 + np.exp(-hidden @ tables["output"][candidate]))
                    total -= np.log(sigmoid if position == 0 else 1 - sigmoid)
                    error += ((position == 0) - sigmoid) * tables["output"][candidate]
                    updates["output"][candidate] += ((position == 0) - sigmoid) * hidden
                for other in group:  # word2vec does not divide by the length of the group
                    updates["input"][other] += error
    return updates, predictions, total


@pytest.mark.parametrize("name", ["skip_gram", "cbow"])
def test_loss_and_gradient_are_word2vecs(name):
    task, params, model = task_of(negatives=K), params_of(), create(name, vocab_size=V, features=D)

    def loss(params):
        return task.loss(lambda *inputs: model.apply({"params": params}, *inputs, train=True), BATCH, KEY)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    negatives = jax.vmap(lambda key: draw_noise(key, jnp.asarray(task.noise), (2, K)))(example_keys(KEY, 2))
    assert (negatives == BATCH["inputs"][:, 2:4, None]).any()  # some are to be left out
    updates, predictions, total = word2vec(name, params, negatives)
    assert predictions == (7 if name == "skip_gram" else 3)
    np.testing.assert_allclose(value, total / 2, rtol=1e-5)  # the mean over two examples
    np.testing.assert_allclose(metrics["loss"].compute(), total / predictions, rtol=1e-5)
    for table in params:  # float32 against float64, sums of some ten terms near one
        np.testing.assert_allclose(-2 * gradient[table], updates[table], atol=1e-5)


@pytest.mark.parametrize("power", [0.75, 0.0, 1.0])
def test_noise_is_the_unigram_distribution_to_a_power(power):
    draws = np.asarray(draw_noise(KEY, jnp.asarray(noise_thresholds(COUNTS, power)), (40_000,)))
    weights = np.where(COUNTS > 0, COUNTS.astype(float) ** power, 0)
    counts = np.bincount(draws, minlength=V)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:], 40_000 * weights[1:] / weights.sum()).pvalue > 1e-3


def test_noise_bounds_are_exact_for_a_million_words():
    counts = 1e9 / np.arange(1, 1_000_001)
    bounds = noise_thresholds(counts).astype(np.float64)
    probability = counts**0.75 / (counts**0.75).sum()
    assert np.abs(np.diff(bounds) / 2**32 - probability[:-1]).max() < 2**-31 and (np.diff(bounds) > 0).all()


def test_neighbours_by_hand():
    window = neighbours(BATCH["reach"], 6)
    np.testing.assert_array_equal(window[0].astype(int), [[0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(window[1].astype(int), [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("name", ["skip_gram", "cbow"])
def test_evaluation_draws_by_the_place_in_the_split(name):
    task, model, variables = task_of(), create(name, vocab_size=V, features=D), {"params": params_of()}
    forward = lambda *inputs: model.apply(variables, *inputs, train=False)

    def loss(rows, index, weight):
        batch = {key: value[jnp.array(rows)] for key, value in BATCH.items()}
        batch |= {"index": jnp.array(index, jnp.int32), "weight": jnp.array(weight, jnp.float32)}
        return task.evaluate(forward, batch)["loss"]

    both, padded = loss([0, 1], [0, 1], [1, 1]), loss([0, 1, 1], [0, 1, 1], [1, 1, 0])
    parts = loss([0], [0], [1]).merge(loss([1], [1], [1]))
    for other in (padded, parts):
        np.testing.assert_allclose(other.compute(), both.compute(), rtol=1e-6)
    assert loss([0], [3], [1]).compute() != loss([0], [0], [1]).compute()


def test_glove_loss_and_gradient_by_hand():
    task, model = GloVe(x_max=10.0, alpha=0.5), create("glove", vocab_size=V, features=D)
    params = params_of() | {"input_bias": jnp.arange(6.0), "output_bias": jnp.ones(6)}
    pairs = jnp.array([[[1, 2], [3, 4]], [[5, 1], [0, 0]]], jnp.int32)
    batch = {"inputs": pairs, "cooccurrences": jnp.array([[2.5, 40.0], [10.0, 0.0]])}

    def loss(params):
        return task.loss(lambda *inputs: model.apply({"params": params}, *inputs, train=True), batch, KEY)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    total, slope = 0.0, np.zeros(V)
    for (i, j), count in (((1, 2), 2.5), ((3, 4), 40.0), ((5, 1), 10.0)):
        error = float(params["input"][i] @ params["output"][j] + i + 1 - np.log(count))
        weight = min(1, (count / 10) ** 0.5)
        total, slope[i] = total + weight * error**2, slope[i] + 2 * weight * error
    np.testing.assert_allclose(value, total / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"].compute(), total / 3, rtol=1e-5)
    np.testing.assert_allclose(gradient["input_bias"], slope / 2, rtol=1e-5, atol=1e-6)
    assert (gradient["input"][0] == 0).all()  # a filled-up place, which has no entry


def test_data_that_cannot_serve_is_refused():
    with pytest.raises(InputError, match="--dataset=word_pairs"):
        NegativeSampling().for_data(Data({}))
    source = ArraySource({"inputs": np.zeros((3, 2), np.int32)})
    with pytest.raises(InputError, match="--dataset=cooccurrence"):
        GloVe().check(Data({"train": source}, tokenizer=TOKENIZER))


# Whole programs.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text")
    random = np.random.default_rng(0)
    words = np.minimum(random.zipf(1.3, (80, 40)), 30)
    for name in ("train", "valid"):
        (path / f"{name}.txt").write_text("\n".join(" ".join(f"w{i}" for i in line) for line in words))
    return path


CASES = {
    "skip_gram": ["--model=skip_gram", "--task=negative_sampling", "--dataset=word_pairs"],
    "cbow": ["--model=cbow", "--task=negative_sampling", "--dataset=word_pairs", "--gradient_accumulation=2"],
    "glove": ["--model=glove", "--task=glove", "--dataset=cooccurrence", "--optimizer=adagrad", "--dataset.length=8"],
}


def flags_of(case, folder):
    common = [f"--data_dir={folder}", "--dataset.min_count=1", "--model.features=4", "--batch_size=16", "--steps=6"]
    return [*common, "--optimizer=sgd", "--learning_rate=0.4", *CASES[case]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["jit", "shard_map"])
def test_eight_devices_equal_one(case, mode, folder):
    program = experiment.build(experiment.parse(flags_of(case, folder)))
    pipeline = program.pipeline(16)

    def train(placement):
        step = placement.parallel(program.step, (None, 0))
        state = placement.replicate(program.init(0, pipeline.example()))
        for index in range(4):
            state, metrics = step(state, placement.place_batch(pipeline.batch(index)))
        return jax.device_get((state.params, metrics["loss"].compute()))

    if case == "cbow":  # 16 examples in 2 microbatches are 8, one for each device
        program = dataclasses.replace(program, gradient_accumulation=2)
    one, eight = train(Placement(make_mesh("data:1"))), train(Placement(make_mesh("data:8"), mode))
    for ours, theirs in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # sums in another order


def test_accumulation_equals_one_large_batch(folder):
    program = experiment.build(experiment.parse(flags_of("skip_gram", folder)))
    batch = program.pipeline(16).batch(0)
    state = program.init(0, batch)
    whole, _ = jax.jit(program.step)(state, batch)
    parts, _ = jax.jit(dataclasses.replace(program, gradient_accumulation=4).step)(state, batch)
    for ours, theirs in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_trials_together_equal_trials_alone(case, folder, tmp_path):
    quiet = ["--plots=false", "--tensorboard=false", "--progress=off", "--log_every=3", "--mesh=data:1"]
    flags = [*flags_of(case, folder), *quiet, "--precision=bfloat16" if case == "skip_gram" else "--remat"]
    trials = [
        experiment.parse([*flags, f"--learning_rate={rate}", f"--seed={seed}", f"--workdir={tmp_path / str(seed)}"])
        for seed, rate in enumerate((0.4, 0.2))
    ]
    together = experiment.run_trials(trials, tmp_path / "together")
    alone = experiment.run(experiment.parse([*flags, "--learning_rate=0.2", "--seed=1", f"--workdir={tmp_path / 'a'}"]))
    for name, value in together[1].metrics["validation"].items():
        np.testing.assert_allclose(value, alone.metrics["validation"][name], rtol=1e-3)


@pytest.mark.parametrize("case", ["skip_gram", "cbow", "glove"])
def test_losses_fall(case, folder):
    rate = "--learning_rate=0.2" if case != "glove" else "--learning_rate=0.2"
    program = experiment.build(experiment.parse([*flags_of(case, folder), rate, "--steps=60"]))
    pipeline, step = program.pipeline(16), jax.jit(program.step)
    state, losses = program.init(0, pipeline.example()), []
    for index in range(60):
        state, metrics = step(state, pipeline.batch(index))
        losses.append(metrics["loss"].compute())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
