"""Vision transformer. Dosovitskiy et al. 2020, arXiv:2010.11929 (ViT); Beyer et al. 2022, arXiv:2205.01580.

The named sizes are those of table 1, and Ti and S of Touvron et al. 2020, arXiv:2012.12877, table 1.

>>> import jax, jax.numpy as jnp
>>> model = ViT(patch_size=7, width=32, num_layers=2, num_heads=2, num_outputs=10)
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
(2, 10)
"""

import functools
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.attention import Implementation
from jaxdl.layers.normalization import Norm
from jaxdl.layers.patches import patches
from jaxdl.layers.positions import LearnedPositions, sinusoidal_2d
from jaxdl.layers.regularization import Dropout
from jaxdl.layers.transformer import TransformerBlock, TransformerStack
from jaxdl.types import NonNegativeInt, PositiveFloat, PositiveInt, Rate


class ViT(nn.Module):
    """Patches of an image as tokens of a transformer encoder, and one of its outputs, or their mean, as the image's.

    Attributes:
      num_outputs: number of classes; 0 leaves the last layer out.
      patch_size: pixels of a patch's side.
      patch_bias: whether the layer that takes patches in has a bias; CLIP's has none.
      input_norm: whether the tokens are normalised before the first block, as CLIP's are.
      width: channels of a token.
      num_layers: number of blocks.
      num_heads: heads of the attention.
      mlp_width: hidden units of the MLP; unset is 4 * width.
      pool: class, the output of an added, learned token; or mean, over all patches, without such a token.
      positions: learned, a vector for each place; or sinusoidal, in two dimensions, of the patches alone.
      activation: activation of the MLP by name (jaxdl.layers.activations).
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element of the tokens, and of a branch's end.
      scan_layers: whether blocks are one scan, which compiles a single block; dropout draws other numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    num_outputs: NonNegativeInt = 1000
    patch_size: PositiveInt = 16
    patch_bias: bool = True
    input_norm: bool = False
    width: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_width: PositiveInt | None = None
    pool: Literal["class", "mean"] = "class"
    positions: Literal["learned", "sinusoidal"] = "learned"
    activation: str = "gelu"
    norm_epsilon: PositiveFloat = 1e-6
    dropout_rate: Rate = 0.0
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    width_fields: ClassVar[tuple[str, ...]] = ("width", "mlp_width", "num_heads")

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Images [B, H, W, C] to logits [B, num_outputs], or without outputs to the pooled tokens [B, width].

        Raises:
          InputError: patches that do not divide the images, or images of another size than the learned positions'.
        """
        rows, columns = inputs.shape[1] // self.patch_size, inputs.shape[2] // self.patch_size
        embed = nn.Dense(self.width, self.patch_bias, kernel_init=nn.initializers.lecun_normal(), name="patches")
        x = embed(patches(inputs, self.patch_size))
        if self.positions == "sinusoidal":
            x = x + sinusoidal_2d(rows, columns, self.width)[None].astype(x.dtype)
        if self.pool == "class":
            token = self.param("class", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)).astype(x.dtype), x], axis=1)
        if self.positions == "learned":
            x = x + self._learned_positions(x.shape[1])
        if self.input_norm:
            x = Norm("layer", epsilon=self.norm_epsilon, name="input_norm")(x, train=train)
        x = Dropout(self.dropout_rate, name="dropout")(x, train=train)
        block = functools.partial(
            TransformerBlock,
            self.num_heads,
            mlp_width=self.mlp_width,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            kernel_init=nn.initializers.xavier_uniform(),
            residual_init=nn.initializers.xavier_uniform(),
            implementation=self.implementation,
        )
        x, _ = TransformerStack(block, self.num_layers, self.scan_layers, self.remat, name="layers")(x, train=train)
        x = Norm("layer", epsilon=self.norm_epsilon, name="output_norm")(x, train=train)
        pooled = x[:, 0] if self.pool == "class" else x.mean(axis=1)
        if not self.num_outputs:
            return pooled
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="output")(pooled)

    def _learned_positions(self, num_tokens: int):
        """[1, T, width]. The table is as long as the images at initialisation had tokens."""
        if self.has_variable("params", "positions"):
            places = len(self.get_variable("params", "positions")["embed"]["embedding"])
            if places != num_tokens:
                raise InputError(
                    f"images of {num_tokens} tokens do not fit {places} learned positions: "
                    "give images of the size that the model was made for."
                )
        return LearnedPositions(num_tokens, self.width, name="positions")(jnp.arange(num_tokens)[None])
