"""Bidirectional transformer encoders of text. Devlin et al. 2018, arXiv:1810.04805 (BERT).

`MaskedBert` is what is pretrained, `BertClassifier` what is fine-tuned; both have the same subtree `encoder`.

>>> import jax, jax.numpy as jnp
>>> model = MaskedBert(vocab_size=50, max_length=16, width=32, num_layers=2, num_heads=2)
>>> tokens, lengths = jnp.zeros((2, 8), jnp.int32), jnp.array([8, 5])
>>> model.init_with_output(jax.random.key(0), tokens, lengths, train=False)[0].shape
(2, 8, 50)
"""

import dataclasses
import functools
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.layers.activations import Activation
from jaxdl.layers.attention import Implementation, padding_mask, segment_mask
from jaxdl.layers.normalization import Norm
from jaxdl.layers.positions import LearnedPositions, segment_positions
from jaxdl.layers.regularization import Dropout
from jaxdl.layers.transformer import TransformerBlock, TransformerStack
from jaxdl.types import PositiveFloat, PositiveInt, Rate


class Bert(nn.Module):
    """What all modules of this file are given.

    Attributes:
      vocab_size: number of token ids.
      max_length: most tokens of a text where positions are learned; rotary ones have no limit.
      num_token_types: number of token types, such as first and second sentence.
      width: channels of a token.
      num_layers: number of blocks.
      num_heads: heads of the attention.
      mlp_width: hidden units of the MLP; unset is 4 * width.
      positions: learned, a vector for each place; or rotary, as in RoFormer (Su et al. 2021, arXiv:2104.09864), which
        learns faster.
      activation: activation by name (jaxdl.layers.activations).
      norm_epsilon: what normalisation adds to the variance.
      dropout_rate: probability of dropping an element of the embeddings, and of a branch's end.
      initializer_range: standard deviation of embeddings and kernels in the beginning. 0.02 is BERT's, 768 wide; narrow
        models learn sooner from about 1 / sqrt(width).
      scan_layers: whether blocks are one scan, which compiles a single block; dropout draws other numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    vocab_size: PositiveInt = 30522
    max_length: PositiveInt = 512
    num_token_types: PositiveInt = 2
    width: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_width: PositiveInt | None = None
    positions: Literal["learned", "rotary"] = "learned"
    activation: str = "gelu"
    norm_epsilon: PositiveFloat = 1e-12
    dropout_rate: Rate = 0.0
    initializer_range: PositiveFloat = 0.02
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    width_fields: ClassVar[tuple[str, ...]] = ("width", "mlp_width", "num_heads")

    def initializer(self):
        """That of embeddings and kernels."""
        return nn.initializers.truncated_normal(self.initializer_range)

    def make_encoder(self) -> "Encoder":
        """The encoder of these sizes, as the submodule `encoder`."""
        names = [field.name for field in dataclasses.fields(Bert) if field.name not in ("parent", "name")]
        return Encoder(**{name: getattr(self, name) for name in names}, name="encoder")


class Encoder(Bert):
    """Tokens, their positions and their types, embedded and normalised, and blocks that normalise after each branch."""

    def setup(self):
        initializer = self.initializer()
        self.token_embedding = nn.Embed(self.vocab_size, self.width, embedding_init=initializer)
        self.type_embedding = nn.Embed(self.num_token_types, self.width, embedding_init=initializer)
        if self.positions == "learned":
            self.position_embedding = LearnedPositions(self.max_length, self.width)
        self.embedding_norm = Norm("layer", epsilon=self.norm_epsilon)
        self.embedding_dropout = Dropout(self.dropout_rate)
        block = functools.partial(
            TransformerBlock,
            self.num_heads,
            mlp_width=self.mlp_width,
            norm_position="post",
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            rope_theta=10_000.0 if self.positions == "rotary" else None,
            kernel_init=initializer,
            residual_init=initializer,
            implementation=self.implementation,
        )
        self.layers = TransformerStack(block, self.num_layers, self.scan_layers, self.remat)

    def __call__(self, tokens, lengths=None, segments=None, token_types=None, *, train: bool):
        """Tokens to their vectors.

        Args:
          tokens: int32 [B, T].
          lengths: int32 [B], the real tokens of each row; those behind are seen by none. Unset: all are real.
          segments: int32 [B, T], the documents of packed rows: 1, 2, ...; 0 is padding. No document sees another.
          token_types: int32 [B, T]; unset is 0.

        Returns:
          [B, T, width].

        Raises:
          InputError: more tokens than learned positions.
        """
        if segments is None:
            places, mask = jnp.arange(tokens.shape[1])[None], None
        else:
            places, mask = segment_positions(segments), segment_mask(segments)
        if lengths is not None:
            real = padding_mask(lengths, tokens.shape[1])
            mask = real if mask is None else mask & real
        if token_types is None:
            token_types = jnp.zeros_like(tokens[:1])
        x = self.token_embedding(tokens) + self.type_embedding(token_types)
        if self.positions == "learned":
            x = x + self.position_embedding(places)
        x = self.embedding_dropout(self.embedding_norm(x, train=train), train=train)
        return self.layers(x, train=train, positions=places, mask=mask)[0]

    def decode(self, x):
        """Vectors [..., width] to logits [..., vocab_size], with the embeddings of the tokens."""
        return self.token_embedding.attend(x)


class MaskedBert(Bert):
    """BERT with the head that tells hidden tokens: a dense layer, and the embeddings of the tokens as the decoder."""

    def multipliers(self, ratio: float) -> dict[str, float]:
        """What parametrizations multiply by at `ratio` times the base width: what the tied head reads."""
        return {"transform_norm": 1 / ratio}

    @nn.compact
    def __call__(self, tokens, lengths=None, segments=None, token_types=None, *, positions=None, train: bool):
        """Tokens [B, T], and the other arguments of `Encoder`, to logits.

        Args:
          positions: int32 [B, K], the places to predict; unset is all.

        Returns:
          [B, K or T, vocab_size].
        """
        encoder = self.make_encoder()
        x = encoder(tokens, lengths, segments, token_types, train=train)
        if positions is not None:
            x = jnp.take_along_axis(x, positions[:, :, None], axis=1)
        x = nn.Dense(self.width, kernel_init=self.initializer(), name="transform")(x)
        x = Activation(self.activation, name="activation")(x, train=train)
        x = Norm("layer", epsilon=self.norm_epsilon, name="transform_norm")(x, train=train)
        bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,))
        return encoder.decode(x) + bias[None, None].astype(x.dtype)


class BertClassifier(Bert):
    """BERT with a pooler and a classifier of whole texts.

    Attributes:
      num_outputs: number of classes, or 1 for the log odds of two.
      pool: first, the first token's output, for vocabularies that put [CLS] there; or mean, over the real tokens.
    """

    num_outputs: PositiveInt = 2
    pool: Literal["first", "mean"] = "first"

    @nn.compact
    def __call__(self, tokens, lengths=None, segments=None, token_types=None, *, train: bool):
        """Tokens [B, T], and the other arguments of `Encoder`, to logits [B, num_outputs]."""
        x = self.make_encoder()(tokens, lengths, segments, token_types, train=train)
        x = nn.tanh(nn.Dense(self.width, kernel_init=self.initializer(), name="pooler")(self._pooled(x, lengths)))
        x = Dropout(self.dropout_rate, name="dropout")(x, train=train)
        return nn.Dense(self.num_outputs, kernel_init=self.initializer(), name="output")(x)

    def _pooled(self, x, lengths):
        if self.pool == "first":
            return x[:, 0]
        if lengths is None:
            return x.mean(axis=1)
        real = padding_mask(lengths, x.shape[1])[:, 0, 0, :, None]
        return jnp.where(real, x, 0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)
