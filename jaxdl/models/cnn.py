"""A small convolutional network, for images too small for the networks of the papers.

>>> import jax, jax.numpy as jnp
>>> model = CNN(widths=(16, 32), num_outputs=10)
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False)[0].shape
(2, 10)
"""

import flax.linen as nn

from jaxdl.layers.activations import Activation
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.regularization import Dropout
from jaxdl.types import NonNegativeInt, PositiveInt, Rate


class CNN(nn.Module):
    """For each width a convolution, normalisation, activation and 2x2 max pooling; then a dense layer.

    Attributes:
      num_outputs: number of classes, or of regression targets; 0 leaves the last layer out.
      widths: channels of each convolution; each halves the image.
      kernel_size: side of the convolutions' window.
      activation: activation by name (jaxdl.layers.activations).
      normalization: normalisation before the activation: batch, layer, group, rms or none.
      num_groups: groups of channels of the group normalisation; must divide every width.
      dropout_rate: probability of dropping an input of the dense layer.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    num_outputs: NonNegativeInt = 10
    widths: tuple[int, ...] = (32, 64)
    kernel_size: PositiveInt = 3
    activation: str = "relu"
    normalization: Normalization = "batch"
    num_groups: PositiveInt = 8
    dropout_rate: Rate = 0.0
    initializer: str = "he_normal"

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Images [B, H, W, C] to outputs [B, num_outputs]."""
        kernel_init = initializer(self.initializer)
        window = (self.kernel_size, self.kernel_size)
        use_bias = not adds_bias(self.normalization)
        x = inputs
        for index, width in enumerate(self.widths):
            x = nn.Conv(width, window, use_bias=use_bias, kernel_init=kernel_init, name=f"conv{index}")(x)
            x = Norm(self.normalization, num_groups=self.num_groups, name=f"norm{index}")(x, train=train)
            x = Activation(self.activation, name=f"activation{index}")(x, train=train)
            x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
        x = Dropout(self.dropout_rate, name="dropout")(x.reshape(x.shape[0], -1), train=train)
        if not self.num_outputs:
            return x
        return nn.Dense(self.num_outputs, kernel_init=kernel_init, name="output")(x)
