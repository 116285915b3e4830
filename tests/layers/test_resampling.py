"""Images halved and doubled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.resampling import Downsampling, Upsampling, copies, depth_to_space


@pytest.mark.parametrize("kind", ["transposed", "subpixel", "nearest"])
def test_shapes(kind):
    up = Upsampling((8, 12, 3), (6, 4), kind, normalization="batch")
    image, variables = jax.eval_shape(lambda: up.init_with_output(jax.random.key(0), jnp.zeros((2, 5)), train=False))
    assert image.shape == (2, 8, 12, 3)
    assert variables["params"]["dense"]["kernel"].shape == (5, 2 * 3 * 6)
    down = Downsampling((4, 6), normalization="layer")
    maps, _ = jax.eval_shape(lambda: down.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 12, 3)), train=False))
    assert maps.shape == (2, 2, 3, 6)


def test_depth_to_space_is_a_permutation_of_neighbours():
    x = jnp.arange(2 * 2 * 3 * 8.0).reshape(2, 2, 3, 8)
    y = depth_to_space(x)
    assert y.shape == (2, 4, 6, 2)
    np.testing.assert_array_equal(y[1, 2:4, 4:6].reshape(-1), x[1, 1, 2])


@pytest.mark.parametrize("size, widths", [((28, 28), (1, 1, 1)), ((28, 30), (1, 1)), ((8, 8), ())])
def test_images_that_cannot_be_halved_so_often(size, widths):
    for layer, x in (
        (Downsampling(widths), jnp.zeros((1, *size, 1))),
        (Upsampling((*size, 1), widths), jnp.zeros((1, 3))),
    ):
        with pytest.raises(InputError, match="cannot be halved .* times") as caught:
            jax.eval_shape(lambda: layer.init(jax.random.key(0), x, train=False))
        assert "\n" not in str(caught.value)


def test_copies_are_the_nearest_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    np.testing.assert_array_equal(copies(x), jax.image.resize(x, (2, 6, 8, 5), "nearest"))
