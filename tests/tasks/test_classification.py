"""Classification: its loss and metrics against scikit-learn, over padding, shards, mixed labels and one output."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from jax.sharding import Mesh, PartitionSpec

from jaxdl.catalog import find
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.data.tokenizers import CharacterTokenizer
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context
from jaxdl.tasks import TASKS
from jaxdl.tasks.classification import Classification

N, C = 24, 7
_rng = np.random.default_rng(1)
KEY = jax.random.key(0)  # for losses that draw; these do not
LOGITS = _rng.normal(size=(N, C)).astype(np.float32)
LABELS = _rng.integers(0, C, N).astype(np.int32)


def data(num_classes=C, **splits):
    return Data({name: ArraySource({"labels": np.asarray(labels)}) for name, labels in splits.items()}, num_classes)


def sequences(**changes):
    """Two sequences of the two tokens of a vocabulary."""
    arrays = {"inputs": np.zeros((2, 2), np.int32), "lengths": np.ones(2, np.int32), "labels": np.arange(2)}
    arrays |= {name: np.asarray(values) for name, values in changes.items()}
    return Data({"train": ArraySource(arrays)}, num_classes=2, tokenizer=CharacterTokenizer("ab"))


def identity(inputs):
    """A model whose outputs are its inputs."""
    return inputs


def compute(method, batch):
    """The values of the metrics that `method(identity, batch)` gives."""
    results = jax.jit(lambda batch: method(identity, batch))(batch)
    return {name: metric.compute() for name, metric in jax.device_get(results).items()}


def test_evaluation_is_scikit_learns_and_leaves_padding_out():
    batch = {
        "inputs": jnp.concatenate([LOGITS, jnp.full((3, C), jnp.nan)]),
        "labels": jnp.concatenate([LABELS, jnp.zeros(3, jnp.int32)]),
        "weight": jnp.concatenate([jnp.ones(N), jnp.zeros(3)]),
    }
    results = compute(Classification().evaluate, batch)
    probabilities, predicted = np.asarray(jax.nn.softmax(LOGITS)), LOGITS.argmax(-1)
    log_loss = sklearn.metrics.log_loss(LABELS, probabilities, labels=range(C))
    expected = {
        "loss": log_loss,
        "nll": log_loss,
        "accuracy": sklearn.metrics.accuracy_score(LABELS, predicted),
        "top5_accuracy": sklearn.metrics.top_k_accuracy_score(LABELS, LOGITS, k=5, labels=range(C)),
        "confusion_matrix": sklearn.metrics.confusion_matrix(LABELS, predicted, labels=range(C)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-6, err_msg=name)
    assert 0 < results["calibration_error"] < 1
    assert set(results) == {*expected, "calibration_error"}


def test_top5_is_only_of_more_than_five_classes():
    batch = {"inputs": jnp.asarray(LOGITS[:, :5]), "labels": jnp.asarray(LABELS % 5)}
    assert "top5_accuracy" not in jax.eval_shape(lambda batch: Classification().evaluate(identity, batch), batch)


@pytest.mark.parametrize("loss_function", ["cross_entropy", "perceptron", "hinge"])
def test_one_output_is_the_two_logits_zero_and_itself(loss_function):
    task = Classification(loss_function=loss_function, class_weights=(1.0, 3.0))
    scores, labels = jnp.asarray(LOGITS[:, :1]), jnp.asarray(LABELS % 2)
    one = {"inputs": scores, "labels": labels}
    two = {"inputs": jnp.concatenate([jnp.zeros_like(scores), scores], axis=-1), "labels": labels}
    for method in (task.evaluate, lambda *args: task.loss(*args, KEY)[1]):
        jax.tree.map(np.testing.assert_array_equal, compute(method, one), compute(method, two))
    loss = task.loss(identity, one, KEY)[0]
    sign, factor = 2.0 * labels - 1, 1.0 + 2 * labels
    by_hand = {
        "cross_entropy": jnp.log1p(jnp.exp(-sign * scores[:, 0])),
        "perceptron": jnp.maximum(0, -sign * scores[:, 0]),
        "hinge": jnp.maximum(0, 1 - sign * scores[:, 0]),
    }
    np.testing.assert_allclose(loss, (factor * by_hand[loss_function]).mean(), rtol=1e-5)


def test_mixed_labels_mix_loss_and_accuracy():
    mix, other = jnp.linspace(0, 1, N), jnp.asarray((LABELS + 1) % C)
    task = Classification(label_smoothing=0.1)
    plain = {"inputs": jnp.asarray(LOGITS), "labels": jnp.asarray(LABELS)}
    loss, results = task.loss(identity, {**plain, "labels_b": other, "mix": mix}, KEY)
    soft = mix[:, None] * jax.nn.one_hot(LABELS, C) + (1 - mix)[:, None] * jax.nn.one_hot(other, C)
    expected = -((0.9 * soft + 0.1 / C) * jax.nn.log_softmax(LOGITS)).sum(-1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(results["loss"].compute(), loss, rtol=1e-6)
    predicted = LOGITS.argmax(-1)
    accuracy = (mix * (predicted == LABELS) + (1 - mix) * (predicted == other)).mean()
    np.testing.assert_allclose(results["accuracy"].compute(), accuracy, rtol=1e-6)
    # All of the first label is no mixing.
    whole, _ = task.loss(identity, {**plain, "labels_b": other, "mix": jnp.ones(N)}, KEY)
    np.testing.assert_allclose(whole, task.loss(identity, plain, KEY)[0], rtol=1e-6)


def test_shards_sum_to_the_loss_gradient_and_metrics_of_the_batch():
    task = Classification(label_smoothing=0.1)
    batch = {"inputs": jnp.asarray(LOGITS), "labels": jnp.asarray(LABELS), "weight": jnp.float32(np.arange(N) % 4 > 0)}

    def step(scale, batch):
        loss = lambda scale: task.loss(lambda inputs: scale * inputs, batch, KEY)  # noqa: E731
        (value, results), gradient = jax.value_and_grad(loss, has_aux=True)(scale)
        return value, gradient, results

    def shard_step(scale, batch):
        with batch_context(axis_name="data"):
            # The parameter is made this shard's own, so that its gradient is this shard's share.
            value, gradient, results = step(jax.lax.pcast(scale, "data", to="varying"), batch)
            sums = jax.lax.psum((value, gradient), "data")
            return *sums, {name: metric.summed() for name, metric in results.items()}

    mesh, whole = Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec()
    sharded = jax.shard_map(shard_step, mesh=mesh, in_specs=(whole, PartitionSpec("data")), out_specs=whole)
    expected, actual = jax.jit(step)(2.0, batch), jax.jit(sharded)(2.0, batch)
    np.testing.assert_allclose(actual[:2], expected[:2], rtol=1e-5)
    for name, metric in expected[2].items():
        np.testing.assert_allclose(actual[2][name].compute(), metric.compute(), rtol=1e-6)


def test_two_classes_take_one_output():
    assert Classification().model_fields(data(2)) == {"num_outputs": 1}
    assert Classification().model_fields(data(3)) == {"num_outputs": 3}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (Classification(), data(None), "--task=regression"),
        (Classification(), data(1), "at least 2 classes"),
        (Classification(), data(3, train=[0, 1, 3]), r"split 'train': label 3 at row 2; labels must be from 0 to 2"),
        (Classification(), data(3, train=[0], test=[-1]), "split 'test': label -1 at row 0"),
        (Classification(), data(3, train=[0.0, 1.0]), "float64.*whole numbers"),
        (Classification(), Data({"train": ArraySource({"inputs": np.zeros(2)})}, 2), "'train' has no labels"),
        (Classification(), sequences(lengths=[2, 0]), "lengths of row 1 has 0, and must be from 1 to 2"),
        (Classification(), sequences(inputs=[[0, 1], [2, 0]]), "inputs of row 1 has 2, and must be from 0 to 1"),
        (Classification(class_weights=(1.0, 2.0)), data(3), "2 values for the dataset's 3 classes"),
        (Classification(class_weights=(1.0, -2.0)), data(2), "at least 0"),
        (Classification(loss_function="hinge", label_smoothing=0.1), data(2), "no meaning"),
    ],
)
def test_data_that_cannot_serve_is_refused_in_one_line(task, given, message):
    with pytest.raises(InputError, match=message) as error:
        task.check(given)
    assert "\n" not in str(error.value)


def test_outputs_at_each_step_are_no_classes_of_examples():
    with pytest.raises(InputError, match=r"outputs \[2, 5, 3\] for labels \[2\].*--model.pooling"):
        Classification().loss(identity, {"inputs": jnp.zeros((2, 5, 3)), "labels": jnp.zeros(2, int)}, KEY)


def test_data_that_can_serve_is_accepted():
    Classification(class_weights=(1.0, 0.0, 2.0)).check(data(3, train=np.array([0, 2]), test=np.array([], np.int32)))


def test_the_label_smoothing_may_be_traced():
    batch = {"inputs": jnp.asarray(LOGITS), "labels": jnp.asarray(LABELS)}
    values = jax.vmap(lambda eps: Classification(label_smoothing=eps).loss(identity, batch, KEY)[0])(
        jnp.array([0.0, 0.3])
    )
    expected = [Classification(label_smoothing=eps).loss(identity, batch, KEY)[0] for eps in (0.0, 0.3)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_figures_count_every_real_example(num_outputs):
    num_classes = max(2, num_outputs)
    outputs, labels = LOGITS[:, :num_outputs], LABELS % num_classes
    images = _rng.random((N, 4, 4, 1)).astype(np.float32)
    weight = np.float32(np.arange(12) < 10)
    batches = [
        {"inputs": images[start : start + 12], "labels": labels[start : start + 12], "weight": weight}
        for start in (0, 12)
    ]
    by_image = {images[start].tobytes(): outputs[start : start + 12] for start in (0, 12)}
    figures = Classification().figures(lambda batch: by_image[batch["inputs"][0].tobytes()], batches, data(num_classes))
    assert set(figures) == {"confusion_matrix", "reliability", "misclassified"}
    logits = outputs if num_outputs > 1 else np.concatenate([0 * outputs, outputs], axis=-1)
    wrong = (logits.argmax(-1) != labels)[[*range(10), *range(12, 22)]].sum()
    assert f"{wrong} of {wrong} mistakes" in figures["misclassified"].get_suptitle()
    assert len([axes for axes in figures["misclassified"].axes if axes.images]) == wrong


def test_the_catalog_names_every_task():
    for name in TASKS:
        assert dataclasses.is_dataclass(find(TASKS, name, "task").load()())
