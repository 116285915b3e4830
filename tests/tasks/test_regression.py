"""Regression: its metrics against scikit-learn, in the targets' own units; several targets; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError
from jaxdl.tasks.regression import Regression

N, T = 20, 3
_rng = np.random.default_rng(2)
KEY = jax.random.key(0)  # for losses that draw; these do not
TARGETS = _rng.normal(size=(N, T)).astype(np.float32)
PREDICTIONS = (TARGETS + 0.5 * _rng.normal(size=(N, T))).astype(np.float32)
STD, MEAN = np.array([1.0, 20.0, 0.5], np.float32), np.array([5.0, -3.0, 0.0], np.float32)


def identity(inputs):
    """A model whose outputs are its inputs."""
    return inputs


@pytest.mark.parametrize("std", [None, STD], ids=["as read", "standardised"])
def test_evaluation_is_scikit_learns_in_the_targets_own_units(std):
    batch = {
        "inputs": jnp.concatenate([PREDICTIONS, jnp.full((4, T), jnp.inf)]),
        "targets": jnp.concatenate([TARGETS, jnp.zeros((4, T))]),
        "weight": jnp.concatenate([jnp.ones(N), jnp.zeros(4)]),
    }
    if std is not None:
        batch["target_std"] = jnp.broadcast_to(std, (N + 4, T))
    task = Regression(loss_function="mae")
    results = jax.jit(lambda batch: task.evaluate(identity, batch))(batch)
    results = {name: metric.compute() for name, metric in jax.device_get(results).items()}
    targets, predictions = (TARGETS, PREDICTIONS) if std is None else (TARGETS * std + MEAN, PREDICTIONS * std + MEAN)
    mse = sklearn.metrics.mean_squared_error(targets, predictions)
    expected = {
        "loss": sklearn.metrics.mean_absolute_error(TARGETS, PREDICTIONS),
        "mse": mse,
        "rmse": mse**0.5,
        "mae": sklearn.metrics.mean_absolute_error(targets, predictions),
        "r2": sklearn.metrics.r2_score(targets, predictions),
    }
    assert set(results) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("loss_function", ["mse", "mae", "huber"])
def test_the_loss_is_the_mean_that_evaluation_reports(loss_function):
    task = Regression(loss_function=loss_function, huber_delta=0.3)
    batch = {"inputs": jnp.asarray(PREDICTIONS), "targets": jnp.asarray(TARGETS)}
    loss, results = task.loss(identity, batch, KEY)
    np.testing.assert_allclose(results["loss"].compute(), loss, rtol=1e-6)
    np.testing.assert_allclose(task.evaluate(identity, batch)["loss"].compute(), loss, rtol=1e-6)


def test_huber_lies_between_the_others():
    """It is half the squared error where delta is beyond all errors, and delta |e| less a constant where near 0."""
    batch = {"inputs": jnp.asarray(PREDICTIONS), "targets": jnp.asarray(TARGETS)}
    mse, mae = (Regression(loss_function=name).loss(identity, batch, KEY)[0] for name in ("mse", "mae"))
    wide, narrow = (Regression("huber", delta).loss(identity, batch, KEY)[0] for delta in (100.0, 1e-4))
    np.testing.assert_allclose(wide, mse / 2, rtol=1e-6)
    np.testing.assert_allclose(narrow, 1e-4 * mae, rtol=1e-3)


def test_outputs_that_only_broadcast_to_the_targets_are_refused():
    batch = {"inputs": jnp.asarray(PREDICTIONS[:, :1]), "targets": jnp.asarray(TARGETS)}
    with pytest.raises(InputError, match="--model.num_outputs=3"):
        Regression().loss(identity, batch, KEY)


@pytest.mark.parametrize(
    ("num_targets", "targets", "message"),
    [(None, [[0.0]], "--task=classification"), (1, [[0.0], [np.nan]], "split 'train': targets has nan at row 1")],
)
def test_data_that_cannot_serve_is_refused(num_targets, targets, message):
    source = ArraySource({"targets": np.array(targets)})
    with pytest.raises(InputError, match=message):
        Regression().check(Data({"train": source}, num_targets=num_targets))


def test_there_is_an_output_for_each_target():
    assert Regression().model_fields(Data({}, num_targets=3)) == {"num_outputs": 3}


def test_figures_are_of_real_examples_in_the_targets_own_units():
    data = Data({}, num_targets=T, target_mean=MEAN, target_std=STD)
    targets = TARGETS * STD + MEAN
    weight = np.float32(np.arange(N) < 15)
    figures = Regression().figures(lambda _: PREDICTIONS, [{"targets": targets, "weight": weight}], data)
    assert set(figures) == {"predictions", "residuals"}
    for target in range(T):
        points = figures["predictions"].axes[target].collections[0].get_offsets()
        np.testing.assert_allclose(points[:, 0], targets[:15, target], rtol=1e-6)
        np.testing.assert_allclose(points[:, 1], (PREDICTIONS * STD + MEAN)[:15, target], rtol=1e-6)
    assert Regression().figures(None, [], data) == {}
