"""What the GAN promises beside what every model does."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import create, gan

TINY = {"image_shape": (8, 8, 1), "generator_widths": (4, 3), "discriminator_widths": (3, 4)}
LATENTS = jax.random.normal(jax.random.key(0), (3, 5))


def build(labels=None, **fields):
    model = create("dcgan", **TINY, **fields)
    return model, model.init(jax.random.key(1), LATENTS, labels, train=False)


def test_the_example():
    assert doctest.testmod(gan).failed == 0


@pytest.mark.parametrize("upsampling", ["transposed", "subpixel", "nearest"])
def test_images_are_in_range_and_judged(upsampling):
    model, variables = build(upsampling=upsampling)
    assert set(variables["params"]) == {"generator", "discriminator"}
    images = model.apply(variables, 100 * LATENTS, train=False, method="generate")
    assert images.shape == (3, 8, 8, 1) and float(jnp.abs(images).max()) <= 1
    judged = model.apply(variables, images, train=False, method="discriminate")
    np.testing.assert_allclose(judged, model.apply(variables, 100 * LATENTS, train=False), rtol=1e-5, atol=1e-6)


def test_the_class_reaches_both_players():
    labels, others = jnp.array([0, 1, 2]), jnp.array([0, 1, 1])
    model, variables = build(labels, num_classes=3, spectral_norm=True)
    images = jnp.ones((3, 8, 8, 1)) / 2
    for method, inputs in (("generate", LATENTS), ("discriminate", images)):
        one, two = (model.apply(variables, inputs, told, train=False, method=method) for told in (labels, others))
        differs = np.abs(one - two).reshape(3, -1).max(axis=1)
        assert differs[0] == differs[1] == 0 < differs[2]


def test_spectral_normalisation_bounds_the_slope_of_the_discriminator():
    """Each layer is 1-Lipschitz in its own matrix; a 4x4 window of stride 2 meets a pixel four times: a factor of 2."""
    model, variables = build(spectral_norm=True, discriminator_normalization="none")
    large = jax.tree.map(lambda x: 50 * x, variables["params"])
    state = variables["batch_stats"]
    apply = jax.jit(
        lambda state, images: model.apply(
            {"params": large, "batch_stats": state}, images, train=True, method="discriminate", mutable=["batch_stats"]
        )
    )
    images = jax.random.uniform(jax.random.key(2), (2, 8, 8, 1))
    for _ in range(100):
        _, changed = apply(state, images)
        state = {**state, **changed["batch_stats"]}
    slope = jax.grad(lambda images: apply(state, images)[0].sum())(images)
    assert float(jnp.sqrt(jnp.square(slope).sum(axis=(1, 2, 3))).max()) <= 2.0**2
