"""Word embeddings: skip-gram, continuous bag of words (CBOW), and GloVe. They are tables of vectors, and little else.

Mikolov et al. 2013, Efficient estimation of word representations in vector space (arXiv 1301.3781), and Distributed
representations of words and phrases and their compositionality (arXiv 1310.4546); Pennington, Socher and Manning 2014,
GloVe: Global vectors for word representation.

>>> import jax, jax.numpy as jnp
>>> model = SkipGram(vocab_size=1000, features=100)
>>> tokens, candidates = jnp.zeros((8, 4), jnp.int32), jnp.zeros((8, 1, 6), jnp.int32)
>>> model.init_with_output(jax.random.key(0), tokens, candidates, train=False)[0].shape
(8, 1, 6, 4)

Shapes: B stretches of text, of T words each; L words of a stretch are predicted from the words around them (L = 1: the
T words around one); N candidates for each predicted word; D features; V words.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.types import PositiveInt


def rows(table, ids):
    """Rows of a table [V, D]: [..., D]. The ids are not checked: what is beyond the table is undefined."""
    return table.at[ids].get(mode="promise_in_bounds")


def half_unit(key, shape, dtype=jnp.float32):
    """Uniform in +-1 / (2 D), D being the last axis: how word2vec and GloVe begin."""
    return jax.random.uniform(key, shape, dtype, -0.5, 0.5) / shape[-1]


class SkipGram(nn.Module):
    """The vector of each word around a predicted word, against the output vectors of candidates for that word.

    As in word2vec's program the neighbours are the inputs and the middle word is the output; over a text this is the
    paper's prediction of each neighbour from the middle word, because every pair is there both ways round.

    Attributes:
      vocab_size: number of words.
      features: size of a vector.
    """

    vocab_size: PositiveInt = 10_000
    features: PositiveInt = 100

    def setup(self):
        shape = (self.vocab_size, self.features)
        self.input = self.param("input", half_unit, shape)
        self.output = self.param("output", nn.initializers.zeros, shape)

    def __call__(self, tokens, candidates, in_window=None, *, train: bool):
        """Logits [B, L, N, T] = u(candidate) . v(token), of the neighbours and, for one product of matrices, of others.

        Args:
          tokens: int32 [B, T].
          candidates: int32 [B, L, N], for each predicted word.
          in_window: not needed: each token stands for itself.
        """
        return jnp.einsum("blnd,btd->blnt", rows(self.output, candidates), rows(self.input, tokens))

    def vectors(self):
        """The vector of each word, [V, D]: the input table."""
        return self.input


class CBOW(SkipGram):
    """The mean vector of the words in a window, against the output vectors of candidates for the word in the middle.

    Attributes:
      vocab_size: number of words.
      features: size of a vector.
      exact_gradient: the true gradient of the mean. word2vec (and gensim) gives each word of the window the whole
        gradient in place of its 1 / n share, and that is the default; Irsoy et al. 2021, Corrected CBOW performs as
        well as skip-gram (arXiv 2012.15332), divide, and take three times the learning rate.
    """

    exact_gradient: bool = False

    def __call__(self, tokens, candidates, in_window, *, train: bool):
        """Logits [B, L, N] = u(candidate) . mean(v(neighbours)); 0 where there is no neighbour.

        Args:
          tokens: int32 [B, T].
          candidates: int32 [B, L, N], for each predicted word.
          in_window: bool [B, L, T]: which tokens are its neighbours.
        """
        in_window = in_window.astype(self.input.dtype)
        total_BxLxD = in_window @ rows(self.input, tokens)
        mean_BxLxD = total_BxLxD / jnp.maximum(in_window.sum(axis=-1, keepdims=True), 1)
        if not self.exact_gradient:  # the value of the mean, the gradient of the sum
            mean_BxLxD = total_BxLxD + jax.lax.stop_gradient(mean_BxLxD - total_BxLxD)
        return jnp.einsum("blnd,bld->bln", rows(self.output, candidates), mean_BxLxD)


class GloVe(nn.Module):
    """Two vectors and two biases a word; their products model the logarithm of co-occurrence counts.

    Attributes:
      vocab_size: number of words.
      features: size of a vector.
    """

    vocab_size: PositiveInt = 10_000
    features: PositiveInt = 100

    def setup(self):
        shape = (self.vocab_size, self.features)
        bias = lambda key, shape: half_unit(key, (*shape, self.features))[:, 0]
        self.input = self.param("input", half_unit, shape)
        self.output = self.param("output", half_unit, shape)
        self.input_bias = self.param("input_bias", bias, shape[:1])
        self.output_bias = self.param("output_bias", bias, shape[:1])

    def __call__(self, pairs, *, train: bool):
        """What models log X(word, context) (eq. 7): w . w~ + b + b~, [...] from int32 [..., 2]."""
        word, context = pairs[..., 0], pairs[..., 1]
        product = (rows(self.input, word) * rows(self.output, context)).sum(axis=-1)
        return product + rows(self.input_bias, word) + rows(self.output_bias, context)

    def vectors(self):
        """The vector of each word, [V, D]: the sum of both tables (section 4.2)."""
        return self.input + self.output
