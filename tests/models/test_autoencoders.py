"""What autoencoders promise beside what every model does."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.distributions import DiagonalGaussian
from jaxdl.models import autoencoders, create
from jaxdl.scaling.flops import model_shapes
from tests.models.variables import random_variables

SMALL = {
    "autoencoder": {"widths": (6,), "code_size": 3},
    "vae": {"widths": (6,), "code_size": 3},
    "convolutional_autoencoder": {"widths": (4, 6), "code_size": 3},
    "convolutional_vae": {"widths": (4,), "code_size": 3, "normalization": "layer"},
    "stacked_autoencoder": {"widths": (6, 3)},
}
SHAPE = (8, 8, 1)


def build(name, **fields):
    model = create(name, input_shape=SHAPE, **SMALL[name], **fields)
    return model, random_variables(model, SHAPE)


def test_the_example():
    assert doctest.testmod(autoencoders).failed == 0


@pytest.mark.parametrize("name", SMALL)
def test_calling_is_encoding_and_decoding(name):
    model, variables = build(name)
    x = jax.random.uniform(jax.random.key(0), (4, *SHAPE))
    codes = model.apply(variables, x, train=False, method="encode")
    assert isinstance(codes, DiagonalGaussian) == ("vae" in name)
    means = codes.mode() if "vae" in name else codes
    assert means.shape == (4, 3)
    outputs = model.apply(variables, means, train=False, method="decode")
    np.testing.assert_allclose(outputs, model.apply(variables, x, train=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "stacked_autoencoder"])
def test_the_class_reaches_code_and_image(name):
    model = create(name, input_shape=SHAPE, num_classes=4, **SMALL[name])
    x, labels = jax.random.uniform(jax.random.key(0), (2, *SHAPE)), jnp.array([1, 1])
    variables = model.init(jax.random.key(1), x, labels, train=False)
    others = jnp.array([1, 2])
    for method, inputs in (("encode", x), ("decode", jnp.ones((2, 3)))):
        outputs = [
            jax.tree.leaves(model.apply(variables, inputs, told, train=False, method=method))[0]
            for told in (labels, others)
        ]
        differs = np.abs(outputs[0] - outputs[1]).reshape(2, -1).max(axis=1)
        assert differs[0] == 0 and differs[1] > 0


def test_a_stage_sees_one_layer_of_the_stack():
    whole, variables = build("stacked_autoencoder")
    stage, _ = build("stacked_autoencoder", stage=1)
    x = jax.random.uniform(jax.random.key(0), (4, *SHAPE))
    assert whole.apply(variables, x, train=False, method="represent") is None
    below = stage.apply(variables, x, train=False, method="represent")
    assert below.shape == (4, 6)

    def loss(params):
        state = {"params": params}
        codes = stage.apply(state, below, train=False, method="encode")
        return jnp.square(stage.apply(state, codes, train=False, method="decode") - below).sum()

    moved = {top for top, grads in jax.grad(loss)(variables["params"]).items() if jnp.any(grads["kernel"] != 0)}
    assert moved == {"hidden1", "decoder1"}
    # Of the last stage, and through the layers below, the outputs are those of the whole.
    outputs = stage.apply(
        variables, stage.apply(variables, below, train=False, method="encode"), train=False, method="decode"
    )
    outputs = stage.apply(variables, outputs, train=False, method="restore")
    np.testing.assert_allclose(outputs, whole.apply(variables, x, train=False), rtol=1e-6)


def test_an_mlp_has_layers_of_the_same_names_and_shapes():
    stack = model_shapes(create("stacked_autoencoder", widths=(6, 3)), (28, 28, 1))["params"]
    mlp = model_shapes(create("mlp", widths=(6, 3)), (28, 28, 1))["params"]
    assert jax.tree.map(jnp.shape, {top: mlp[top] for top in ("hidden0", "hidden1")}) == jax.tree.map(
        jnp.shape, {top: stack[top] for top in ("hidden0", "hidden1")}
    )


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("stacked_autoencoder", {"stage": 2, "widths": (3, 2)}, "has the stages 0 to 1"),
        ("stacked_autoencoder", {"widths": ()}, "--model.widths is empty"),
        ("stacked_autoencoder", {"num_classes": 3}, "is told no classes"),
        ("convolutional_vae", {"input_shape": (30,)}, "need images"),
        ("convolutional_vae", {"input_shape": (30, 30, 1)}, "cannot be halved 2 times"),
    ],
)
def test_bad_hyperparameters(name, fields, message):
    model = create(name, **fields)
    with pytest.raises(InputError, match=message) as caught:
        model_shapes(model, model.input_shape)
    assert "\n" not in str(caught.value)
