"""Images and texts in one space. Radford et al. 2021, Learning transferable visual models, arXiv:2103.00020 (CLIP).

>>> import jax, jax.numpy as jnp
>>> model = CLIP(vocab_size=50, max_length=8, width=32, num_layers=2, num_heads=2, text_width=32, text_num_layers=2,
...              text_num_heads=2, patch_size=8, projection_width=16)
>>> inputs = jnp.zeros((2, 16, 16, 3)), jnp.zeros((2, 8), jnp.int32), jnp.array([8, 5])  # images, tokens, lengths
>>> model.init_with_output(jax.random.key(0), *inputs, train=False)[0].shape
(2, 2, 16)

Zero-shot classification: of `encode_image` and of `encode_text` of a sentence for each class, both called through
`apply`, the greatest product is the class. `jaxdl.weights` takes over the weights of Hugging Face's CLIPModel.

Shapes: B examples, T tokens, D features of the common space.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.layers.attention import Implementation
from jaxdl.layers.normalization import Norm
from jaxdl.layers.positions import LearnedPositions
from jaxdl.layers.regularization import Dropout
from jaxdl.layers.transformer import TransformerBlock, TransformerStack
from jaxdl.models.vit import ViT
from jaxdl.types import PositiveFloat, PositiveInt, Rate

_INITIAL_TEMPERATURE = 0.07  # the paper's section 2.5


class TextTransformer(nn.Module):
    """A causal transformer of texts; what stands for a text is the output at its last token (section 2.4).

    Attributes:
      vocab_size: number of token ids.
      max_length: most tokens of a text.
      width: channels of a token.
      num_layers: number of blocks.
      num_heads: heads of the attention.
      mlp_width: hidden units of the MLP; unset is 4 * width.
      activation: activation of the MLP by name (jaxdl.layers.activations).
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element of the embeddings, and of a branch's end.
      scan_layers: whether blocks are one scan, which compiles a single block; dropout draws other numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    vocab_size: PositiveInt = 49_408
    max_length: PositiveInt = 77
    width: PositiveInt = 512
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 8
    mlp_width: PositiveInt | None = None
    activation: str = "quick_gelu"
    norm_epsilon: PositiveFloat = 1e-5
    dropout_rate: Rate = 0.0
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, tokens, lengths, *, train: bool):
        """Tokens int32 [B, T] and the lengths int32 [B] of the texts, at least 1, to features [B, width].

        A text ends with its end-of-text token. What stands behind it is padding, which nothing depends on.

        Raises:
          InputError: more tokens than positions.
        """
        x = nn.Embed(self.vocab_size, self.width, embedding_init=nn.initializers.normal(0.02), name="token_embedding")(
            tokens
        )
        positions = LearnedPositions(self.max_length, self.width, name="position_embedding")
        x = Dropout(self.dropout_rate, name="dropout")(x + positions(jnp.arange(tokens.shape[1])[None]), train=train)
        block = functools.partial(
            TransformerBlock,
            self.num_heads,
            mlp_width=self.mlp_width,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            residual_init=nn.initializers.normal(0.02 / math.sqrt(2 * self.num_layers)),
            implementation=self.implementation,
        )
        stack = TransformerStack(block, self.num_layers, self.scan_layers, self.remat, name="layers")
        x, _ = stack(x, train=train, is_causal=True)
        x = Norm("layer", epsilon=self.norm_epsilon, name="output_norm")(x, train=train)
        return jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]


class CLIP(nn.Module):
    """A vision transformer, a text transformer, a projection of each into one space, and a learned temperature.

    The logit of image and text is the cosine of their projections over the temperature, which starts at 0.07 and is at
    least 1 / max_scale. There the value stops, not the gradient, so that the temperature can rise again.

    Attributes:
      patch_size: pixels of a patch's side.
      width: channels of an image's token.
      num_layers: blocks of the image tower.
      num_heads: heads of its attention.
      vocab_size: number of token ids.
      max_length: most tokens of a text.
      text_width: channels of a text's token.
      text_num_layers: blocks of the text tower.
      text_num_heads: heads of its attention.
      projection_width: features of the common space.
      max_scale: the most that cosines are multiplied by.
      activation: activation of the MLPs by name (jaxdl.layers.activations).
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element of the tokens, and of a branch's end, in both towers.
      scan_layers: whether the blocks of a tower are one scan, which compiles a single block; dropout draws other
        numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    patch_size: PositiveInt = 32
    width: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    vocab_size: PositiveInt = 49_408
    max_length: PositiveInt = 77
    text_width: PositiveInt = 512
    text_num_layers: PositiveInt = 12
    text_num_heads: PositiveInt = 8
    projection_width: PositiveInt = 512
    max_scale: PositiveFloat = 100.0
    activation: str = "quick_gelu"
    norm_epsilon: PositiveFloat = 1e-5
    dropout_rate: Rate = 0.0
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    def setup(self):
        common = {
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "dropout_rate": self.dropout_rate,
            "scan_layers": self.scan_layers,
            "remat": self.remat,
            "implementation": self.implementation,
        }
        self.image = ViT(
            num_outputs=0,
            patch_size=self.patch_size,
            patch_bias=False,
            input_norm=True,
            width=self.width,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            **common,
        )
        self.text = TextTransformer(
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            width=self.text_width,
            num_layers=self.text_num_layers,
            num_heads=self.text_num_heads,
            **common,
        )
        self.image_projection = nn.Dense(self.projection_width, use_bias=False)
        self.text_projection = nn.Dense(self.projection_width, use_bias=False)
        self.log_scale = self.param("log_scale", nn.initializers.constant(-math.log(_INITIAL_TEMPERATURE)), ())

    def __call__(self, images, tokens, lengths, *, train: bool):
        """The two halves of each pair in the common space.

        Args:
          images: [B, H, W, C].
          tokens: int32 [B, T]; a text ends with its end-of-text token.
          lengths: int32 [B], tokens of each text, the end included.
          train: whether to drop at random (rng `dropout`).

        Returns:
          [B, 2, D]: the image, of the length 1 / temperature, and the text, of length one. The logit of image i and
          text j is the product of `[i, 0]` and `[j, 1]`.

        Raises:
          InputError: images that do not divide into patches, or of another size than those of the initialisation; more
            tokens than positions.
        """
        images = self.encode_image(images, train=train) * self.scale().astype(images.dtype)
        return jnp.stack([images, self.encode_text(tokens, lengths, train=train)], axis=1)

    def encode_image(self, images, *, train: bool):
        """Images [B, H, W, C] to unit vectors [B, D]."""
        return _unit(self.image_projection(self.image(images, train=train)))

    def encode_text(self, tokens, lengths, *, train: bool):
        """Tokens int32 [B, T] and lengths int32 [B] to unit vectors [B, D]."""
        return _unit(self.text_projection(self.text(tokens, lengths, train=train)))

    def features(self, images, *texts, train: bool):
        """The inputs, of which images [B, H, W, C] alone count, to the image tower's features [B, width]."""
        return self.image(images, train=train)

    def scale(self):
        """What cosines are multiplied by, 1 / temperature: a scalar, at most `max_scale`."""
        beyond = jnp.maximum(self.log_scale - jnp.log(self.max_scale).astype(self.log_scale.dtype), 0)
        return jnp.exp(self.log_scale - jax.lax.stop_gradient(beyond))


def _unit(x):
    """Rows of length one; the square of the length is no less than a tiny number, whose root has a gradient."""
    square = jnp.square(x.astype(jnp.float32)).sum(axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)
