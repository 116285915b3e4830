"""Metrics: the same number from any partition into batches or shards, scikit-learn's number, and digits kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from jax.sharding import Mesh, PartitionSpec

from jaxdl import metrics
from jaxdl.layers.batch_axis import batch_context

N, C = 61, 4
_rng = np.random.default_rng(0)
LOGITS = _rng.normal(size=(N, C)).astype(np.float32)
LABELS = np.where(_rng.random(N) < 0.5, LOGITS.argmax(-1), _rng.integers(0, C, N)).astype(np.int32)
PROBABILITIES = np.asarray(jax.nn.softmax(LOGITS))
PREDICTED = LOGITS.argmax(-1)
TARGETS = (1000 + _rng.normal(size=(N, 2)) * [1, 3]).astype(np.float32)
PREDICTIONS = (TARGETS + 0.3 * _rng.normal(size=(N, 2))).astype(np.float32)


def _nll(rows, weight):
    values = -jnp.log(PROBABILITIES)[rows, LABELS[rows]]
    return metrics.Mean.of(values, weight)


# name -> (metric of these rows with these weights, its value over all rows, what float32 sums allow)
CASES = {
    "nll": (_nll, sklearn.metrics.log_loss(LABELS, PROBABILITIES), 1e-6),
    "rmse": (
        lambda rows, weight: metrics.RootMean.of(jnp.square(PREDICTIONS[rows, 0] - TARGETS[rows, 0]), weight),
        sklearn.metrics.root_mean_squared_error(TARGETS[:, 0], PREDICTIONS[:, 0]),
        1e-6,
    ),
    "top1": (
        lambda rows, weight: metrics.Mean.of(metrics.top_k_correct(LOGITS[rows], LABELS[rows], k=1), weight),
        sklearn.metrics.accuracy_score(LABELS, PREDICTED),
        1e-12,
    ),
    "top2": (
        lambda rows, weight: metrics.Mean.of(metrics.top_k_correct(LOGITS[rows], LABELS[rows], k=2), weight),
        sklearn.metrics.top_k_accuracy_score(LABELS, LOGITS, k=2),
        1e-12,
    ),
    "confusion": (
        lambda rows, weight: metrics.ConfusionMatrix.of(PREDICTED[rows], LABELS[rows], C, weight),
        sklearn.metrics.confusion_matrix(LABELS, PREDICTED),
        0,
    ),
    # float32 targets near 1000 with deviations near 1 carry the mean to 1e-4, which enters squared.
    "r2": (
        lambda rows, weight: metrics.RSquared.of(PREDICTIONS[rows], TARGETS[rows], weight),
        sklearn.metrics.r2_score(TARGETS, PREDICTIONS),
        1e-5,
    ),
    "relative_spread": (
        lambda rows, weight: metrics.RelativeSpread.of(PREDICTIONS[rows], TARGETS[rows], weight),
        float(np.sqrt(np.var(PREDICTIONS, axis=0).sum() / np.var(TARGETS, axis=0).sum())),
        1e-5,
    ),
    "explained_variance": (
        lambda rows, weight: metrics.ExplainedVariance.of(PREDICTIONS[rows, 1] + 7, TARGETS[rows, 1], weight),
        sklearn.metrics.explained_variance_score(TARGETS[:, 1], PREDICTIONS[:, 1]),
        1e-5,
    ),
    "calibration": (
        lambda rows, weight: metrics.Calibration.of(
            jnp.asarray(PROBABILITIES.max(-1)[rows]), PREDICTED[rows] == LABELS[rows], weight
        ),
        None,
        1e-6,
    ),
}
MEASURED = _rng.random((N, 3)) < 0.8  # of three labels, the first without a 1 among those that were measured
YES = np.float32((LOGITS[:, :3] + _rng.normal(size=(N, 3)) > 0) & ~(MEASURED * [True, False, False]))
OF_LABELS = np.round(LOGITS[:, :3], 1)  # rounded, so that some are equal


def _columns(score):
    """The mean of scikit-learn's score over the labels that have both values."""
    return np.mean([score(YES[MEASURED[:, t], t], OF_LABELS[MEASURED[:, t], t]) for t in (1, 2)])


def _ranked(metric, pooled=False):
    def of(rows, weight):
        real = jnp.float32(MEASURED[rows]) * (1 if weight is None else weight[:, None])
        return metric.of(jnp.asarray(OF_LABELS)[rows], YES[rows], real, rows, N + 3, pooled)

    return of


CASES |= {
    "roc_auc": (_ranked(metrics.RocAuc), _columns(sklearn.metrics.roc_auc_score), 1e-12),
    "average_precision": (
        _ranked(metrics.AveragePrecision),
        _columns(sklearn.metrics.average_precision_score),
        1e-12,
    ),
    "pooled_roc_auc": (
        _ranked(metrics.RocAuc, pooled=True),
        sklearn.metrics.roc_auc_score(YES[MEASURED], OF_LABELS[MEASURED]),
        1e-12,
    ),
}
PARTITIONS = {"one": [N], "uneven": [1, 30, 7, 23], "singles": [1] * N}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_any_partition_gives_the_metric_of_the_whole(name, partition):
    """Batches are of one size, filled up with padding of weight 0, as evaluation gives them."""
    metric, expected, tolerance = CASES[name]
    if expected is None:
        expected = metric(np.arange(N), None).compute()
    size = max(PARTITIONS[partition])
    merged = None
    for rows in np.split(np.arange(N), np.cumsum(PARTITIONS[partition])[:-1]):
        padded = np.concatenate([rows, np.zeros(size - len(rows), np.int64)])
        part = metric(padded, jnp.float32(np.arange(size) < len(rows)))
        merged = part if merged is None else merged.merge(part)
    np.testing.assert_allclose(jax.device_get(merged).compute(), expected, rtol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_zeros_are_neutral_and_merging_runs_inside_a_scan(name):
    metric, _, tolerance = CASES[name]
    batches = jnp.arange(60).reshape(5, 12)
    shapes = jax.eval_shape(lambda: metric(np.arange(12), None))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    parts = [metric(np.asarray(rows), None) for rows in batches]
    for merged in (zeros.merge(parts[0]), parts[0].merge(zeros)):
        jax.tree.map(np.testing.assert_array_equal, merged, parts[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    total, _ = jax.jit(lambda zeros: jax.lax.scan(lambda sums, part: (sums.merge(part), None), zeros, stacked))(zeros)
    np.testing.assert_allclose(total.compute(), metric(np.arange(60), None).compute(), rtol=max(tolerance, 1e-7))


@pytest.mark.parametrize("name", CASES)
def test_shards_sum_to_the_metric_of_the_batch(name):
    metric, _, tolerance = CASES[name]
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    parts = [metric(np.arange(i * 7, (i + 1) * 7), jnp.float32(np.arange(7) < i + 1)) for i in range(8)]
    whole = metric(np.arange(56), jnp.float32(np.arange(56) % 7 < np.arange(56) // 7 + 1))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

    def summed(part):
        with batch_context(axis_name="data"):
            return jax.tree.map(lambda leaf: leaf[0], part).summed()

    total = jax.shard_map(summed, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())(stacked)
    np.testing.assert_allclose(total.compute(), whole.compute(), rtol=max(tolerance, 1e-7))
    jax.tree.map(np.testing.assert_array_equal, whole.summed(), whole)


def test_what_padding_holds_does_not_count():
    mean = metrics.Mean.of(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1.0, 0.0, 1.0]))
    assert mean.compute() == 2.0
    moments = metrics.Moments.of(jnp.array([[1.0], [jnp.inf], [3.0]]), jnp.array([1.0, 0.0, 1.0]))
    assert moments.compute() == {"mean": 2.0, "variance": 1.0}


def test_no_examples_give_nan():
    nothing = jnp.zeros(3)
    assert np.isnan(metrics.Mean.of(nothing, nothing).compute())
    assert np.isnan(metrics.Calibration.of(nothing, nothing, nothing).compute())
    empty = jnp.zeros((3, 1))
    assert np.isnan(metrics.RocAuc.of(empty, empty, empty, jnp.arange(3), 3).compute())
    infinite = metrics.RocAuc.of(jnp.full((3, 1), jnp.nan), jnp.eye(3)[:, :1], empty + 1, jnp.arange(3), 3)
    assert np.isnan(infinite.compute())


def test_long_sums_keep_their_digits():
    """2^20 batches of 64: a float32 count would stop at 2^24 and a float32 sum would lose its last digits."""
    part = metrics.Mean.of_sums(jnp.float32(6.4), jnp.float32(63))
    zeros = jax.tree.map(jnp.zeros_like, part)
    total = jax.jit(lambda: jax.lax.fori_loop(0, 2**20, lambda _, sums: sums.merge(part), zeros))()
    assert total.count.compute() == 63 * 2**20
    np.testing.assert_allclose(total.compute(), np.float64(np.float32(6.4)) / 63, rtol=1e-10)


def test_the_last_value_is_the_newest_that_was_seen():
    zeros = jax.tree.map(jnp.zeros_like, metrics.Last.of(1.0))
    assert np.isnan(zeros.compute())
    assert metrics.Last.of(1.0).merge(metrics.Last.of(2.0)).merge(zeros).compute() == 2.0
    assert zeros.merge(metrics.Last.of(0.0)).compute() == 0.0


def test_calibration_error_by_hand():
    """Two bins of width 1/2: confidences 0.3, 0.5 with accuracy 1/2; 0.6, 0.9, 1.0 with accuracy 1/3."""
    confidence = jnp.array([0.3, 0.5, 0.6, 0.9, 1.0])
    correct = jnp.array([True, False, False, True, False])
    calibration = metrics.Calibration.of(confidence, correct, num_bins=2)
    np.testing.assert_array_equal(calibration.count.compute(), [2, 3])
    expected = 2 / 5 * abs(1 / 2 - 0.8 / 2) + 3 / 5 * abs(1 / 3 - 2.5 / 3)
    np.testing.assert_allclose(calibration.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "expected"), [([[5.0], [5.0]], 1.0), ([[5.0], [6.0]], 0.0)], ids=["exact", "inexact"]
)
def test_r2_of_a_constant_target_is_scikit_learns(predictions, expected):
    targets = jnp.array([[5.0], [5.0]])
    assert sklearn.metrics.r2_score(targets, predictions) == expected
    assert metrics.RSquared.of(jnp.array(predictions), targets).compute() == expected


def test_top_k_breaks_ties_as_argmax_does_and_counts_nan_as_wrong():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan] * 3, [jnp.nan, 5.0, 0.0]])
    labels = jnp.array([0, 1, 0, 1])
    np.testing.assert_array_equal(metrics.top_k_correct(logits, labels, k=1), [1, 0, 0, 0])
    np.testing.assert_array_equal(metrics.top_k_correct(logits, labels, k=2), [1, 1, 0, 1])
