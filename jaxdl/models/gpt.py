"""Decoder-only transformer: GPT-2, Llama, and what lies between them.

GPT-2: Radford et al. 2019, Language models are unsupervised multitask learners, section 2.3. Llama: Touvron et al.
2023, arXiv:2302.13971, section 2.2. Normalisation stands before each branch and after the last block.

>>> import jax, jax.numpy as jnp
>>> model = GPT(vocab_size=256, num_layers=2, num_heads=4, width=64, positions="rotary", activation="swiglu")
>>> model.init_with_output(jax.random.key(0), jnp.zeros((2, 16), jnp.int32), train=False)[0].shape
(2, 16, 256)

Generation reads a prompt with `start` and goes on token by token with `step`, both called through `apply`
(`model.apply(variables, tokens, lengths, capacity, method="start")`). `jaxdl.weights` takes over the weights of GPT-2
and Llama in Hugging Face's files, and gives them back.

Shapes: B examples, T tokens, V tokens of the vocabulary.
"""

import functools
import math
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.attention import Implementation, KVCache, segment_mask
from jaxdl.layers.normalization import Norm
from jaxdl.layers.positions import LearnedPositions, alibi_bias, segment_positions, sinusoidal
from jaxdl.layers.regularization import Dropout
from jaxdl.layers.transformer import TransformerBlock, TransformerStack
from jaxdl.types import PositiveFloat, PositiveInt, Rate

Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]


class GPT(nn.Module):
    """A language model: token embeddings, positions, blocks of causal attention and MLP, normalisation, logits.

    Kernels and embeddings start normal with standard deviation 0.02, those at the end of a residual branch with
    0.02 / sqrt(2 num_layers), biases as zero.

    Attributes:
      vocab_size: number of tokens V.
      max_length: most tokens of a sequence where positions are learned; the others have no limit.
      num_layers: number of blocks.
      num_heads: query heads.
      num_kv_heads: key and value heads, each shared by several query heads; unset is num_heads.
      head_dim: features of a head; unset is width / num_heads.
      width: features of a token.
      mlp_width: hidden units of the MLP; unset is 4 width.
      positions: learned, sinusoidal (with embeddings times sqrt(width), as in the first transformer), rotary, alibi, or
        none.
      rope_theta: base of the rotary positions.
      normalization: layer or rms.
      norm_epsilon: what normalisation adds to the variance.
      activation: activation of the MLP: gelu, gelu_tanh, relu, ... (jaxdl.layers.activations), swiglu or geglu.
      use_bias: whether dense layers and layer normalisation have biases.
      tied_head: whether the token embeddings give the logits, too; else a dense layer without bias.
      dropout_rate: probability of dropping an element of the embeddings or of a branch's end.
      scan_layers: whether blocks are one scan, which compiles a single block; dropout draws other numbers then.
      remat: whether the backward pass computes activations of a block again rather than keep them.
      implementation: of attention: auto, cuDNN in half precision on NVIDIA GPUs and else XLA; or xla.
    """

    vocab_size: PositiveInt = 50_257
    max_length: PositiveInt = 1024
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    num_kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    width: PositiveInt = 768
    mlp_width: PositiveInt | None = None
    positions: Positions = "learned"
    rope_theta: PositiveFloat = 10_000.0
    normalization: Literal["layer", "rms"] = "layer"
    norm_epsilon: PositiveFloat = 1e-5
    activation: str = "gelu"
    use_bias: bool = True
    tied_head: bool = True
    dropout_rate: Rate = 0.0
    scan_layers: bool = False
    remat: bool = False
    implementation: Implementation = "auto"

    width_fields: ClassVar[tuple[str, ...]] = ("width", "mlp_width", "num_heads", "num_kv_heads")

    def multipliers(self, ratio: float) -> dict[str, float]:
        """What parametrizations multiply by at `ratio` times the base width, beside what shapes tell, by path pattern.

        It undoes the embeddings' sqrt(width) where there is one; a tied head's multiplier is in what the head reads.
        """
        embedding = ratio**-0.5 if self.positions == "sinusoidal" else 1.0
        head = {"output_norm": 1 / (ratio * embedding)} if self.tied_head else {}
        return {"token_embedding": embedding, **head}

    def setup(self):
        kinds = get_args(Positions)
        if self.positions not in kinds:
            raise InputError(f"there are no positions '{self.positions}'; there are: {', '.join(kinds)}.")
        normal = nn.initializers.normal
        self.token_embedding = nn.Embed(self.vocab_size, self.width, embedding_init=normal(0.02))
        if self.positions == "learned":
            self.position_embedding = LearnedPositions(self.max_length, self.width)
        self.dropout = Dropout(self.dropout_rate)
        block = functools.partial(
            TransformerBlock,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            mlp_width=self.mlp_width,
            normalization=self.normalization,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            use_bias=self.use_bias,
            dropout_rate=self.dropout_rate,
            rope_theta=self.rope_theta if self.positions == "rotary" else None,
            residual_init=normal(0.02 / math.sqrt(2 * self.num_layers)),
            implementation=self.implementation,
        )
        self.layers = TransformerStack(block, self.num_layers, scan=self.scan_layers, remat=self.remat)
        self.output_norm = Norm(self.normalization, epsilon=self.norm_epsilon, use_bias=self.use_bias)
        if not self.tied_head:
            self.head = nn.Dense(self.vocab_size, use_bias=False, kernel_init=normal(0.02))

    def __call__(self, tokens, segments=None, *, train: bool):
        """The logits of each next token.

        Args:
          tokens: int32 [B, T].
          segments: int32 [B, T], the document of each token in a packed row: attention does not cross documents, and
            positions begin anew with each. None is one document a row.
          train: whether to drop at random (rng `dropout`).

        Returns:
          [B, T, V]; a token outside the vocabulary gives NaN.

        Raises:
          InputError: more tokens than learned positions; sizes that do not divide.
        """
        if segments is None:
            positions, mask = jnp.arange(tokens.shape[1])[None], None
        else:
            positions, mask = segment_positions(segments), segment_mask(segments)
        x = self._embed(tokens, positions, train)
        x, _ = self.layers(
            x, train=train, positions=positions, mask=mask, bias=self._bias(positions, positions), is_causal=True
        )
        return self._logits(x)

    def start(self, tokens, lengths, capacity: int):
        """Reads prompts, and makes room for `capacity` tokens in all.

        Args:
          tokens: int32 [B, T], padded on the right.
          lengths: int32 [B], tokens of each prompt, at least 1.
          capacity: most tokens of a prompt and what is generated after it.

        Returns:
          What `step` carries on, arrays with the batch axis first; and logits [B, V] of the token after each prompt.

        Raises:
          InputError: a prompt longer than `capacity`, or a capacity beyond the learned positions.
        """
        batch, length = tokens.shape
        if length > capacity:
            raise InputError(f"a prompt of {length} tokens is longer than the capacity of {capacity}.")
        if self.positions == "learned" and capacity > self.max_length:
            raise InputError(
                f"{capacity} tokens are more than the model's max_length={self.max_length} positions: give a shorter "
                "prompt, or ask for fewer tokens."
            )
        positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
        x, caches = self._read(tokens, positions, self._empty_caches(batch, capacity))
        x = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)
        return (caches, lengths.astype(jnp.int32)), self._logits(x)[:, 0]

    def step(self, carry, token):
        """Reads one token more of each example.

        Args:
          carry: from `start` or the last `step`.
          token: int32 [B].

        Returns:
          The next carry, and the logits [B, V] of the token after this one; NaN beyond the capacity.
        """
        caches, lengths = carry
        x, caches = self._read(token[:, None], lengths[:, None], caches)
        full = lengths >= self._capacity(caches)
        return (caches, lengths + 1), jnp.where(full[:, None], jnp.nan, self._logits(x)[:, 0])

    def _read(self, tokens, positions, caches):
        """Tokens at places [B, T], each seeing those of the caches up to its own place. A cache's slot is a place.

        What padding has written after a prompt is hidden by that, and overwritten by the tokens that follow.
        """
        slots = jnp.arange(self._capacity(caches))[None]
        mask = (slots[:, None] <= positions[:, :, None])[:, None]
        x = self._embed(tokens, positions, train=False)
        return self.layers(x, caches, train=False, positions=positions, mask=mask, bias=self._bias(positions, slots))

    def _empty_caches(self, batch: int, capacity: int):
        """One cache for each block, as TransformerStack takes them."""
        num_heads = self.num_kv_heads or self.num_heads
        head_dim = self.head_dim or self.width // self.num_heads
        dtype = self.token_embedding.embedding.dtype
        layers = (self.num_layers,) if self.scan_layers else ()
        empty = jnp.zeros((batch, *layers, capacity, num_heads, head_dim), dtype)
        return KVCache(empty, empty) if self.scan_layers else (KVCache(empty, empty),) * self.num_layers

    @staticmethod
    def _capacity(caches) -> int:
        return jax.tree.leaves(caches)[0].shape[-3]

    def _embed(self, tokens, positions, train: bool):
        x = self.token_embedding(tokens)
        if self.positions == "learned":
            x = x + self.position_embedding(positions)
        elif self.positions == "sinusoidal":
            x = x * math.sqrt(self.width) + sinusoidal(positions, self.width).astype(x.dtype)
        return self.dropout(x, train=train)

    def _bias(self, query_positions, key_positions):
        return alibi_bias(self.num_heads, query_positions, key_positions) if self.positions == "alibi" else None

    def _logits(self, x):
        x = self.output_norm(x, train=False)
        return self.token_embedding.attend(x) if self.tied_head else self.head(x)
