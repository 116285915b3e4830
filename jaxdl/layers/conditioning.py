"""What a network is told beside its input: a class, or time and class as a vector, and layers that it modulates.

>>> condition = TimeAndClass(width=8, num_classes=10)
>>> condition.init_with_output(jax.random.key(0), jnp.array([0, 999]), jnp.array([3, 10]))[0].shape  # 10: no class
(2, 8)

Shapes: B examples, E features of a condition, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.positions import sinusoidal
from jaxdl.types import NonNegativeInt, PositiveInt


def with_classes(x, labels, num_classes: int):
    """`x` [B, F] with the class after it, one of `num_classes` numbers being 1: [B, F + num_classes].

    Mirza and Osindero 2014, arXiv:1411.1784, section 3.2. Without classes `x` is as it was, and labels may be None.
    """
    if not num_classes:
        return x
    return jnp.concatenate([x, jax.nn.one_hot(labels, num_classes, dtype=x.dtype)], axis=-1)


class TimeAndClass(nn.Module):
    """The condition of a denoiser: sinusoids of its time through two dense layers, plus a learned vector of its class.

    Ho et al. 2020, arXiv:2006.11239, appendix B, for the time; Peebles and Xie 2023, arXiv:2212.09748, section 3.2, for
    the class, whose table has a row more than there are classes: that of an example without one.

    Attributes:
      width: features E of the condition.
      num_classes: classes, of the labels 0 .. num_classes - 1; 0 is none.
      frequencies: sines and cosines of the time; even.
    """

    width: PositiveInt
    num_classes: NonNegativeInt = 0
    frequencies: PositiveInt = 256

    @nn.compact
    def __call__(self, times, labels=None):
        """Times int32 [B] and labels int32 [B] to conditions [B, E]; label `num_classes`, or none at all, is no class.

        Raises:
          InputError: labels, and there are no classes.
        """
        if labels is not None and not self.num_classes:
            raise InputError("this model has no classes to be given labels: set num_classes.")
        dense = lambda name: nn.Dense(self.width, kernel_init=nn.initializers.normal(0.02), name=name)
        condition = dense("time")(nn.silu(dense("time_hidden")(sinusoidal(times, self.frequencies))))
        if not self.num_classes:
            return condition
        if labels is None:
            labels = jnp.full(times.shape, self.num_classes)
        table = nn.Embed(self.num_classes + 1, self.width, embedding_init=nn.initializers.normal(0.02), name="classes")
        return condition + table(labels)


class Modulation(nn.Module):
    """Shifts, scales or gates that depend on a condition, and begin at zero.

    Peebles and Xie 2023, arXiv:2212.09748, section 3.2, adaLN-Zero.

    Attributes:
      count: how many.
      features: channels C of each.
    """

    count: PositiveInt
    features: PositiveInt

    @nn.compact
    def __call__(self, condition):
        """[B, E] to `count` arrays [B, 1, C]."""
        dense = nn.Dense(self.count * self.features, kernel_init=nn.initializers.zeros, name="dense")
        return jnp.split(dense(nn.silu(condition))[:, None], self.count, axis=-1)
