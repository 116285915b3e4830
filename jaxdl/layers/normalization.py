"""Normalisation by name: `Norm("batch")(x, train=train)`."""

from collections.abc import Callable
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.layers import batch_axis
from jaxdl.types import PositiveFloat, PositiveInt, Rate

Normalization = Literal["batch", "layer", "group", "rms", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)


def adds_bias(kind: str) -> bool:
    """Whether the normalisation adds a bias of its own, which makes that of the layer before it idle."""
    return kind in ("batch", "layer", "group")


class Norm(nn.Module):
    """Normalisation of `x` [B, ..., C] with a learned scale (and, but for RMS, bias) for each of the C channels.

    `batch`: each channel over the batch and all positions, of the global batch however it is split over devices,
    of each microbatch under gradient accumulation; running averages in `batch_stats` serve in evaluation. Ioffe
    and Szegedy 2015, arXiv:1502.03167. `layer`: each position over its channels. Ba et al. 2016, arXiv:1607.06450.
    `group`: groups of channels over all positions of one example. Wu and He 2018, arXiv:1803.08494. `rms`: each
    position by the root mean square of its channels. Zhang and Sennrich 2019, arXiv:1910.07467. `none`: x.

    Attributes:
      kind: batch, layer, group, rms or none.
      momentum: the share of the old running average that a step of `batch` keeps.
      epsilon: what is added to the variance.
      num_groups: groups of channels of `group`; must divide C.
      scale_init: where the scale starts.
      use_bias: whether batch, layer and group add a bias.
      use_scale: whether there is a scale.
    """

    kind: Normalization = "batch"
    momentum: Rate = 0.9
    epsilon: PositiveFloat = 1e-5
    num_groups: PositiveInt = 32
    scale_init: Callable = nn.initializers.ones
    use_bias: bool = True
    use_scale: bool = True

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        """`x` normalised, of its shape. Of `batch`, rows where `mask` (bool [B]) is False do not count in training.

        Raises:
          InputError: unknown kind, or the groups do not divide the channels.
        """
        common = {
            "epsilon": self.epsilon,
            "scale_init": self.scale_init,
            "use_scale": self.use_scale,
            "name": self.kind,
        }
        if self.kind != "rms":
            common["use_bias"] = self.use_bias
        if self.kind == "batch" and mask is not None:
            return MaskedBatchNorm(momentum=self.momentum, **common)(x, mask, train=train)
        if self.kind == "batch":
            return nn.BatchNorm(
                use_running_average=not train, momentum=self.momentum, axis_name=batch_axis.axis_name(), **common
            )(x)
        if self.kind == "layer":
            return nn.LayerNorm(**common)(x)
        if self.kind == "group":
            if x.shape[-1] % self.num_groups:
                raise InputError(f"{x.shape[-1]} channels do not divide into {self.num_groups} groups.")
            return nn.GroupNorm(num_groups=self.num_groups, **common)(x)
        if self.kind == "rms":
            return nn.RMSNorm(**common)(x)
        if self.kind == "none":
            return x
        raise InputError(
            f"no normalization is called '{self.kind}'.{nearest(self.kind, NORMALIZATIONS)} "
            f"There are: {', '.join(NORMALIZATIONS)}."
        )


class MaskedBatchNorm(nn.Module):
    """`nn.BatchNorm` over the rows that a mask leaves, exact where shards have different numbers of them.

    Attributes:
      momentum: the share of the old running average that a step keeps.
      epsilon: what is added to the variance.
      scale_init: where the scale starts.
      use_bias: whether there is a bias.
      use_scale: whether there is a scale.
    """

    momentum: Rate = 0.9
    epsilon: PositiveFloat = 1e-5
    scale_init: Callable = nn.initializers.ones
    use_bias: bool = True
    use_scale: bool = True

    @nn.compact
    def __call__(self, x, mask, *, train: bool):
        """`x` [B, C] normalised over the rows where `mask`, bool [B], is True."""
        averages = [
            self.variable("batch_stats", name, fill, (x.shape[-1],))
            for name, fill in (("mean", jnp.zeros), ("var", jnp.ones))
        ]
        mean, variance = (average.value for average in averages)
        if train:
            mean, variance = self._moments(x.astype(jnp.float32), mask[:, None])
            if not self.is_initializing():
                for average, value in zip(averages, (mean, variance), strict=True):
                    average.value = self.momentum * average.value + (1 - self.momentum) * value
        result = (x - mean[None]) * jax.lax.rsqrt(variance + self.epsilon)[None]
        if self.use_scale:
            result = result * self.param("scale", self.scale_init, (x.shape[-1],))[None]
        if self.use_bias:
            result = result + self.param("bias", nn.initializers.zeros, (x.shape[-1],))[None]
        return result.astype(x.dtype)

    def _moments(self, x, mask):
        """Mean and variance [C] over the rows of all shards that count."""
        count = jnp.maximum(batch_axis.batch_sum(mask.sum()), 1)
        mean = batch_axis.batch_sum(jnp.where(mask, x, 0).sum(axis=0)) / count
        deviations = jnp.where(mask, jnp.square(x - mean[None]), 0)
        return mean, batch_axis.batch_sum(deviations.sum(axis=0)) / count
