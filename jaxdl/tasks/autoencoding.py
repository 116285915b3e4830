"""Autoencoding: inputs from their codes; of a variational autoencoder the evidence lower bound, and images.

Kingma and Welling 2014, arXiv:1312.6114, eq. 10; beta: Higgins et al. 2017, beta-VAE, eq. 4; corrupted inputs: Vincent
et al. 2010, Stacked denoising autoencoders, section 3. Losses are sums over an example's numbers, in nats.

Shapes: B examples, D numbers of a code.
"""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.data import sources
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import evaluation_keys, example_keys, fold_keys
from jaxdl.layers.distributions import DiagonalGaussian
from jaxdl.layers.regularization import is_zero
from jaxdl.tasks.base import Task
from jaxdl.tasks.images import (
    check_classes,
    check_labels,
    check_unit_images,
    class_captions,
    in_batches,
    labels_in_turn,
    told_labels,
    unit_pixels,
)
from jaxdl.types import Bounds, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

FIGURE_ROWS = 4  # interpolations, and images above their reconstructions
GENERATED_AT_ONCE = 500

Corruption = Literal["none", "mask", "gaussian", "salt_and_pepper"]


@dataclasses.dataclass(frozen=True)
class CodeSampler:
    """Images out of codes: drawn from the prior, along its axes, and between those of held-out images.

    Attributes:
      num_samples: images that are drawn from the prior.
      labels: classes that are asked for, in turn; empty is all of them. Of a model that knows no classes, empty.
      num_traversed: numbers of the code that are varied one at a time, those that tell most about held-out images.
      span: how far, in standard deviations of the prior, to both sides.
      frames: images of a traversal or interpolation, ends included.
    """

    num_samples: PositiveInt = 64
    labels: tuple[NonNegativeInt, ...] = ()
    num_traversed: PositiveInt = 8
    span: PositiveFloat = 3.0
    frames: Annotated[int, Bounds(2)] = 10


def corrupt(keys: jax.Array, inputs: jax.Array, kind: Corruption, level: float | jax.Array) -> jax.Array:
    """Inputs with noise: Vincent et al. 2010, section 3.3.

    Args:
      keys: random keys [B].
      inputs: float [B, ...].
      kind: mask sets numbers to 0; gaussian adds normal noise; salt_and_pepper sets numbers to 0 or 1, as likely.
      level: the probability of a number to be set, or the standard deviation; may be traced.
    """
    if kind == "none":
        return inputs

    def one(key, x):
        if kind == "gaussian":
            return x + level * jax.random.normal(key, x.shape, x.dtype)
        fate = jax.random.uniform(key, x.shape)
        if kind == "mask":
            return jnp.where(fate < level, 0.0, x)
        return jnp.where(fate < level / 2, 0.0, jnp.where(fate < level, 1.0, x))

    return jax.vmap(one)(keys, inputs)


@dataclasses.dataclass(frozen=True)
class Autoencoding(Task):
    """Inputs from their codes: float32 [B, ...], or uint8 images; labels int32 [B] where classes are told.

    Attributes:
      likelihood: what the outputs are: logits of pixels in 0 to 1 (bernoulli), or means of normal numbers (gaussian).
      std: the standard deviation of these normal numbers.
      beta: factor of the divergence from the prior, of a variational autoencoder: 1 is the evidence lower bound.
      binarize: each pixel is drawn as 0 or 1, with its value as the probability of 1: anew in each training step, and
        always the same in evaluations.
      corruption: noise on what the encoder sees: none, mask, gaussian or salt_and_pepper.
      corruption_level: probability of a number to be set, or the noise's standard deviation.
      conditional: whether encoder and decoder are told the class.
    """

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    std: PositiveFloat = 1.0
    beta: NonNegativeFloat = 1.0
    binarize: bool = False
    corruption: Corruption = "none"
    corruption_level: NonNegativeFloat = 0.0
    conditional: bool = False

    fills: ClassVar[tuple[str, ...]] = ("input_shape", "num_classes")
    sampler: ClassVar[type] = CodeSampler

    def model_fields(self, data) -> dict:
        shape = tuple(np.shape(data.splits["train"][0]["inputs"]))
        return {"input_shape": shape, "num_classes": (data.num_classes or 0) if self.conditional else 0}

    def wrap(self, model):
        if not getattr(model, "variational", False) and isinstance(self.beta, (int, float)) and self.beta != 1:
            raise InputError(
                "--task.beta weighs the divergence of a variational autoencoder's codes: take --model=vae."
            )
        return model

    def check(self, data) -> None:
        if self.likelihood == "bernoulli":
            check_unit_images(data, "autoencoding --task.likelihood=bernoulli")
        elif self.binarize:
            raise InputError("--task.binarize makes pixels of 0 and 1, which are for --task.likelihood=bernoulli.")
        if np.issubdtype(np.asarray(data.splits["train"][0]["inputs"]).dtype, np.integer) and data.tokenizer:
            raise InputError("autoencoding is of real numbers or images, and this dataset has tokens.")
        if self.likelihood == "bernoulli" and self.std != 1:
            raise InputError(f"--task.std={self.std:g} has a meaning for --task.likelihood=gaussian alone.")
        if (self.corruption == "none") != is_zero(self.corruption_level):
            raise InputError(
                f"--task.corruption={self.corruption} and --task.corruption_level={self.corruption_level:g}: a kind of "
                "noise needs a level above 0, and a level a kind."
            )
        if self.conditional:
            check_classes(data, "--task.conditional")
        if self.corruption in ("mask", "salt_and_pepper") and self.corruption_level > 1:
            raise InputError(
                f"--task.corruption_level={self.corruption_level:g} is a probability with "
                f"--task.corruption={self.corruption}, at most 1."
            )

    def inputs(self, batch) -> tuple:
        return (batch["inputs"], *self._labels(batch))

    def loss(self, forward, batch, key, player="model"):
        values = self._values(forward, batch, example_keys(key, len(batch["inputs"])))
        weight = batch.get("weight")
        return losses.share_of_mean(values["loss"], weight), _means(values, weight)

    def evaluate(self, forward, batch):
        keys = evaluation_keys(batch["index"])
        return _means(self._values(forward, batch, keys), batch.get("weight"))

    def sample(self, sampler: CodeSampler, model, variables, data, key: jax.Array) -> dict[str, Any]:
        """Figures `reconstructions` and `interpolations`, and of a variational one `samples` and `traversals`.

        Raises:
          InputError: no images, or a class that does not exist.
        """
        from jaxdl import plots

        self._check_sampler(sampler, data)
        coder = _Coder(self, model, variables, data, sampler)
        inputs, labels, codes = coder.held_out(FIGURE_ROWS * sampler.frames)
        pairs = np.stack([unit_pixels(data, inputs), coder.decode(codes, labels)], axis=1)
        rows = pairs.reshape(FIGURE_ROWS, sampler.frames, 2, *pairs.shape[2:]).swapaxes(1, 2)
        figures = {
            "reconstructions": plots.image_sheet(
                rows.reshape(-1, *pairs.shape[2:]),
                title="held-out images, and their reconstructions below",
                columns=sampler.frames,
            ),
            "interpolations": coder.interpolations(codes, labels),
        }
        if getattr(model, "variational", False):
            figures["samples"] = coder.samples(*coder.drawn(key, sampler.num_samples))
            figures["traversals"] = coder.traversals(codes)
        return figures

    def images(self, sampler: CodeSampler, model, variables, data, key, count: int):
        """Images of codes of the prior, float32 [count, H, W, C] in 0 .. 1, and the classes asked for, or None.

        Raises:
          InputError: an autoencoder without a prior, no images, or a class that does not exist.
        """
        self._check_sampler(sampler, data)
        if not getattr(model, "variational", False):
            raise InputError("an autoencoder that is not variational has no codes to draw from: train --model=vae.")
        return _Coder(self, model, variables, data, sampler).drawn(key, count)

    # The parts.

    def _labels(self, batch) -> tuple:
        return (told_labels(batch),) if self.conditional else ()

    def _values(self, forward, batch, keys: jax.Array) -> dict[str, jax.Array]:
        """Each example's loss and its parts, [B]; draws with keys [B]."""
        code_keys, noise_keys, pixel_keys = (fold_keys(keys, number) for number in range(3))
        inputs, labels = batch["inputs"], self._labels(batch)
        if self.binarize:
            inputs = jax.vmap(lambda key, p: jax.random.bernoulli(key, p).astype(p.dtype))(pixel_keys, inputs)
        below = forward(inputs, method="represent")
        target = inputs if below is None else jax.lax.stop_gradient(below)
        seen = corrupt(noise_keys, target, self.corruption, self.corruption_level)
        codes = forward(seen, *labels, method="encode")
        variational = isinstance(codes, DiagonalGaussian)
        outputs = forward(codes.sample(code_keys) if variational else codes, *labels, method="decode")
        nats = self._reconstruction(outputs, target, pixels=below is None)
        if not variational:
            return {"loss": nats, "mse": _squared(self._expected(outputs, below is None), target).mean(axis=-1)}
        divergence = losses.normal_divergence(codes.mean, codes.log_std)
        return {
            "loss": nats + self.beta * divergence,
            "negative_elbo": nats + divergence,
            "reconstruction": nats,
            "kl": divergence,
        }

    def _reconstruction(self, outputs, target, pixels: bool) -> jax.Array:
        """The negative log likelihood of a target [B, ...], in nats [B]; of a hidden layer half the squared error."""
        if not pixels:
            return _squared(outputs, target).sum(axis=-1) / 2
        if self.likelihood == "bernoulli":
            return losses.sigmoid_cross_entropy(outputs, target).reshape(len(target), -1).sum(axis=-1)
        error = _squared(outputs, target) / jnp.square(self.std)
        return ((error + math.log(2 * math.pi)) / 2 + jnp.log(self.std)).sum(axis=-1)

    def _expected(self, outputs, pixels: bool):
        """The mean of the output distribution."""
        return jax.nn.sigmoid(outputs) if pixels and self.likelihood == "bernoulli" else outputs

    def _check_sampler(self, sampler: CodeSampler, data) -> None:
        shape = np.shape(data.splits["train"][0]["inputs"])
        if len(shape) != 3:
            raise InputError(f"pictures are of images [height, width, channels]; these inputs are {list(shape)}.")
        check_labels(sampler.labels, data.num_classes if self.conditional else None)


class _Coder:
    """A trained model's codes and pictures."""

    def __init__(self, task: Autoencoding, model, variables, data, sampler: CodeSampler):
        self.task, self.variables, self.data, self.sampler = task, variables, data, sampler
        self.model = model
        apply = lambda variables, *inputs, method: model.apply(variables, *inputs, train=False, method=method)
        self._apply = jax.jit(apply, static_argnames="method")

    def asked(self, rows: np.ndarray) -> np.ndarray | None:
        return labels_in_turn(self.sampler.labels, self.data.num_classes, rows) if self.task.conditional else None

    def held_out(self, count: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """`count` inputs as the model gets them, their labels or None, and their codes, or the means of these."""
        split = next(name for name in ("test", "validation", "train") if name in self.data.splits)
        source = self.data.splits[split]
        rows = np.arange(count) % len(source)
        batch = {name: jnp.asarray(value) for name, value in sources.read(source, rows).items()}
        batch = self.data.standardize(self.data.decode(batch))
        inputs, *told = self.task.inputs(batch)
        below = self._apply(self.variables, inputs, method="represent")
        codes = self._apply(self.variables, inputs if below is None else below, *told, method="encode")
        means = codes.mode() if isinstance(codes, DiagonalGaussian) else codes
        labels = np.asarray(batch["labels"]) if self.task.conditional else None
        return np.asarray(batch["inputs"]), labels, np.asarray(means, np.float32)

    def drawn(self, key: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Images of codes of the prior, and the classes asked for, or None."""
        labels = self.asked(np.arange(count))
        return self.decode(np.asarray(jax.random.normal(key, (count, self.model.code_size))), labels), labels

    def decode(self, codes: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Codes [N, D] to images float32 [N, H, W, C] in 0 .. 1."""

        def batch(rows):
            told = () if labels is None else (labels[rows],)
            outputs = self._apply(self.variables, codes[rows], *told, method="decode")
            outputs = self._apply(self.variables, outputs, method="restore")
            return np.asarray(self.task._expected(jnp.asarray(outputs, jnp.float32), pixels=True))

        return unit_pixels(self.data, in_batches(batch, len(codes), GENERATED_AT_ONCE))

    def samples(self, images: np.ndarray, labels: np.ndarray | None):
        """The sheet of images from the prior."""
        from jaxdl import plots

        captions = columns = None
        if labels is not None:
            captions, columns = class_captions(self.sampler.labels, self.data, len(images))
        return plots.image_sheet(images, captions, "codes of the prior", columns)

    def interpolations(self, codes: np.ndarray, labels: np.ndarray | None):
        """Straight lines between the codes of held-out images, of the first one's class."""
        from jaxdl import plots

        shares = np.linspace(0, 1, self.sampler.frames, dtype=np.float32)[None, :, None]
        first, last = codes[:FIGURE_ROWS, None], codes[FIGURE_ROWS : 2 * FIGURE_ROWS, None]
        path = ((1 - shares) * first + shares * last).reshape(-1, codes.shape[-1])
        told = None if labels is None else np.repeat(labels[:FIGURE_ROWS], self.sampler.frames)
        title = "between the codes of two held-out images"
        return plots.image_sheet(self.decode(path, told), title=title, columns=self.sampler.frames)

    def traversals(self, codes: np.ndarray):
        """One number of the code varied at a time, the others 0: those whose means vary most over held-out images."""
        from jaxdl import plots

        span = self.sampler.span
        chosen = np.argsort(-codes.var(axis=0))[: self.sampler.num_traversed]
        values = np.linspace(-span, span, self.sampler.frames, dtype=np.float32)
        path = values[None, :, None] * np.eye(codes.shape[-1], dtype=np.float32)[chosen][:, None]
        labels = self.asked(np.repeat(np.arange(len(chosen)), len(values)))
        title = "numbers " + ", ".join(map(str, chosen)) + f" of the code, from {-span:g} to {span:g}, the others 0"
        images = self.decode(path.reshape(-1, codes.shape[-1]), labels)
        return plots.image_sheet(images, title=title, columns=self.sampler.frames)


def _squared(outputs: jax.Array, target: jax.Array) -> jax.Array:
    """Squared differences [B, numbers of an example]."""
    return jnp.square(outputs - target).reshape(len(target), -1)


def _means(values: dict[str, jax.Array], weight) -> dict[str, metrics.Metric]:
    return {name: metrics.Mean.of(value, weight) for name, value in values.items()}
