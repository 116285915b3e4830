"""Losses against closed forms, Optax and scikit-learn; the elastic net's gradient; shares against the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from jax.sharding import Mesh, PartitionSpec

from jaxdl import losses
from jaxdl.layers.batch_axis import batch_context

B, C, T = 12, 5, 3


@pytest.fixture
def logits():
    return 3 * jax.random.normal(jax.random.key(0), (B, C))


@pytest.fixture
def labels():
    return jnp.arange(B) % C


def test_cross_entropy_is_scikit_learns_log_loss(logits, labels):
    expected = sklearn.metrics.log_loss(labels, jax.nn.softmax(logits), labels=range(C))
    np.testing.assert_allclose(losses.softmax_cross_entropy(logits, labels).mean(), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.0, 0.5, 3.0)])
def test_label_smoothing_and_class_weights_are_the_cross_entropy_of_soft_labels(logits, labels, smoothing, weights):
    soft = optax.smooth_labels(jax.nn.one_hot(labels, C), smoothing)
    factors = jnp.ones(C) if weights is None else jnp.array(weights)
    expected = -jnp.sum(factors[None] * soft * jax.nn.log_softmax(logits), axis=-1)
    actual = losses.softmax_cross_entropy(logits, labels, smoothing, weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # A sweep traces the smoothing, so that the branch which leaves the term out is not taken.
    traced = jax.jit(lambda eps: losses.softmax_cross_entropy(logits, labels, eps, weights))(smoothing)
    np.testing.assert_allclose(traced, expected, rtol=1e-5)


def test_cross_entropy_of_one_and_of_two_logits_agree():
    logit, label = jnp.linspace(-90.0, 90.0, 7), jnp.array([0, 1, 0, 1, 0, 1, 1])
    pair = jnp.stack([jnp.zeros(7), logit], axis=-1)
    for smoothing in (0.0, 0.2):
        np.testing.assert_allclose(
            losses.sigmoid_cross_entropy(logit, label, smoothing),
            losses.softmax_cross_entropy(pair, label, smoothing),
            rtol=1e-6,
            atol=1e-12,
        )


@pytest.mark.parametrize("loss", [losses.softmax_cross_entropy, losses.perceptron, losses.hinge])
def test_a_label_beyond_the_classes_gives_nan_and_not_a_number(loss, logits, labels):
    values = loss(logits, labels.at[3].set(C))
    assert np.isnan(values[3]) and np.isfinite(np.delete(values, 3)).all()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (losses.perceptron, optax.losses.multiclass_perceptron_loss),
        (losses.hinge, optax.losses.multiclass_hinge_loss),
    ],
)
def test_scores_against_optax(ours, theirs, logits, labels):
    expected = jax.vmap(theirs)(logits, labels)
    np.testing.assert_allclose(ours(logits, labels), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_perceptron_loss_is_rosenblatts_update():
    inputs = jnp.array([[1.0, 2.0], [3.0, -1.0], [-2.0, 0.5]])
    labels, weights = jnp.array([1, 0, 1]), jnp.array([1.0, 1.0])  # scores 3, 2, -1.5: the last two are wrong

    def loss(weights):
        score = inputs @ weights
        return losses.perceptron(jnp.stack([jnp.zeros(3), score], axis=-1), labels).sum()

    update = -jax.grad(loss)(weights)
    np.testing.assert_allclose(update, -inputs[1] + inputs[2])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.squared_error, [(0.25 + 0 + 9) / 3]),
        (losses.absolute_error, [(0.5 + 0 + 3) / 3]),
        (losses.huber, [(0.125 + 0 + 2.5) / 3]),
        (lambda p, t: losses.huber(p, t, delta=2.0), [(0.125 + 0 + 4) / 3]),
    ],
)
def test_regression_losses_by_hand(loss, expected):
    np.testing.assert_allclose(loss(jnp.array([[0.5, 1.0, -1.0]]), jnp.array([[0.0, 1.0, 2.0]])), expected, rtol=1e-6)


PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([5.0, -7.0])}}


def test_the_penalty_and_its_gradient_by_hand():
    def value(params):
        return losses.penalty(params, l1=0.1, l2=0.01)

    np.testing.assert_allclose(value(PARAMS), 0.1 * 6.5 + 0.005 * 14.25, rtol=1e-6)
    gradient = jax.grad(value)(PARAMS)["dense"]
    kernel = PARAMS["dense"]["kernel"]
    np.testing.assert_allclose(gradient["kernel"], 0.1 * jnp.sign(kernel) + 0.01 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(gradient["bias"], 0)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, 6.5),
        ({"dense": {"kernel": False, "bias": True}}, 12.0),
        (lambda params: jax.tree.map(lambda _: True, params), 18.5),
        ({"dense": {"kernel": False, "bias": False}}, 0.0),
    ],
)
def test_the_penalty_counts_what_its_mask_names(mask, expected):
    np.testing.assert_allclose(losses.penalty(PARAMS, l1=1.0, mask=mask), expected)


def test_a_penalty_of_zero_costs_nothing_and_a_traced_one_may_be_zero():
    jaxpr = jax.make_jaxpr(lambda params: losses.penalty(params, 0.0, 0))(PARAMS)
    assert not jaxpr.eqns
    values = jax.vmap(lambda l1, l2: losses.penalty(PARAMS, l1, l2))(jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(values, [0.0, 6.5 + 14.25])


@pytest.mark.parametrize("weighted", [False, True])
def test_shares_of_shards_sum_to_the_mean(weighted):
    values = jax.random.normal(jax.random.key(1), (16,))
    weight = jnp.arange(16.0) % 5 if weighted else None
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    def share(values, weight):
        with batch_context(axis_name="data"):
            return jax.lax.psum(losses.share_of_mean(values, weight), "data")

    shard = PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=(shard, shard), out_specs=PartitionSpec()))
    expected = np.average(values, weights=weight)
    np.testing.assert_allclose(sharded(values, weight), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(losses.share_of_mean)(values, weight), expected, rtol=1e-5)
