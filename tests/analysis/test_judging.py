"""What is said of generated images, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.analysis import judging
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError
from jaxdl.models import create


def test_frechet_distance_of_gaussians_that_commute():
    """Diagonal covariances: sum (m_a - m_b)^2 + (s_a - s_b)^2."""
    random = np.random.default_rng(0)
    means, stds = random.normal(size=(2, 5)), random.uniform(0.1, 2, (2, 5))
    rotation, _ = np.linalg.qr(random.normal(size=(5, 5)))
    covariances = [rotation @ np.diag(std**2) @ rotation.T for std in stds]
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((stds[0] - stds[1]) ** 2)
    found = judging.frechet_distance(means[0], covariances[0], means[1], covariances[1])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_frechet_distance_against_a_matrix_square_root():
    from scipy.linalg import sqrtm

    random = np.random.default_rng(1)
    a, b = random.normal(size=(40, 6)), 2 * random.normal(size=(50, 6)) @ random.normal(size=(6, 6)) + 1
    (mean_a, cov_a), (mean_b, cov_b) = judging.feature_moments(a), judging.feature_moments(b)
    root = np.real(sqrtm(cov_a @ cov_b))
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    np.testing.assert_allclose(judging.frechet_distance(mean_a, cov_a, mean_b, cov_b), expected, rtol=1e-8)


def test_frechet_distance_of_fewer_examples_than_features():
    features = np.random.default_rng(2).normal(size=(4, 20))
    moments = judging.feature_moments(features)
    assert judging.frechet_distance(*moments, *moments) == pytest.approx(0, abs=1e-6)
    shifted = judging.feature_moments(features + 3)
    assert judging.frechet_distance(*moments, *shifted) == pytest.approx(20 * 9, rel=1e-8)


@pytest.mark.parametrize(
    "counts, expected", [([5, 5], 0.0), ([10, 0], np.log(2)), ([1, 0, 1, 0], np.log(2)), ([3, 1], 0.13081203)]
)
def test_divergence_from_uniform(counts, expected):
    assert judging.divergence_from_uniform(np.array(counts)) == pytest.approx(expected, abs=1e-7)


def classifier(shape=(4, 4, 1), mean=None, **fields):
    model = create("mlp", widths=(8,), num_outputs=3, **fields)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    source = ArraySource({"inputs": np.zeros((5, *shape), np.uint8), "labels": np.zeros(5, np.int32)})
    std = None if mean is None else np.full(1, 2.0, np.float32)
    return judging.Classifier(model, variables, Data({"train": source}, num_classes=3, mean=mean, std=std))


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, 4, 4, 1)).astype(np.float32)


def test_probabilities_and_features_are_the_models_own_on_standardised_pixels(monkeypatch):
    monkeypatch.setattr(judging, "BATCH", 4)  # 7 images: two batches, the second filled up
    judge = classifier(mean=np.full(1, 0.5, np.float32))
    x = images(7)
    probabilities, features = judge(x)
    inputs = (x - 0.5) / 2
    logits = judge.model.apply(judge.variables, inputs, train=False)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-5)
    layer = jax.device_get(judge.variables["params"]["hidden0"])
    hidden = np.maximum(inputs.reshape(7, -1) @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(features, hidden, rtol=1e-4, atol=1e-5)


def test_a_judgement():
    judge = classifier()
    x, reference = images(30), images(40, 1)
    probabilities, features = judge(x)
    labels = probabilities.argmax(axis=-1)
    asked = np.where(np.arange(30) < 12, (labels + 1) % 3, labels)
    found = judging.judge(judge, x, asked, reference)
    assert found.images == 30 and found.accuracy == pytest.approx(18 / 30)
    assert found.class_counts == tuple(np.bincount(labels, minlength=3))
    assert found.classes_present == len(set(labels))
    assert found.mean_max_probability == pytest.approx(probabilities.max(axis=-1).mean(), rel=1e-5)
    assert found.fid > 0
    same = judging.judge(judge, reference, None, reference)
    assert same.accuracy is None and same.fid == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((3, 5, 4, 1)), r"trained on images of \[4, 4, 1\], and these are \[5, 4, 1\]"),
        (np.full((3, 4, 4, 1), 1.5), "pixels must be in 0 to 1, and these are in 1.5 to 1.5"),
        (np.full((3, 4, 4, 1), np.nan), "pixels must be in 0 to 1"),
        (np.zeros((1, 4, 4, 1)), "at least two images"),
    ],
)
def test_what_cannot_be_judged(x, message):
    with pytest.raises(InputError, match=message) as caught:
        judging.judge(classifier(), x, None, images(4))
    assert "\n" not in str(caught.value)
