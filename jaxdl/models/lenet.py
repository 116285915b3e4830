"""LeNet-5. LeCun et al. 1998, Gradient-based learning applied to document recognition, section II.B and fig. 2.

The common variant: every map of the second convolution sees all six of the first (the paper's table I leaves some
out), pooling has no weights, and the output is a dense layer in place of radial basis functions. 61,706 parameters.

>>> import jax, jax.numpy as jnp
>>> model = LeNet5(activation="relu", pooling="max")
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
(2, 10)
"""

from typing import Literal

import flax.linen as nn

from jaxdl.layers.activations import Activation
from jaxdl.layers.initializers import initializer
from jaxdl.layers.regularization import Dropout
from jaxdl.types import NonNegativeInt, Rate


class LeNet5(nn.Module):
    """Two 5x5 convolutions of 6 and 16 channels, each pooled by 2, and dense layers of 120, 84 and num_outputs.

    Attributes:
      num_outputs: number of classes; 0 leaves the last layer out.
      activation: activation by name (jaxdl.layers.activations).
      pooling: average or max, over 2x2.
      padding: same pads the first convolution by 2, for 28x28 images; valid does not, for the paper's 32x32.
      dropout_rate: probability of dropping a unit of the dense layers of 120 and 84.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    num_outputs: NonNegativeInt = 10
    activation: str = "tanh"
    pooling: Literal["average", "max"] = "average"
    padding: Literal["same", "valid"] = "same"
    dropout_rate: Rate = 0.0
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Images [B, 28, 28, C] (or [B, 32, 32, C] with valid padding) to logits [B, num_outputs]."""
        kernel_init = initializer(self.initializer)
        pool = nn.avg_pool if self.pooling == "average" else nn.max_pool
        x = inputs
        for index, (features, padding) in enumerate([(6, self.padding.upper()), (16, "VALID")]):
            x = nn.Conv(features, (5, 5), padding=padding, kernel_init=kernel_init, name=f"conv{index}")(x)
            x = Activation(self.activation, name=f"conv_activation{index}")(x, train=train)
            x = pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for index, features in enumerate((120, 84)):
            x = nn.Dense(features, kernel_init=kernel_init, name=f"dense{index}")(x)
            x = Activation(self.activation, name=f"dense_activation{index}")(x, train=train)
            x = Dropout(self.dropout_rate, name=f"dropout{index}")(x, train=train)
        if not self.num_outputs:
            return x
        return nn.Dense(self.num_outputs, kernel_init=kernel_init, name="output")(x)
