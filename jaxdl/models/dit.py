"""Diffusion transformer. Peebles and Xie 2023, arXiv:2212.09748 (DiT), with adaLN-Zero blocks.

The named sizes are those of table 1. The paper's networks also predict variances, with twice the outputs; these do not.

>>> import jax, jax.numpy as jnp
>>> model = DiT(patch_size=4, width=32, num_layers=2, num_heads=2, num_classes=10)
>>> inputs = jnp.zeros((2, 28, 28, 1)), jnp.array([0, 999]), jnp.array([3, 10])
>>> model.init_with_output(jax.random.key(0), *inputs, train=False)[0].shape
(2, 28, 28, 1)
"""

import functools

import flax.linen as nn

from jaxdl.layers.attention import Implementation
from jaxdl.layers.conditioning import Modulation, TimeAndClass
from jaxdl.layers.normalization import Norm
from jaxdl.layers.patches import patches, unpatch
from jaxdl.layers.positions import sinusoidal_2d
from jaxdl.layers.transformer import TransformerBlock, TransformerStack
from jaxdl.types import NonNegativeInt, PositiveFloat, PositiveInt, Rate


class DiT(nn.Module):
    """Patches of a noised image as tokens of a transformer whose blocks are modulated by time and class.

    Attributes:
      patch_size: pixels of a patch's side.
      width: channels of a token; a multiple of 4.
      num_layers: number of blocks.
      num_heads: heads of the attention.
      mlp_width: hidden units of the MLP; unset is 4 * width.
      num_classes: classes of the labels 0 .. num_classes - 1; 0 is a model without labels.
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element at a branch's end.
      scan_layers: whether blocks are one scan, which compiles a single block; dropout draws other numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    patch_size: PositiveInt = 2
    width: PositiveInt = 1152
    num_layers: PositiveInt = 28
    num_heads: PositiveInt = 16
    mlp_width: PositiveInt | None = None
    num_classes: NonNegativeInt = 1000
    norm_epsilon: PositiveFloat = 1e-6
    dropout_rate: Rate = 0.0
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, inputs, times, labels=None, *, train: bool):
        """Noised images [B, H, W, C] at `times` int32 [B] to what is predicted of them, [B, H, W, C].

        `labels`, int32 [B], are for a model with classes; label `num_classes`, or none at all, is no class.

        Raises:
          InputError: patches that do not divide the images, or labels for a model without classes.
        """
        height, width, channels = inputs.shape[1:]
        cut = patches(inputs, self.patch_size)
        x = nn.Dense(self.width, kernel_init=nn.initializers.xavier_uniform(), name="patches")(cut)
        positions = sinusoidal_2d(height // self.patch_size, width // self.patch_size, self.width)
        x = x + positions[None].astype(x.dtype)
        condition = TimeAndClass(self.width, self.num_classes, name="condition")(times, labels).astype(x.dtype)
        block = functools.partial(
            TransformerBlock,
            self.num_heads,
            mlp_width=self.mlp_width,
            norm_epsilon=self.norm_epsilon,
            activation="gelu_tanh",
            adaptive=True,
            dropout_rate=self.dropout_rate,
            kernel_init=nn.initializers.xavier_uniform(),
            residual_init=nn.initializers.xavier_uniform(),
            implementation=self.implementation,
        )
        stack = TransformerStack(block, self.num_layers, self.scan_layers, self.remat, name="layers")
        x, _ = stack(x, train=train, condition=condition)
        shift, scale = Modulation(2, self.width, name="output_modulation")(condition)
        x = Norm("layer", epsilon=self.norm_epsilon, use_bias=False, use_scale=False, name="output_norm")(
            x, train=train
        )
        output = nn.Dense(self.patch_size**2 * channels, kernel_init=nn.initializers.zeros, name="output")
        return unpatch(output(x * (1 + scale) + shift), self.patch_size, height, width)
