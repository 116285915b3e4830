"""Choosing tokens one after the other: greedy, by chance (temperature, top-k, top-p), and by beam search.

Pure functions that know no model: `step(carry, token [B]) -> (carry, logits [B, V])` gives the logits of the next
token, and every array in `carry` has the batch axis first. Shapes: B rows, K beams, V tokens, L steps.

>>> counts = lambda carry, token: (carry, jax.nn.one_hot((token + 1) % 4, 4))
>>> sample(counts, (), jnp.array([[0.0, 0.0, 1.0, 0.0]]), 5, jax.random.key(0), temperature=0)[0].tolist()
[[2, 3, 0, 1, 2]]
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Step = Callable[[Any, jax.Array], tuple[Any, jax.Array]]


def filter_logits(logits: jax.Array, top_k: int = 0, top_p: float | jax.Array = 1.0) -> jax.Array:
    """Leaves out tokens that are not among the most probable: their logits become minus infinity.

    Nucleus sampling: Holtzman et al. 2020, The curious case of neural text degeneration (arXiv 1904.09751), eq. 2;
    top-k: Fan et al. 2018 (arXiv 1805.04833), section 5.1. With both, top_p counts among what top_k leaves.

    Args:
      logits: float [B, V].
      top_k: this many are kept; of equal ones the lower token goes first. 0 keeps all.
      top_p: the most probable ones are kept until their probabilities sum to at least top_p; never none.

    Returns:
      float [B, V].
    """
    keeps_all = isinstance(top_p, (int, float)) and top_p >= 1
    if top_k <= 0 and keeps_all:
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    if top_k > 0:
        ranked = jnp.where(jnp.arange(logits.shape[-1])[None] < top_k, ranked, -jnp.inf)
    if not keeps_all:
        probabilities = jax.nn.softmax(ranked)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = (before < top_p).at[:, 0].set(True)
        ranked = jnp.where(kept, ranked, -jnp.inf)
    return jnp.take_along_axis(ranked, jnp.argsort(order, axis=-1), axis=-1)


def sample(
    step: Step,
    carry: Any,
    logits: jax.Array,
    length: int,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int = 0,
    top_p: float | jax.Array = 1.0,
    end: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws tokens one after the other.

    Args:
      step: the model's next logits; it is called with each token but the last.
      carry: its state after the prompt.
      logits: of the first token, float [B, V].
      length: L, how many tokens.
      key: random key.
      temperature: divides the logits, before top_k and top_p; the Python number 0 is greedy decoding.
      top_k, top_p: see `filter_logits`.
      end: the token that ends a row; what follows it is `end`, too.

    Returns:
      tokens int32 [B, L], and how many of them come before the first `end`, int32 [B].
    """
    greedy = isinstance(temperature, (int, float)) and temperature == 0

    def choose(logits, ended, key):
        logits = logits.astype(jnp.float32)
        if greedy:
            token = logits.argmax(axis=-1)
        else:
            token = jax.random.categorical(key, filter_logits(logits / temperature, top_k, top_p))
        token = token.astype(jnp.int32)
        if end is None:
            return token, ended
        token = jnp.where(ended, end, token)
        return token, ended | (token == end)

    def advance(state, key):
        carry, token, ended = state
        carry, logits = step(carry, token)
        token, ended = choose(logits, ended, key)
        return (carry, token, ended), token

    keys = jax.random.split(key, length)
    first, ended = choose(logits, jnp.zeros(logits.shape[0], bool), keys[0])
    _, rest = jax.lax.scan(advance, (carry, first, ended), keys[1:])
    tokens = jnp.concatenate([first[None], rest]).T
    return tokens, _lengths(tokens, end)


def beam_search(
    step: Step,
    carry: Any,
    logits: jax.Array,
    length: int,
    *,
    beams: int,
    end: int | None = None,
    length_penalty: float | jax.Array = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The most probable continuations, as far as a search that keeps K of them at a time can find them.

        score = log p(tokens) / ((5 + n) / 6)^length_penalty      n: tokens, the first `end` included

    Wu et al. 2016, Google's neural machine translation system (arXiv 1609.08144), eq. 14 without its coverage. A
    continuation that has ended stays among the K until better ones push it out. With K >= V^L the search is exact.

    Args:
      step, carry, logits, length, end: as for `sample`.
      beams: K.
      length_penalty: 0 ranks by probability, 1 nearly by probability a token.

    Returns:
      tokens int32 [B, K, L], how many of them come before the first `end`, int32 [B, K], and scores float32 [B, K],
      best first. Where there are fewer than K continuations the last scores are minus infinity.
    """
    batch, vocabulary = logits.shape
    rows = jnp.arange(batch)[:, None]
    as_rows = lambda x: x.reshape(batch * beams, *x.shape[2:])
    as_beams = lambda x: x.reshape(batch, beams, *x.shape[1:])

    def penalty(lengths):
        return ((5.0 + lengths) / 6.0) ** length_penalty

    def extend(position, logits, total, lengths, ended):
        """The best K of all K * V extensions: from which beam, by which token, and their totals, lengths, ends."""
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))  # [B, K, V]
        if end is not None:  # what has ended goes on with `end` alone, and for nothing
            stay = jnp.where(jnp.arange(vocabulary) == end, 0.0, -jnp.inf)
            log_p = jnp.where(ended[..., None], stay[None, None], log_p)
        totals = total[..., None] + log_p
        new_lengths = jnp.where(ended, lengths, position + 1)
        scores = totals / penalty(new_lengths)[..., None]
        _, best = jax.lax.top_k(scores.reshape(batch, -1), beams)
        beam, token = best // vocabulary, (best % vocabulary).astype(jnp.int32)
        ended = ended[rows, beam] if end is None else ended[rows, beam] | (token == end)
        return beam, token, totals.reshape(batch, -1)[rows, best], new_lengths[rows, beam], ended

    def advance(state, position):
        carry, tokens, last, total, lengths, ended = state
        carry, logits = step(carry, as_rows(last))
        beam, token, total, lengths, ended = extend(position, as_beams(logits), total, lengths, ended)
        carry = jax.tree.map(lambda x: as_rows(as_beams(x)[rows, beam]), carry)
        tokens = tokens[rows, beam].at[:, :, position].set(token)
        return (carry, tokens, token, total, lengths, ended), None

    # In the beginning all beams are the same empty continuation: only the first counts.
    total = jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)[None], (batch, beams))
    nothing = jnp.zeros((batch, beams), jnp.int32)
    first_logits = jnp.broadcast_to(logits[:, None], (batch, beams, vocabulary))
    _, token, total, lengths, ended = extend(0, first_logits, total, nothing, nothing > 0)
    carry = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), carry)
    tokens = jnp.zeros((batch, beams, length), jnp.int32).at[:, :, 0].set(token)
    state = (carry, tokens, token, total, lengths, ended)
    (_, tokens, _, total, lengths, _), _ = jax.lax.scan(advance, state, jnp.arange(1, length))
    scores = total / penalty(lengths)
    return tokens, _lengths(tokens, end), scores


def _lengths(tokens: jax.Array, end: int | None) -> jax.Array:
    """How many tokens come before the first `end`: int32 [...] from [..., L]."""
    if end is None:
        return jnp.full(tokens.shape[:-1], tokens.shape[-1], jnp.int32)
    return jnp.cumprod(tokens != end, axis=-1, dtype=jnp.int32).sum(axis=-1)
