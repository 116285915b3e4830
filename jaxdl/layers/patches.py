"""Images as the tokens of a transformer: squares of pixels, and back.

Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 1.

>>> import jax.numpy as jnp
>>> patches(jnp.zeros((2, 28, 28, 3)), size=7).shape
(2, 16, 147)
"""

from jaxdl.errors import InputError


def patches(images, size: int):
    """Images cut into squares: [B, H, W, C] to [B, H/size * W/size, size * size * C], row by row.

    A patch holds its pixels row by row, the channels of a pixel next to each other.

    Raises:
      InputError: patches that do not divide the images.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise InputError(f"images of {height}x{width} pixels do not divide into patches of {size}x{size}.")
    rows, columns = height // size, width // size
    grid = images.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return grid.reshape(batch, rows * columns, size * size * channels)


def unpatch(tokens, size: int, height: int, width: int):
    """The images [B, height, width, C] whose `patches` are `tokens` [B, height/size * width/size, size * size * C]."""
    rows, columns = height // size, width // size
    grid = tokens.reshape(len(tokens), rows, columns, size, size, -1).swapaxes(2, 3)
    return grid.reshape(len(tokens), height, width, -1)
