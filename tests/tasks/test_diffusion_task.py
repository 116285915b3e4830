"""The diffusion task: what the model is asked and told, evaluations that repeat, samples, and bad input in one line."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import diffusion, experiment
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError
from jaxdl.tasks import diffusion as task_module
from jaxdl.tasks.diffusion import Diffusion, ImageSampler
from launch import sample

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
LABELS = np.arange(30, dtype=np.int32) % 3
ARRAYS = {"inputs": IMAGES, "labels": LABELS}
DATA = Data({"train": ArraySource(ARRAYS)}, num_classes=3, class_names=("a", "b", "c"))
CONDITIONAL = Diffusion(class_conditional=True, condition_drop_rate=0.25, num_times=40, noise_schedule="cosine")
KEY = jax.random.key(0)


def batch(start=0, stop=30):
    rows = {name: jnp.asarray(value[start:stop]) for name, value in ARRAYS.items()}
    return DATA.decode(rows) | {"index": jnp.arange(start, stop), "weight": jnp.ones(stop - start)}


class OneColour(nn.Module):
    """An image x0 of one value for each class: -1, 0, 1 for the classes, 0.5 without one."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, inputs, times, labels=None, *, train: bool):
        values = jnp.array([-1.0, 0.0, 1.0, 0.5])
        labels = jnp.full(times.shape, 3) if labels is None else labels
        return jnp.broadcast_to(values[labels][:, None, None, None], inputs.shape)


def spying(seen):
    """A model that predicts zero and keeps what it was given."""

    def forward(x, times, labels=None):
        seen.append((x, times, labels))
        return jnp.zeros_like(x)

    return forward


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_the_loss_is_the_mean_squared_error_of_the_prediction(prediction):
    task, seen = dataclasses.replace(CONDITIONAL, prediction=prediction, num_classes=3), []
    loss, metrics = task.loss(spying(seen), batch(), KEY)
    [(x, times, _)] = seen
    x0 = 2 * batch()["inputs"] - 1
    signal, rate = (value[:, None, None, None] for value in task.schedule.marginal(times))
    noise = (x - signal * x0) / rate
    expected = jnp.square(diffusion.target(task.schedule, prediction, x0, times, noise)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert metrics["loss"].compute() == pytest.approx(float(loss), rel=1e-6)
    assert 0 <= times.min() and times.max() < 40 and len(set(times.tolist())) > 15
    assert abs(noise.mean()) < 0.2 and abs(noise.std() - 1) < 0.15  # 480 draws
    # A model that is right has no loss: it is told the time, and the task's target is what it must give.
    right = lambda x, times, labels: diffusion.target(
        task.schedule, prediction, x0, times, (x - rate_of(task, times)[0] * x0) / rate_of(task, times)[1]
    )
    assert task.loss(right, batch(), KEY)[0] < 1e-6


def rate_of(task, times):
    return tuple(value[:, None, None, None] for value in task.schedule.marginal(times))


def test_the_class_is_dropped_in_training_alone():
    rows = {name: jnp.tile(value, (40,) + (1,) * (value.ndim - 1)) for name, value in batch().items()}
    task, seen = CONDITIONAL.for_data(DATA), []
    task.loss(spying(seen), rows, KEY)
    dataclasses.replace(task, condition_drop_rate=0.0).loss(spying(seen), rows, KEY)
    task.evaluate(spying(seen), rows)
    told = [np.asarray(labels) for _, _, labels in seen]
    share = (told[0] == 3).mean()
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1200)
    assert ((told[0] == rows["labels"]) | (told[0] == 3)).all()
    for labels in told[1:]:
        np.testing.assert_array_equal(labels, rows["labels"])


def test_an_unconditional_model_is_told_no_class():
    seen = []
    Diffusion().loss(spying(seen), batch(), KEY)
    assert seen[0][2] is None
    assert Diffusion().for_data(DATA).model_fields(DATA) == {"num_classes": 0}
    assert CONDITIONAL.for_data(DATA).model_fields(DATA) == {"num_classes": 3}


@pytest.mark.parametrize("bound_terms", [0, 3, 40])
def test_evaluation_is_the_same_in_any_batches(bound_terms):
    task = dataclasses.replace(CONDITIONAL, bound_terms=bound_terms).for_data(DATA)
    forward = lambda x, times, labels: 0.5 * x
    whole = task.evaluate(forward, batch())
    first = task.evaluate(forward, batch(0, 13))
    rest = batch(13, 30)
    rest = {name: jnp.concatenate([value, value[-1:]]) for name, value in rest.items()}  # filled up with a copy
    rest["weight"] = rest["weight"].at[-1].set(0.0)
    merged = {name: metric.merge(task.evaluate(forward, rest)[name]) for name, metric in first.items()}
    assert set(whole) == {"loss"} | ({"bits_per_dimension"} if bound_terms else set())
    for name, metric in whole.items():
        assert metric.compute() == pytest.approx(merged[name].compute(), rel=1e-4)


def test_bits_per_dimension_are_the_bound_of_pixels():
    """Of a model that knows the images: what is left is to tell the level, and what is lost to the prior."""
    task = dataclasses.replace(CONDITIONAL, bound_terms=40, prediction="x0").for_data(DATA)
    x0 = 2 * batch()["inputs"] - 1
    knows = task.evaluate(lambda x, times, labels: x0, batch())["bits_per_dimension"].compute()
    guesses = task.evaluate(lambda x, times, labels: jnp.zeros_like(x), batch())["bits_per_dimension"].compute()
    # Terms between are zero; the last one's deviation is fixed, and some levels wide.
    deviation = math.sqrt(task.schedule.posterior(np.array([1]), np.array([0]))[2][0])
    inside = math.log2(math.sqrt(2 * math.pi) * deviation / (2 / 255))
    at_the_ends = np.isin(IMAGES, (0, 255)).mean()  # where the level goes on for ever, which has one half
    expected = inside * (1 - at_the_ends) + 1 * at_the_ends
    prior = float(diffusion.prior_term(task.schedule, x0).mean()) / 16 / math.log(2)
    assert knows == pytest.approx(expected + prior, abs=0.02)
    assert guesses > 8 > knows  # 8 bits name any pixel


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_samples_are_what_was_asked_for(method, monkeypatch):
    monkeypatch.setattr(task_module, "GENERATED_AT_ONCE", 4)
    task = dataclasses.replace(CONDITIONAL, prediction="x0").for_data(DATA)
    sampler = ImageSampler(method=method, num_steps=5)
    images, labels = task.images(sampler, OneColour(), {}, DATA, KEY, 7)
    assert images.shape == (7, 4, 4, 1) and images.dtype == np.float32
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_allclose(images[:, 0, 0, 0], np.array([0, 0.5, 1])[labels], atol=1e-5)
    wanted = dataclasses.replace(sampler, labels=(2, 0))
    assert task.images(wanted, OneColour(), {}, DATA, KEY, 3)[1].tolist() == [2, 0, 2]


def test_guidance_goes_beyond_the_condition():
    task = dataclasses.replace(CONDITIONAL, prediction="x0").for_data(DATA)
    values = {}
    for guidance in (0.0, 1.0, 1.5):
        sampler = ImageSampler(num_steps=3, guidance=guidance, labels=(1,))
        values[guidance] = task.images(sampler, OneColour(), {}, DATA, KEY, 1)[0].mean()
    # Without the condition 0.5, with it 0, and as far again by half: x0 = -0.25.
    assert values == pytest.approx({0.0: 0.75, 1.0: 0.5, 1.5: 0.375}, abs=1e-5)


def test_a_sample_does_not_depend_on_how_many_are_drawn(monkeypatch):
    task = dataclasses.replace(CONDITIONAL, prediction="epsilon").for_data(DATA)
    draw = lambda count: task.images(ImageSampler(eta=1.0, num_steps=4), OneColour(), {}, DATA, KEY, count)[0]
    whole = draw(6)
    monkeypatch.setattr(task_module, "GENERATED_AT_ONCE", 4)
    np.testing.assert_allclose(draw(6), whole, atol=1e-6)
    assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6


@pytest.mark.parametrize(("prediction", "first"), [("epsilon", 980), ("v", 999), ("x0", 999)])
def test_a_noise_predictor_is_not_asked_where_nothing_of_the_image_is_left(prediction, first):
    task = Diffusion(noise_schedule="cosine", prediction=prediction)
    assert task._times(ImageSampler())[0] == first
    assert task._times(ImageSampler(spacing="linspace"))[0] == 999
    signal, _ = task.schedule.marginal(np.array([980, 999]))
    assert signal[0] > 0.02 and signal[1] < 1e-4


def test_a_run_trains_evaluates_and_shows_its_samples(tmp_path, monkeypatch):
    flags = ["--model=dit", "--model.patch_size=4", "--model.width=8", "--model.num_layers=1", "--model.num_heads=2"]
    flags += ["--task=diffusion", "--task.class_conditional", "--task.condition_drop_rate=0.1", "--task.num_times=30"]
    flags += ["--dataset=digits", "--dataset.standardize=false", "--ema_decay=0.9", "--steps=3", "--batch_size=16"]
    flags += ["--task.bound_terms=2", "--eval_batch_size=500", "--progress=off", "--mesh=data:1", "--tensorboard=false"]
    experiment.run(experiment.parse([*flags, f"--workdir={tmp_path}"]))
    names = {"samples.png", "noising.png", "denoising.png"}
    assert {path.name for path in (tmp_path / "samples").iterdir()} == names
    arguments = [f"--workdir={tmp_path}", "--mesh=data:1", "--num_samples=2"]
    assert sample.main([*arguments, "--guidance=2", "--method=ancestral", "--num_steps=4"]) == 0
    with pytest.raises(InputError, match="31 sampling steps: the noise schedule has 30 times"):
        sample.main([*arguments, "--num_steps=31"])
    bits = {}
    for terms in (30, 4):
        _, values = experiment.evaluate(tmp_path, "test", overrides=[f"--task.bound_terms={terms}"])
        bits[terms] = values["bits_per_dimension"]
    assert bits[4] == pytest.approx(bits[30], rel=0.3)
    seen = []
    monkeypatch.setattr(Diffusion, "sample", lambda task, sampler, model, variables, *_: seen.append(variables) or {})
    assert sample.main(arguments) == 0
    state = experiment.restore(tmp_path)[-1]
    averaged, last = (jax.tree.leaves(jax.device_get(tree)) for tree in (state.ema, state.params))
    assert all(map(np.array_equal, jax.tree.leaves(seen[0]["params"]), averaged)), "samples are of the averages"
    assert not all(map(np.array_equal, averaged, last))


@pytest.mark.parametrize(
    ("task", "sampler", "message"),
    [
        ({"condition_drop_rate": 0.0}, {"guidance": 2.0}, "--guidance=2: .* class always given.*condition_drop_rate"),
        ({"condition_drop_rate": 0.0}, {"guidance": 0.0}, "--guidance=0: .* class always given"),
        ({"class_conditional": False}, {"guidance": 2.0}, "--guidance=2: .* without classes"),
        ({"class_conditional": False}, {"labels": (1,)}, "--labels: .* without classes"),
        ({}, {"labels": (1, 3)}, "there is no class 3; the classes are 0 to 2"),
        ({}, {"num_steps": 41}, "41 sampling steps: the noise schedule has 40 times, so there can be 1 to 40"),
        ({}, {"method": "ancestral", "eta": 0.5}, "--eta has a meaning for --method=ddim alone"),
    ],
)
def test_what_cannot_be_sampled(task, sampler, message):
    task = dataclasses.replace(CONDITIONAL, **task).for_data(DATA)
    for draw in (lambda sampler: task.sample(sampler, None, {}, DATA, KEY), task.check_sampler):
        with pytest.raises(InputError, match=message) as caught:
            draw(ImageSampler(**sampler))
        assert "\n" not in str(caught.value)


def data(**changes):
    return Data({"train": ArraySource(ARRAYS | changes)}, num_classes=3)


@pytest.mark.parametrize(
    ("task", "dataset", "message"),
    [
        ({}, dataclasses.replace(DATA, mean=np.zeros(1), std=np.ones(1)), "--dataset.standardize=false"),
        ({}, data(inputs=np.full((30, 4, 4, 1), 1.5, np.float32)), "pixels in 0 to 1, or uint8, .* in 1.5 to 1.5"),
        ({}, data(inputs=np.full((30, 4, 4, 1), -1, np.float32)), "pixels in 0 to 1"),
        ({}, data(inputs=np.zeros((30, 4), np.float32)), r"needs images .* 'train' has inputs of \[4\]"),
        ({"class_conditional": True}, Data({"train": ArraySource(ARRAYS)}), "needs classes, and the dataset has none"),
        ({"condition_drop_rate": 0.1}, DATA, "no meaning without --task.class_conditional"),
        ({"bound_terms": 1001}, DATA, "--task.bound_terms=1001: the noise schedule has 1000 times"),
        ({"num_times": 20}, DATA, "a linear schedule of 20 times would go .* to 1"),
    ],
)
def test_what_cannot_be_trained(task, dataset, message):
    with pytest.raises(InputError, match=message) as caught:
        Diffusion(**task).for_data(dataset).check(dataset)
    assert "\n" not in str(caught.value)
