"""Masked language modelling: which tokens are hidden and how, and that nothing but the task decides it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, PartitionSpec

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.pipeline import eval_batches
from jaxdl.data.sources import ArraySource
from jaxdl.data.tokenizers import ByteTokenizer, WordTokenizer
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context
from jaxdl.models import create
from jaxdl.tasks.masked_language_modeling import (
    FillMasks,
    MaskedLanguageModeling,
    Vocabulary,
    hide_tokens,
    real_tokens,
)
from tests.models.variables import random_variables

V, MASK_ID, T = 20, 1, 40
WORDS = WordTokenizer.of("the cat sat on the mat and the dog sat on the log", special_tokens=("[MASK]",))
KEY = jax.random.key(7)


def tokens(rows, length=T):
    """Ids beside the mask's."""
    return jax.random.randint(jax.random.key(3), (rows, length), 2, V)


def hide(rows=2000, length=T, real=None, **options):
    batch = tokens(rows, length)
    real = jnp.ones(batch.shape, bool) if real is None else real
    return batch, hide_tokens(jax.random.split(KEY, rows), batch, real, size=V, mask_id=MASK_ID, **options)


def is_uniform(counts, expected=None):
    """Chi-square at one in ten thousand: the key is fixed, so the test is, too."""
    return scipy.stats.chisquare(counts, expected).pvalue > 1e-4


def text_data(length=8):
    ids = WORDS.encode("the cat sat on the mat and the dog sat on the log " * 20)
    rows = np.lib.stride_tricks.sliding_window_view(ids, length)[::3].astype(np.int32)
    lengths = (1 + np.arange(len(rows)) % length).astype(np.int32)
    split = ArraySource({"inputs": rows, "lengths": lengths})
    return Data({"train": split, "validation": split}, tokenizer=WORDS)


def bert():
    return create("bert", vocab_size=WORDS.vocab_size, max_length=8, width=8, num_layers=1, num_heads=2)


def test_hidden_tokens_are_masked_replaced_or_kept():
    batch, masked = hide()
    np.testing.assert_array_equal(masked.targets, jnp.take_along_axis(batch, masked.positions, axis=1))
    assert masked.positions.shape == (2000, 6) and (masked.weight == 1).all()  # 15 % of 40
    seen = jnp.take_along_axis(masked.tokens, masked.positions, axis=1)
    is_mask, is_kept = seen == MASK_ID, seen == masked.targets
    # A random token is the mask or the token itself once in V times each.
    shares = np.array([0.8 + 0.1 / V, 0.1 + 0.1 / V, 0.1 * (V - 2) / V])
    counts = np.array([is_mask.sum(), is_kept.sum(), (~is_mask & ~is_kept).sum()])
    assert is_uniform(counts, shares * counts.sum())
    untouched = np.array(batch)
    np.put_along_axis(untouched, np.asarray(masked.positions), np.asarray(seen), axis=1)
    np.testing.assert_array_equal(masked.tokens, untouched)


def test_every_place_is_as_likely_and_none_is_drawn_twice():
    _, masked = hide()
    assert is_uniform(np.bincount(np.ravel(masked.positions), minlength=T))
    assert (np.diff(np.sort(masked.positions, axis=1), axis=1) > 0).all()


def test_random_tokens_are_any_of_the_vocabulary():
    _, masked = hide(random_share=1.0, keep_share=0.0)
    seen = jnp.take_along_axis(masked.tokens, masked.positions, axis=1)
    assert is_uniform(np.bincount(np.ravel(seen), minlength=V))


def test_places_of_neighbours_are_drawn_alone():
    """That one of two places is chosen says of the other only that there is one fewer to choose."""
    _, masked = hide()
    chosen = np.zeros((2000, T), bool)
    np.put_along_axis(chosen, np.asarray(masked.positions), True, axis=1)
    pairs = (chosen[:, ::2] & chosen[:, 1::2]).sum()
    total = 2000 * T // 2
    expected = total * (6 / T) * (5 / (T - 1))
    assert is_uniform([pairs, total - pairs], [expected, total - expected])


@pytest.mark.parametrize("probability", [0.05, 0.15, 1.0])
def test_padding_is_never_chosen_and_short_texts_have_their_share(probability):
    lengths = jnp.arange(T + 1)
    real = jnp.arange(T)[None] < lengths[:, None]
    batch, masked = hide(T + 1, real=real, probability=probability)
    expected = [max(1, round(probability * n)) if n else 0 for n in range(T + 1)]
    np.testing.assert_array_equal(masked.weight.sum(axis=1), expected)
    assert (jnp.where(masked.weight > 0, masked.positions, -1).max(axis=1) < lengths).all()
    np.testing.assert_array_equal(jnp.where(real, 0, masked.tokens), jnp.where(real, 0, batch))


def test_what_is_real():
    inputs = jnp.zeros((2, 3), jnp.int32)
    some = [[True, True, False], [True, False, False]]
    for name, value in (
        ("lengths", jnp.array([2, 1])),
        ("segments", jnp.array([[1, 2, 0], [1, 0, 0]])),
        ("token_weight", jnp.array([[1.0, 1, 0], [1, 0, 0]])),
    ):
        np.testing.assert_array_equal(real_tokens({"inputs": inputs, name: value}), some)
    assert real_tokens({"inputs": inputs}).all()


def test_masks_change_from_step_to_step_and_not_from_evaluation_to_evaluation():
    task, data = MaskedLanguageModeling().for_data(text_data()), text_data()
    seen = []

    def forward(tokens, *args, positions):
        seen.append(np.asarray(tokens))
        return jnp.zeros((*positions.shape, WORDS.vocab_size))

    batch = {name: jnp.asarray(value[:16]) for name, value in data.splits["train"].arrays.items()}
    for key in (0, 1, 0):
        task.loss(forward, batch, jax.random.key(key))
    assert (seen[0] != seen[1]).any() and (seen[0] == seen[2]).all()
    for index in (jnp.arange(16), jnp.arange(16), jnp.arange(1, 17)):
        task.evaluate(forward, batch | {"index": index})
    assert (seen[3] == seen[4]).all() and (seen[3] != seen[5]).any()


def test_the_loss_is_the_cross_entropy_of_what_was_hidden():
    task, data, model = MaskedLanguageModeling().for_data(text_data()), text_data(), bert()
    variables = random_variables(model, (8,), "int32")
    batch = {name: jnp.asarray(value[:16]) for name, value in data.splits["train"].arrays.items()}
    forward = lambda *inputs, **kwargs: model.apply(variables, *inputs, train=False, **kwargs)
    loss, results = task.loss(forward, batch, KEY)
    masked = task.hide(jax.vmap(lambda row: jax.random.fold_in(KEY, row))(jnp.arange(16)), batch, 0.15)
    log_probabilities = jax.nn.log_softmax(model.apply(variables, masked.tokens, batch["lengths"], train=False))
    total = 0.0
    for row in range(16):
        for place in np.flatnonzero(masked.weight[row]):
            total -= log_probabilities[row, masked.positions[row, place], masked.targets[row, place]]
    np.testing.assert_allclose(loss, total / masked.weight.sum(), rtol=1e-5)
    values = {name: metric.compute() for name, metric in jax.device_get(results).items()}
    np.testing.assert_allclose(values["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(values["perplexity"], np.exp(loss), rtol=1e-5)
    assert 0 <= values["accuracy"] <= 1


def test_shards_hide_the_same_tokens():
    """One device or eight: the loss, its gradient and the metrics are those of the whole batch."""
    task, data, model = MaskedLanguageModeling().for_data(text_data()), text_data(), bert()
    variables = random_variables(model, (8,), "int32")
    batch = {name: jnp.asarray(value[:16]) for name, value in data.splits["train"].arrays.items()}

    def step(params, batch):
        def loss(params):
            return task.loss(lambda *i, **k: model.apply({"params": params}, *i, train=False, **k), batch, KEY)

        (value, results), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradient, results

    def sharded(params, batch):
        with batch_context(axis_name="data"):
            value, gradient, results = step(params, batch)
            results = {name: metric.summed() for name, metric in results.items()}
        return jax.lax.psum((value, gradient), "data"), results

    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = jax.shard_map(
        sharded,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    (value, gradient), results = jax.jit(split)(variables["params"], batch)
    expected_value, expected_gradient, expected = jax.jit(step)(variables["params"], batch)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, expected_gradient)
    for name in expected:
        np.testing.assert_allclose(results[name].compute(), expected[name].compute(), rtol=1e-5)


def test_evaluation_does_not_depend_on_the_batch_size():
    task, data, model = MaskedLanguageModeling().for_data(text_data()), text_data(), bert()
    variables = random_variables(model, (8,), "int32")

    @jax.jit
    def evaluate(batch):
        return task.evaluate(lambda *i, **k: model.apply(variables, *i, train=False, **k), batch)

    def total(batch_size):
        parts = [jax.device_get(evaluate(batch)) for batch in eval_batches(data.splits["validation"], batch_size)]
        result = parts[0]
        for part in parts[1:]:
            result = {name: metric.merge(part[name]) for name, metric in result.items()}
        return {name: metric.compute() for name, metric in result.items()}

    expected = total(85)
    for batch_size in (16, 9):
        assert total(batch_size) == pytest.approx(expected, rel=1e-5)


def test_the_data_must_have_a_mask():
    task = MaskedLanguageModeling()
    split = {"train": ArraySource({"inputs": np.zeros((2, 3), np.int32)})}
    with pytest.raises(InputError, match="needs text, and the dataset has none"):
        task.for_data(Data(split))
    for tokenizer in (ByteTokenizer(), WordTokenizer.of("a b")):
        with pytest.raises(InputError, match=r"no \[MASK\]: take --dataset.tokenizer=word"):
            task.for_data(Data(split, tokenizer=tokenizer))
    assert task.for_data(text_data()).vocabulary == Vocabulary(WORDS.vocab_size, 1)
    with pytest.raises(InputError, match="random_share=0.7 and --task.keep_share=0.6 are more than all"):
        MaskedLanguageModeling(random_share=0.7, keep_share=0.6).check(text_data())


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"inputs": np.full((2, 3), WORDS.vocab_size)}, f"inputs of row 0 has {WORDS.vocab_size}, and must be from 0"),
        ({"inputs": np.zeros((2, 3), int), "lengths": np.array([3, 0])}, "lengths of row 1 has 0, and must be from 1"),
    ],
)
def test_tokens_and_lengths_that_cannot_be_are_refused(arrays, message):
    with pytest.raises(InputError, match=message):
        MaskedLanguageModeling().check(Data({"train": ArraySource(arrays)}, tokenizer=WORDS))


def test_shares_may_be_traced():
    batch = {"inputs": tokens(4)}
    task = MaskedLanguageModeling(vocabulary=Vocabulary(V, MASK_ID))
    forward = lambda seen, *args, positions: jax.nn.one_hot(jnp.take_along_axis(seen, positions, axis=1), V)

    def loss(share):
        return MaskedLanguageModeling(random_share=share, vocabulary=task.vocabulary).loss(forward, batch, KEY)[0]

    np.testing.assert_allclose(jax.vmap(loss)(jnp.array([0.1, 0.9])), [loss(0.1), loss(0.9)], rtol=1e-6)


def certain(word):
    """A model that is certain of one word everywhere."""

    class Certain:
        def apply(self, variables, tokens, train):
            return jnp.broadcast_to(
                20.0 * jax.nn.one_hot(WORDS.token_id(word), WORDS.vocab_size), (*tokens.shape, WORDS.vocab_size)
            )

    return Certain()


def test_the_sampler_fills_masks():
    sampler = FillMasks(text="the [MASK] sat on [MASK]", num_guesses=2)
    told = sampler.sample(certain("dog"), {}, text_data(), KEY)["0"].splitlines()
    assert told[:2] == ["hidden: the [MASK] sat on [MASK]", "filled: the dog sat on dog"]
    assert told[2].startswith("1. dog 1.00, ") and told[3].startswith("2. dog 1.00, ") and len(told) == 4


def test_the_sampler_hides_tokens_of_held_out_texts():
    texts = FillMasks(num_samples=2).sample(certain("log"), {}, text_data(), KEY)
    assert list(texts) == ["0", "1"]
    assert "[MASK]" in texts["1"].splitlines()[0] and "(it was: " in texts["1"]


def test_a_text_without_a_mask_is_refused():
    with pytest.raises(InputError, match=r"has no \[MASK\] to fill"):
        FillMasks(text="the cat").sample(certain("dog"), {}, text_data(), KEY)


FLAGS = ["--model=bert", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2", "--model.max_length=8"]
FLAGS += ["--task=masked_language_modeling", "--dataset=text", "--dataset.path=text.txt", "--dataset.tokenizer=word"]
FLAGS += ["--dataset.special_tokens=[MASK]", "--dataset.length=8", "--steps=4", "--batch_size=8", "--eval_every=4"]
FLAGS += ["--plots=false", "--tensorboard=false", "--progress=off", "--mesh=data:1"]


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_a_run_from_flags(packing, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n\nand the dog sat on the log\n\n" * 40)
    flags = [*FLAGS, f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}", f"--dataset.packing={packing}"]
    result = experiment.run(experiment.parse([*flags, "--dataset.documents=blank_line"]))
    assert (result.status, result.step) == (0, 4)
    assert np.isfinite(result.metrics["validation"]["loss"])


def test_a_run_in_half_precision_and_parts(tmp_path):
    """Rematerialised microbatches in bfloat16, on eight devices."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n\nand the dog sat on the log\n\n" * 40)
    flags = [*FLAGS, f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}", "--mesh=data:8", "--batch_size=16"]
    flags += ["--parallelism=shard_map", "--precision=bfloat16", "--remat", "--gradient_accumulation=2"]
    result = experiment.run(experiment.parse([*flags, "--model.dropout_rate=0.1"]))
    assert (result.status, result.step) == (0, 4)
    assert np.isfinite(result.metrics["validation"]["loss"])
