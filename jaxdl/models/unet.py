"""The U-Net of denoising diffusion. Ho et al. 2020, arXiv:2006.11239, appendix B; Ronneberger et al. 2015.

The defaults are its network for CIFAR-10, of 35.7 million parameters.

>>> import jax, jax.numpy as jnp
>>> model = UNet(width=8, multipliers=(1, 2), blocks_per_level=1, num_groups=4, num_classes=10)
>>> inputs = jnp.zeros((2, 16, 16, 1)), jnp.array([0, 999]), jnp.array([3, 10])
>>> model.init_with_output(jax.random.key(0), *inputs, train=False)[0].shape
(2, 16, 16, 1)
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.attention import Implementation, MultiHeadAttention
from jaxdl.layers.conditioning import TimeAndClass
from jaxdl.layers.normalization import Norm
from jaxdl.layers.regularization import Dropout
from jaxdl.layers.resampling import copies
from jaxdl.types import NonNegativeInt, PositiveFloat, PositiveInt, Rate


class ResidualBlock(nn.Module):
    """Two convolutions, with the condition added between them, beside a shortcut.

    Attributes:
      features: channels of the result.
      num_groups: groups of channels of the normalisation.
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element before the second convolution, which begins at zero.
    """

    features: PositiveInt
    num_groups: PositiveInt
    norm_epsilon: PositiveFloat
    dropout_rate: Rate

    @nn.compact
    def __call__(self, x, condition, *, train: bool):
        """[B, H, W, C] and [B, E] to [B, H, W, features]."""
        norm = lambda name: Norm("group", epsilon=self.norm_epsilon, num_groups=self.num_groups, name=name)
        hidden = nn.silu(norm("norm1")(x, train=train))
        hidden = nn.Conv(self.features, (3, 3), name="conv1")(hidden)
        hidden = hidden + nn.Dense(self.features, name="condition")(nn.silu(condition))[:, None, None]
        hidden = nn.silu(norm("norm2")(hidden, train=train))
        hidden = Dropout(self.dropout_rate, name="dropout")(hidden, train=train)
        hidden = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros, name="conv2")(hidden)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), name="shortcut")(x)
        return x + hidden


class AttentionBlock(nn.Module):
    """Attention among all positions, as a residual branch that begins at zero.

    Attributes:
      num_heads: heads of the attention.
      num_groups: groups of channels of the normalisation.
      norm_epsilon: what normalisation adds to the variance.
      implementation: auto or xla; see `MultiHeadAttention`.
    """

    num_heads: PositiveInt
    num_groups: PositiveInt
    norm_epsilon: PositiveFloat
    implementation: Implementation

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, H, W, C] to the same."""
        norm = Norm("group", epsilon=self.norm_epsilon, num_groups=self.num_groups, name="norm")
        attention = MultiHeadAttention(
            self.num_heads,
            kernel_init=nn.initializers.lecun_normal(),
            output_init=nn.initializers.zeros,
            implementation=self.implementation,
            name="attention",
        )
        attended, _ = attention(norm(x, train=train).reshape(len(x), -1, x.shape[-1]))
        return x + attended.reshape(x.shape)


class UNet(nn.Module):
    """Residual blocks on the way down to few pixels and up again, where each is given what was there on the way down.

    Attributes:
      width: channels of the first convolution; the condition has four times as many.
      multipliers: channels of each level, in units of width; each has half the height and width of the one before.
      blocks_per_level: residual blocks of a level on the way down; one more on the way up.
      attention_levels: levels, from 0, whose blocks are followed by attention; the middle has it in any case.
      num_heads: heads of the attention.
      num_groups: groups of channels of the normalisation; must divide all of them.
      num_classes: classes of the labels 0 .. num_classes - 1; 0 is a model without labels.
      dropout_rate: probability of dropping an element within a residual block.
      norm_epsilon: what normalisation adds to the variance.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    width: PositiveInt = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: PositiveInt = 2
    attention_levels: tuple[int, ...] = (1,)
    num_heads: PositiveInt = 1
    num_groups: PositiveInt = 32
    num_classes: NonNegativeInt = 0
    dropout_rate: Rate = 0.0
    norm_epsilon: PositiveFloat = 1e-6
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, inputs, times, labels=None, *, train: bool):
        """Noised images [B, H, W, C] at `times` int32 [B] to what is predicted of them, [B, H, W, C].

        `labels`, int32 [B], are for a model with classes; label `num_classes`, or none at all, is no class.

        Raises:
          InputError: height or width that cannot be halved so often, or labels for a model without classes.
        """
        halvings = len(self.multipliers) - 1
        if inputs.shape[1] % 2**halvings or inputs.shape[2] % 2**halvings:
            raise InputError(
                f"images of {inputs.shape[1]}x{inputs.shape[2]} pixels cannot be halved {halvings} times: give "
                f"multipliers of fewer levels, or images whose sides {2**halvings} divides."
            )
        condition = TimeAndClass(4 * self.width, self.num_classes, self.width, name="condition")(times, labels)
        condition = condition.astype(inputs.dtype)

        def level(x, index, name):
            features = self.width * self.multipliers[index]
            x = self._block(features, f"{name}_block")(x, condition, train=train)
            return self._attention(f"{name}_attention")(x, train=train) if index in self.attention_levels else x

        x = nn.Conv(self.width, (3, 3), name="input")(inputs)
        kept = [x]
        for index in range(len(self.multipliers)):
            for number in range(self.blocks_per_level):
                x = level(x, index, f"down{index}_{number}")
                kept.append(x)
            if index < halvings:
                x = nn.Conv(x.shape[-1], (3, 3), (2, 2), padding=((1, 1), (1, 1)), name=f"down{index}")(x)
                kept.append(x)
        x = self._block(x.shape[-1], "middle_block1")(x, condition, train=train)
        x = self._attention("middle_attention")(x, train=train)
        x = self._block(x.shape[-1], "middle_block2")(x, condition, train=train)
        for index in reversed(range(len(self.multipliers))):
            for number in range(self.blocks_per_level + 1):
                x = level(jnp.concatenate([x, kept.pop()], axis=-1), index, f"up{index}_{number}")
            if index > 0:
                x = nn.Conv(x.shape[-1], (3, 3), name=f"up{index}")(copies(x))
        norm = Norm("group", epsilon=self.norm_epsilon, num_groups=self.num_groups, name="output_norm")
        x = nn.silu(norm(x, train=train))
        return nn.Conv(inputs.shape[-1], (3, 3), kernel_init=nn.initializers.zeros, name="output")(x)

    def _block(self, features: int, name: str) -> ResidualBlock:
        return ResidualBlock(features, self.num_groups, self.norm_epsilon, self.dropout_rate, name=name)

    def _attention(self, name: str) -> AttentionBlock:
        return AttentionBlock(self.num_heads, self.num_groups, self.norm_epsilon, self.implementation, name=name)
