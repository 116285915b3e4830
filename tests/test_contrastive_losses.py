"""NT-Xent and the logits of a batch: by hand, with padding, and over the rows of several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxdl import losses
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context, batch_sum

VIEWS = np.random.default_rng(0).normal(size=(8, 2, 5)).astype(np.float32)
TEXTS = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)


def nt_xent(views, temperature=0.5, weight=None):
    """The mean over an example's two views, [B]."""
    return losses.softmax_cross_entropy(*losses.nt_xent_logits(views, temperature, weight)).mean(axis=1)


def clip(images, texts):
    return sum(losses.softmax_cross_entropy(*losses.batch_logits(*pair)) for pair in ((images, texts), (texts, images)))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_equation_1_of_the_paper(temperature):
    flat = VIEWS.reshape(16, 5).astype(np.float64)  # rows 2k and 2k + 1 are one example's, as in its algorithm 1
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    similarity = np.exp(flat @ flat.T / temperature)
    expected = [-np.log(similarity[i, i ^ 1] / sum(similarity[i, k] for k in range(16) if k != i)) for i in range(16)]
    np.testing.assert_allclose(nt_xent(VIEWS, temperature), np.reshape(expected, (8, 2)).mean(axis=1), rtol=1e-4)


def test_scale_of_a_projection_and_the_order_of_views_do_not_matter():
    scaled = VIEWS * np.random.default_rng(2).uniform(0.1, 10, (8, 2, 1)).astype(np.float32)
    np.testing.assert_allclose(nt_xent(scaled), nt_xent(VIEWS), rtol=1e-5)
    np.testing.assert_allclose(nt_xent(VIEWS[:, ::-1]), nt_xent(VIEWS), rtol=1e-5)


def test_padding_is_nobodys_negative():
    padded = np.concatenate([VIEWS, 100 * VIEWS[:3]])
    weight = np.array([1.0] * 8 + [0.0] * 3, np.float32)
    values = nt_xent(padded, 0.5, weight)
    np.testing.assert_allclose(values[:8], nt_xent(VIEWS), rtol=1e-5)
    assert np.isfinite(values).all()
    logits, labels = losses.batch_logits(padded[:, 0], padded[:, 1], weight)
    assert np.isinf(logits[0, 8:]).all() and np.isfinite(logits[8, 8]) and labels.tolist() == list(range(11))


def test_projections_of_zero_have_a_finite_gradient():
    views = jnp.asarray(VIEWS).at[3].set(0)
    gradient = jax.grad(lambda views: nt_xent(views).sum())(views)
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize("size", [2, 3, 8])
def test_perfect_and_hopeless_projections(size):
    """Equal ones cannot be told from the 2N - 2 others; unlike ones at a low temperature cost nothing."""
    np.testing.assert_allclose(nt_xent(np.ones((size, 2, 4))), np.log(2 * size - 1), rtol=1e-5)
    apart = np.repeat(np.eye(size, dtype=np.float32)[:, None], 2, axis=1)
    np.testing.assert_allclose(nt_xent(apart, 0.05), 0, atol=1e-6)


@pytest.mark.parametrize("function", [lambda: nt_xent(VIEWS[:1]), lambda: clip(TEXTS[:1], TEXTS[:1])])
def test_a_batch_of_one_is_refused(function):
    with pytest.raises(InputError, match="a single example: raise --batch_size"):
        function()


def test_each_view_is_gathered_once():
    def loss(views):
        with batch_context(axis_name="data"):
            return nt_xent(views)

    mapped = jax.make_jaxpr(loss, axis_env=[("data", 8)])(VIEWS)
    assert [equation.primitive.name for equation in mapped.eqns].count("all_gather") == 1


LOSSES = {"nt_xent": (nt_xent, (VIEWS,)), "clip": (clip, (VIEWS[:, 0], TEXTS))}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_have_the_loss_and_the_gradient_of_one(name, mode):
    """Of embeddings x W: shares of the loss, and of its gradient by W, add up over the shards."""
    function, arrays = LOSSES[name]
    weights = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)

    def share(weights, *arrays):
        return losses.share_of_mean(function(*(x @ weights for x in arrays)))

    whole = jax.value_and_grad(share)(weights, *arrays)

    def shard(weights, *arrays):
        with batch_context(axis_name="data"):
            return batch_sum(jax.value_and_grad(share)(weights, *arrays))

    devices = jax.devices()[:8]
    mesh, rows = Mesh(np.array(devices), ("data",)), PartitionSpec("data")
    if mode == "pmap":
        mapped = jax.pmap(shard, "data", in_axes=(None, *[0] * len(arrays)), out_axes=None, devices=devices)
        found = mapped(weights, *(x[:, None] for x in arrays))
    elif mode == "shard_map":
        specs = {"in_specs": (PartitionSpec(), *[rows] * len(arrays)), "out_specs": PartitionSpec()}
        found = jax.jit(jax.shard_map(shard, mesh=mesh, check_vma=False, **specs))(weights, *arrays)
    else:
        split = functools.partial(jax.device_put, device=jax.sharding.NamedSharding(mesh, rows))
        found = jax.jit(jax.value_and_grad(share))(weights, *map(split, arrays))
    # Sums of eight terms in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, whole)
