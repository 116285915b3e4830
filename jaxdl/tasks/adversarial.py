"""Adversarial networks: a generator of images against a discriminator of real from generated ones.

Goodfellow et al. 2014, Generative adversarial networks (arXiv:1406.2661). Pixels in 0 .. 1 become -1 .. 1 here.

Shapes: B examples, images [B, H, W, C], latents [B, D].
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ModifyScopeVariableError

from jaxdl import losses, metrics
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import evaluation_keys, example_keys, fold_keys
from jaxdl.layers.regularization import is_zero
from jaxdl.tasks.base import Task
from jaxdl.tasks.images import (
    check_classes,
    check_labels,
    check_unit_images,
    class_captions,
    from_signed,
    in_batches,
    labels_in_turn,
    signed_pixels,
    told_labels,
)
from jaxdl.types import Bounds, NonNegativeFloat, NonNegativeInt, PositiveInt, Rate

GENERATED_AT_ONCE = 500
FIGURE_ROWS = 4  # interpolations

# Where an alarm is raised, for want of a better sign than experience.
COLLAPSED = 0.1
UNDECEIVED = 0.999
DIVERGING = 1e4

Loss = Literal["minimax", "non_saturating", "least_squares", "wasserstein"]


@dataclasses.dataclass(frozen=True)
class LatentSampler:
    """Images out of noise.

    Attributes:
      num_samples: how many images.
      labels: classes that are asked for, in turn; empty is all of them. Of a model that knows no classes, empty.
      frames: images of an interpolation between two latents, ends included.
    """

    num_samples: PositiveInt = 64
    labels: tuple[NonNegativeInt, ...] = ()
    frames: Annotated[int, Bounds(2)] = 10


def discriminator_losses(
    kind: Loss, real: jax.Array, fake: jax.Array, label_smoothing: float | jax.Array = 0.0
) -> tuple[jax.Array, jax.Array]:
    """What the discriminator minimises on real and on generated images, each of the shape of its logits.

        minimax, non_saturating   -log s(r),   -log(1 - s(f))        Goodfellow et al. 2014, eq. 1
        least_squares             (r - 1)^2 / 2,   f^2 / 2           Mao et al. 2017, arXiv:1611.04076, eq. 9
        wasserstein               -r,   f                            Arjovsky et al. 2017, arXiv:1701.07875, eq. 2

    Args:
      real: the logits r of real images.
      fake: the logits f of generated ones.
      label_smoothing: what is taken from the 1 of real images, and from them alone (Salimans et al. 2016,
        arXiv:1606.03498, section 3.4); may be traced. It has no meaning for wasserstein.
    """
    if kind == "wasserstein":
        return -real, fake
    target = jnp.ones_like(real) - label_smoothing
    if kind == "least_squares":
        return jnp.square(real - target) / 2, jnp.square(fake) / 2
    return losses.sigmoid_cross_entropy(real, target), losses.sigmoid_cross_entropy(fake, jnp.zeros_like(fake))


def generator_losses(kind: Loss, fake: jax.Array) -> jax.Array:
    """What the generator minimises on its images, of the shape of the discriminator's logits.

    minimax          log(1 - s(f))      non_saturating   -log s(f)
    least_squares    (f - 1)^2 / 2      wasserstein      -f
    """
    if kind == "wasserstein":
        return -fake
    if kind == "least_squares":
        return jnp.square(fake - 1) / 2
    if kind == "minimax":
        return -losses.sigmoid_cross_entropy(fake, jnp.zeros_like(fake))
    return losses.sigmoid_cross_entropy(fake, jnp.ones_like(fake))


@dataclasses.dataclass(frozen=True)
class Adversarial(Task):
    """Images like those of the data: [B, H, W, C], uint8 or float32 in 0 .. 1; labels int32 [B] where classes are told.

    Beside both losses the log has `diversity`, the spread of generated images as a share of the data's, which falls to
    0 when the generator collapses, and the shares of real and generated images that the discriminator tells right. The
    loss of an evaluation is the energy score, E|f - x| - E|f - f'| / 2 for images f and f' of the generator and x of
    the data: in expectation it is least when the two distributions are the same (Gneiting and Raftery 2007, Strictly
    proper scoring rules, eq. 22).

    Attributes:
      loss_function: minimax or non_saturating (Goodfellow et al. 2014), least_squares (Mao et al. 2017) or wasserstein
        (Arjovsky et al. 2017), whose discriminator needs a gradient penalty or spectral normalisation.
      label_smoothing: what is taken from the discriminator's target of real images, which is 1 (one-sided).
      gradient_penalty: factor of (|gradient| - 1)^2 between real and generated images (Gulrajani et al. 2017,
        arXiv:1704.00028, eq. 3, there 10); 0 is none.
      discriminator_steps: updates of the discriminator for each of the generator; each is a step with its own batch.
      latent_size: numbers of noise that the generator makes an image of.
      prior: their distribution: standard normal, or uniform in -1 to 1.
      conditional: whether both are told the class.
    """

    loss_function: Loss = "non_saturating"
    label_smoothing: Rate = 0.0
    gradient_penalty: NonNegativeFloat = 0.0
    discriminator_steps: PositiveInt = 1
    latent_size: PositiveInt = 64
    prior: Literal["normal", "uniform"] = "normal"
    conditional: bool = False

    players: ClassVar[tuple[str, ...]] = ("discriminator", "generator")
    fills: ClassVar[tuple[str, ...]] = ("image_shape", "num_classes")
    sampler: ClassVar[type] = LatentSampler

    def period(self, player: str) -> int:
        return self.discriminator_steps if player == "generator" else 1

    def model_fields(self, data) -> dict:
        shape = tuple(np.shape(data.splits["train"][0]["inputs"]))
        return {"image_shape": shape, "num_classes": (data.num_classes or 0) if self.conditional else 0}

    def wrap(self, model):
        if self.loss_function == "wasserstein" and is_zero(self.gradient_penalty):
            if not getattr(model, "spectral_norm", True):
                raise InputError(
                    "--task.loss_function=wasserstein needs a discriminator of bounded slope: give "
                    "--task.gradient_penalty=10, or --model.spectral_norm."
                )
        return model

    def check(self, data) -> None:
        check_unit_images(data, "adversarial")
        if self.conditional:
            check_classes(data, "--task.conditional")
        if self.loss_function == "wasserstein" and not is_zero(self.label_smoothing):
            raise InputError("--task.label_smoothing has no meaning for --task.loss_function=wasserstein.")

    def inputs(self, batch) -> tuple:
        """Latents of zeros, for shapes, and labels."""
        return (jnp.zeros((len(batch["inputs"]), self.latent_size)), *self._labels(batch))

    def loss(self, forward, batch, key, player="model"):
        keys, weight = example_keys(key, len(batch["inputs"])), batch.get("weight")
        real, labels = signed_pixels(batch["inputs"]), self._labels(batch)
        fake = forward(self._latents(fold_keys(keys, 0)), *labels, method="generate")
        if player == "generator":
            values = generator_losses(self.loss_function, forward(fake, *labels, method="discriminate")[:, 0])
            return losses.share_of_mean(values, weight), {
                "generator_loss": metrics.Mean.of(values, weight),
                "diversity": metrics.RelativeSpread.of(fake, real, weight),
            }
        logits = [forward(images, *labels, method="discriminate")[:, 0] for images in (real, fake)]
        values = sum(discriminator_losses(self.loss_function, *logits, self.label_smoothing))
        told = {"discriminator_loss": metrics.Mean.of(values, weight), **self._told_right(*logits, weight)}
        if not is_zero(self.gradient_penalty):
            penalty = self._gradient_penalty(forward, real, fake, labels, fold_keys(keys, 1))
            values = values + self.gradient_penalty * penalty
            told["gradient_penalty"] = metrics.Mean.of(penalty, weight)
        return losses.share_of_mean(values, weight), told

    def evaluate(self, forward, batch):
        keys = evaluation_keys(batch["index"])
        real, labels, weight = signed_pixels(batch["inputs"]), self._labels(batch), batch.get("weight")
        fake, other = (
            forward(self._latents(fold_keys(keys, number)), *labels, method="generate") for number in range(2)
        )
        logits = [forward(images, *labels, method="discriminate")[:, 0] for images in (real, fake)]
        scores = (_distance(fake, real) - _distance(fake, other) / 2) / 2  # in pixels of 0 to 1
        values = {
            "loss": scores,
            "discriminator_loss": sum(discriminator_losses(self.loss_function, *logits, self.label_smoothing)),
            "generator_loss": generator_losses(self.loss_function, logits[1]),
        }
        means = {name: metrics.Mean.of(value, weight) for name, value in values.items()}
        spread = {"diversity": metrics.RelativeSpread.of(fake, real, weight)}
        return means | spread | self._told_right(*logits, weight)

    def alarm(self, values) -> str | None:
        for player in self.players:
            if abs(values.get(f"{player}_loss", 0.0)) > DIVERGING:
                return f"the {player} diverges: its loss is beyond {DIVERGING:g}"
        if values.get("diversity", 1.0) < COLLAPSED:
            return f"the generator has collapsed: its images vary less than {COLLAPSED:.0%} as much as the data"
        if min(values.get("real_accuracy", 0.0), values.get("fake_accuracy", 0.0)) > UNDECEIVED:
            return "the generator deceives nobody: the discriminator tells all its images from the real ones"
        return None

    def sample(self, sampler: LatentSampler, model, variables, data, key: jax.Array) -> dict[str, Any]:
        """Figures `samples` and `interpolations`. Raises InputError for a class that does not exist."""
        from jaxdl import plots

        images, labels = self.images(sampler, model, variables, data, key, sampler.num_samples)
        captions = columns = None
        if labels is not None:
            captions, columns = class_captions(sampler.labels, data, len(images))
        ends = self._latents(jax.random.split(jax.random.fold_in(key, 1), 2 * FIGURE_ROWS))[:, None]
        shares = jnp.linspace(0, 1, sampler.frames)[None, :, None]
        # Along the sphere on which normal latents lie, as a straight line would pass through what is never drawn.
        path = jnp.cos(shares * jnp.pi / 2) * ends[:FIGURE_ROWS] + jnp.sin(shares * jnp.pi / 2) * ends[FIGURE_ROWS:]
        if self.prior == "uniform":
            path = (1 - shares) * ends[:FIGURE_ROWS] + shares * ends[FIGURE_ROWS:]
        asked = self._asked(sampler, data, np.repeat(np.arange(FIGURE_ROWS), sampler.frames))
        between = self._generate(model, variables, np.asarray(path).reshape(-1, self.latent_size), asked)
        return {
            "samples": plots.image_sheet(images, captions, columns=columns),
            "interpolations": plots.image_sheet(between, title="between two latents", columns=sampler.frames),
        }

    def images(self, sampler: LatentSampler, model, variables, data, key, count: int):
        """Images float32 [count, H, W, C] in 0 .. 1, and the classes asked for, int32 [count], or None.

        Raises:
          InputError: a class that does not exist.
        """
        check_labels(sampler.labels, data.num_classes if self.conditional else None)
        labels = self._asked(sampler, data, np.arange(count))
        latents = np.asarray(self._latents(jax.random.split(key, count)))
        return self._generate(model, variables, latents, labels), labels

    # The parts.

    def _labels(self, batch) -> tuple:
        return (told_labels(batch),) if self.conditional else ()

    def _latents(self, keys: jax.Array) -> jax.Array:
        """[B, latent_size], drawn with keys [B]."""
        if self.prior == "normal":
            return jax.vmap(lambda key: jax.random.normal(key, (self.latent_size,)))(keys)
        return jax.vmap(lambda key: jax.random.uniform(key, (self.latent_size,), minval=-1.0))(keys)

    def _told_right(self, real, fake, weight) -> dict[str, metrics.Metric]:
        """The shares of images that the discriminator tells right; of a critic, how far it holds the two apart."""
        if self.loss_function == "wasserstein":
            return {"wasserstein_estimate": metrics.Mean.of(real - fake, weight)}
        middle = 0.5 if self.loss_function == "least_squares" else 0.0
        return {
            "real_accuracy": metrics.Mean.of(real > middle, weight),
            "fake_accuracy": metrics.Mean.of(fake <= middle, weight),
        }

    def _gradient_penalty(self, forward, real, fake, labels, keys) -> jax.Array:
        """(|gradient of the logit by the image| - 1)^2 at a random place between each real and generated image, [B]."""
        share = jax.vmap(lambda key: jax.random.uniform(key, (1,) * (real.ndim - 1)))(keys)
        between = share * real + (1 - share) * jax.lax.stop_gradient(fake)

        def total(images):  # each logit depends on its own image alone
            return forward(images, *labels, method="discriminate", mutable=False).sum()

        try:
            gradient = jax.grad(total)(between)
        except ModifyScopeVariableError:
            raise InputError(
                "a gradient penalty looks at each image alone, and batch normalisation at all of them: give "
                "--model.discriminator_normalization=layer, or none."
            ) from None
        squares = jnp.square(gradient).reshape(len(gradient), -1).sum(axis=-1)
        return jnp.square(jnp.sqrt(squares + 1e-12) - 1)

    def _asked(self, sampler: LatentSampler, data, rows: np.ndarray) -> np.ndarray | None:
        return labels_in_turn(sampler.labels, data.num_classes, rows) if self.conditional else None

    def _generate(self, model, variables, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Images in 0 .. 1 of latents [N, D] and labels [N]."""
        apply = jax.jit(lambda variables, *inputs: model.apply(variables, *inputs, train=False, method="generate"))

        def batch(rows):
            images = apply(variables, latents[rows], *(() if labels is None else (labels[rows],)))
            return from_signed(np.asarray(images))

        return in_batches(batch, len(latents), GENERATED_AT_ONCE)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """The length of the difference, [B] of [B, ...]."""
    return jnp.sqrt(jnp.square(a - b).reshape(len(a), -1).sum(axis=-1))
