"""What a trained classifier makes of generated images: are they clear, varied, like the data, and what was asked for?

The Fréchet distance is that of Heusel et al. 2017 (arXiv:1706.08500), section 2 (their FID),
in the features of a classifier of the same data, not Inception's. Shapes: N images, C classes, F features.

A task whose images can be judged gives them by `Task.images(sampler, model, variables, data, key, count)`: float32
[count, H, W, channels] in 0 .. 1 on the host, and the classes that were asked for, int32 [count], or None.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data import sources
from jaxdl.errors import InputError

BATCH = 500


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a classifier says of N images.

    Attributes:
      images: N.
      mean_max_probability: the mean over the images of the probability of the most probable class.
      class_counts: how many images each class is the most probable of.
      classes_present: how many of these counts are not 0.
      class_kl: the Kullback-Leibler divergence in nats of the shares of the classes from the uniform distribution.
      fid: the Fréchet distance of the images' features from those of the reference.
      accuracy: the share of the images that are classified as asked; None where no classes were asked for.
    """

    images: int
    mean_max_probability: float
    class_counts: tuple[int, ...]
    classes_present: int
    class_kl: float
    fid: float
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier as a function of pixels.

    Attributes:
      model: a Linen module of one input, whose last dense layer gives the logits.
      variables: its variables.
      data: what it was trained on, for the standardisation of its inputs.
    """

    model: Any
    variables: Any
    data: Any

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float32 [N, C] and features float32 [N, F] of images [N, H, W, channels] in 0 .. 1.

        Raises:
          InputError: the images are not of the size that it was trained on, or not in 0 .. 1.
        """
        wanted = np.shape(self.data.splits["train"][0]["inputs"])
        if images.shape[1:] != wanted:
            raise InputError(
                f"the classifier was trained on images of {list(wanted)}, and these are {list(images.shape[1:])}; "
                "take a classifier of the same data."
            )
        if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
            raise InputError(f"pixels must be in 0 to 1, and these are in {images.min():g} to {images.max():g}.")
        parts = [jax.device_get(self._apply(self.variables, batch)) for batch in _batches(images)]
        probabilities, features = (np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True))
        return probabilities, features

    @functools.cached_property
    def _apply(self) -> Callable:
        @jax.jit
        def apply(variables, images):
            inputs = self.data.standardize({"inputs": images})["inputs"]
            logits, features = last_features(lambda: self.model.apply(variables, inputs, train=False))
            if logits.shape[-1] == 1:  # the log odds of class 1
                logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
            return jax.nn.softmax(logits), features

        return apply


def last_features(apply: Callable[[], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The outputs of `apply()`, and what went into the last dense layer that it called.

    Raises:
      InputError: it called none.
    """
    inputs = []

    def watch(call, arguments, keywords, context):
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            inputs.append(arguments[0])
        return call(*arguments, **keywords)

    with nn.intercept_methods(watch):
        outputs = apply()
    if not inputs:
        raise InputError("the classifier has no dense layer, whose inputs would be its features.")
    return outputs, inputs[-1]


def judge(classifier: Classifier, images: np.ndarray, labels: np.ndarray | None, reference: np.ndarray) -> Judgement:
    """What the classifier says of the images.

    Args:
      images: float [N, H, W, channels] in 0 .. 1.
      labels: int [N], what was asked for; None where nothing was.
      reference: real images like them [M, H, W, channels], from whose features the distance is taken.

    Raises:
      InputError: fewer than two images, or images that the classifier does not take.
    """
    if min(len(images), len(reference)) < 2:
        raise InputError("the Fréchet distance needs at least two images, and two of the reference.")
    probabilities, features = classifier(images)
    _, reference_features = classifier(reference)
    predicted = probabilities.argmax(axis=-1)
    counts = np.bincount(predicted, minlength=probabilities.shape[-1])
    return Judgement(
        images=len(images),
        mean_max_probability=float(probabilities.max(axis=-1).mean(dtype=np.float64)),
        class_counts=tuple(int(count) for count in counts),
        classes_present=int((counts > 0).sum()),
        class_kl=divergence_from_uniform(counts),
        fid=frechet_distance(*feature_moments(features), *feature_moments(reference_features)),
        accuracy=None if labels is None else float((predicted == labels).mean()),
    )


def real_images(data, split: str, count: int | None = None) -> np.ndarray:
    """Images of a split as float32 [N, H, W, channels] in 0 .. 1: at most `count`, evenly spaced.

    Raises:
      InputError: they are no images with pixels in 0 .. 255, or in 0 .. 1.
    """
    source = data.splits[split]
    rows = (
        np.arange(len(source))
        if count is None
        else np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    )
    images = sources.read(source, rows)["inputs"]
    images = images / np.float32(255) if images.dtype == np.uint8 else np.asarray(images, np.float32)
    if images.ndim != 4 or images.min() < 0 or images.max() > 1:
        raise InputError(
            f"split '{split}' holds {list(images.shape[1:])} in {images.min():g} to {images.max():g}; images are "
            "needed, with pixels in 0 to 255 (uint8) or 0 to 1."
        )
    return images


def divergence_from_uniform(counts: np.ndarray) -> float:
    """KL(q || uniform) = sum_c q_c log(C q_c) in nats, q being the shares of the counts [C]."""
    shares = np.asarray(counts, np.float64) / np.sum(counts)
    present = shares[shares > 0]
    return float(np.sum(present * np.log(len(shares) * present)))


def feature_moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and unbiased covariance [F, F] of features [N, F], float64."""
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """The squared Fréchet (2-Wasserstein) distance of two Gaussians.

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Dowson and Landau 1982, The Fréchet distance between multivariate normal distributions. The trace of the root is
    the sum of the singular values of S_a^(1/2) S_b^(1/2), which singular covariances leave real.

    Args:
      mean_a, mean_b: [F].
      covariance_a, covariance_b: [F, F], symmetric, without negative eigenvalues but for rounding.
    """
    root = np.linalg.svd(_square_root(covariance_a) @ _square_root(covariance_b), compute_uv=False).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root
    return float(max(distance, 0.0))  # of equal ones rounding leaves something like -1e-13


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of one size, the last filled up with its first image, so that one program serves."""
    size = min(BATCH, len(images))
    for start in range(0, len(images), size):
        rows = np.asarray(images[start : start + size], np.float32)
        yield np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
