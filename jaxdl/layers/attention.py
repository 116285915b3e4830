"""Multi-head and grouped-query attention through `jax.nn.dot_product_attention`, masks, and a cache of keys and values.

Vaswani et al. 2017, arXiv:1706.03762, section 3.2; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.

Shapes: B examples, T queries, S keys, C channels, N query heads, K key heads, D features of a head. A mask is boolean
[B or 1, N or 1, T, S], and True where the query may attend to the key; masks are joined with `&`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.positions import rotate
from jaxdl.types import PositiveFloat, PositiveInt

Implementation = Literal["auto", "xla"]


def causal_mask(length: int):
    """Each token sees itself and those before it: [1, 1, T, T]."""
    return jnp.tri(length, dtype=bool)[None, None]


def padding_mask(lengths, size: int):
    """All see the first `lengths` [B] of `size` keys: [B, 1, 1, S]."""
    return (jnp.arange(size)[None] < lengths[:, None])[:, None, None]


def segment_mask(segments):
    """Each token of a packed row sees its own segment: [B, 1, T, T] for segments [B, T]."""
    return (segments[:, :, None] == segments[:, None, :])[:, None]


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, each at its place: [B, S, K, D], S being the capacity."""

    keys: jax.Array
    values: jax.Array

    def write(self, keys, values, positions) -> "KVCache":
        """The cache with keys and values [B, T, K, D] at `positions` [B or 1, T]; those beyond S are left out."""
        rows = jnp.arange(keys.shape[0])[:, None]
        return KVCache(self.keys.at[rows, positions].set(keys), self.values.at[rows, positions].set(values))


class MultiHeadAttention(nn.Module):
    """Self-attention: projections to queries, keys and values, scaled dot products, and a projection back.

    There is no dropout of attention weights: `jax.nn.dot_product_attention` has none, and fused kernels never hold the
    weights. On NVIDIA GPUs (Ampere and later) cuDNN's flash attention runs in half precision where there is no bias and
    no mask but the causal one.

    Attributes:
      num_heads: query heads N.
      num_kv_heads: key and value heads K, each shared by N / K query heads; unset is N.
      head_dim: D; unset is C / N.
      use_bias: whether the four projections have biases.
      rope_theta: base of the rotary positions; unset is none.
      kernel_init: initialiser of the query, key and value kernels.
      output_init: initialiser of the output kernel.
      implementation: auto, cuDNN where it can be used and else XLA; or xla.
    """

    num_heads: PositiveInt
    num_kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    use_bias: bool = True
    rope_theta: PositiveFloat | None = None
    kernel_init: Callable = nn.initializers.normal(0.02)
    output_init: Callable = nn.initializers.normal(0.02)
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, x, cache: KVCache | None = None, *, positions=None, mask=None, bias=None, is_causal=False):
        """Attention among the tokens of `x`, or from them to those of the cache, which they join first.

        Args:
          x: [B, T, C].
          cache: keys and values of earlier tokens; none is attention within `x`.
          positions: places [B or 1, T], for the rotation and for the cache; unset is 0 .. T - 1.
          mask: boolean [B or 1, N or 1, T, S]; with a cache it must hide the places that are not yet written.
          bias: float [B or 1, N or 1, T, S], added to the logits.
          is_causal: whether query t sees no key after t, beside the mask; without a cache only.

        Returns:
          [B, T, C], and the cache with the tokens of `x` (None without one). A query that sees nothing gets the mean
          of all values.

        Raises:
          InputError: heads that do not divide the channels or the query heads.
        """
        batch, length, channels = x.shape
        num_kv_heads = self.num_kv_heads or self.num_heads
        if self.head_dim is None and channels % self.num_heads:
            raise InputError(f"{channels} channels do not divide into num_heads={self.num_heads}.")
        if self.num_heads % num_kv_heads:
            raise InputError(f"num_heads={self.num_heads} is not a multiple of num_kv_heads={num_kv_heads}.")
        head_dim = self.head_dim or channels // self.num_heads

        def project(name, num_heads):
            dense = nn.Dense(num_heads * head_dim, self.use_bias, kernel_init=self.kernel_init, name=name)
            return dense(x).reshape(batch, length, num_heads, head_dim)

        queries = project("query", self.num_heads)
        keys, values = project("key", num_kv_heads), project("value", num_kv_heads)
        if positions is None:
            positions = jnp.arange(length)[None]
        if self.rope_theta is not None:
            queries, keys = (rotate(heads, positions, self.rope_theta) for heads in (queries, keys))
        if cache is not None:
            cache = cache.write(keys, values, positions)
            keys, values = cache
        fused = self.implementation == "auto" and mask is None and bias is None and cudnn_serves(queries)
        attended = jax.nn.dot_product_attention(
            queries, keys, values, bias, mask, is_causal=is_causal, implementation="cudnn" if fused else "xla"
        )
        output = nn.Dense(channels, self.use_bias, kernel_init=self.output_init, name="output")
        return output(attended.reshape(batch, length, self.num_heads * head_dim)), cache


def cudnn_serves(queries) -> bool:
    """Whether cuDNN's flash attention takes queries [B, T, N, D] of this dtype and D on this machine."""
    device = jax.devices()[0]
    if device.platform != "gpu" or "cuda" not in device.client.platform_version:
        return False
    head_dim = queries.shape[-1]
    is_half = queries.dtype in (jnp.bfloat16, jnp.float16)
    return is_half and head_dim % 8 == 0 and head_dim <= 128 and float(device.compute_capability) >= 8
