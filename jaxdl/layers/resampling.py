"""Convolutions that halve images, and that double them: encoders and decoders, discriminators and generators.

Radford et al. 2016, Unsupervised representation learning with deep convolutional generative adversarial networks
(DCGAN, arXiv:1511.06434), section 3. Shapes: B images [B, H, W, C], D features.

>>> import jax
>>> layer = Upsampling(image_shape=(28, 28, 1), widths=(16, 8))
>>> layer.init_with_output(jax.random.key(0), jnp.zeros((2, 20)), train=False)[0].shape
(2, 28, 28, 1)
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.activations import Activation
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.spectral import SpectralNorm

UpsamplingKind = Literal["transposed", "subpixel", "nearest"]

_WINDOW, _STRIDE, _PADDING = (4, 4), (2, 2), ((1, 1), (1, 1))


class Downsampling(nn.Module):
    """For each width a 4x4 convolution of stride 2, normalisation (not of the first) and activation.

    Attributes:
      widths: channels after each convolution; each halves the image.
      activation: activation by name (jaxdl.layers.activations).
      activation_parameter: its own number, such as the slope of leaky_relu.
      normalization: batch, layer, group, rms or none.
      num_groups: groups of the group normalisation.
      spectral_norm: whether the kernels are spectrally normalised.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    activation_parameter: float | None = None
    normalization: Normalization = "none"
    num_groups: int = 8
    spectral_norm: bool = False
    initializer: str = "he_normal"

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, H, W, C] to [B, H / 2^n, W / 2^n, widths[-1]], n being the number of widths.

        Raises:
          InputError: the image cannot be halved so often.
        """
        check_halvings(x.shape[1:3], len(self.widths))
        for index, width in enumerate(self.widths):
            normalization = self.normalization if index else "none"
            conv = nn.Conv(
                width,
                _WINDOW,
                _STRIDE,
                padding=_PADDING,
                use_bias=not adds_bias(normalization),
                kernel_init=initializer(self.initializer),
                name=f"conv{index}",
            )
            x = SpectralNorm(conv, name=f"spectral{index}")(x, train=train) if self.spectral_norm else conv(x)
            x = Norm(normalization, num_groups=self.num_groups, name=f"norm{index}")(x, train=train)
            x = Activation(self.activation, self.activation_parameter, name=f"activation{index}")(x, train=train)
        return x


class Upsampling(nn.Module):
    """A dense layer to small maps, and convolutions that double them up to an image; each normalised and activated.

    Attributes:
      image_shape: height, width and channels of the image.
      widths: channels of the maps before each doubling.
      kind: what doubles: transposed convolutions of 4x4 (Radford et al.); subpixel convolutions of 3x3 (Shi et al.
        2016, arXiv:1609.05158, section 3.2), which train several times as fast on a CPU; or nearest, copies of each
        pixel and a 3x3 convolution (Odena et al. 2016, Deconvolution and checkerboard artifacts).
      activation: activation by name (jaxdl.layers.activations); the image itself has none.
      normalization: batch, layer, group, rms or none.
      num_groups: groups of the group normalisation.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    image_shape: tuple[int, ...]
    widths: tuple[int, ...]
    kind: UpsamplingKind = "transposed"
    activation: str = "relu"
    normalization: Normalization = "none"
    num_groups: int = 8
    initializer: str = "he_normal"

    @nn.compact
    def __call__(self, features, *, train: bool):
        """Features [B, D] to images [B, *image_shape].

        Raises:
          InputError: the image cannot be halved as often as there are widths.
        """
        height, width, channels = self.image_shape
        check_halvings((height, width), len(self.widths))
        small = (height >> len(self.widths), width >> len(self.widths), self.widths[0])
        use_bias, kernel_init = not adds_bias(self.normalization), initializer(self.initializer)
        dense = nn.Dense(small[0] * small[1] * small[2], use_bias=use_bias, kernel_init=kernel_init, name="dense")
        x = self._finish(dense(features).reshape(-1, *small), 0, train)
        for index, width in enumerate(self.widths[1:], 1):
            x = self._double(x, width, use_bias, f"conv{index - 1}")
            x = self._finish(x, index, train)
        return self._double(x, channels, True, f"conv{len(self.widths) - 1}")

    def _finish(self, x, index: int, train: bool):
        x = Norm(self.normalization, num_groups=self.num_groups, name=f"norm{index}")(x, train=train)
        return Activation(self.activation, name=f"activation{index}")(x, train=train)

    def _double(self, x, width: int, use_bias: bool, name: str):
        options = {"use_bias": use_bias, "kernel_init": initializer(self.initializer), "name": name}
        if self.kind == "transposed":
            return nn.ConvTranspose(width, _WINDOW, _STRIDE, padding="SAME", **options)(x)
        if self.kind == "subpixel":
            return depth_to_space(nn.Conv(4 * width, (3, 3), **options)(x))
        return nn.Conv(width, (3, 3), **options)(copies(x))


def copies(x):
    """[B, H, W, C] to [B, 2 H, 2 W, C]: each pixel becomes four of its value."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def depth_to_space(x):
    """[B, H, W, 4 C] to [B, 2 H, 2 W, C]: each pixel's channels become two by two pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def check_halvings(size: tuple[int, ...], count: int) -> None:
    """Raises InputError where images of this height and width cannot be halved `count` times, or `count` is 0."""
    if not count or any(side % 2**count for side in size):
        raise InputError(
            f"images of {'x'.join(map(str, size))} cannot be halved {count} times, once for each of the widths; "
            f"give between 1 and {min(_halvings(side) for side in size)} widths."
        )


def _halvings(side: int) -> int:
    return (side & -side).bit_length() - 1
