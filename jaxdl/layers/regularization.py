"""Regularisation by dropping at random: units, channels, weights, whole residual branches.

All draw from the rng `dropout` with a key for each example, so a mask depends on the example's place in the global
batch and not on how the batch is split. All divide what they keep by the probability of keeping it (inverted
dropout), so evaluation leaves the network as it is. A rate may be a tracer; a rate that is the Python number 0
draws nothing and costs nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.layers.batch_axis import example_keys
from jaxdl.layers.initializers import initializer
from jaxdl.types import PositiveInt, Rate


def is_zero(rate) -> bool:
    """Whether `rate` is zero while the program is traced; a tracer never is."""
    return isinstance(rate, (int, float)) and rate == 0


def drop(key, x, rate, mask_shape: tuple[int, ...], keys=None):
    """Drops parts of each example with probability `rate` and divides the others by 1 - rate.

    Args:
      key: a random key of the layer.
      x: [B, ...].
      rate: the probability of dropping, in [0, 1); number or tracer.
      mask_shape: shape of one example's mask, as long as x.shape[1:], with 1 where all along the axis share a fate.
      keys: the key of each row from the layer's, `key -> keys [B]`, where rows are no examples; None: `example_keys`.
    """
    keep = jnp.float32(1) - rate
    of_rows = example_keys(key, x.shape[0]) if keys is None else keys(key)
    mask = jax.vmap(lambda k: jax.random.bernoulli(k, keep, mask_shape))(of_rows)
    return jnp.where(mask, x / keep, 0).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout of single elements, or of whole channels.

    Srivastava et al. 2014, Dropout, JMLR 15; channels (`spatial`): Tompson et al. 2014, arXiv:1411.4280, section 3.2.

    Attributes:
      rate: the probability of dropping.
      spatial: whether all positions of a channel are dropped together.
    """

    rate: Rate = 0.0
    spatial: bool = False

    @nn.compact
    def __call__(self, x, *, train: bool, keys=None):
        """`x` [B, ..., C] with parts zero in training; `x` in evaluation. `keys` is as in `drop`."""
        if not train or is_zero(self.rate):
            return x
        shape = x.shape[1:]
        if self.spatial:
            shape = (1,) * (len(shape) - 1) + shape[-1:]
        return drop(self.make_rng("dropout"), x, self.rate, shape, keys)


class StochasticDepth(nn.Module):
    """Drops a residual branch for an example: `x + StochasticDepth(rate)(branch(x), train=train)`.

    Huang et al. 2016, arXiv:1603.09382, eq. 2, drawn for each example rather than for each minibatch, and scaled in
    training rather than in evaluation (their eq. 5).

    Attributes:
      rate: the probability of dropping the branch.
    """

    rate: Rate = 0.0

    @nn.compact
    def __call__(self, branch, *, train: bool):
        """`branch` [B, ...] with whole examples zero in training; `branch` in evaluation."""
        if not train or is_zero(self.rate):
            return branch
        return drop(self.make_rng("dropout"), branch, self.rate, (1,) * (branch.ndim - 1))


class DropConnect(nn.Module):
    """A dense layer whose weights and biases are dropped, for each example others.

    Wan et al. 2013, Regularization of neural networks using DropConnect, eq. 3. Evaluation uses the mean weights, the
    first moment of their Gaussian (section 3.2), and leaves out the second. With rate 0 it is `nn.Dense`, parameters
    included. Training holds B masked copies of the weights: B * D * features numbers.

    Attributes:
      features: size of the output.
      rate: the probability of dropping a weight.
      use_bias: whether there is a bias.
      kernel_initializer: name of the kernel's initialiser.
    """

    features: PositiveInt = 128
    rate: Rate = 0.0
    use_bias: bool = True
    kernel_initializer: str = "lecun_normal"

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, D] to [B, features]."""
        weights = self.param("kernel", initializer(self.kernel_initializer), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, weights, bias = nn.dtypes.promote_dtype(x, weights, bias)
        if not train or is_zero(self.rate):
            outputs = x @ weights
            return outputs if bias is None else outputs + bias[None]
        weights_key, bias_key = jax.random.split(self.make_rng("dropout"))
        batch_size = x.shape[0]
        weights_BxDxF = jnp.broadcast_to(weights, (batch_size, *weights.shape))
        outputs = jnp.einsum("bd,bdf->bf", x, drop(weights_key, weights_BxDxF, self.rate, weights.shape))
        if bias is None:
            return outputs
        return outputs + drop(bias_key, jnp.broadcast_to(bias, (batch_size, *bias.shape)), self.rate, bias.shape)
