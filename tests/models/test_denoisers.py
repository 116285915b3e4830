"""U-Net and DiT: what time, class and neighbours do to a denoised image, how they begin, and what does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.patches import patches, unpatch
from jaxdl.models import create
from jaxdl.scaling.flops import model_shapes, parameter_count
from tests.models.variables import random_variables

SMALL = {
    "unet": {"width": 4, "multipliers": (1, 2), "blocks_per_level": 1, "num_groups": 2, "num_classes": 3},
    "dit": {"patch_size": 2, "width": 8, "num_layers": 2, "num_heads": 2, "num_classes": 3},
}
SHAPES, DTYPES = ((4, 8, 2), (), ()), ("float32", "int32", "int32")
IMAGES = jax.random.normal(jax.random.key(1), (2, 4, 8, 2))
TIMES, LABELS = jnp.array([10, 700]), jnp.array([0, 2])

each = pytest.mark.parametrize("name", SMALL)


@functools.cache
def denoiser(name):
    model = create(name, **SMALL[name])
    variables = random_variables(model, SHAPES, DTYPES)
    return jax.jit(functools.partial(model.apply, variables, train=False))


@each
def test_time_and_class_matter(name):
    denoise = denoiser(name)
    outputs = denoise(IMAGES, TIMES, LABELS)
    assert outputs.shape == IMAGES.shape
    assert not np.allclose(outputs, denoise(IMAGES, TIMES + 1, LABELS), atol=1e-4)
    assert not np.allclose(outputs, denoise(IMAGES, TIMES, LABELS[::-1]), atol=1e-3)


@each
def test_no_class_is_a_class_of_its_own_and_what_is_given_without_labels(name):
    denoise = denoiser(name)
    without = denoise(IMAGES, TIMES)
    np.testing.assert_allclose(denoise(IMAGES, TIMES, jnp.array([3, 3])), without, atol=1e-6)
    assert not np.allclose(denoise(IMAGES, TIMES, jnp.array([2, 2])), without, atol=1e-3)


@each
def test_every_pixel_may_depend_on_every_other(name):
    """Attention, at the latest, carries one corner to the other."""
    model = create(name, **SMALL[name])
    variables = random_variables(model, SHAPES, DTYPES)

    def corner(images):
        return model.apply(variables, images, TIMES, LABELS, train=False)[0, 0, 0, 0]

    gradient = jax.jit(jax.grad(corner))(IMAGES)
    assert (jnp.abs(gradient[0]).sum(axis=-1) > 0).all() and not gradient[1].any()


@each
def test_predictions_begin_at_zero(name):
    model = create(name, **{**SMALL[name], **({"multipliers": (1,)} if name == "unet" else {"num_layers": 1})})
    outputs, variables = model.init_with_output(jax.random.key(0), IMAGES, TIMES, LABELS, train=False)
    assert not outputs.any()
    assert 0.01 < variables["params"]["condition"]["classes"]["embedding"].std() < 0.03


def test_adaptive_blocks_begin_as_the_identity():
    """What reaches the output of a DiT at its beginning is its patches and their positions."""
    model = create("dit", **SMALL["dit"])
    variables = model.init(jax.random.key(0), IMAGES, TIMES, LABELS, train=False)
    _, state = model.apply(
        variables, IMAGES, TIMES, LABELS, train=False, capture_intermediates=lambda module, _: module.name == "layers"
    )
    [(x, _)] = state["intermediates"]["layers"]["__call__"]
    table = variables["params"]["patches"]
    embedded = patches(IMAGES, 2) @ table["kernel"] + table["bias"][None, None]
    positions = x - embedded
    np.testing.assert_allclose(positions[0], positions[1], atol=1e-5)  # the same of each image
    assert np.abs(positions).max() <= 1.001


def test_unpatch_is_the_inverse_of_patches():
    np.testing.assert_array_equal(unpatch(patches(IMAGES, 2), 2, 4, 8), IMAGES)


def test_parameters_of_the_choices():
    count = lambda name, **fields: parameter_count(
        model_shapes(create(name, **{**SMALL[name], **fields}), SHAPES[:2], DTYPES[:2])
    )
    # A row of the table for each class and one for none: the condition has 4 * 4 and 8 features.
    assert count("unet") - count("unet", num_classes=0) == 4 * 16
    assert count("dit") - count("dit", num_classes=0) == 4 * 8
    # A block of attention at a level: one on the way down and two on the way up, of 8 channels: norm and projections.
    more = count("unet", attention_levels=(1,)) - count("unet", attention_levels=())
    assert more == 3 * (2 * 8 + 4 * (8 * 8 + 8))


@pytest.mark.parametrize(
    ("name", "fields", "shape", "message"),
    [
        ("unet", {"multipliers": (1, 1, 1)}, (4, 6, 2), "images of 4x6 pixels cannot be halved 2 times.*4 divides"),
        ("unet", {"num_groups": 3}, (4, 8, 2), "4 channels do not divide into 3 groups"),
        ("unet", {"num_classes": 0}, (4, 8, 2), "no classes to be given labels"),
        ("dit", {"num_classes": 0}, (4, 8, 2), "no classes to be given labels"),
        ("dit", {"patch_size": 3}, (4, 8, 2), "images of 4x8 pixels do not divide into patches of 3x3"),
    ],
)
def test_what_does_not_fit(name, fields, shape, message):
    with pytest.raises(InputError, match=message):
        model_shapes(create(name, **{**SMALL[name], **fields}), (shape, (), ()), DTYPES)
