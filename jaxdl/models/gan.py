"""DCGAN: a generator and a discriminator of images, of classes too where there are any.

Radford et al. 2016, arXiv:1511.06434, section 3, fitted to images smaller than 64x64 by fewer layers. The generator is
told the class as Mirza and Osindero 2014, arXiv:1411.1784, do; the discriminator's projection is that of Miyato and
Koyama 2018, arXiv:1802.05637, eq. 3.

>>> import jax, jax.numpy as jnp
>>> model = GAN(image_shape=(28, 28, 1))
>>> variables = model.init(jax.random.key(0), jnp.zeros((2, 64)), train=False)
>>> images = model.apply(variables, jnp.zeros((2, 64)), train=False, method="generate")
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.layers.conditioning import with_classes
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Normalization
from jaxdl.layers.resampling import Downsampling, Upsampling, UpsamplingKind
from jaxdl.layers.spectral import SpectralNorm
from jaxdl.types import NonNegativeInt, PositiveInt


class Generator(nn.Module):
    """Noise, and a class, to an image.

    Attributes:
      image_shape: height, width and channels.
      widths: channels of the maps before each doubling.
      num_classes: 0: labels are not looked at.
      upsampling: how maps are doubled (`jaxdl.layers.resampling.Upsampling`).
      normalization: of all layers but the last.
      num_groups: groups of the group normalisation.
      initializer: kernel initialiser by name.
    """

    image_shape: tuple[int, ...] = (28, 28, 1)
    widths: tuple[int, ...] = (128, 64)
    num_classes: NonNegativeInt = 0
    upsampling: UpsamplingKind = "transposed"
    normalization: Normalization = "batch"
    num_groups: PositiveInt = 8
    initializer: str = "normal"

    @nn.compact
    def __call__(self, latents, labels=None, *, train: bool):
        """Latents [B, D] and labels int [B] to images [B, H, W, C] in -1 .. 1."""
        images = Upsampling(
            self.image_shape,
            self.widths,
            self.upsampling,
            normalization=self.normalization,
            num_groups=self.num_groups,
            initializer=self.initializer,
            name="upsampling",
        )(with_classes(latents, labels, self.num_classes), train=train)
        return jnp.tanh(images)


class Discriminator(nn.Module):
    """An image, and a class, to the logit of its being real.

    Attributes:
      widths: channels after each halving.
      num_classes: 0: labels are not looked at.
      normalization: of all convolutions but the first.
      num_groups: groups of the group normalisation.
      spectral_norm: whether all kernels are spectrally normalised.
      initializer: kernel initialiser by name.
    """

    widths: tuple[int, ...] = (64, 128)
    num_classes: NonNegativeInt = 0
    normalization: Normalization = "batch"
    num_groups: PositiveInt = 8
    spectral_norm: bool = False
    initializer: str = "normal"

    @nn.compact
    def __call__(self, images, labels=None, *, train: bool):
        """Images [B, H, W, C] in -1 .. 1 and labels int [B] to logits [B, 1]."""
        x = Downsampling(
            self.widths,
            activation="leaky_relu",
            activation_parameter=0.2,
            normalization=self.normalization,
            num_groups=self.num_groups,
            spectral_norm=self.spectral_norm,
            initializer=self.initializer,
            name="downsampling",
        )(images, train=train)
        features = x.reshape(x.shape[0], -1)
        logits = self._dense(1, "output", features, train)
        if not self.num_classes:
            return logits
        # The inner product of the features with the vector of the class.
        classes = jax.nn.one_hot(labels, self.num_classes, dtype=features.dtype)
        projections = self._dense(self.num_classes, "classes", features, train, use_bias=False)
        return logits + (projections * classes).sum(axis=-1, keepdims=True)

    def _dense(self, width: int, name: str, x, train: bool, use_bias: bool = True):
        dense = nn.Dense(width, use_bias=use_bias, kernel_init=initializer(self.initializer), name=name)
        return SpectralNorm(dense, name=f"spectral_{name}")(x, train=train) if self.spectral_norm else dense(x)


class GAN(nn.Module):
    """A generator and a discriminator that judges it; their parameters are the subtrees of these names.

    Attributes:
      image_shape: height, width and channels.
      num_classes: classes that both are told; 0 is none.
      generator_widths: channels of the generator's maps before each doubling.
      discriminator_widths: channels of the discriminator's maps after each halving.
      upsampling: how the generator doubles maps: transposed convolutions as in the paper, subpixel or nearest.
      generator_normalization: of all layers of the generator but the last: batch, layer, group, rms or none.
      discriminator_normalization: of all convolutions of the discriminator but the first. A gradient penalty looks at
        each image alone, as batch normalisation does not; layer does.
      num_groups: groups of channels of the group normalisation; must divide every width.
      spectral_norm: whether the discriminator's kernels are spectrally normalised.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    image_shape: tuple[int, ...] = (28, 28, 1)
    num_classes: NonNegativeInt = 0
    generator_widths: tuple[int, ...] = (128, 64)
    discriminator_widths: tuple[int, ...] = (64, 128)
    upsampling: UpsamplingKind = "transposed"
    generator_normalization: Normalization = "batch"
    discriminator_normalization: Normalization = "batch"
    num_groups: PositiveInt = 8
    spectral_norm: bool = False
    initializer: str = "normal"

    def setup(self):
        common = {"num_classes": self.num_classes, "num_groups": self.num_groups, "initializer": self.initializer}
        self.generator = Generator(
            self.image_shape,
            self.generator_widths,
            upsampling=self.upsampling,
            normalization=self.generator_normalization,
            **common,
        )
        self.discriminator = Discriminator(
            self.discriminator_widths,
            normalization=self.discriminator_normalization,
            spectral_norm=self.spectral_norm,
            **common,
        )

    def generate(self, latents, labels=None, *, train: bool):
        """Latents [B, D], of any D, and labels int [B] to images [B, H, W, C] in -1 .. 1."""
        return self.generator(latents, labels, train=train)

    def discriminate(self, images, labels=None, *, train: bool):
        """Images [B, H, W, C] in -1 .. 1 and labels int [B] to logits [B, 1] of being real."""
        return self.discriminator(images, labels, train=train)

    def __call__(self, latents, labels=None, *, train: bool):
        """Logits [B, 1] of generated images."""
        return self.discriminate(self.generate(latents, labels, train=train), labels, train=train)
