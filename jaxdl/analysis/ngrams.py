"""Unigram and bigram models, counted from tokens: what a masked language model has to beat.

Each function gives the loss, in nats, of every token of a text as if it alone were hidden and all its neighbours
were seen, so that the mean over any choice of positions stands beside a masked language model's loss there. Shapes:
N training tokens, M tokens of the text, V ids of the vocabulary.

>>> train = np.array([0, 1, 0, 1, 0, 2])
>>> np.exp(-unigram_losses(train, np.array([0, 3]), vocab_size=4)).round(2).tolist()
[0.4, 0.1]
"""

import numpy as np
import scipy.sparse

_CHUNK = 256  # positions whose distributions over the vocabulary are held at a time


def unigram_losses(train: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """-log p(w), with p(w) = (count(w) + 1) / (N + V).

    Args:
      train: int [N], the tokens that are counted.
      tokens: int [M].
      vocab_size: V.

    Returns:
      float64 [M].
    """
    return -np.log(_unigram(train, vocab_size))[tokens]


def bigram_losses(train: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """-log p(w | l), l being the token before w; the first token's is its unigram loss.

        p(w | l) = (count(l, w) + types(l) p(w)) / (count(l) + types(l))

    where types(l) is the number of different tokens that follow l: Witten and Bell 1991, The zero-frequency problem,
    as Chen and Goodman 1996 (cmp-lg/9606011, section 2.4) write it for bigrams.

    Args:
      train: int [N], the tokens that are counted.
      tokens: int [M].
      vocab_size: V.

    Returns:
      float64 [M].
    """
    unigram, counts, following, types = _counts(train, vocab_size)
    left, word = tokens[:-1], tokens[1:]
    pairs = np.asarray(counts[left, word]).ravel()
    # A token that nothing followed, such as one that was never seen, is a context without knowledge: the unigram.
    types = np.maximum(types, 1)
    probability = (pairs + types[left] * unigram[word]) / (following + types)[left]
    return -np.log(np.concatenate([unigram[tokens[:1]], probability]))


def two_sided_bigram_losses(
    train: np.ndarray, tokens: np.ndarray, vocab_size: int, positions: np.ndarray
) -> np.ndarray:
    """-log p(w | l, r): what the same bigrams know of a token between its neighbours l and r.

        p(w | l, r) = p(w | l) p(r | w) / sum_v p(v | l) p(r | v)

    Args:
      train: int [N], the tokens that are counted.
      tokens: int [M].
      vocab_size: V.
      positions: int [P], which of the tokens; neither the first nor the last.

    Returns:
      float64 [P].
    """
    unigram, counts, following, types = _counts(train, vocab_size)
    types = np.maximum(types, 1)
    by_word = counts.tocsc()
    losses = []
    for start in range(0, len(positions), _CHUNK):
        chosen = positions[start : start + _CHUNK]
        left, right = tokens[chosen - 1], tokens[chosen + 1]
        given_left = counts[left].toarray() + types[left, None] * unigram[None, :]  # the divisor cancels
        given_word = by_word[:, right].toarray().T + types[None, :] * unigram[right, None]
        joint = given_left * given_word / (following + types)[None, :]
        losses.append(-np.log(joint[np.arange(len(chosen)), tokens[chosen]] / joint.sum(axis=1)))
    return np.concatenate(losses) if losses else np.zeros(0)


def _unigram(train: np.ndarray, vocab_size: int) -> np.ndarray:
    return (np.bincount(train, minlength=vocab_size) + 1) / (len(train) + vocab_size)


def _counts(train: np.ndarray, vocab_size: int):
    """p(w) [V]; counts of pairs, sparse [V, V]; of tokens that follow each [V]; of different ones that do [V]."""
    ones = np.ones(len(train) - 1)
    counts = scipy.sparse.coo_array((ones, (train[:-1], train[1:])), (vocab_size, vocab_size)).tocsr()
    counts.sum_duplicates()
    return _unigram(train, vocab_size), counts, np.asarray(counts.sum(axis=1)).ravel(), np.diff(counts.indptr)
