"""Augmentations that mix two examples of a batch: mixup and CutMix.

The result has `labels_b` (int32 [B], the partner's) beside `labels`, and `mix` (float32 [B], the weight of
`labels`): a classification loss is mix * loss(labels) + (1 - mix) * loss(labels_b). In a regression the targets
themselves are mixed.

Example i of the global batch has the partner (i + shift) mod B, for one random shift of the whole batch: batches are
shuffled, so that is a random partner, and it is the same on any number of devices.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxdl.layers import batch_axis
from jaxdl.types import PositiveFloat, Probability


def partners(key: jax.Array, batch: dict) -> dict:
    """The inputs and answers of each row's partner, also where the batch is split over a mapped axis."""
    batch = {name: batch[name] for name in ("inputs", "labels", "targets") if name in batch}
    number = len(batch["inputs"])
    axis_name = batch_axis.axis_name()
    if axis_name is None:
        shift = jax.random.randint(key, (), 1, max(number, 2))
        return jax.tree.map(lambda rows: jnp.roll(rows, -shift, axis=0), batch)
    everything = jax.lax.all_gather(batch, axis_name, tiled=True)
    first = jax.lax.axis_index(axis_name) * number
    total = number * jax.lax.axis_size(axis_name)
    shift = jax.random.randint(key, (), 1, max(total, 2))
    rows = (first + jnp.arange(number) + shift) % total
    return jax.tree.map(lambda values: values[rows], everything)


def _weight(key: jax.Array, alpha, probability) -> jax.Array:
    """The weight of an example against its partner: Beta(alpha, alpha), or 1 outside `probability`."""
    weight_key, chance_key = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(chance_key, probability), jax.random.beta(weight_key, alpha, alpha), 1.0)


def _with_answers(batch: dict, other: dict, mix: jax.Array) -> dict:
    """Labels and weight of a mixed batch, or its mixed targets."""
    if "targets" in batch:
        weight = mix[:, None]
        return batch | {"targets": weight * batch["targets"] + (1 - weight) * other["targets"]}
    return batch | {"labels_b": other["labels"], "mix": mix}


@dataclasses.dataclass(frozen=True)
class Mixup:
    """Weighted means of two examples (Zhang et al. 2018, arXiv:1710.09412, section 2).

    Attributes:
      alpha: weights are Beta(alpha, alpha); small values mix little.
      probability: that an example is mixed.
    """

    alpha: PositiveFloat = 0.2
    probability: Probability = 1.0

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Inputs of any shape [B, ...]; each example has a weight of its own."""
        partner_key, weight_key = jax.random.split(key)
        inputs = batch["inputs"]
        other = partners(partner_key, batch)
        keys = batch_axis.example_keys(weight_key, len(inputs))
        mix = jax.vmap(lambda key: _weight(key, self.alpha, self.probability))(keys)
        weight = mix.reshape(-1, *[1] * (inputs.ndim - 1))
        mixed = weight * inputs + (1 - weight) * other["inputs"]
        return _with_answers(batch, other, mix) | {"inputs": mixed}


@dataclasses.dataclass(frozen=True)
class Cutmix:
    """Pastes a rectangle of one image into another (Yun et al. 2019, arXiv:1905.04899, section 3.1).

    Attributes:
      alpha: the part kept is Beta(alpha, alpha) before the rectangle is cut off at the border.
      probability: that an example is mixed.
    """

    alpha: PositiveFloat = 1.0
    probability: Probability = 1.0

    def __call__(self, key: jax.Array, batch: dict) -> dict:
        """Images [B, H, W, C]. `mix` is the part of pixels that stayed: exact, whatever was cut off."""
        partner_key, box_key = jax.random.split(key)
        inputs = batch["inputs"]
        _, height, width, _ = inputs.shape
        other = partners(partner_key, batch)

        def kept(key):
            """True where a pixel stays: bool [H, W]."""
            weight_key, y_key, x_key = jax.random.split(key, 3)
            side = jnp.sqrt(1 - _weight(weight_key, self.alpha, self.probability))
            rows = _inside(y_key, height, side * height)
            columns = _inside(x_key, width, side * width)
            return ~(rows[:, None] & columns[None, :])

        stays = jax.vmap(kept)(batch_axis.example_keys(box_key, len(inputs)))
        mixed = jnp.where(stays[..., None], inputs, other["inputs"])
        mix = jnp.mean(stays.astype(jnp.float32), axis=(1, 2))
        return _with_answers(batch, other, mix) | {"inputs": mixed}


def _inside(key: jax.Array, size: int, length: jax.Array) -> jax.Array:
    """Pixels of a line within length / 2 of a uniform centre: bool [size]."""
    centre = jax.random.uniform(key, maxval=size)
    return jnp.abs(jnp.arange(size) + 0.5 - centre) < length / 2
