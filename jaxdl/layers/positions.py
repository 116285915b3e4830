"""Where a token stands: learned, sinusoidal and rotary positions, and the slopes of ALiBi.

Shapes: B examples, T tokens, N heads, D features of a head.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.types import PositiveInt


def segment_positions(segments):
    """Places that begin at 0 anew with each segment: int32 [B, T] for segments [B, T].

    >>> segment_positions(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    places = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return places - jax.lax.cummax(jnp.where(begins, places, 0), axis=1)


def _angles(positions, features: int, wavelength):
    """positions * wavelength^(-i / features) for i < features: float32 [..., features]."""
    exponents = jnp.arange(features, dtype=jnp.float32) / features
    return jnp.expand_dims(positions.astype(jnp.float32), -1) * jnp.expand_dims(
        jnp.asarray(wavelength, jnp.float32) ** -exponents, tuple(range(positions.ndim))
    )


def sinusoidal(positions, width: int, wavelength=10_000.0):
    """Sines and cosines of geometrically falling frequencies. Vaswani et al. 2017, arXiv:1706.03762, section 3.5.

    Args:
      positions: numbers [...].
      width: features of a position; even.
      wavelength: 2 pi times this is the longest wave's length.

    Returns:
      float32 [..., width]; features 2i and 2i + 1 are sine and cosine of positions * wavelength^(-2i / width).

    Raises:
      InputError: an odd width.
    """
    if width % 2:
        raise InputError(f"sinusoidal positions need an even width, not {width}.")
    angles = _angles(positions, width // 2, wavelength)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*positions.shape, width)


def sinusoidal_2d(height: int, width: int, features: int, wavelength=10_000.0):
    """Sinusoidal positions of a grid, row by row. Chen et al. 2021 (MoCo v3), arXiv:2104.02057, section 4.1.

    Args:
      height, width: rows and columns.
      features: features of a position; a multiple of 4.
      wavelength: as in `sinusoidal`.

    Returns:
      float32 [height * width, features]: sines and cosines of the column, then sines and cosines of the row.

    Raises:
      InputError: features that 4 does not divide.
    """
    if features % 4:
        raise InputError(f"two-dimensional sinusoidal positions need a width that 4 divides, not {features}.")
    rows, columns = jnp.divmod(jnp.arange(height * width), width)
    of_column = _angles(columns, features // 4, wavelength)
    of_row = _angles(rows, features // 4, wavelength)
    return jnp.concatenate([jnp.sin(of_column), jnp.cos(of_column), jnp.sin(of_row), jnp.cos(of_row)], axis=-1)


class LearnedPositions(nn.Module):
    """A learned vector for each place, drawn from a normal distribution of standard deviation 0.02.

    Attributes:
      max_length: number of places.
      width: features of a place.
    """

    max_length: PositiveInt
    width: PositiveInt

    @nn.compact
    def __call__(self, positions):
        """Places [B or 1, T], each below `max_length`, to vectors [B or 1, T, width].

        Raises:
          InputError: more tokens than places.
        """
        if positions.shape[-1] > self.max_length:
            raise InputError(
                f"{positions.shape[-1]} tokens are more than max_length={self.max_length} positions: "
                "raise max_length, or give shorter sequences."
            )
        table = nn.Embed(self.max_length, self.width, embedding_init=nn.initializers.normal(0.02), name="embed")
        return table(positions)


def rotate(x, positions, theta=10_000.0):
    """Rotary positions: pairs of features turned by an angle that grows with the place.

    Su et al. 2021, arXiv:2104.09864, eq. 34. Feature i is paired with i + D/2, as in GPT-NeoX and Llama's published
    weights on the Hugging Face hub, rather than with its neighbour.

    Args:
      x: queries or keys [B, T, N, D]; D is even.
      positions: places [B or 1, T].
      theta: pair i turns by theta^(-2i / D) a place.

    Returns:
      [B, T, N, D] of the dtype of `x`; the products of queries and keys depend on the distance of their places alone.

    Raises:
      InputError: an odd D.
    """
    if x.shape[-1] % 2:
        raise InputError(f"rotary positions need an even head size, not {x.shape[-1]}.")
    angles = _angles(positions, x.shape[-1] // 2, theta)[:, :, None]
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """The slope of each head, float32 [N]. Press et al. 2022, arXiv:2108.12409, section 3.

    For a power of two, 2^(-8 i / N) for i = 1 .. N. For another number the authors' code takes those of the next lower
    power M, and then every second one of 2 M.

    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """

    def geometric(count):
        return 2.0 ** (-8.0 * np.arange(1, count + 1) / count)

    lower = 2 ** int(math.log2(num_heads))
    slopes = np.concatenate([geometric(lower), geometric(2 * lower)[::2]])
    return slopes[:num_heads].astype(np.float32)


def alibi_bias(num_heads: int, query_positions, key_positions):
    """What ALiBi adds to the attention logits: minus slope times distance.

    Args:
      num_heads: N.
      query_positions: places [B or 1, T].
      key_positions: places [B or 1, S].

    Returns:
      float32 [B or 1, N, T, S].
    """
    distances = jnp.abs(query_positions[:, :, None] - key_positions[:, None, :]).astype(jnp.float32)
    return -jnp.asarray(alibi_slopes(num_heads))[None, :, None, None] * distances[:, None]
