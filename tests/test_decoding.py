"""Decoding: held against enumeration on tiny vocabularies, and against NumPy."""

import doctest
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import decoding
from jaxdl.decoding import beam_search, filter_logits, sample

V, B = 3, 2
_rng = np.random.default_rng(0)
FIRST = jnp.asarray(_rng.normal(size=(B, V)), jnp.float32)
TABLE = jnp.asarray(2 * _rng.normal(size=(B, 4, V, V)), jnp.float32)  # by row, place and last two tokens' sum


def step(carry, token):
    """A little model that remembers: logits depend on the row, the place, and the sum of tokens so far."""
    row, place, total = carry
    total = (total + token) % V
    return (row, place + 1, total), TABLE[row, place, total]


def start(rows=B):
    return jnp.arange(rows), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32)


def log_probability(row, tokens, end=None):
    """Of a continuation, up to and with its first `end`; in NumPy."""
    table, logits, total, result = np.asarray(TABLE), np.asarray(FIRST[row]), 0, 0.0
    for place, token in enumerate(tokens):
        result += logits[token] - np.log(np.exp(logits).sum())
        if token == end:
            break
        total = (total + token) % V
        logits = table[row, place, total]
    return result


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("end", [None, 1])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_tree_ranks_all_continuations(length, end, length_penalty):
    search = jax.jit(lambda p: beam_search(step, start(), FIRST, length, beams=V**length, end=end, length_penalty=p))
    tokens, lengths, scores = jax.device_get(search(length_penalty))
    for row in range(B):
        expected = {}
        for sequence in itertools.product(range(V), repeat=length):
            n = sequence.index(end) + 1 if end in sequence else length
            filled = sequence[:n] + (end,) * (length - n)
            expected[filled] = log_probability(row, sequence, end) / ((5 + n) / 6) ** length_penalty
        ranked = sorted(expected, key=lambda sequence: -expected[sequence])
        real = np.isfinite(scores[row])
        assert [tuple(found) for found in tokens[row][real]] == ranked
        np.testing.assert_allclose(scores[row][real], [expected[sequence] for sequence in ranked], rtol=1e-5)
        before_end = [sequence.index(end) if end in sequence else length for sequence in ranked]
        assert lengths[row][real].tolist() == before_end
        assert real.sum() == len(ranked) and (np.diff(scores[row][real]) <= 0).all()


def test_one_beam_is_greedy_and_so_is_temperature_zero():
    tokens, _, scores = beam_search(step, start(), FIRST, 4, beams=1)
    greedy, lengths = sample(step, start(), FIRST, 4, jax.random.key(0), temperature=0)
    np.testing.assert_array_equal(tokens[:, 0], greedy)
    assert lengths.tolist() == [4, 4] and greedy.dtype == jnp.int32
    np.testing.assert_allclose(scores[0, 0], log_probability(0, greedy[0].tolist()), rtol=1e-5)


def test_a_wider_beam_finds_nothing_worse():
    best = [beam_search(step, start(), FIRST, 4, beams=beams)[2][:, 0] for beams in (1, 2, 9, 81)]
    assert all((wider >= narrower - 1e-6).all() for narrower, wider in itertools.pairwise([best[0], *best[2:]]))


def test_samples_follow_the_distribution_of_sequences():
    """Many rows of the first row's model: relative frequencies of all nine sequences of two tokens."""
    number = 20_000
    carry = (jnp.zeros(number, jnp.int32), *start(number)[1:])
    logits = jnp.broadcast_to(FIRST[:1], (number, V))
    tokens, _ = jax.jit(lambda key: sample(step, carry, logits, 2, key))(jax.random.key(1))
    counts = np.bincount(np.asarray(tokens[:, 0] * V + tokens[:, 1]), minlength=V * V) / number
    expected = [np.exp(log_probability(0, pair)) for pair in itertools.product(range(V), repeat=2)]
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(0.25 / number))


def test_a_temperature_may_be_traced_and_sharpens():
    logits = jnp.broadcast_to(FIRST[:1], (5000, V))
    draw = jax.jit(lambda t, p: sample(step, start(5000), logits, 1, jax.random.key(2), temperature=t, top_p=p)[0])
    for temperature in (0.5, 2.0):
        share = np.bincount(np.asarray(draw(temperature, 1.0))[:, 0], minlength=V) / 5000
        np.testing.assert_allclose(share, jax.nn.softmax(FIRST[0] / temperature), atol=0.03)
    assert set(np.asarray(draw(1.0, 1e-6)).ravel()) == {int(FIRST[0].argmax())}


def test_after_the_end_a_row_is_filled_with_it():
    tokens, lengths = sample(step, start(), FIRST, 4, jax.random.key(3), end=int(FIRST[0].argmax()), temperature=0)
    end = int(FIRST[0].argmax())
    assert tokens[0].tolist() == [end] * 4 and lengths[0] == 0
    for row, length in zip(np.asarray(tokens), lengths):
        assert end not in row[:length] and (row[length:] == end).all()


@pytest.mark.parametrize(
    "top_k, top_p", [(0, 1.0), (3, 1.0), (0, 0.5), (0, 0.9), (5, 0.8), (1, 1.0), (50, 1.0), (0, 0.0)]
)
def test_top_k_and_top_p_keep_the_sets_that_numpy_keeps(top_k, top_p):
    logits = np.random.default_rng(4).normal(size=(6, 20)).astype(np.float32)
    logits[0, :4] = 5.0  # equal ones: the lower token goes first
    kept = np.isfinite(jax.jit(lambda x: filter_logits(x, top_k, top_p))(logits))
    for row, found in zip(logits, kept):
        order = np.argsort(-row, kind="stable")[: top_k or None]
        probabilities = np.exp(row[order]) / np.exp(row[order]).sum()
        before = np.concatenate([[0], np.cumsum(probabilities)[:-1]])
        expected = order[(before < top_p) | (np.arange(len(order)) == 0)] if top_p < 1 else order
        assert set(np.flatnonzero(found)) == set(expected)


def test_the_example():
    results = doctest.testmod(decoding)
    assert results.attempted > 0 and results.failed == 0
