"""Sequence to sequence: losses and metrics by hand, decoding, devices, figures, and data that cannot serve."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data.addition import Addition
from jaxdl.data.base import Data
from jaxdl.data.sequences import pairs
from jaxdl.data.sources import ArraySource
from jaxdl.data.tokenizers import CharacterTokenizer, WordTokenizer
from jaxdl.errors import InputError
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.sequence_to_sequence import Decoding, SequenceToSequence, pieces_of, text_of

B, T, V, KEY = 5, 4, 6, jax.random.key(0)
_rng = np.random.default_rng(0)
LOGITS = jnp.asarray(2 * _rng.normal(size=(B, T, V)), jnp.float32)
TARGETS = jnp.asarray(_rng.integers(0, V, (B, T)), jnp.int32).at[:3].set(LOGITS[:3].argmax(-1).astype(jnp.int32))
# The third example's last token is wrong, and padding; the first two are right as a whole.
TARGETS = TARGETS.at[2, 3].set((TARGETS[2, 3] + 1) % V)
BATCH = {
    "inputs": jnp.zeros((B, 3), jnp.int32),
    "lengths": jnp.ones(B, jnp.int32),
    "targets": TARGETS,
    "target_lengths": jnp.array([4, 2, 3, 1, 4]),
}
TINY = ["--task=sequence_to_sequence", "--model=seq2seq", "--model.hidden_size=8", "--model.embedding_size=4"]
TINY += ["--dataset=addition", "--dataset.digits=2", "--dataset.smaller_digits=1", "--dataset.validation_size=60"]
TINY += ["--dataset.test_size=60", "--batch_size=16", "--steps=4", "--eval_batch_size=40"]


def forward(inputs, lengths, targets):
    return LOGITS[: len(targets)]


def test_loss_and_metrics_by_hand():
    task = SequenceToSequence()
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    losses, right = [], []
    for b in range(B):
        for t in range(int(BATCH["target_lengths"][b])):
            losses.append(-log_p[b, t, TARGETS[b, t]])
            right.append(log_p[b, t].argmax() == TARGETS[b, t])
    loss, trained = task.loss(forward, BATCH, KEY)
    result = {name: metric.compute() for name, metric in task.evaluate(forward, BATCH).items()}
    np.testing.assert_allclose([loss, trained["loss"].compute(), result["loss"]], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(result["perplexity"], np.exp(np.mean(losses)), rtol=1e-5)
    np.testing.assert_allclose([trained["token_accuracy"].compute(), result["token_accuracy"]], np.mean(right))
    exact = [all(right[sum(BATCH["target_lengths"][:b]) :][: BATCH["target_lengths"][b]]) for b in range(B)]
    assert exact[:3] == [True] * 3
    np.testing.assert_allclose(result["sequence_accuracy"], np.mean(exact))


def test_examples_without_weight_and_padding_do_not_count():
    task, some = SequenceToSequence(), jax.tree.map(lambda x: x[:3], BATCH)
    weighted = {**BATCH, "weight": jnp.array([1.0, 1, 1, 0, 0])}
    for ours, theirs in zip(*(jax.tree.leaves(task.evaluate(forward, batch)) for batch in (weighted, some))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(task.loss(forward, weighted, KEY)[0], task.loss(forward, some, KEY)[0], rtol=1e-6)
    padding = jnp.arange(T)[None] >= BATCH["target_lengths"][:, None]
    other = {**BATCH, "targets": jnp.where(padding, 0, TARGETS)}
    assert task.loss(forward, other, KEY)[0] == task.loss(forward, BATCH, KEY)[0]


def test_label_smoothing_may_be_traced():
    smoothed = jax.vmap(lambda eps: SequenceToSequence(label_smoothing=eps).loss(forward, BATCH, KEY)[0])
    values = smoothed(jnp.array([0.0, 0.2]))
    each = [SequenceToSequence(label_smoothing=eps).loss(forward, BATCH, KEY)[0] for eps in (0.0, 0.2)]
    np.testing.assert_allclose(values, each, rtol=1e-6)


@functools.cache
def program():
    return experiment.build(experiment.parse([*TINY, "--model.sampling_rate=0.5", "--model.dropout_rate=0.2"]))


@functools.cache
def trained():
    """Variables that get some sums right and some wrong."""
    learning = experiment.build(experiment.parse([*TINY, "--learning_rate=0.02", "--steps=200", "--batch_size=256"]))
    pipeline = learning.pipeline(256)
    state, step = learning.init(0, pipeline.example()), jax.jit(learning.step)
    for index in range(200):
        state, _ = step(state, pipeline.batch(index))
    return learning, state


def test_sequence_accuracy_is_that_of_greedy_decoding():
    learning, state = trained()
    data, batch = learning.data, learning.data.splits["test"].take(np.arange(60))
    batch["weight"] = np.ones(60, np.float32)
    accuracy = jax.jit(learning.evaluate)(state, batch)["sequence_accuracy"].compute()
    arrays = batch["inputs"], batch["lengths"], data, batch["targets"].shape[1]
    tokens = Decoding().decode(learning.model, {"params": state.params}, *arrays)
    wanted = [text_of(data.target_tokenizer, row) for row in batch["targets"]]
    exact = [text_of(data.target_tokenizer, row) == right for row, right in zip(tokens, wanted)]
    assert 0 < accuracy < 1
    np.testing.assert_allclose(accuracy, np.mean(exact), rtol=1e-6)


def test_figures_show_what_was_decoded():
    learning, state = trained()
    batch = learning.data.splits["test"].take(np.arange(20)) | {"weight": np.float32(np.arange(20) < 15)}

    def predict(batch, **kwargs):
        return jax.device_get(learning.predict(state, batch, **kwargs))

    figures = learning.task.figures(predict, [batch], learning.data)
    assert set(figures) == {"examples", "attention"}
    title = figures["examples"].get_suptitle()
    assert "of 15 right" in title
    maps = [axes for axes in figures["attention"].axes if axes.images]
    labels = [text.get_text() for text in maps[0].get_xticklabels()]
    source = learning.data.tokenizer.decode(batch["inputs"][0, : batch["lengths"][0]])
    assert "".join(labels) == source and maps[0].get_title().startswith(f"{source} → ")
    assert maps[0].images[0].get_array().shape == (len(maps[0].get_yticklabels()), len(source))


def test_samples():
    learning, state = trained()
    sample = lambda **flags: Decoding(**flags).sample(learning.model, {"params": state.params}, learning.data, KEY)
    greedy, wide = sample(text="3+44"), sample(text="3+44", beams=4)
    assert greedy["decoded"].startswith("3+44 → ") and wide["decoded"].startswith("3+44 → ")
    assert greedy["attention"].axes[0].get_title() == greedy["decoded"]
    assert len(sample(examples=3)["decoded"].splitlines()) == 3
    with pytest.raises(InputError, match="no token"):
        Decoding(text=" ").sample(learning.model, {}, _words(), KEY)
    with pytest.raises(InputError, match="'x' .* is not in the vocabulary"):
        sample(text="3+x")


def _words():
    tokenizer = WordTokenizer.of("a b", end_of_text=True)
    source = ArraySource(pairs([np.array([2])], [np.array([2])], 1))
    return Data({"train": source}, tokenizer=tokenizer, target_tokenizer=tokenizer)


@pytest.mark.parametrize("mode", ["jit", "shard_map"])
def test_eight_devices_equal_one(mode):
    """Sampled inputs and dropped units are the same on any number of devices."""
    pipeline = program().pipeline(16)
    results = []
    for placement in (Placement(make_mesh("data:1")), Placement(make_mesh("data:8"), mode)):
        step = placement.parallel(program().step, (None, 0))
        state, losses = placement.replicate(program().init(0, pipeline.example())), []
        for index in range(3):
            state, metrics = step(state, placement.place_batch(pipeline.batch(index)))
            losses.append(jax.device_get(metrics["loss"]).compute())
        results.append(losses)
    np.testing.assert_allclose(*results, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"gradient_accumulation": 4}, {"remat": True}])
def test_accumulation_and_rematerialisation_change_nothing(changes):
    """Up to the weights of microbatches: all targets here have one length, so that each has as many tokens."""
    batch = program().pipeline(16).batch(0)
    batch["target_lengths"] = np.full(16, 4, np.int32)
    states = [
        jax.jit(dataclasses.replace(program(), **c).step)(program().init(0, batch), batch)[0] for c in ({}, changes)
    ]
    # Adam divides by the gradient's own size, so that a gradient near zero is told by its last digits.
    for ours, theirs in zip(*(jax.tree.leaves(state.opt_state) for state in states), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_sampling_grows_to_its_rate():
    """The loss is that of teacher forcing at step 0, of the whole rate from `sampling_steps` on, else between."""

    def losses(*flags):
        made = experiment.build(experiment.parse([*TINY, "--mesh=data:1", "--gradient_accumulation=2", *flags]))
        batch = made.pipeline(16).batch(0)
        state, step = made.init(0, batch), jax.jit(made.step)
        return [step(state.replace(step=jnp.int32(at)), batch)[1]["loss"].compute() for at in (0, 2, 4, 9)]

    growing, forced, whole = (
        losses(*flags)
        for flags in (["--model.sampling_rate=1", "--task.sampling_steps=4"], [], ["--model.sampling_rate=1"])
    )
    np.testing.assert_allclose([growing[0], *growing[2:]], [forced[0], *whole[2:]], rtol=1e-5)
    assert growing[1] != pytest.approx(forced[1], rel=1e-5) and growing[1] != pytest.approx(whole[1], rel=1e-5)
    with pytest.raises(InputError, match="give --model.sampling_rate"):
        losses("--task.sampling_steps=4")


def test_bfloat16_trains():
    half = dataclasses.replace(program(), precision="bfloat16")
    batch = half.pipeline(16).batch(0)
    _, metrics = jax.jit(half.step)(half.init(0, batch), batch)
    _, full = jax.jit(program().step)(program().init(0, batch), batch)
    np.testing.assert_allclose(metrics["loss"].compute(), full["loss"].compute(), rtol=0.02)


def test_a_run_end_to_end(tmp_path):
    result = experiment.run(experiment.parse([*TINY, f"--workdir={tmp_path}", "--progress=off", "--mesh=data:1"]))
    assert result.status == 0 and set(result.metrics["test"]) == {
        *("loss", "perplexity", "token_accuracy", "sequence_accuracy"),
    }
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"learning_curves", "attention", "examples"}
    model = json.loads((tmp_path / "environment.json").read_text())["model"]
    assert (model["vocab_size"], model["target_vocab_size"], model["start_token"]) == (12, 12, 11)


def test_texts_of_ids():
    tokenizer = CharacterTokenizer("abc", end_of_text=True)
    assert text_of(tokenizer, [0, 2, 3, 1]) == "ac" and text_of(tokenizer, [0, 1]) == "ab"
    assert pieces_of(tokenizer, [0, 2, 3, 1]) == ["a", "c", "end"] and pieces_of(tokenizer, [1]) == ["b"]


def _data(**changes):
    tokenizer = CharacterTokenizer("abc", end_of_text=True)
    arrays = pairs([np.array([0, 1]), np.array([2])], [np.array([1]), np.array([0, 2])], 3)
    return Data({"train": ArraySource({**arrays, **changes})}, tokenizer=tokenizer, target_tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_data(lengths=np.array([2, 0])), "split 'train': lengths of row 1 has 0, and must be from 1 to 2"),
        (_data(inputs=np.array([[0, 1], [4, 0]])), "inputs of row 1 has 4, and must be from 0 to 3"),
        (_data(target_lengths=np.array([4, 1])), "target_lengths of row 0 has 4, and must be from 1 to 3"),
        (dataclasses.replace(_data(), tokenizer=None), "sequence_to_sequence needs sources and targets of tokens"),
        (dataclasses.replace(_data(), target_tokenizer=CharacterTokenizer("abc")), "end-of-text token"),
        (Data({"train": ArraySource({"inputs": np.zeros((2, 3))})}), "this dataset has inputs"),
    ],
)
def test_data_that_cannot_serve(data, message):
    with pytest.raises(InputError, match=message):
        SequenceToSequence().check(data)


def test_data_that_can_serve():
    SequenceToSequence().check(_data())
    SequenceToSequence().check(Addition().load())
