"""An encoder and the projection head with which it is trained contrastively.

Chen et al. 2020, A simple framework for contrastive learning of visual representations, arXiv:2002.05709 (SimCLR),
section 2.1. What is learned are the encoder's features; the head is thrown away.

>>> import jax, jax.numpy as jnp
>>> from jaxdl.models.cnn import CNN
>>> model = Contrastive(CNN(widths=(8, 16), num_outputs=0), hidden_width=32, projection_width=16)
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), train=False)[0].shape
(2, 16)

The parameters of the encoder stand beside the head's, under their own names, so that an encoder of the same fields
begins with them (`--initialize_from=RUN`).
"""

import flax.linen as nn

from jaxdl.errors import InputError
from jaxdl.types import PositiveInt


class Contrastive(nn.Module):
    """Projections of an encoder's features: dense, ReLU, dense (g of the paper's eq. 1), without a last bias.

    Attributes:
      encoder: a model that gives features [B, F], such as `ViT(num_outputs=0)`: one that has no last layer.
      hidden_width: units of the head's hidden layer.
      projection_width: features of a projection.
    """

    encoder: nn.Module
    hidden_width: PositiveInt = 2048
    projection_width: PositiveInt = 128

    def setup(self):
        nn.share_scope(self, self.encoder)
        self.projection_hidden = nn.Dense(self.hidden_width)
        self.projection = nn.Dense(self.projection_width, use_bias=False)

    def __call__(self, *inputs, train: bool):
        """The encoder's inputs, B examples, to projections [B, projection_width].

        Raises:
          InputError: an encoder whose features are no vectors.
        """
        return self.projection(nn.relu(self.projection_hidden(self.features(*inputs, train=train))))

    def features(self, *inputs, train: bool):
        """The encoder's inputs, B examples, to its features [B, F]."""
        features = self.encoder(*inputs, train=train)
        if features.ndim != 2 or not features.shape[1]:
            raise InputError(
                f"{type(self.encoder).__name__} gives features of shape {list(features.shape)}, and a projection head "
                "takes [examples, features]: take an encoder that can leave its last layer out (num_outputs=0)."
            )
        return features
