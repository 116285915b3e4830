"""Word embeddings: negative sampling for skip-gram and CBOW, and GloVe's weighted least squares.

Shapes: B stretches of text, of T words each; the L words in the middle are predicted; K negatives; V words.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.analysis import embeddings
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys
from jaxdl.tasks.base import Task
from jaxdl.types import NonNegativeFloat, PositiveFloat, PositiveInt

EVALUATION_KEY = 0  # of the negatives of evaluations, which are the same each time


def noise_thresholds(counts: np.ndarray, power: float = 0.75) -> np.ndarray:
    """The noise distribution P(word) ~ count ** power as bounds of 32-bit integers, uint32 [V].

    Mikolov et al. 2013, arXiv 1310.4546, section 2.2. A word is drawn when a uniform integer lies in [its bound, the
    next word's): so a probability is exact to 2 ** -32, where float32 would be to 2 ** -23.

    Args:
      counts: [V], at least 0, not all 0; a word of count 0 is never drawn.
      power: 1 is the unigram distribution, 0 the uniform one.
    """
    weights = np.where(counts > 0, np.asarray(counts, np.float64) ** power, 0)
    before = np.concatenate([[0.0], np.cumsum(weights)[:-1]]) / weights.sum()
    return np.minimum(np.round(before * 2.0**32), 2.0**32 - 1).astype(np.uint32)


def draw_noise(key: jax.Array, thresholds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Words of the noise distribution, int32 of `shape`, by inversion of its distribution function."""
    bits = jax.random.bits(key, shape, jnp.uint32)
    # A word of probability 0 has the bound of the next one; the last of equal bounds is the one that is drawn.
    return jnp.searchsorted(thresholds, bits, side="right").astype(jnp.int32) - 1


def neighbours(reach: jax.Array, num_tokens: int) -> jax.Array:
    """Which words of a stretch are in the window of each predicted word: bool [B, L, T].

    Args:
      reach: int [B, L, 2], how many words before and after it are; the L words are in the middle of the stretch.
      num_tokens: T.
    """
    length = reach.shape[1]
    first = (num_tokens - length) // 2
    distance = jnp.arange(num_tokens)[None, :] - first - jnp.arange(length)[:, None]
    distance, before, after = distance[None], reach[..., :1].astype(jnp.int32), reach[..., 1:].astype(jnp.int32)
    return (distance != 0) & (-before <= distance) & (distance <= after)


def word_vectors(model, variables, data) -> embeddings.WordVectors:
    """The words of a model and their vectors, without `<unk>`, which stands for no word.

    Raises:
      InputError: a model that has no word vectors, or data without words.
    """
    if not hasattr(model, "vectors") or not hasattr(data.tokenizer, "words"):
        raise InputError(f"model {type(model).__name__} has no vectors of words.")
    vectors = np.asarray(jax.device_get(model.apply(variables, method="vectors")), np.float32)
    return embeddings.WordVectors(data.tokenizer.words[1:], vectors[1:])


@dataclasses.dataclass(frozen=True)
class NearestWords:
    """The nearest neighbours of some words, and a map of frequent words by their first two principal components.

    Attributes:
      words: whose neighbours are shown. Empty: eight words, spread over the 1,000 most frequent.
      count: how many neighbours.
      map_size: how many words the map has, the most frequent ones but for the first 50.
    """

    words: tuple[str, ...] = ()
    count: PositiveInt = 8
    map_size: PositiveInt = 200

    def sample(self, model, variables, data, key: jax.Array) -> dict:
        """`neighbours`, a text, and `map`, a figure. Raises InputError for a word that is not in the vocabulary."""
        from jaxdl import plots

        vectors = word_vectors(model, variables, data)
        frequent = min(1000, len(vectors.words))
        words = self.words or [vectors.words[index] for index in sorted({frequent * part // 9 for part in range(1, 9)})]
        lines = []
        for word in words:
            found = embeddings.nearest(vectors, word, self.count)
            lines.append(f"{word}: " + ", ".join(f"{other} {cosine:.2f}" for other, cosine in found))
        first = 50 if len(vectors.words) > 100 else 0  # the most frequent words have little meaning of their own
        shown = slice(first, first + self.map_size)
        points = embeddings.principal_components(vectors.unit[shown], 2)
        return {"neighbours": "\n".join(lines), "map": plots.word_map(points, vectors.words[shown])}


@dataclasses.dataclass(frozen=True)
class NegativeSampling(Task):
    """Tells a word in its context from words drawn at random (Mikolov et al. 2013, arXiv 1310.4546, eq. 4).

        loss = -log sigmoid(u(word) . v) - sum_k log sigmoid(-u(negative k) . v)

    v is one neighbour's vector, of every neighbour in turn (skip-gram), or the mean of them all (CBOW). A negative that
    is the word itself is left out, as word2vec does. For skip-gram the neighbours of a word share its negatives (Ji et
    al. 2016, arXiv 1604.04661, section 3), which changes no expectation; word2vec draws K for each neighbour.

    What is minimised is the sum over a stretch of text, averaged over the B stretches of the batch: with a learning
    rate of 0.025 B the update of SGD is the sum of word2vec's updates at 0.025. The metric `loss` is the mean over
    predictions, in nats.

    Attributes:
      negatives: words drawn for each predicted word.
      noise_power: words are drawn in proportion to their count to this power.
      noise: uint32 [V], `noise_thresholds` of the data's counts; from the data, no flag.
    """

    negatives: PositiveInt = 5
    noise_power: NonNegativeFloat = 0.75
    noise: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    sampler: ClassVar[type] = NearestWords
    untraceable: ClassVar[tuple[str, ...]] = ("noise_power",)

    def for_data(self, data) -> "NegativeSampling":
        self.check(data)
        return dataclasses.replace(self, noise=noise_thresholds(data.token_counts, self.noise_power))

    def model_fields(self, data) -> dict:
        return {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        if data.tokenizer is None or data.token_counts is None:
            raise InputError("negative_sampling needs the words of a text and their counts: --dataset=word_pairs.")

    def inputs(self, batch):
        in_window = neighbours(batch["reach"], batch["inputs"].shape[1])
        return batch["inputs"], self._words(batch)[..., None], in_window

    def loss(self, forward, batch, key, player="model"):
        loss_B, count_B = self._losses(forward, batch, example_keys(key, len(batch["inputs"])))
        weight = batch.get("weight")
        return losses.share_of_mean(loss_B, weight), {"loss": _mean(loss_B, count_B, weight)}

    def evaluate(self, forward, batch):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(EVALUATION_KEY), batch["index"])
        loss_B, count_B = self._losses(forward, batch, keys)
        return {"loss": _mean(loss_B, count_B, batch.get("weight"))}

    def _words(self, batch):
        """The predicted words, int32 [B, L]."""
        length = batch["reach"].shape[1]
        side = (batch["inputs"].shape[1] - length) // 2
        return batch["inputs"][:, side : side + length]

    def _losses(self, forward, batch, keys):
        """The sum of the losses of each stretch, and how many predictions it has: float32 [B], [B]."""
        tokens, words, in_window = self.inputs(batch)
        shape = (words.shape[1], self.negatives)
        negatives = jax.vmap(lambda key: draw_noise(key, jnp.asarray(self.noise), shape))(keys)
        candidates = jnp.concatenate([words, negatives], axis=-1)
        logits = forward(tokens, candidates, in_window)
        counted = jnp.concatenate([jnp.ones_like(words, bool), negatives != words], axis=-1)
        targets = jnp.broadcast_to(jnp.arange(candidates.shape[-1]) == 0, candidates.shape)
        if logits.ndim == 4:  # skip-gram: a prediction from each neighbour
            predicted = in_window[:, :, None]
            counted, targets = counted[..., None] & predicted, targets[..., None]
        else:  # CBOW: one from all of them
            predicted = in_window.any(axis=-1, keepdims=True)
            counted &= predicted
        targets = jnp.broadcast_to(targets, logits.shape).astype(logits.dtype)
        values = jnp.where(counted, losses.sigmoid_cross_entropy(logits, targets), 0)
        sums = [x.reshape(len(tokens), -1).sum(axis=-1, dtype=jnp.float32) for x in (values, predicted)]
        return sums[0], sums[1]


@dataclasses.dataclass(frozen=True)
class GloVe(Task):
    """Weighted least squares of the logarithm of co-occurrence counts (Pennington et al. 2014, eqs. 8 and 9).

        loss = f(X) (w . w~ + b + b~ - log X)^2        f(X) = min(1, (X / x_max)^alpha)

    Stanford's program minimises half of it. What is minimised is the sum over an example's entries, averaged over the
    examples of the batch; the metric `loss` is the mean over entries.

    Attributes:
      x_max: the count from which entries weigh 1.
      alpha: how the weight grows below it.
    """

    x_max: PositiveFloat = 100.0
    alpha: PositiveFloat = 0.75

    sampler: ClassVar[type] = NearestWords

    def model_fields(self, data) -> dict:
        return {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        source = data.splits["train"]
        if data.tokenizer is None or "cooccurrences" not in source[0]:
            raise InputError("glove needs co-occurrence counts of words: --dataset=cooccurrence.")

    def loss(self, forward, batch, key, player="model"):
        loss_B, count_B = self._losses(forward, batch)
        weight = batch.get("weight")
        return losses.share_of_mean(loss_B, weight), {"loss": _mean(loss_B, count_B, weight)}

    def evaluate(self, forward, batch):
        loss_B, count_B = self._losses(forward, batch)
        return {"loss": _mean(loss_B, count_B, batch.get("weight"))}

    def _losses(self, forward, batch):
        """The sum of the losses of each example and how many entries it has: float32 [B], [B]. A count of 0 is none."""
        counts = batch["cooccurrences"]
        real = counts > 0
        counts = jnp.where(real, counts, 1)
        error = forward(*self.inputs(batch)) - jnp.log(counts)
        weight = jnp.minimum((counts / self.x_max) ** self.alpha, 1)
        values = jnp.where(real, weight * jnp.square(error), 0)
        return values.sum(axis=-1), real.sum(axis=-1).astype(jnp.float32)


def _mean(total_B, count_B, weight_B) -> metrics.Mean:
    """The mean over predictions, of examples of which each has several."""
    if weight_B is not None:
        total_B, count_B = (jnp.where(weight_B > 0, weight_B * value, 0) for value in (total_B, count_B))
    return metrics.Mean.of_sums(total_B.sum(), count_B.sum())
