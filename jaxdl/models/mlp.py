"""Multilayer perceptron. Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating errors.

>>> import jax, jax.numpy as jnp
>>> model = MLP(widths=(256, 128), num_outputs=10)
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
(2, 10)
"""

from typing import ClassVar

import flax.linen as nn

from jaxdl.layers.activations import Activation
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.regularization import DropConnect, Dropout
from jaxdl.types import NonNegativeInt, PositiveInt, Rate


class MLP(nn.Module):
    """Dense layers, each followed by normalisation, activation and dropout, and a last dense layer.

    Attributes:
      num_outputs: number of outputs: classes, or regression targets; 0 leaves the last layer out.
      widths: units of each hidden layer; empty is a linear model.
      activation: activation by name: relu, tanh, gelu, ... (jaxdl.layers.activations).
      activation_parameter: the activation's own number, such as the slope of leaky_relu; unset is its usual value.
      normalization: normalisation before the activation: batch, layer, group, rms or none.
      num_groups: groups of units of the group normalisation; must divide every width.
      dropout_rate: probability of dropping a hidden unit.
      drop_connect_rate: probability of dropping a weight of a hidden layer.
      initializer: kernel initialiser by name: he_normal, xavier_uniform, ... (jaxdl.layers.initializers).
    """

    num_outputs: NonNegativeInt = 10
    widths: tuple[int, ...] = (256, 128)
    activation: str = "relu"
    activation_parameter: float | None = None
    normalization: Normalization = "none"
    num_groups: PositiveInt = 8
    dropout_rate: Rate = 0.0
    drop_connect_rate: Rate = 0.0
    initializer: str = "he_normal"

    width_fields: ClassVar[tuple[str, ...]] = ("widths",)

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Inputs [B, ...], flattened, to outputs [B, num_outputs]."""
        x = inputs.reshape(inputs.shape[0], -1)
        use_bias = not adds_bias(self.normalization)
        for index, width in enumerate(self.widths):
            hidden = DropConnect(width, self.drop_connect_rate, use_bias, self.initializer, name=f"hidden{index}")
            x = hidden(x, train=train)
            x = Norm(self.normalization, num_groups=self.num_groups, name=f"norm{index}")(x, train=train)
            x = Activation(self.activation, self.activation_parameter, name=f"activation{index}")(x, train=train)
            x = Dropout(self.dropout_rate, name=f"dropout{index}")(x, train=train)
        if not self.num_outputs:
            return x
        return nn.Dense(self.num_outputs, kernel_init=initializer(self.initializer), name="output")(x)
