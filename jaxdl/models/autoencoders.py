"""Autoencoders: dense, convolutional and stacked ones, and variational ones.

Hinton and Salakhutdinov 2006, Reducing the dimensionality of data with neural networks; variational: Kingma and Welling
2014, Auto-encoding variational Bayes (arXiv:1312.6114); stacked: Vincent et al. 2010, Stacked denoising autoencoders
(JMLR 11). Shapes: B examples, D numbers of a code. What the output means (logits of pixels, means of real numbers) is
the task's to say.

>>> import jax, jax.numpy as jnp
>>> model = Autoencoder(widths=(500,), code_size=20, variational=True)
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
(2, 28, 28, 1)
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.activations import Activation
from jaxdl.layers.conditioning import with_classes
from jaxdl.layers.distributions import DiagonalGaussian
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Normalization
from jaxdl.layers.resampling import Downsampling, Upsampling, UpsamplingKind
from jaxdl.types import NonNegativeInt, PositiveInt


class _Coder(nn.Module):
    """What autoencoders share: `encode` and `decode` by the parts that a class has, and the two in a row."""

    def encode(self, inputs, labels=None, *, train: bool):
        """Inputs [B, *input_shape] to codes [B, code_size]; of a variational one, to their `DiagonalGaussian`."""
        codes = self.code(with_classes(self._features(inputs, train), labels, self.num_classes))
        if not self.variational:
            return codes
        mean, log_variance = jnp.split(codes, 2, axis=-1)
        return DiagonalGaussian(mean, log_variance / 2)

    def decode(self, codes, labels=None, *, train: bool):
        """Codes [B, code_size] to outputs [B, *input_shape], of any range."""
        return self._outputs(with_classes(codes, labels, self.num_classes), train)

    def represent(self, inputs, *, train: bool):
        """What is reconstructed instead of the inputs: None, as it is the inputs. `StackedAutoencoder` has more."""
        return None

    def restore(self, outputs, *, train: bool):
        """What `decode` gives as outputs [B, *input_shape]: they are. `StackedAutoencoder` has more."""
        return outputs

    def __call__(self, inputs, labels=None, *, train: bool):
        """Inputs [B, *input_shape] to their reconstructions, of the same shape; a variational one by the mean code."""
        codes = self.encode(inputs, labels, train=train)
        return self.decode(codes.mode() if self.variational else codes, labels, train=train)


class Autoencoder(_Coder):
    """Dense layers to a code and, mirrored, back. Without hidden layers it is linear, and spans what PCA does.

    Attributes:
      input_shape: of an example.
      num_classes: classes that encoder and decoder are told; 0 is none.
      widths: units of each hidden layer of the encoder; the decoder has them in the other order.
      code_size: numbers of a code.
      variational: whether the encoder gives a distribution of codes.
      activation: activation of the hidden layers by name (jaxdl.layers.activations).
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    input_shape: tuple[int, ...] = (28, 28, 1)
    num_classes: NonNegativeInt = 0
    widths: tuple[int, ...] = (500,)
    code_size: PositiveInt = 20
    variational: bool = False
    activation: str = "relu"
    initializer: str = "lecun_normal"

    def setup(self):
        dense = lambda width: nn.Dense(width, kernel_init=initializer(self.initializer))
        _number(self, "hidden", [dense(width) for width in self.widths])
        _number(self, "activation", [Activation(self.activation) for _ in self.widths])
        self.code = dense(self.code_size * (2 if self.variational else 1))
        _number(self, "decoder", [dense(width) for width in self.widths[::-1]])
        _number(self, "decoder_activation", [Activation(self.activation) for _ in self.widths])
        self.output = dense(math.prod(self.input_shape))

    def _features(self, inputs, train: bool):
        x = inputs.reshape(inputs.shape[0], -1)
        for index in range(len(self.widths)):
            x = getattr(self, f"activation{index}")(getattr(self, f"hidden{index}")(x), train=train)
        return x

    def _outputs(self, x, train: bool):
        for index in range(len(self.widths)):
            x = getattr(self, f"decoder_activation{index}")(getattr(self, f"decoder{index}")(x), train=train)
        return self.output(x).reshape(-1, *self.input_shape)


class ConvolutionalAutoencoder(_Coder):
    """Convolutions that halve the image, a dense layer to a code, and the way back. Masci et al. 2011 halve by pooling.

    Attributes:
      input_shape: height, width and channels of an image.
      num_classes: classes that encoder and decoder are told; 0 is none.
      widths: channels after each halving; the decoder has them in the other order.
      code_size: numbers of a code.
      variational: whether the encoder gives a distribution of codes.
      upsampling: how the decoder doubles maps: transposed, subpixel or nearest (jaxdl.layers.resampling).
      activation: activation of the hidden layers by name (jaxdl.layers.activations).
      normalization: of the hidden layers: batch, layer, group, rms or none.
      num_groups: groups of channels of the group normalisation; must divide every width.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    input_shape: tuple[int, ...] = (28, 28, 1)
    num_classes: NonNegativeInt = 0
    widths: tuple[int, ...] = (32, 64)
    code_size: PositiveInt = 20
    variational: bool = False
    upsampling: UpsamplingKind = "subpixel"
    activation: str = "relu"
    normalization: Normalization = "none"
    num_groups: PositiveInt = 8
    initializer: str = "he_normal"

    def setup(self):
        if len(self.input_shape) != 3:
            raise InputError(
                f"convolutions need images [height, width, channels], and inputs are {list(self.input_shape)}; "
                "take --model=autoencoder, or vae."
            )
        common = {
            "activation": self.activation,
            "normalization": self.normalization,
            "num_groups": self.num_groups,
            "initializer": self.initializer,
        }
        self.encoder = Downsampling(self.widths, **common)
        self.code = nn.Dense(self.code_size * (2 if self.variational else 1))
        self.decoder = Upsampling(self.input_shape, self.widths[::-1], self.upsampling, **common)

    def _features(self, inputs, train: bool):
        return self.encoder(inputs, train=train).reshape(inputs.shape[0], -1)

    def _outputs(self, codes, train: bool):
        return self.decoder(codes, train=train)


class StackedAutoencoder(nn.Module):
    """Dense layers, each the code of the one before, that can be trained one at a time. Vincent et al., section 3.5.

    At stage k, layer k learns to reconstruct what the layers before it make of the input. The other layers have no
    gradient and stay as they are, but for weight decay, from which `--freeze` keeps them. A run of the next stage begins
    with the one before (`--initialize_from`); stage none trains all layers together to reconstruct the input. The
    encoder's layers have the names of an `MLP`'s, which can begin with them as well.

    Attributes:
      input_shape: of an example.
      num_classes: 0; a stack is told no classes.
      widths: units of each layer of the encoder; the last is the code.
      stage: the layer that is trained, from 0; none is all of them.
      activation: activation of all layers but the output, by name (jaxdl.layers.activations).
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    input_shape: tuple[int, ...] = (28, 28, 1)
    num_classes: NonNegativeInt = 0
    widths: tuple[int, ...] = (500, 250, 32)
    stage: NonNegativeInt | None = None
    activation: str = "sigmoid"
    initializer: str = "xavier_uniform"

    def setup(self):
        if self.num_classes:
            raise InputError("a stacked autoencoder is told no classes: take --model=autoencoder, or no conditional.")
        if not self.widths:
            raise InputError("--model.widths is empty: a stack has a width for each of its layers.")
        if (self.stage or 0) >= len(self.widths):
            raise InputError(
                f"--model.stage={self.stage}: a stack of {len(self.widths)} layers has the stages 0 to "
                f"{len(self.widths) - 1}."
            )
        dense = lambda width: nn.Dense(width, kernel_init=initializer(self.initializer))
        _number(self, "hidden", [dense(width) for width in self.widths])
        _number(self, "activation", [Activation(self.activation) for _ in self.widths])
        _number(self, "decoder", [dense(width) for width in (math.prod(self.input_shape), *self.widths[:-1])])
        _number(self, "decoder_activation", [Activation(self.activation) for _ in self.widths[:-1]])

    def represent(self, inputs, *, train: bool):
        """What the stage reconstructs, if it is not the inputs: the representation below its layer, [B, width]."""
        return self._up(inputs, 0, self.stage, train) if self.stage else None

    def encode(self, inputs, labels=None, *, train: bool):
        """Inputs [B, *input_shape], or what `represent` gives, to codes [B, width] of the stage's layer or the last."""
        last = len(self.widths) if self.stage is None else self.stage + 1
        return self._up(inputs, self.stage or 0, last, train)

    def decode(self, codes, labels=None, *, train: bool):
        """Codes back to what the stage reconstructs: [B, *input_shape] of any range, or a representation [B, width]."""
        first, last = (0, len(self.widths)) if self.stage is None else (self.stage, self.stage + 1)
        x = self._down(codes, first, last, train)
        return x if first else x.reshape(-1, *self.input_shape)

    def restore(self, outputs, *, train: bool):
        """What `decode` gives, through the layers below the stage's, to outputs [B, *input_shape]."""
        return self._down(outputs, 0, self.stage, train).reshape(-1, *self.input_shape) if self.stage else outputs

    def __call__(self, inputs, labels=None, *, train: bool):
        """Inputs [B, *input_shape] through all layers and back, whatever the stage."""
        codes = self._up(inputs, 0, len(self.widths), train)
        return self._down(codes, 0, len(self.widths), train).reshape(-1, *self.input_shape)

    def _up(self, x, first: int, last: int, train: bool):
        x = x.reshape(x.shape[0], -1)
        for index in range(first, last):
            x = getattr(self, f"activation{index}")(getattr(self, f"hidden{index}")(x), train=train)
        return x

    def _down(self, x, first: int, last: int, train: bool):
        for index in reversed(range(first, last)):
            x = getattr(self, f"decoder{index}")(x)
            if index:  # the output has none
                x = getattr(self, f"decoder_activation{index - 1}")(x, train=train)
        return x


def _number(module: nn.Module, name: str, layers) -> None:
    """Makes them submodules called name0, name1, ... as those of an `MLP`; in `setup`."""
    for index, layer in enumerate(layers):
        setattr(module, f"{name}{index}", layer)
