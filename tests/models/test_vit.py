"""ViT: how images become tokens, what positions and pooling do, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.positions import sinusoidal_2d
from jaxdl.models import create
from jaxdl.models.vit import patches
from jaxdl.scaling.flops import model_shapes, parameter_count
from tests.models.variables import random_variables

SMALL = {"patch_size": 4, "width": 16, "num_layers": 2, "num_heads": 2, "num_outputs": 3}
IMAGES = jax.random.normal(jax.random.key(1), (2, 8, 12, 3))


def vit(**fields):
    return create("vit", **{**SMALL, **fields})


def variables_of(model):
    return random_variables(model, IMAGES.shape[1:])


def shuffled(images, order):
    """The images with their patches in another order."""
    grid = images.reshape(2, 2, 4, 3, 4, 3).swapaxes(2, 3).reshape(2, 6, 4, 4, 3)[:, order]
    return grid.reshape(2, 2, 3, 4, 4, 3).swapaxes(2, 3).reshape(images.shape)


def test_patches_are_the_squares_row_by_row():
    cut = patches(IMAGES, 4)
    expected = [
        np.asarray(IMAGES)[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(2, -1)
        for row in range(2)
        for column in range(3)
    ]
    np.testing.assert_array_equal(cut, np.stack(expected, axis=1))


def test_a_dense_layer_of_patches_is_a_convolution_with_their_stride():
    kernel = jax.random.normal(jax.random.key(0), (4 * 4 * 3, 5))
    window = kernel.reshape(4, 4, 3, 5)
    layout = ("NHWC", "HWIO", "NHWC")
    convolved = jax.lax.conv_general_dilated(IMAGES, window, (4, 4), "VALID", dimension_numbers=layout)
    np.testing.assert_allclose(patches(IMAGES, 4) @ kernel, convolved.reshape(2, 6, 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
    shapes = model_shapes(vit(), (8, 8, channels))
    assert shapes["params"]["patches"]["kernel"].shape == (16 * channels, 16)


def test_sinusoidal_positions_by_their_formula():
    table = sinusoidal_2d(2, 3, 8)
    frequencies = [1.0, 10_000.0**-0.5]
    for row in range(2):
        for column in range(3):
            x, y = ([place * f for f in frequencies] for place in (column, row))
            expected = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)])
            np.testing.assert_allclose(table[3 * row + column], expected, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_positions_tell_places_apart_and_nothing_else_does(pool, positions):
    model = vit(pool=pool, positions=positions)
    variables = variables_of(model)
    outputs = model.apply(variables, IMAGES, train=False)
    elsewhere = shuffled(IMAGES, np.array([3, 0, 5, 2, 1, 4]))
    assert not np.allclose(model.apply(variables, elsewhere, train=False), outputs, atol=1e-3)
    if positions == "learned":
        variables["params"]["positions"] = jax.tree.map(jnp.zeros_like, variables["params"]["positions"])
        alike = [model.apply(variables, images, train=False) for images in (IMAGES, elsewhere)]
        np.testing.assert_allclose(*alike, rtol=1e-4, atol=1e-4)


def test_pooling():
    """The class token's output, or the mean of the patches', goes through one dense layer."""
    for pool, tokens in (("class", 7), ("mean", 6)):
        model = vit(pool=pool)
        variables = variables_of(model)
        outputs, state = model.apply(
            variables, IMAGES, train=False, capture_intermediates=lambda module, _: module.name == "output_norm"
        )
        [x] = state["intermediates"]["output_norm"]["__call__"]
        assert x.shape == (2, tokens, 16)
        pooled = x[:, 0] if pool == "class" else x.mean(axis=1)
        head = variables["params"]["output"]
        np.testing.assert_allclose(outputs, pooled @ head["kernel"] + head["bias"][None], rtol=1e-4, atol=1e-5)


def test_parameters_of_the_choices():
    count = lambda **fields: parameter_count(model_shapes(vit(**fields), (8, 12, 3)))
    # A class token has a vector and a learned position; the table has a row of 16 for each token.
    assert count() - count(pool="mean") == 2 * 16
    assert count() - count(positions="sinusoidal") == 7 * 16


def test_a_scan_over_layers_is_the_same_function():
    model, scanned = vit(), vit(scan_layers=True, remat=True)
    variables = variables_of(model)
    params = dict(variables["params"])
    blocks = params["layers"]
    params["layers"] = {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), blocks["block0"], blocks["block1"])}
    np.testing.assert_allclose(
        scanned.apply({"params": params}, IMAGES, train=False),
        model.apply(variables, IMAGES, train=False),
        rtol=1e-4,
        atol=1e-5,
    )


def test_patches_must_divide_the_images():
    with pytest.raises(InputError, match="images of 8x12 pixels do not divide into patches of 5x5"):
        model_shapes(vit(patch_size=5), (8, 12, 3))


def test_images_of_another_size_need_other_learned_positions():
    larger = jnp.zeros((1, 16, 12, 3))
    with pytest.raises(InputError, match="images of 13 tokens do not fit 7 learned positions"):
        vit().apply(variables_of(vit()), larger, train=False)
    free = vit(positions="sinusoidal")
    assert free.apply(variables_of(free), larger, train=False).shape == (1, 3)


def test_sinusoidal_positions_need_a_width_that_four_divides():
    with pytest.raises(InputError, match="a width that 4 divides, not 18"):
        model_shapes(vit(width=18, positions="sinusoidal"), (8, 8, 1))


def test_a_rate_may_be_traced_and_vmapped():
    model = vit()
    variables = variables_of(model)

    def apply(rate):
        rngs = {"dropout": jax.random.key(0)}
        return model.clone(dropout_rate=rate).apply(variables, IMAGES, train=True, rngs=rngs)

    together = jax.jit(jax.vmap(apply))(jnp.array([0.1, 0.5]))
    for rate, outputs in zip((0.1, 0.5), together):
        np.testing.assert_allclose(outputs, apply(rate), rtol=1e-3, atol=1e-4)
