"""Unigrams and bigrams against their formulas, written out."""

import doctest
from collections import Counter

import numpy as np
import pytest

from jaxdl.analysis import ngrams

V = 7
_rng = np.random.default_rng(0)
TRAIN, TEXT = _rng.integers(0, V - 1, 60), _rng.integers(0, V, 25)  # the last id is never trained on

WORDS, PAIRS = Counter(TRAIN.tolist()), Counter(zip(TRAIN[:-1].tolist(), TRAIN[1:].tolist()))


def unigram(word):
    return (WORDS[word] + 1) / (60 + V)


def bigram(left, word):
    followers = {b for a, b in PAIRS if a == left}
    count = sum(number for (a, _), number in PAIRS.items() if a == left)
    if not count:
        return unigram(word)
    return (PAIRS[left, word] + len(followers) * unigram(word)) / (count + len(followers))


def test_unigrams():
    expected = [-np.log(unigram(word)) for word in TEXT]
    np.testing.assert_allclose(ngrams.unigram_losses(TRAIN, TEXT, V), expected)
    np.testing.assert_allclose(np.exp(-ngrams.unigram_losses(TRAIN, np.arange(V), V)).sum(), 1)


def test_bigrams():
    expected = [unigram(TEXT[0])] + [bigram(*pair) for pair in zip(TEXT[:-1], TEXT[1:])]
    np.testing.assert_allclose(ngrams.bigram_losses(TRAIN, TEXT, V), -np.log(expected))


@pytest.mark.parametrize("left", range(V))
def test_bigrams_sum_to_one(left):
    losses = [ngrams.bigram_losses(TRAIN, np.array([left, word]), V)[1] for word in range(V)]
    np.testing.assert_allclose(np.exp(-np.array(losses)).sum(), 1)


def test_bigrams_from_both_sides():
    positions = np.arange(1, 24)
    expected = []
    for place in positions:
        joint = [bigram(TEXT[place - 1], word) * bigram(word, TEXT[place + 1]) for word in range(V)]
        expected.append(joint[TEXT[place]] / sum(joint))
    np.testing.assert_allclose(ngrams.two_sided_bigram_losses(TRAIN, TEXT, V, positions), -np.log(expected))
    assert ngrams.two_sided_bigram_losses(TRAIN, TEXT, V, np.zeros(0, int)).shape == (0,)


def test_the_example():
    assert doctest.testmod(ngrams).failed == 0
