"""Denoising diffusion of images: the loss, the variational bound, and samples with the way to them.

Ho et al. 2020, arXiv:2006.11239; see `jaxdl.diffusion` for the rest. Pixels in 0 .. 1 become -1 .. 1 here.

Shapes: B examples, images [B, H, W, C], N images that are generated.
"""

import dataclasses
import functools
import math
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import diffusion, losses, metrics
from jaxdl.data import sources
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import evaluation_keys, example_keys, fold_keys, row_keys
from jaxdl.layers.regularization import is_zero
from jaxdl.tasks.base import Task
from jaxdl.tasks.images import (
    check_classes,
    check_labels,
    check_unit_images,
    class_captions,
    first_captions,
    from_signed,
    in_batches,
    labels_in_turn,
    signed_pixels,
    told_labels,
)
from jaxdl.types import Bounds, NonNegativeFloat, NonNegativeInt, PositiveInt, Probability, Rate

STRIP_ROWS = 3  # images on each strip
GENERATED_AT_ONCE = 250


@dataclasses.dataclass(frozen=True)
class ImageSampler:
    """Images out of noise, and how noise comes and goes.

    Attributes:
      num_samples: how many images.
      labels: classes that are asked for, in turn; empty is all of them. Of a model that knows no classes, empty.
      guidance: how far to go beyond the condition (classifier-free guidance); 1 is the condition alone, 0 without it.
      method: ddim, or ancestral with the variance that the task names.
      num_steps: steps from noise to data; none is 50, or all times of the noise schedule where it has fewer.
      eta: noise that ddim adds at each step, as a share of what the posterior has; 0 is deterministic.
      spacing: where among the times the steps are; trailing begins at the last one, leading after it. None is trailing,
        and leading for a model that predicts the noise: where nothing of the image is left, as at the last time of the
        cosine schedule, the noise tells nothing of it (Lin et al. 2024, arXiv:2305.08891, section 3.1).
      clip: whether each estimate of the image is kept within the range of pixels.
      frames: pictures on the strips of noising and denoising.
    """

    num_samples: PositiveInt = 40
    labels: tuple[NonNegativeInt, ...] = ()
    guidance: NonNegativeFloat = 1.0
    method: Literal["ddim", "ancestral"] = "ddim"
    num_steps: PositiveInt | None = None
    eta: Probability = 0.0
    spacing: diffusion.Spacing | None = None
    clip: bool = True
    frames: Annotated[int, Bounds(2)] = 8


@dataclasses.dataclass(frozen=True)
class Diffusion(Task):
    """Noise that is taken out of images again: inputs uint8, or float32 in 0 .. 1, [B, H, W, C]; labels int32 [B].

    Attributes:
      noise_schedule: linear (Ho et al. 2020) or cosine (Nichol and Dhariwal 2021).
      num_times: times of the noise schedule.
      prediction: what the model gives: the noise, the image x0, or v; the loss is its mean squared error.
      class_conditional: whether the model is told the class.
      condition_drop_rate: probability with which it is not, in training; above 0 for classifier-free guidance.
      variance: of the reverse steps, in the bound and in ancestral sampling: the posterior's, or beta.
      bound_terms: evaluate the variational bound, in bits per dimension, by so many of the schedule's times for each
        image; all of them are the bound itself, fewer an estimate of it, 0 leaves it out.
      levels: values that a pixel can have, for the bound.
      num_classes: of the data, which `for_data` fills in.
    """

    noise_schedule: Literal["linear", "cosine"] = "linear"
    num_times: PositiveInt = 1000
    prediction: diffusion.Prediction = "epsilon"
    class_conditional: bool = False
    condition_drop_rate: Rate = 0.0
    variance: diffusion.Variance = "posterior"
    bound_terms: NonNegativeInt = 0
    levels: Annotated[int, Bounds(2)] = 256
    num_classes: NonNegativeInt = 0

    fills: ClassVar[tuple[str, ...]] = ("num_classes",)
    sampler: ClassVar[type] = ImageSampler

    @property
    def schedule(self) -> diffusion.NoiseSchedule:
        return diffusion.SCHEDULES[self.noise_schedule](self.num_times)

    def for_data(self, data) -> "Diffusion":
        return dataclasses.replace(self, num_classes=data.num_classes or 0)

    def model_fields(self, data) -> dict:
        return {"num_classes": self.num_classes if self.class_conditional else 0}

    def check(self, data) -> None:
        check_unit_images(data, "diffusion")
        if self.class_conditional:
            check_classes(data, "--task.class_conditional")
        if not self.class_conditional and not is_zero(self.condition_drop_rate):
            raise InputError("--task.condition_drop_rate has no meaning without --task.class_conditional.")
        if self.bound_terms > self.schedule.num_times:
            raise InputError(
                f"--task.bound_terms={self.bound_terms}: the noise schedule has {self.num_times} times, and the bound "
                "no more terms than that."
            )

    def inputs(self, batch) -> tuple:
        images = signed_pixels(batch["inputs"])
        return self._inputs(images, jnp.zeros(len(images), jnp.int32), batch.get("labels"))

    def loss(self, forward, batch, key, player="model"):
        images = signed_pixels(batch["inputs"])
        keys = example_keys(key, len(images))
        labels = told_labels(batch) if self.class_conditional else None
        if self.class_conditional and not is_zero(self.condition_drop_rate):
            dropped = jax.vmap(jax.random.uniform)(fold_keys(keys, 2)) < self.condition_drop_rate
            labels = jnp.where(dropped, self.num_classes, labels)
        values, weight = self._squared_errors(forward, images, labels, keys), batch.get("weight")
        return losses.share_of_mean(values, weight), {"loss": metrics.Mean.of(values, weight)}

    def evaluate(self, forward, batch):
        images, weight = signed_pixels(batch["inputs"]), batch.get("weight")
        keys = evaluation_keys(batch["index"])
        result = {"loss": metrics.Mean.of(self._squared_errors(forward, images, batch.get("labels"), keys), weight)}
        if self.bound_terms:
            nats = diffusion.variational_bound(
                lambda x, times: forward(*self._inputs(x, times, batch.get("labels"))),
                self.schedule,
                self.prediction,
                images,
                fold_keys(keys, 3),
                num_terms=self.bound_terms,
                variance=self.variance,
                levels=self.levels,
            )
            bits = nats / (math.prod(images.shape[1:]) * math.log(2))
            result["bits_per_dimension"] = metrics.Mean.of(bits, weight)
        return result

    def sample(self, sampler: ImageSampler, model, variables, data, key: jax.Array) -> dict[str, Any]:
        """Figures `samples`, `noising` and `denoising`.

        Raises:
          InputError: a class that does not exist, guidance of a model that never went without its condition, or more
            steps than the schedule has times.
        """
        from jaxdl import plots

        self.check_sampler(sampler)
        images, _ = self.images(sampler, model, variables, data, key, sampler.num_samples)
        captions = columns = None
        if self.class_conditional:
            captions, columns = class_captions(sampler.labels, data, len(images))
        way = self._generator(sampler, model, data, trajectory=True)
        shown = np.arange(STRIP_ROWS)
        *_, noised, estimated = way(variables, self._labels(sampler, shown), row_keys(key, shown))
        return {
            "samples": plots.image_sheet(images, captions, self._told(sampler), columns),
            "noising": self._noising(sampler, data, key),
            "denoising": self._denoising(sampler, np.asarray(noised), np.asarray(estimated)),
        }

    def images(self, sampler: ImageSampler, model, variables, data, key, count: int):
        """Images float32 [count, H, W, C] in 0 .. 1, and the classes asked for, int32 [count], or None.

        Raises:
          InputError: as `sample` does.
        """
        self.check_sampler(sampler)
        generate = self._generator(sampler, model, data, trajectory=False)

        def batch(rows):
            return from_signed(np.asarray(generate(variables, self._labels(sampler, rows), row_keys(key, rows))))

        return in_batches(batch, count, GENERATED_AT_ONCE), self._labels(sampler, np.arange(count))

    def check_sampler(self, sampler: ImageSampler) -> None:
        """Raises InputError when a model of this task cannot generate what the sampler asks for."""
        self._times(sampler)
        if sampler.method == "ancestral" and sampler.eta != 0:
            raise InputError("--eta has a meaning for --method=ddim alone; ancestral steps have the task's variance.")
        check_labels(sampler.labels, self.num_classes if self.class_conditional else None)
        if not self.class_conditional:
            if sampler.guidance != 1:
                raise InputError(
                    f"--guidance={sampler.guidance:g}: this model was trained without classes "
                    "(--task.class_conditional), and there is nothing to guide it by."
                )
            return
        if sampler.guidance != 1 and is_zero(self.condition_drop_rate):
            raise InputError(
                f"--guidance={sampler.guidance:g}: this model was trained with its class always given; guidance needs "
                "one trained with --task.condition_drop_rate above 0, such as 0.1."
            )

    # The parts of the loss and of sampling.

    def _inputs(self, images, times, labels) -> tuple:
        return (images, times, labels) if self.class_conditional else (images, times)

    def _squared_errors(self, forward, images, labels, keys) -> jax.Array:
        """Mean squared error of each example's prediction at a time of its own, [B]; draws with keys [B]."""
        schedule = self.schedule
        times = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.num_times))(fold_keys(keys, 0))
        noise = diffusion.normal(fold_keys(keys, 1), images.shape[1:])
        output = forward(*self._inputs(diffusion.add_noise(schedule, images, times, noise), times, labels))
        errors = jnp.square(output - diffusion.target(schedule, self.prediction, images, times, noise))
        return errors.reshape(len(errors), -1).mean(axis=-1)

    def _times(self, sampler: ImageSampler) -> np.ndarray:
        steps = sampler.num_steps or min(50, self.num_times)
        spacing = sampler.spacing or ("leading" if self.prediction == "epsilon" else "trailing")
        return diffusion.sampling_times(self.num_times, steps, spacing)

    def _labels(self, sampler: ImageSampler, rows: np.ndarray) -> np.ndarray | None:
        return labels_in_turn(sampler.labels, self.num_classes, rows) if self.class_conditional else None

    def _generator(self, sampler: ImageSampler, model, data, trajectory: bool):
        """`(variables, labels [N] or None, keys [N])` to what `diffusion.sample` gives, compiled."""
        shape = np.shape(data.splits["train"][0]["inputs"])
        schedule, times = self.schedule, self._times(sampler)
        if sampler.method == "ddim":
            steps = diffusion.ddim_steps(schedule, times, sampler.eta)
        else:
            steps = diffusion.ancestral_steps(schedule, times, self.variance)

        @jax.jit
        def generate(variables, labels, keys):
            predict = functools.partial(self._predict, sampler.guidance, model, variables, labels)
            start = diffusion.normal(fold_keys(keys, self.num_times), shape)
            options = {"clip": sampler.clip, "trajectory": trajectory}
            return diffusion.sample(predict, schedule, self.prediction, times, steps, start, keys, **options)

        return generate

    def _predict(self, guidance: float, model, variables, labels, x, times) -> jax.Array:
        apply = lambda *inputs: jnp.asarray(model.apply(variables, *inputs, train=False), jnp.float32)
        if guidance == 1:
            return apply(*self._inputs(x, times, labels))
        nothing = jnp.full_like(labels, self.num_classes)
        twice = lambda value: jnp.concatenate([value, value])
        outputs = apply(twice(x), twice(times), jnp.concatenate([labels, nothing]))
        return diffusion.guide(*jnp.split(outputs, 2), guidance)

    # Pictures.

    def _told(self, sampler: ImageSampler) -> str:
        method = "ancestral" if sampler.method == "ancestral" else f"DDIM, η = {sampler.eta:g}"
        guidance = f", guidance {sampler.guidance:g}" if self.class_conditional else ""
        return f"{len(self._times(sampler))} steps ({method}){guidance}"

    def _noising(self, sampler: ImageSampler, data, key):
        """Images of the training split at times that are evenly spaced, from none to the last."""
        from jaxdl import plots

        batch = {
            name: jnp.asarray(value)
            for name, value in sources.read(data.splits["train"], np.arange(STRIP_ROWS)).items()
        }
        images = signed_pixels(data.decode(batch)["inputs"])
        times = np.round(np.linspace(-1, self.num_times - 1, sampler.frames)).astype(int)
        noise = diffusion.normal(jax.random.split(key, len(images)), images.shape[1:])
        rows = [
            from_signed(np.asarray(diffusion.add_noise(self.schedule, images, jnp.full(len(images), time), noise)))
            for time in times
        ]
        captions = ["data" if time < 0 else f"t = {time}" for time in times]
        frames = np.stack(rows, axis=1).reshape(-1, *images.shape[1:])
        return plots.image_sheet(frames, first_captions(captions, len(frames)), "", sampler.frames)

    def _denoising(self, sampler: ImageSampler, noised: np.ndarray, estimated: np.ndarray):
        """The way of each image [S, N, H, W, C], and under it the estimates of the data at the same steps."""
        from jaxdl import plots

        times = self._times(sampler)
        shown = np.unique(np.round(np.linspace(0, len(times) - 1, sampler.frames)).astype(int))
        rows = np.stack([noised[shown], estimated[shown]], axis=1)  # [frames, 2, N, H, W, C]
        frames = rows.transpose(2, 1, 0, 3, 4, 5).reshape(-1, *rows.shape[3:])
        captions = [f"t = {times[step]}" for step in shown]
        title = "each image after the step, and its estimate at the step"
        return plots.image_sheet(from_signed(frames), first_captions(captions, len(frames)), title, len(shown))
