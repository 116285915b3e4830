"""MLP, CNN and LeNet-5: the choices that their fields offer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.activations import ACTIVATIONS
from jaxdl.layers.normalization import NORMALIZATIONS
from jaxdl.models import create
from jaxdl.scaling.flops import model_shapes, parameter_count
from tests.models.variables import random_variables


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_takes_every_activation(activation):
    model = create("mlp", widths=(4,), activation=activation, num_outputs=2)
    x = jax.random.normal(jax.random.key(0), (3, 5))
    variables = model.init(jax.random.key(0), x, train=False)
    hidden = x @ variables["params"]["hidden0"]["kernel"]
    output = variables["params"]["output"]["kernel"]
    # The network is this activation between two matrix products, so it is linear only for the identity.
    is_linear = np.allclose(model.apply(variables, x, train=False), hidden @ output, atol=1e-5)
    assert is_linear == (activation == "identity")


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20"])
def test_normalizations_have_one_bias(name, normalization):
    """Either the normalisation adds a bias or the layer before it does, never both."""
    small = {"stage_sizes": (1,)} if name == "resnet20" else {"widths": (8,)}
    model = create(name, normalization=normalization, **small)
    params = model_shapes(model, (8, 8, 3))["params"]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    num_layers = sum("kernel" in path for path in paths)
    assert sum("bias" in path for path in paths) == num_layers


def test_mlp_without_hidden_layers_is_linear():
    model = create("mlp", widths=(), num_outputs=2)
    assert parameter_count(model_shapes(model, (5,))) == 12


def test_activation_parameter():
    x = jnp.array([[-1.0]])
    leaky = create("mlp", widths=(4,), activation="leaky_relu", activation_parameter=0.5, num_outputs=1)
    relu = create("mlp", widths=(4,), activation="leaky_relu", activation_parameter=0.0, num_outputs=1)
    variables = leaky.init(jax.random.key(0), x, train=False)
    # leaky(x) - relu(x) = slope * min(x, 0), so half of what the identity would have added.
    hidden = x @ variables["params"]["hidden0"]["kernel"]
    difference = 0.5 * jnp.minimum(hidden, 0) @ variables["params"]["output"]["kernel"]
    np.testing.assert_allclose(
        leaky.apply(variables, x, train=False) - relu.apply(variables, x, train=False), difference, atol=1e-6
    )


def test_groups_must_divide_the_width():
    with pytest.raises(InputError, match="100 channels do not divide into 8 groups"):
        model_shapes(create("mlp", widths=(100,), normalization="group"), (5,))


def test_lenet_variants_have_the_same_size():
    padded = model_shapes(create("lenet5"), (28, 28, 1))
    valid = model_shapes(create("lenet5", padding="valid", pooling="max", activation="relu"), (32, 32, 1))
    assert parameter_count(padded) == parameter_count(valid) == 61_706


def test_lenet_padding_is_two_zeros_on_each_side():
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    variables = random_variables(create("lenet5"), (28, 28, 1))
    padded = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(
        create("lenet5").apply(variables, x, train=False),
        create("lenet5", padding="valid").apply(variables, padded, train=False),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(("field", "value"), [("activation", "relu"), ("pooling", "max")])
def test_lenet_choices_change_the_function(field, value):
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    variables = random_variables(create("lenet5"), (28, 28, 1))
    changed = create("lenet5", **{field: value}).apply(variables, x, train=False)
    assert not np.allclose(create("lenet5").apply(variables, x, train=False), changed, atol=1e-3)
