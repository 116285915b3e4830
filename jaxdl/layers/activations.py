"""Activation functions by name, and `Activation`, the one module through which a model uses any of them.

Most are pure functions. PReLU and Swish learn a number, and RReLU draws one in training, so those are modules.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys


class PReLU(nn.Module):
    """Leaky ReLU whose slope is learned, one for the layer. He et al. 2015, arXiv:1502.01852, section 2.1.

    Attributes:
      initial_slope: where the slope starts.
    """

    initial_slope: float = 0.25

    @nn.compact
    def __call__(self, x):
        slope = self.param("slope", lambda key: jnp.asarray(self.initial_slope, jnp.float32))
        return leaky_relu(x, slope.astype(x.dtype))


class Swish(nn.Module):
    """x * sigmoid(beta * x) with a learned beta, one for the layer. Ramachandran et al. 2017, arXiv:1710.05941.

    Attributes:
      initial_beta: where beta starts; at 1 the function is SiLU.
    """

    initial_beta: float = 1.0

    @nn.compact
    def __call__(self, x):
        beta = self.param("beta", lambda key: jnp.asarray(self.initial_beta, jnp.float32))
        return silu(x, beta.astype(x.dtype))


class RReLU(nn.Module):
    """Randomised leaky ReLU. Xu et al. 2015, arXiv:1505.00853, section 2.4.

    In training every element below zero is multiplied by a slope drawn from U[lower, upper] (rng `dropout`, a key
    for each example); in evaluation by the mean slope.

    Attributes:
      lower: the smallest slope.
      upper: the largest slope.
    """

    lower: float = 1 / 8
    upper: float = 1 / 3

    @nn.compact
    def __call__(self, x, *, train: bool):
        if not train:
            return leaky_relu(x, (self.lower + self.upper) / 2)

        def draw(key):
            return jax.random.uniform(key, x.shape[1:], x.dtype, self.lower, self.upper)

        return leaky_relu(x, jax.vmap(draw)(example_keys(self.make_rng("dropout"), x.shape[0])))


def leaky_relu(x, slope=0.01):
    """x above zero, slope * x below. Maas et al. 2013, Rectifier nonlinearities improve acoustic models."""
    return jnp.where(x >= 0, x, slope * x)


def silu(x, beta=1.0):
    """x * sigmoid(beta * x). Hendrycks and Gimpel 2016, arXiv:1606.08415; Elfwing et al. 2017, arXiv:1702.03118."""
    return x * nn.sigmoid(beta * x)


def gelu(x):
    """x * Phi(x), Phi the normal distribution function. Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2."""
    return nn.gelu(x, approximate=False)


def gelu_tanh(x):
    """GELU in the tanh approximation of the same paper, as GPT-2 and BERT's first code use it."""
    return nn.gelu(x, approximate=True)


def quick_gelu(x):
    """GELU in the sigmoid approximation of the same paper, x * sigmoid(1.702 x), as CLIP uses it."""
    return silu(x, 1.702)


def mish(x):
    """x * tanh(softplus(x)). Misra 2019, arXiv:1908.08681."""
    return x * jnp.tanh(nn.softplus(x))


def identity(x):
    """x: a network without a nonlinearity."""
    return x


ACTIVATIONS: dict[str, Callable | type[nn.Module]] = {
    "identity": identity,
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
    "softsign": nn.soft_sign,
    "relu": nn.relu,  # Nair and Hinton 2010
    "relu6": nn.relu6,  # Howard et al. 2017, arXiv:1704.04861
    "leaky_relu": leaky_relu,
    "prelu": PReLU,
    "rrelu": RReLU,
    "elu": nn.elu,  # Clevert et al. 2015, arXiv:1511.07289
    "celu": nn.celu,  # Barron 2017, arXiv:1704.07483
    "selu": nn.selu,  # Klambauer et al. 2017, arXiv:1706.02515
    "silu": silu,
    "swish": Swish,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "mish": mish,
    "softplus": nn.softplus,  # Dugas et al. 2001
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_silu": nn.hard_silu,  # Howard et al. 2019, arXiv:1905.02244
    "hard_tanh": nn.hard_tanh,
    "softmax": nn.softmax,  # over the last axis
}

PARAMETERS: dict[str, float] = {
    "leaky_relu": 0.01,  # slope below zero
    "prelu": 0.25,  # slope below zero at the start of training, as in the paper
    "elu": 1.0,  # alpha: minus the limit at minus infinity
    "celu": 1.0,  # alpha
    "silu": 1.0,  # beta, given
    "swish": 1.0,  # beta at the start of training
}
"""The activations that have a number of their own, and its usual value."""


class Activation(nn.Module):
    """An activation function by name.

    Attributes:
      function: a key of `ACTIVATIONS`.
      parameter: the function's own number (see `PARAMETERS`); None is its usual value.

    >>> import jax.numpy as jnp
    >>> Activation("leaky_relu", 0.5).apply({}, jnp.array([-2.0, 3.0]), train=True).tolist()
    [-1.0, 3.0]
    """

    function: str = "relu"
    parameter: float | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        """The function of `x`, of any shape, with a leading batch axis where it is random.

        Raises:
          InputError: no activation has this name, or this one takes no parameter.
        """
        if self.function not in ACTIVATIONS:
            raise InputError(
                f"no activation is called '{self.function}'.{nearest(self.function, ACTIVATIONS)} "
                f"There are: {', '.join(ACTIVATIONS)}."
            )
        if self.parameter is not None and self.function not in PARAMETERS:
            raise InputError(f"activation '{self.function}' takes no parameter; these do: {', '.join(PARAMETERS)}.")
        function = ACTIVATIONS[self.function]
        if function is RReLU:
            return RReLU(name="rrelu")(x, train=train)
        if self.function not in PARAMETERS:
            return function(x)
        parameter = PARAMETERS[self.function] if self.parameter is None else self.parameter
        if isinstance(function, type):
            return function(parameter, name=self.function)(x)
        return function(x, jnp.asarray(parameter, x.dtype))
