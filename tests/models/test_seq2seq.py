"""Sequence to sequence: attention by hand, padding, decoding, and scheduled sampling."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import decoding
from jaxdl.errors import InputError
from jaxdl.models.seq2seq import Attention, Seq2Seq
from tests.models.variables import random_variables

SCORES = ("dot", "scaled_dot", "bilinear", "additive", "cosine")
B, S, T, H, V, END = 3, 5, 4, 6, 7, 2
TINY = {"vocab_size": 9, "target_vocab_size": V, "start_token": END, "hidden_size": H, "embedding_size": 4}
_rng = np.random.default_rng(0)
SOURCE = jnp.asarray(_rng.integers(0, 9, (B, S)), jnp.int32)
LENGTHS = jnp.array([5, 1, 3])
TARGETS = jnp.asarray(_rng.integers(0, V, (B, T)), jnp.int32)
RNGS = {"dropout": jax.random.key(3)}


@functools.cache
def built(**changes):
    model = Seq2Seq(**{**TINY, **changes})
    # Larger than usual weights, so that predictions and attention depend on what they should depend on.
    return model, jax.tree.map(lambda x: 3 * x, random_variables(model, ((S,), (), (T,)), "int32"))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "free_running", "return_attention"))
def run(model, variables, source=SOURCE, targets=TARGETS, train=False, **kwargs):
    return model.apply(variables, source, LENGTHS, targets, train=train, **kwargs)


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def decoded(model, variables, length=T, beams=None, end=END):
    """Greedy decoding, or all beams and their scores."""
    carry, logits = model.apply(variables, SOURCE, LENGTHS, length, method="start")
    step = lambda carry, token: model.apply(variables, carry, token, method="step")
    if beams is None:
        return decoding.sample(step, carry, logits, length, jax.random.key(0), temperature=0.0, end=end)[0]
    tokens, _, scores = decoding.beam_search(step, carry, logits, length, beams=beams, end=end)
    return tokens, scores


def log_probability(model, variables, tokens, end=END):
    """Of each row of tokens [B, T] up to and with its first end, by teacher forcing: [B]."""
    logits = run(model, variables, targets=tokens)
    each = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    before = jnp.cumsum(tokens == end, axis=1) - (tokens == end)
    return jnp.where(before == 0, each, 0).sum(axis=1)


@pytest.mark.parametrize("score", SCORES)
def test_attention_is_the_formula(score):
    query, memory = _rng.normal(size=(B, H)), _rng.normal(size=(B, S, H))
    mask = np.arange(S)[None] < np.asarray(LENGTHS)[:, None]
    attention = Attention(score, H)

    def attend(module, query, memory, mask):
        return module(query, memory, module.keys(memory), mask)

    arrays = jnp.float32(query), jnp.float32(memory), mask
    shapes = jax.eval_shape(lambda: attention.init(jax.random.key(0), *arrays, method=attend))
    params = jax.tree.map(lambda x: _rng.normal(size=x.shape), shapes).get("params", {})
    context, weights = attention.apply({"params": jax.tree.map(jnp.float32, params)}, *arrays, method=attend)
    scores = np.full((B, S), -np.inf)
    for b, s in itertools.product(range(B), range(S)):
        q, m = query[b], memory[b, s]
        value = {
            "dot": lambda: q @ m,
            "scaled_dot": lambda: q @ m / np.sqrt(H),
            "bilinear": lambda: q @ (m @ params["key"]["kernel"]),
            "additive": lambda: (
                np.tanh(q @ params["query"]["kernel"] + m @ params["key"]["kernel"]) @ params["vector"]["kernel"][:, 0]
            ),
            "cosine": lambda: np.exp(params["log_scale"]) * (q @ m) / np.linalg.norm(q) / np.linalg.norm(m),
        }[score]()
        if mask[b, s]:
            scores[b, s] = value
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(context, (expected[..., None] * memory).sum(axis=1), atol=1e-5)


CASES = [
    *({"attention": score} for score in (*SCORES, "none")),
    {"bidirectional": True, "num_layers": 2},
    {"cell": "gru", "num_layers": 2, "attention": "dot"},
    {"cell": "rnn_tanh", "bidirectional": True, "attention": "none"},
]
_name = lambda case: " ".join(f"{name}={value}" for name, value in case.items())
cases = pytest.mark.parametrize("case", CASES, ids=_name)
some_cases = pytest.mark.parametrize("case", [CASES[3], CASES[5]], ids=_name)


@cases
def test_what_stands_in_the_padding_changes_nothing(case):
    model, variables = built(**case)
    logits, weights = run(model, variables, return_attention=True)
    padding = jnp.arange(S)[None] >= LENGTHS[:, None]
    np.testing.assert_array_equal(run(model, variables, jnp.where(padding, 8 - SOURCE, SOURCE)), run(model, variables))
    longer = run(model, variables, jnp.pad(SOURCE, ((0, 0), (0, 2))))
    np.testing.assert_allclose(longer, logits, rtol=1e-4, atol=1e-5)
    if weights is None:
        assert case["attention"] == "none"
        return
    assert weights.shape == (B, T, S)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert (jnp.where(padding[:, None], weights, 0) == 0).all()


@some_cases
def test_a_prediction_depends_on_the_source_and_on_the_targets_before_it(case):
    """A derivative tells: zero from this and later targets, and not zero from earlier ones and from the source."""
    model, variables = built(**case)
    targets = jnp.array([[0, 1, 3, 4]] * B)  # all different: a row of the table is a place in the targets

    @jax.jit
    @jax.jacobian
    def by_embedding(embeddings):
        params = {**variables["params"], **embeddings}
        return model.apply({"params": params}, SOURCE, LENGTHS, targets, train=False)[0].sum(axis=-1)

    names = "source_embedding", "target_embedding"
    slopes = by_embedding({name: variables["params"][name] for name in names})
    source, target = ((slopes[name]["embedding"] != 0).any(axis=-1) for name in names)
    np.testing.assert_array_equal(source[:, jnp.unique(SOURCE[0])], True)
    np.testing.assert_array_equal(target[:, jnp.array([END, 0, 1, 3, 4])], np.tri(T, 5))


@cases
def test_steps_of_generation_are_teacher_forcing(case):
    model, variables = built(**case)

    @jax.jit
    def forced(variables, tokens):
        carry, logits = model.apply(variables, SOURCE, LENGTHS, T, method="start")
        assert all(x.shape[0] == B for x in jax.tree.leaves(carry))
        step = lambda carry, token: model.apply(variables, carry, token, method="step")
        return jnp.concatenate([logits[None], jax.lax.scan(step, carry, tokens.T[:-1])[1]])

    logits = jnp.moveaxis(forced(variables, TARGETS), 0, 1)
    np.testing.assert_allclose(logits, run(model, variables), rtol=1e-4, atol=1e-5)


@some_cases
def test_greedy_decoding_is_free_running_and_one_beam_and_more_beams_find_no_less(case):
    model, variables = built(**case)
    free = run(model, variables, free_running=True)
    np.testing.assert_array_equal(free.argmax(axis=-1), decoded(model, variables, end=None))
    # Of the targets nothing but their number counts.
    np.testing.assert_array_equal(run(model, variables, targets=0 * TARGETS, free_running=True), free)
    greedy = decoded(model, variables)
    probability = log_probability(model, variables, greedy)
    tokens, scores = decoded(model, variables, beams=1)
    np.testing.assert_array_equal(tokens[:, 0], greedy)
    np.testing.assert_allclose(scores[:, 0], probability, rtol=1e-4, atol=1e-4)
    tokens, scores = decoded(model, variables, beams=8)
    assert (scores[:, 0] >= probability - 1e-4).all()
    assert (jnp.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("attention", ["additive", "none"])
def test_wide_beams_are_exhaustive_search(attention):
    length, vocabulary = 3, 3
    model = Seq2Seq(**{**TINY, "target_vocab_size": vocabulary, "attention": attention})
    variables = jax.tree.map(lambda x: 3 * x, random_variables(model, ((S,), (), (length,)), "int32"))
    every = sorted(  # what follows the first end is end
        {
            tuple(END if END in row[:t] else token for t, token in enumerate(row))
            for row in itertools.product(range(vocabulary), repeat=length)
        }
    )
    rows = [jnp.tile(jnp.array([row]), (B, 1)) for row in every]
    scores = np.stack([log_probability(model, variables, row) for row in rows], axis=1)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-4)
    tokens, found = decoded(model, variables, length, vocabulary**length)
    np.testing.assert_allclose(found[:, : len(every)], -np.sort(-scores, axis=1), rtol=1e-4, atol=1e-4)
    assert [tuple(row) for row in tokens[:, 0].tolist()] == [every[int(best)] for best in scores.argmax(axis=1)]


@some_cases
def test_sampling_by_probability_zero_is_teacher_forcing_and_by_one_feeds_predictions_back(case):
    model, variables = built(**case)

    @jax.jit
    @jax.vmap
    def traced(rate):
        changed = model.clone(sampling_rate=rate)
        return changed.apply(variables, SOURCE, LENGTHS, TARGETS, train=True, rngs=RNGS)

    forced, free = run(model, variables), run(model, variables, free_running=True)
    sampled = traced(jnp.array([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(sampled[0], forced, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sampled[1], free, rtol=1e-4, atol=1e-4)
    assert not np.allclose(sampled[2], forced, atol=1e-2) and not np.allclose(sampled[2], free, atol=1e-2)
    numbers = [run(model.clone(sampling_rate=rate), variables, train=True, rngs=RNGS) for rate in (0.0, 1.0)]
    np.testing.assert_allclose(numbers, sampled[:2], rtol=1e-4, atol=1e-4)


def test_probability_zero_draws_nothing():
    model, variables = built()
    run(model, variables, train=True)  # without a random key
    with pytest.raises(Exception, match="dropout"):
        run(model.clone(sampling_rate=0.1), variables, train=True)
    # Evaluation never samples.
    np.testing.assert_array_equal(run(model.clone(sampling_rate=1.0), variables), run(model, variables))


def test_each_input_is_sampled_with_the_probability_by_itself():
    model = Seq2Seq(**TINY, sampling_rate=0.25)
    tokens = jnp.zeros((400, 21), jnp.int32)
    choose = lambda module, tokens: module._fed_back(tokens, True, False)
    chosen = np.asarray(model.apply({}, tokens, method=choose, rngs=RNGS))
    assert not chosen[:, 0].any()
    # 8,000 draws: the standard deviation of their mean is 0.0048.
    assert abs(chosen[:, 1:].mean() - 0.25) < 0.02
    assert len({row.tobytes() for row in chosen}) > 390


def test_each_example_has_its_share_of_the_sampling_rate():
    model, variables = built()
    scale = jnp.arange(len(SOURCE)) % 2.0
    scaled = run(model.clone(sampling_rate=1.0), variables, train=True, rngs=RNGS, sampling_scale=scale)
    forced, free = run(model, variables), run(model, variables, free_running=True)
    np.testing.assert_allclose(scaled, jnp.where(scale[:, None, None] > 0, free, forced), rtol=1e-4, atol=1e-4)


def test_dropout_differs_from_step_to_step():
    """The third and fourth steps of a decoder without memory are the same but for what is dropped."""
    model, variables = built(cell="rnn_relu", attention="none")
    params = dict(variables["params"])
    params["decoder"] = {"layer0_forward": {**params["decoder"]["layer0_forward"], "hidden_kernel": jnp.zeros((H, H))}}
    same = jnp.ones_like(TARGETS)
    dropped = run(model.clone(dropout_rate=0.5), {"params": params}, targets=same, train=True, rngs=RNGS)
    kept = run(model, {"params": params}, targets=same)
    np.testing.assert_allclose(kept[:, 2], kept[:, 3], rtol=1e-5)
    assert not np.allclose(dropped[:, 2], dropped[:, 3], atol=1e-2)


def test_two_directions_share_an_even_width():
    model = Seq2Seq(**{**TINY, "hidden_size": 5}, bidirectional=True)
    with pytest.raises(InputError, match="hidden_size=5 must be even"):
        model.init(jax.random.key(0), SOURCE, LENGTHS, TARGETS, train=False)
