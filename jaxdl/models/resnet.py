"""Residual networks.

v1: He et al. 2015, arXiv:1512.03385 (table 1 for ImageNet, section 4.2 for CIFAR-10). v2, with normalisation and
activation before the convolutions: He et al. 2016, arXiv:1603.05027, fig. 4(e). Paddings are those of PyTorch and of
the authors' Caffe code, the same on both sides, so weights trained there give the same logits here.

>>> import jax, jax.numpy as jnp
>>> model = ResNet(stage_sizes=(1, 1), block="basic", stem="cifar", width=8, num_outputs=10)
>>> images = jnp.zeros((2, 32, 32, 3))
>>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False))[0].shape
(2, 10)
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.layers.activations import Activation
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.regularization import Dropout, StochasticDepth
from jaxdl.types import NonNegativeInt, PositiveFloat, PositiveInt, Rate


@dataclasses.dataclass(frozen=True)
class Parts:
    """What all blocks of a network share. `last_*` are those at a branch's end, which may start at zero."""

    conv: Callable[..., nn.Module]
    last_conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    last_norm: Callable[..., nn.Module]
    activation: Callable[..., nn.Module]
    shortcut: Literal["projection", "pad"]

    def match(self, x, branch, convolutions, project: Callable):
        """The shortcut of `x` past a branch: `x`, in the branch's shape where that is another.

        Args:
          convolutions: those of the branch, whose strides it has to match.
          project: what a projection does with its 1x1 convolution.
        """
        channels, stride = branch.shape[-1], math.prod(stride for _, _, stride in convolutions)
        if x.shape[-1] == channels and stride == 1:
            return x
        if self.shortcut == "pad":
            return subsample_and_pad(x, channels, stride)
        return project(self.conv(channels, 1, stride, name="shortcut_conv"))


class ResNet(nn.Module):
    """A residual network: stem, stages of residual blocks, each stage half the size of the one before, mean, dense.

    Attributes:
      num_outputs: number of classes; 0 leaves the last layer out.
      stage_sizes: blocks of each stage.
      width: channels of the first stage; each stage doubles them.
      block: basic, two 3x3 convolutions; or bottleneck, 1x1, 3x3 and 1x1 with four times the channels.
      version: v1, normalisation and activation after convolutions; or v2, before them.
      stem: imagenet, a 7x7 convolution and max pooling that shrink the image by 4; or cifar, a 3x3 convolution.
      shortcut: where a block changes its shape, projection, a 1x1 convolution (the paper's option B); or pad, every
        second pixel and zeros for the new channels (option A, without parameters).
      bottleneck_stride: where a bottleneck shrinks the image: 3x3, as PyTorch and NVIDIA ("v1.5"); or 1x1, the paper.
      activation: activation by name (jaxdl.layers.activations).
      normalization: batch, layer, group, rms or none.
      num_groups: groups of channels of the group normalisation; must divide every width.
      momentum: share of the old running average that a step of the batch normalisation keeps.
      epsilon: what normalisation adds to the variance.
      zero_init_residual: whether every residual branch starts as zero (Goyal et al. 2017, arXiv:1706.02677, 5.1).
      stochastic_depth_rate: probability of dropping the last block's branch; it grows linearly from the first block.
      dropout_rate: probability of dropping an input of the last layer.
      initializer: initialiser of the convolutions by name (jaxdl.layers.initializers).
    """

    num_outputs: NonNegativeInt = 1000
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: PositiveInt = 64
    block: Literal["basic", "bottleneck"] = "bottleneck"
    version: Literal["v1", "v2"] = "v1"
    stem: Literal["imagenet", "cifar"] = "imagenet"
    shortcut: Literal["projection", "pad"] = "projection"
    bottleneck_stride: Literal["3x3", "1x1"] = "3x3"
    activation: str = "relu"
    normalization: Normalization = "batch"
    num_groups: PositiveInt = 32
    momentum: Rate = 0.9
    epsilon: PositiveFloat = 1e-5
    zero_init_residual: bool = False
    stochastic_depth_rate: Rate = 0.0
    dropout_rate: Rate = 0.0
    initializer: str = "he_normal_fan_out"

    width_fields: ClassVar[tuple[str, ...]] = ("width",)

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Images [B, H, W, C] to logits [B, num_outputs]."""
        parts = self.parts()
        block = {"v1": BlockV1, "v2": BlockV2}[self.version]
        x = inputs
        if self.stem == "imagenet":
            x = parts.conv(self.width, 7, 2, name="stem_conv")(x)
        else:
            x = parts.conv(self.width, 3, name="stem_conv")(x)
        if self.version == "v1":
            x = parts.norm(name="stem_norm")(x, train=train)
            x = parts.activation(name="stem_activation")(x, train=train)
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

        num_blocks = sum(self.stage_sizes)
        depth = 0
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                depth += 1
                convolutions = self.convolutions(self.width * 2**stage, 2 if stage > 0 and index == 0 else 1)
                drop_rate = self.stochastic_depth_rate * (depth / num_blocks)
                x = block(convolutions, parts, drop_rate, name=f"stage{stage}_block{index}")(x, train=train)

        if self.version == "v2":
            x = parts.norm(name="output_norm")(x, train=train)
            x = parts.activation(name="output_activation")(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout_rate, name="dropout")(x, train=train)
        if not self.num_outputs:
            return x
        return nn.Dense(self.num_outputs, name="output")(x)

    def parts(self) -> Parts:
        """What this network hands to its blocks."""
        conv = functools.partial(
            convolution, use_bias=not adds_bias(self.normalization), kernel_init=initializer(self.initializer)
        )
        norm = functools.partial(
            Norm, self.normalization, momentum=self.momentum, epsilon=self.epsilon, num_groups=self.num_groups
        )
        last_conv, last_norm = conv, norm
        if self.zero_init_residual:
            if self.version == "v1" and self.normalization != "none":
                last_norm = functools.partial(norm, scale_init=nn.initializers.zeros)
            else:
                last_conv = functools.partial(conv, kernel_init=nn.initializers.zeros)
        activation = functools.partial(Activation, self.activation)
        return Parts(conv, last_conv, norm, last_norm, activation, self.shortcut)

    def convolutions(self, width: int, stride: int) -> tuple[tuple[int, int, int], ...]:
        """(channels, window, stride) of each convolution of a block."""
        if self.block == "basic":
            return ((width, 3, stride), (width, 3, 1))
        first, second = (stride, 1) if self.bottleneck_stride == "1x1" else (1, stride)
        return ((width, 1, first), (width, 3, second), (4 * width, 1, 1))


class BlockV1(nn.Module):
    """activation(shortcut(x) + branch(x)); the branch is convolutions, each normalised, activations between them.

    Attributes:
      convolutions: (channels, window, stride) of each.
      parts: what all blocks share.
      drop_rate: probability of dropping the branch.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    parts: Parts
    drop_rate: Rate = 0.0

    @nn.compact
    def __call__(self, x, *, train: bool):
        parts, last = self.parts, len(self.convolutions) - 1
        branch = x
        for index, (channels, window, stride) in enumerate(self.convolutions):
            conv, norm = (parts.last_conv, parts.last_norm) if index == last else (parts.conv, parts.norm)
            branch = conv(channels, window, stride, name=f"conv{index}")(branch)
            branch = norm(name=f"norm{index}")(branch, train=train)
            if index < last:
                branch = parts.activation(name=f"activation{index}")(branch, train=train)
        branch = StochasticDepth(self.drop_rate, name="stochastic_depth")(branch, train=train)

        def project(conv):
            return parts.norm(name="shortcut_norm")(conv(x), train=train)

        shortcut = parts.match(x, branch, self.convolutions, project)
        return parts.activation(name=f"activation{last}")(shortcut + branch, train=train)


class BlockV2(nn.Module):
    """shortcut(x) + branch(x); the branch is normalisation, activation and convolution, in this order, repeated.

    A projection sees x after the branch's first normalisation and activation, as in the authors' code.

    Attributes:
      convolutions: (channels, window, stride) of each.
      parts: what all blocks share.
      drop_rate: probability of dropping the branch.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    parts: Parts
    drop_rate: Rate = 0.0

    @nn.compact
    def __call__(self, x, *, train: bool):
        parts, last = self.parts, len(self.convolutions) - 1
        branch = x
        for index, (channels, window, stride) in enumerate(self.convolutions):
            branch = parts.norm(name=f"norm{index}")(branch, train=train)
            branch = parts.activation(name=f"activation{index}")(branch, train=train)
            if index == 0:
                activated = branch
            conv = parts.last_conv if index == last else parts.conv
            branch = conv(channels, window, stride, name=f"conv{index}")(branch)
        branch = StochasticDepth(self.drop_rate, name="stochastic_depth")(branch, train=train)

        return parts.match(x, branch, self.convolutions, lambda conv: conv(activated)) + branch


def convolution(channels: int, window: int, stride: int = 1, **options) -> nn.Conv:
    """A square convolution, padded so that stride 1 keeps the image's size."""
    padding = (window - 1) // 2
    return nn.Conv(channels, (window, window), (stride, stride), padding=((padding, padding),) * 2, **options)


def subsample_and_pad(x, channels: int, stride: int):
    """Option A: every `stride`-th pixel of x [B, H, W, C], with zeros for channels C and up."""
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
