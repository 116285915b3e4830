"""Metrics as sums that merge: exact over uneven batches, devices and hosts.

A metric is a small pytree of sums. It is made from a batch (`of`), added to another (`merge`, on the device or
on the host), added over the shards of a batch (`summed`), and read on the host at the end (`compute`). The same
structure filled with zeros is neutral: `zeros.merge(m)` and `m.merge(zeros)` are `m`, so a metric can be carried
through `lax.scan` from zeros of the shapes that `jax.eval_shape` gives.

A float32 sum over a million examples would lose digits, and a float32 count stops at 2^24. So sums across batches
are kept as two float32 numbers (`Sum`), which is as good as 48 bits and needs neither float64 on the device nor a
transfer to the host after every batch. Within a batch, sums are plain float32. Weights are 1 for a real example
and 0 for padding, and whatever a padded row holds, NaN too, is left out.

Shapes: B examples, C classes, T targets, M bins.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.layers.batch_axis import batch_mean, batch_sum


def _masked_sum(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Sums over the first axis, in float32; rows of weight 0 do not count, whatever they hold."""
    values = jnp.asarray(values, jnp.float32)
    if weight is not None:
        weight = jnp.asarray(weight, jnp.float32).reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
        values = jnp.where(weight > 0, values * weight, 0.0)
    return values.sum(axis=0)


def _masked_count(num_examples: int, weight: jax.Array | None) -> jax.Array:
    return jnp.float32(num_examples) if weight is None else jnp.asarray(weight, jnp.float32).sum()


class Metric:
    """What all metrics have. `compute` is for the host, after `jax.device_get`."""

    def summed(self):
        """This metric of the whole batch, from those of its shards."""
        return batch_sum(self)


@flax.struct.dataclass
class Sum(Metric):
    """A sum (of any shape) as high + low, where low is what rounding took from high.

    Two-sum is by Knuth (The Art of Computer Programming, volume 2, section 4.2.2, theorem B), the sum of pairs by
    Dekker 1971, A floating-point technique for extending the available precision.
    """

    high: jax.Array
    low: jax.Array

    @classmethod
    def of(cls, value: jax.Array) -> "Sum":
        value = jnp.asarray(value, jnp.float32)
        return cls(high=value, low=jnp.zeros_like(value))

    def merge(self, other: "Sum") -> "Sum":
        total = self.high + other.high
        taken = total - self.high
        rounding = (self.high - (total - taken)) + (other.high - taken)
        low = self.low + other.low + rounding
        high = total + low
        return Sum(high=high, low=low - (high - total))

    def compute(self) -> np.ndarray:
        """float64, of the sum's shape."""
        return np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64)


@flax.struct.dataclass
class Mean(Metric):
    """A weighted mean over examples: accuracy, negative log-likelihood, losses, mean squared error."""

    total: Sum
    count: Sum

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array | None = None) -> "Mean":
        """From one value an example, [B], or a token, [B, T]; `weight` is of the same shape, or None for ones."""
        values, weight = jnp.ravel(values), None if weight is None else jnp.ravel(weight)
        return cls.of_sums(_masked_sum(values, weight), _masked_count(values.size, weight))

    @classmethod
    def of_sums(cls, total: jax.Array, count: jax.Array) -> "Mean":
        """From sums already taken: nats and tokens, say."""
        return cls(total=Sum.of(total), count=Sum.of(count))

    def merge(self, other: "Mean") -> "Mean":
        return type(self)(total=self.total.merge(other.total), count=self.count.merge(other.count))

    def compute(self) -> float:
        """The mean; NaN of no examples."""
        count = self.count.compute()
        return float(self.total.compute() / count) if count else float("nan")


@flax.struct.dataclass
class RootMean(Mean):
    """The root of a mean: of squared errors, the root mean squared error."""

    def compute(self) -> float:
        return float(np.sqrt(super().compute()))


@flax.struct.dataclass
class ExpMean(Mean):
    """The exponential of a mean: of negative log-likelihoods in nats, the perplexity."""

    def compute(self) -> float:
        return float(np.exp(super().compute()))


@flax.struct.dataclass
class Last(Metric):
    """The newest value of something that is not a sum: a learning rate, a loss scale."""

    value: jax.Array
    seen: jax.Array

    @classmethod
    def of(cls, value: jax.Array) -> "Last":
        return cls(value=jnp.asarray(value, jnp.float32), seen=jnp.bool_(True))

    def merge(self, other: "Last") -> "Last":
        return Last(value=jnp.where(other.seen, other.value, self.value), seen=self.seen | other.seen)

    def summed(self) -> "Last":
        """The mean over the shards, which for a replicated value is that value."""
        return Last(value=batch_mean(self.value), seen=self.seen)

    def compute(self) -> float:
        return float(self.value) if self.seen else float("nan")


@flax.struct.dataclass
class Moments(Metric):
    """Count, mean and sum of squared deviations [T], merged without cancellation.

    Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances, (2.1).
    """

    count: jax.Array
    mean: jax.Array
    deviations: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array | None = None) -> "Moments":
        """From `values` [B, T]."""
        count = _masked_count(len(values), weight)
        mean = _masked_sum(values, weight) / jnp.maximum(count, 1.0)
        return cls(count=count, mean=mean, deviations=_masked_sum(jnp.square(values - mean[None, :]), weight))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        fraction = other.count / jnp.maximum(count, 1.0)
        difference = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + fraction * difference,
            deviations=self.deviations + other.deviations + jnp.square(difference) * self.count * fraction,
        )

    def summed(self) -> "Moments":
        count = batch_sum(self.count)
        mean = batch_sum(self.count * self.mean) / jnp.maximum(count, 1.0)
        deviations = batch_sum(self.deviations + self.count * jnp.square(self.mean - mean))
        return Moments(count=count, mean=mean, deviations=deviations)

    def compute(self) -> dict[str, np.ndarray]:
        """`mean` and `variance` (divided by the count), float64 [T]."""
        variance = np.asarray(self.deviations, np.float64) / max(float(self.count), 1.0)
        return {"mean": np.asarray(self.mean, np.float64), "variance": variance}


@flax.struct.dataclass
class RSquared(Metric):
    """The coefficient of determination, 1 - sum (target - prediction)^2 / sum (target - mean target)^2.

    The mean over the targets, each by itself. A constant target counts 1 when it is predicted exactly, else 0.
    The same number in any units of the targets.
    """

    residuals: Sum
    targets: Moments

    @classmethod
    def of(cls, predictions: jax.Array, targets: jax.Array, weight: jax.Array | None = None) -> "RSquared":
        """From `predictions` and `targets` [B, T]."""
        residuals = _masked_sum(jnp.square(predictions - targets), weight)
        return cls(residuals=Sum.of(residuals), targets=Moments.of(targets, weight))

    def merge(self, other: "RSquared") -> "RSquared":
        return RSquared(self.residuals.merge(other.residuals), self.targets.merge(other.targets))

    def summed(self) -> "RSquared":
        return RSquared(self.residuals.summed(), self.targets.summed())

    def compute(self) -> float:
        residuals = self.residuals.compute()
        deviations = np.asarray(self.targets.deviations, np.float64)
        varies = deviations > 0
        scores = np.where(varies, 1 - residuals / np.where(varies, deviations, 1.0), residuals == 0)
        return float(scores.mean())


@flax.struct.dataclass
class ExplainedVariance(Metric):
    """1 - var (target - prediction) / var target: what a constant error leaves as it is, unlike `RSquared`.

    1 is perfect, and 0 is no better than a constant. NaN where the targets do not vary.
    """

    residuals: Moments
    targets: Moments

    @classmethod
    def of(cls, predictions: jax.Array, targets: jax.Array, weight: jax.Array | None = None) -> "ExplainedVariance":
        """From `predictions` and `targets` [B]."""
        residuals = Moments.of((targets - predictions)[:, None], weight)
        return cls(residuals=residuals, targets=Moments.of(targets[:, None], weight))

    def merge(self, other: "ExplainedVariance") -> "ExplainedVariance":
        return ExplainedVariance(self.residuals.merge(other.residuals), self.targets.merge(other.targets))

    def summed(self) -> "ExplainedVariance":
        return ExplainedVariance(self.residuals.summed(), self.targets.summed())

    def compute(self) -> float:
        varied = float(self.targets.deviations[0])
        return 1 - float(self.residuals.deviations[0]) / varied if varied > 0 else float("nan")


@flax.struct.dataclass
class RelativeSpread(Metric):
    """How far apart samples are, as a share of how far apart the data are: 1 of equal spreads, 0 of a single point.

    Of two rows drawn at random, the root mean square of their distance: the root of the ratio of the total variances.
    NaN where the data do not vary.
    """

    samples: Moments
    data: Moments

    @classmethod
    def of(cls, samples: jax.Array, data: jax.Array, weight: jax.Array | None = None) -> "RelativeSpread":
        """From `samples` and `data` [B, ...]."""
        flat = (Moments.of(values.reshape(len(values), -1), weight) for values in (samples, data))
        return cls(*flat)

    def merge(self, other: "RelativeSpread") -> "RelativeSpread":
        return RelativeSpread(self.samples.merge(other.samples), self.data.merge(other.data))

    def summed(self) -> "RelativeSpread":
        return RelativeSpread(self.samples.summed(), self.data.summed())

    def compute(self) -> float:
        samples, data = (part.compute()["variance"].sum() for part in (self.samples, self.data))
        return float(np.sqrt(samples / data)) if data > 0 else float("nan")


@flax.struct.dataclass
class ConfusionMatrix(Metric):
    """`counts[i, j]`: examples of class i that were predicted as class j; int32 [C, C]."""

    counts: jax.Array

    @classmethod
    def of(
        cls, predictions: jax.Array, labels: jax.Array, num_classes: int, weight: jax.Array | None = None
    ) -> "ConfusionMatrix":
        """From predicted and true classes, int [B]."""
        ones = jnp.ones(labels.shape, jnp.int32) if weight is None else jnp.int32(weight > 0)
        return cls(counts=jnp.zeros((num_classes, num_classes), jnp.int32).at[labels, predictions].add(ones))

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix(self.counts + other.counts)

    def compute(self) -> np.ndarray:
        """int64 [C, C]."""
        return np.asarray(self.counts, np.int64)


@flax.struct.dataclass
class Calibration(Metric):
    """Confidence against accuracy in M bins of equal width, and their distance.

    ECE = sum_m (n_m / n) |accuracy_m - confidence_m|, bin m being the confidences in ((m - 1) / M, m / M].
    Guo et al. 2017, On calibration of modern neural networks (arXiv 1706.04599), equation 3.
    """

    count: Sum
    confidence: Sum
    correct: Sum

    @classmethod
    def of(
        cls, confidence: jax.Array, correct: jax.Array, weight: jax.Array | None = None, num_bins: int = 15
    ) -> "Calibration":
        """From the probability of the predicted class, [B], and whether it was right, bool [B]."""
        bins = jnp.clip(jnp.ceil(confidence * num_bins) - 1, 0, num_bins - 1)
        member = jnp.float32(bins[:, None] == jnp.arange(num_bins)[None, :])
        return cls(
            count=Sum.of(_masked_sum(member, weight)),
            confidence=Sum.of(_masked_sum(member * confidence[:, None], weight)),
            correct=Sum.of(_masked_sum(member * jnp.float32(correct)[:, None], weight)),
        )

    def merge(self, other: "Calibration") -> "Calibration":
        return Calibration(
            count=self.count.merge(other.count),
            confidence=self.confidence.merge(other.confidence),
            correct=self.correct.merge(other.correct),
        )

    def compute(self) -> float:
        """The expected calibration error, in 0 .. 1; NaN of no examples."""
        count = self.count.compute().sum()
        gaps = np.abs(self.correct.compute() - self.confidence.compute()).sum()
        return float(gaps / count) if count else float("nan")


@flax.struct.dataclass
class Ranking(Metric):
    """Every score of a split, in its place: what depends on the order of all of them is exact then, and still merges.

    Attributes:
      scores: float32 [S, T], of S examples; 0 where there is none yet.
      labels: float32 [S, T], 0 or 1.
      counts: float32 [S, T], 1 where there is a score.
      pooled: whether all scores are ranked together; else those of each of the T columns, of which the mean is taken.
    """

    scores: jax.Array
    labels: jax.Array
    counts: jax.Array
    pooled: bool = flax.struct.field(pytree_node=False, default=False)

    @classmethod
    def of(
        cls,
        scores: jax.Array,
        labels: jax.Array,
        weight: jax.Array | None,
        index: jax.Array,
        size: int,
        pooled: bool = False,
    ):
        """From `scores` and `labels` [B, T].

        Args:
          weight: [B, T], 0 where a label is missing and for examples that are padding.
          index: int [B], the examples' places in their split.
          size: S, at least the number of examples of the split.
        """
        real = jnp.ones(scores.shape, bool) if weight is None else weight > 0
        empty = jnp.zeros((size, scores.shape[1]), jnp.float32)
        placed = lambda values: empty.at[index].add(jnp.where(real, jnp.float32(values), 0))
        return cls(placed(scores), placed(labels), placed(real), pooled)

    def merge(self, other: "Ranking") -> "Ranking":
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> float:
        """The mean over the columns that have both labels; NaN where none has, or a score is not finite."""
        scores, labels, real = (np.asarray(x) for x in (self.scores, self.labels, self.counts))
        if self.pooled:
            scores, labels, real = (x.reshape(-1, 1) for x in (scores, labels, real))
        values = []
        if not np.isfinite(scores).all():
            return float("nan")
        for column in range(scores.shape[1]):
            own = real[:, column] > 0
            found = labels[own, column]
            if 0 < found.sum() < len(found):
                values.append(self._of_column(found, scores[own, column]))
        return float(np.mean(values)) if values else float("nan")

    @staticmethod
    def _of_column(labels: np.ndarray, scores: np.ndarray) -> float:
        raise NotImplementedError


@flax.struct.dataclass
class RocAuc(Ranking):
    """The area under the ROC curve: the probability that a score of label 1 is above one of label 0."""

    @staticmethod
    def _of_column(labels, scores):
        from sklearn.metrics import roc_auc_score  # takes a second to import

        return roc_auc_score(labels, scores)


@flax.struct.dataclass
class AveragePrecision(Ranking):
    """The precision at each example of label 1, in the order of their scores, and the mean of these."""

    @staticmethod
    def _of_column(labels, scores):
        from sklearn.metrics import average_precision_score

        return average_precision_score(labels, scores)


def top_k_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether the label is among the k highest logits: float32 [...] from logits [..., C] and labels [...].

    Of equal logits the lower class goes first. With k = 1 it is `argmax(logits) == labels`. A NaN among the logits
    is counted above the label.
    """
    of_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    before = jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,)) < labels[..., None]
    above = ~(logits <= of_label) | ((logits == of_label) & before)
    return jnp.float32(above.sum(axis=-1) < k)
