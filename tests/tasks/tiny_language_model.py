"""A language model of two tables, to test what trains and samples language models."""

import flax.linen as nn
import jax.numpy as jnp


class TinyLanguageModel(nn.Module):
    """Logits from the last token and the one before it.

    Attributes:
      vocab_size: tokens.
      width: of the embeddings.
      max_length: tokens that `start` and `step` take.
    """

    vocab_size: int = 4
    width: int = 8
    max_length: int = 16

    def setup(self):
        self.embedding = nn.Embed(self.vocab_size, self.width)
        self.mixing = nn.Dense(self.width)
        self.head = nn.Dense(self.vocab_size)

    def __call__(self, tokens, segments=None, *, train: bool):
        before = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
        if segments is not None:
            same = segments == jnp.pad(segments, ((0, 0), (1, 0)))[:, :-1]
            before = jnp.where(same, before, 0)
        return self._logits(before, tokens)

    def start(self, tokens, lengths, capacity):
        assert capacity <= self.max_length
        rows = jnp.arange(len(tokens))
        before = jnp.where(lengths > 1, tokens[rows, lengths - 2], 0)
        last = tokens[rows, lengths - 1]
        return (last,), self._logits(before, last)

    def step(self, carry, token):
        return (token,), self._logits(carry[0], token)

    def _logits(self, before, last):
        return self.head(nn.tanh(self.mixing(jnp.concatenate([self.embedding(before), self.embedding(last)], -1))))
