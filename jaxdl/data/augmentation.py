"""Augmentation on the device: pure functions `(key, batch) -> batch` of decoded batches, before standardisation.

`inputs` are float32 images [B, H, W, C] in [0, 1], and stay in that range. Each example has a key of its own
(`example_keys`), so what happens to it depends neither on its neighbours nor on the number of devices. Image
operations are dm_pix's (https://github.com/google-deepmind/dm_pix), except rotation and elastic deformation, where
its interpolation over three axes takes over ten times as long on a CPU as JAX's over two.

A strength of 0 changes nothing. Strengths may be traced, except where a field says that it sets a shape.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import dm_pix
import jax
import jax.numpy as jnp
from jax.scipy import ndimage

from jaxdl.layers.batch_axis import example_keys
from jaxdl.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, Probability


def each_image(key: jax.Array, batch: dict, change: Callable[[jax.Array, jax.Array], jax.Array]) -> dict:
    """The batch with `change(key, image [H, W, C])` applied to each of its inputs."""
    inputs = batch["inputs"]
    return batch | {"inputs": jax.vmap(change)(example_keys(key, len(inputs)), inputs)}


def _grid(image: jax.Array) -> list[jax.Array]:
    """The row and the column of each pixel: two float32 [H, W]."""
    return jnp.meshgrid(*[jnp.arange(size, dtype=jnp.float32) for size in image.shape[:2]], indexing="ij")


def _sample(image: jax.Array, rows: jax.Array, columns: jax.Array, mode: str) -> jax.Array:
    """The image [H, W, C] at fractional `rows` and `columns` [H, W], bilinear: [H, W, C]."""

    def of_channel(channel):
        return ndimage.map_coordinates(channel, [rows, columns], order=1, mode=mode)

    return jax.vmap(of_channel, in_axes=-1, out_axes=-1)(image)


def _gaussian(size: int, sigma: float) -> jax.Array:
    """Smooths a line of pixels when multiplied with it: [size, size], each row a Gaussian of sum 1."""
    offsets = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    weights = jnp.exp(-((offsets / sigma) ** 2) / 2)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _is_off(*strengths) -> bool:
    """Whether all strengths are plainly zero; a traced one never is."""
    return all(isinstance(strength, (int, float)) and strength == 0 for strength in strengths)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors images.

    Attributes:
      horizontal: probability of exchanging left and right.
      vertical: probability of exchanging top and bottom.
    """

    horizontal: Probability = 0.5
    vertical: Probability = 0.0

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Each direction by its own chance."""

        def change(key, image):
            keys = jax.random.split(key)
            image = dm_pix.random_flip_left_right(keys[0], image, probability=self.horizontal)
            return dm_pix.random_flip_up_down(keys[1], image, probability=self.vertical)

        return each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class Crop:
    """Pads images and crops them at random to their size: a shift of up to `padding` pixels each way.

    As for CIFAR-10 in He et al. 2016 (arXiv:1512.03385, section 4.2), with 4 pixels of zeros.

    Attributes:
      padding: pixels added on each side; sets a shape.
      mode: what they are: constant (0), edge, or reflect.
    """

    padding: NonNegativeInt = 4
    mode: Literal["constant", "edge", "reflect"] = "constant"

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Every one of the (2 padding + 1)^2 shifts is equally likely."""

        def change(key, image):
            padded = jnp.pad(image, [(self.padding, self.padding), (self.padding, self.padding), (0, 0)], self.mode)
            return dm_pix.random_crop(key, padded, image.shape)

        return each_image(key, batch, change) if self.padding else batch


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Crops a random part of images and resizes it to their size, as for ImageNet and in SimCLR.

    Szegedy et al. 2014, arXiv:1409.4842, section 6; Chen et al. 2020, arXiv:2002.05709, appendix A. A side that would
    be longer than the image's is cut to it, in place of drawing anew.

    Attributes:
      min_area: the part's area is uniform from this share of the image's ...
      max_area: ... to this one; equal to min_area it is fixed.
      max_ratio: width over height is log-uniform from 1 / max_ratio to max_ratio; at least 1.
    """

    min_area: Probability = 0.08
    max_area: Probability = 1.0
    max_ratio: PositiveFloat = 4 / 3

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Bilinear interpolation; every place of the part within the image is equally likely."""

        def change(key, image):
            area_key, ratio_key, row_key, column_key = jax.random.split(key, 4)
            area = jax.random.uniform(area_key) * (self.max_area - self.min_area) + self.min_area
            root = jnp.exp(jax.random.uniform(ratio_key, minval=-1, maxval=1) * jnp.log(self.max_ratio) / 2)
            side = jnp.sqrt(area)
            shares = jnp.clip(jnp.stack([side / root, side * root]), 1e-3, 1.0)  # of the height, and of the width
            size = jnp.array(image.shape[:2], jnp.float32)
            places = jnp.stack([jax.random.uniform(row_key), jax.random.uniform(column_key)])
            first = places * (1 - shares) * size
            resized = jax.image.scale_and_translate(
                image, image.shape, (0, 1), 1 / shares, -first / shares, "linear", antialias=False
            )
            return jnp.clip(resized, 0, 1)

        return each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """Takes the colour out of RGB images, which keep their three channels; leaves others alone.

    Attributes:
      probability: that an image loses its colour.
    """

    probability: Probability = 0.2

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Luma of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""

        def change(key, image):
            gray = jnp.broadcast_to(dm_pix.rgb_to_grayscale(image), image.shape)
            return jnp.where(jax.random.bernoulli(key, self.probability), gray, image)

        if batch["inputs"].shape[-1] != 3 or _is_off(self.probability):
            return batch
        return each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Rotates images about their centre.

    Attributes:
      degrees: the angle is uniform from -degrees to degrees.
      mode: what is beyond the border: constant (0) or nearest.
    """

    degrees: NonNegativeFloat = 15.0
    mode: Literal["constant", "nearest"] = "constant"

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Bilinear interpolation; counter-clockwise is positive."""

        def change(key, image):
            angle = jax.random.uniform(key, minval=-1, maxval=1) * self.degrees * (math.pi / 180)
            rows, columns = _grid(image)
            middle_row, middle_column = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
            down, right = rows - middle_row, columns - middle_column
            cosine, sine = jnp.cos(angle), jnp.sin(angle)
            rows = middle_row + cosine * down + sine * right
            columns = middle_column - sine * down + cosine * right
            return _sample(image, rows, columns, self.mode)

        return batch if _is_off(self.degrees) else each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, in this order, each by its own random amount.

    Saturation and hue are of RGB images and leave others alone.

    Attributes:
      brightness: values are multiplied by a factor uniform from 1 - brightness to 1 + brightness.
      contrast: distances from the image's mean are multiplied by a factor uniform from 1 - contrast to 1 + contrast.
      saturation: saturation (of HSV) is multiplied by a factor uniform from 1 - saturation to 1 + saturation.
      hue: hue (of HSV) is turned by a part of a full turn uniform from -hue to hue.
      probability: that an image is changed.
    """

    brightness: Probability = 0.4
    contrast: Probability = 0.4
    saturation: Probability = 0.4
    hue: Probability = 0.1
    probability: Probability = 1.0

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Values are clipped to [0, 1] after each change."""

        def change(key, image):
            amounts = jax.random.uniform(key, (4,), minval=-1, maxval=1)
            amounts *= jax.random.bernoulli(jax.random.fold_in(key, 0), self.probability)
            changes = [
                (self.brightness, lambda image, amount: image * (1 + amount)),
                (self.contrast, lambda image, amount: dm_pix.adjust_contrast(image, 1 + amount)),
            ]
            if image.shape[-1] == 3:
                changes += [
                    (self.saturation, lambda image, amount: dm_pix.adjust_saturation(image, 1 + amount)),
                    (self.hue, dm_pix.adjust_hue),
                ]
            for amount, (strength, adjust) in zip(amounts, changes):
                if not _is_off(strength):  # the way through HSV would round
                    image = jnp.clip(adjust(image, amount * strength), 0, 1)
            return image

        return each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Blanks a square (DeVries and Taylor 2017, arXiv:1708.04552): its centre is anywhere, so it may be cut off.

    Attributes:
      size: height and width of the square, in pixels.
      fill: the value put there.
      probability: that an image gets one.
    """

    size: NonNegativeInt = 8
    fill: Probability = 0.0
    probability: Probability = 1.0

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """The square begins size // 2 pixels above and to the left of a uniform pixel."""

        def change(key, image):
            height, width, _ = image.shape
            y_key, x_key, chance_key = jax.random.split(key, 3)
            first_row = jax.random.randint(y_key, (), 0, height) - self.size // 2
            first_column = jax.random.randint(x_key, (), 0, width) - self.size // 2
            rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
            inside = (rows >= first_row) & (rows < first_row + self.size)
            inside &= (columns >= first_column) & (columns < first_column + self.size)
            inside &= jax.random.bernoulli(chance_key, self.probability)
            return jnp.where(inside, jnp.asarray(self.fill, image.dtype), image)

        return each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Elastic deformation (Simard, Steinkraus and Platt 2003, Best practices for convolutional neural networks).

    Every pixel is moved by a random field, uniform in [-1, 1], smoothed by a Gaussian and scaled by alpha. Simard
    took alpha 34 and sigma 4 for MNIST.

    Attributes:
      alpha: scale of the field, in pixels before smoothing.
      sigma: standard deviation of the Gaussian, in pixels.
      mode: what is beyond the border: constant (0) or nearest.
    """

    alpha: NonNegativeFloat = 34.0
    sigma: PositiveFloat = 4.0
    mode: Literal["constant", "nearest"] = "constant"

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Bilinear interpolation."""

        def change(key, image):
            height, width, _ = image.shape
            noise = jax.random.uniform(key, (2, height, width), minval=-1, maxval=1)
            over_rows, over_columns = _gaussian(height, self.sigma), _gaussian(width, self.sigma)
            down, right = self.alpha * jnp.einsum("ih,nhw,jw->nij", over_rows, noise, over_columns)
            rows, columns = _grid(image)
            return _sample(image, rows + down, columns + right, self.mode)

        return batch if _is_off(self.alpha) else each_image(key, batch, change)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Adds noise: to images, clipped to [0, 1], or to the features of a table.

    Attributes:
      std: standard deviation of the noise, in units of the decoded inputs.
    """

    std: NonNegativeFloat = 0.1

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Images are inputs [B, H, W, C]; inputs of another rank are not clipped."""

        def change(key, example):
            noisy = example + self.std * jax.random.normal(key, example.shape, example.dtype)
            return jnp.clip(noisy, 0, 1) if example.ndim == 3 else noisy

        return batch if _is_off(self.std) else each_image(key, batch, change)
