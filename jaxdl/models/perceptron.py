"""The perceptron. Rosenblatt 1958, The perceptron: a probabilistic model for information storage and organization.

>>> import jax, jax.numpy as jnp
>>> scores, variables = Perceptron().init_with_output(jax.random.key(0), jnp.ones((2, 3)), train=False)
>>> threshold(scores).tolist()
[[1.0], [1.0]]
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.types import PositiveInt


class Perceptron(nn.Module):
    """Linear threshold units before their threshold: scores whose sign is the decision; weights start at zero.

    With the perceptron loss max(0, -y * score), y in {-1, 1}, and learning rate 1, a step on one misclassified example
    is Rosenblatt's rule.

    Attributes:
      num_outputs: number of units.
    """

    num_outputs: PositiveInt = 1

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Inputs [B, ...], flattened, to scores [B, num_outputs]."""
        x = inputs.reshape(inputs.shape[0], -1)
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="output")(x)


def threshold(scores):
    """The units' decisions: 1 where the score is not negative, else 0."""
    return jnp.where(scores >= 0, 1.0, 0.0)
