"""Every activation by name: its values, its edges, its randomness."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.activations import ACTIVATIONS, PARAMETERS, Activation


def phi(x):
    """The normal distribution function."""
    return (1 + math.erf(x / math.sqrt(2))) / 2


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Values at -1 and 2, written out from the papers' formulas. RReLU is that of evaluation.
VALUES = {
    "identity": (-1, 2),
    "sigmoid": (sigmoid(-1), sigmoid(2)),
    "tanh": (math.tanh(-1), math.tanh(2)),
    "softsign": (-1 / 2, 2 / 3),
    "relu": (0, 2),
    "relu6": (0, 2),
    "leaky_relu": (-0.01, 2),
    "prelu": (-0.25, 2),
    "rrelu": (-11 / 48, 2),
    "elu": (math.exp(-1) - 1, 2),
    "celu": (math.exp(-1) - 1, 2),
    "selu": (1.0507009873554805 * 1.6732632423543772 * (math.exp(-1) - 1), 2 * 1.0507009873554805),
    "silu": (-sigmoid(-1), 2 * sigmoid(2)),
    "swish": (-sigmoid(-1), 2 * sigmoid(2)),
    "gelu": (-phi(-1), 2 * phi(2)),
    "gelu_tanh": (
        -0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (-1 - 0.044715))),
        1 + math.tanh(math.sqrt(2 / math.pi) * (2 + 0.044715 * 8)),
    ),
    "quick_gelu": (-sigmoid(-1.702), 2 * sigmoid(2 * 1.702)),
    "mish": (-math.tanh(math.log1p(math.exp(-1))), 2 * math.tanh(math.log1p(math.exp(2)))),
    "softplus": (math.log1p(math.exp(-1)), math.log1p(math.exp(2))),
    "hard_sigmoid": (2 / 6, 5 / 6),
    "hard_silu": (-2 / 6, 2 * 5 / 6),
    "hard_tanh": (-1, 1),
    "softmax": (sigmoid(-3), sigmoid(3)),
}


def apply(name, x, parameter=None, train=False, seed=0):
    model = Activation(name, parameter)
    variables = model.init(jax.random.key(0), x, train=False)
    return model.apply(variables, x, train=train, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values(name):
    x = jnp.array([[-1.0, 2.0]])
    np.testing.assert_allclose(apply(name, x)[0], VALUES[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_finite_at_the_edges(name):
    x = jnp.array([[-1e4, -1.0, 0.0, 1.0, 1e4]])
    assert jnp.isfinite(apply(name, x)).all()
    assert jnp.isfinite(jax.grad(lambda x: apply(name, x).sum())(x)).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("train", [False, True])
def test_dtype_is_kept(name, train):
    parameter = jnp.float32(0.5) if name in PARAMETERS else None
    assert apply(name, jnp.ones((2, 3), jnp.bfloat16), parameter, train).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "leaky_relu": -0.5,
        "prelu": -0.5,
        "elu": 0.5 * (math.exp(-1) - 1),
        "celu": 0.5 * (math.exp(-2) - 1),
        "silu": -sigmoid(-0.5),
        "swish": -sigmoid(-0.5),
    }.items(),
)
def test_own_number(name, expected):
    def at_minus_one(parameter):
        return apply(name, jnp.array([[-1.0]]), parameter)[0, 0]

    np.testing.assert_allclose(at_minus_one(0.5), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(at_minus_one)(jnp.array([0.5, 0.5])), [expected] * 2, rtol=1e-6)


def test_every_activation_with_a_number_is_tested():
    assert set(PARAMETERS) == {"leaky_relu", "prelu", "elu", "celu", "silu", "swish"}


@pytest.mark.parametrize(("name", "learned"), [("prelu", True), ("swish", True), ("silu", False), ("relu", False)])
def test_what_is_learned(name, learned):
    variables = Activation(name).init(jax.random.key(0), jnp.ones((1, 2)), train=False)
    assert [leaf.shape for leaf in jax.tree.leaves(variables)] == ([()] if learned else [])


def test_rrelu_draws_a_slope_for_each_element_in_training():
    slopes = -apply("rrelu", -jnp.ones((8, 500)), train=True)
    assert len(jnp.unique(slopes)) > 3900
    assert 1 / 8 <= slopes.min() and slopes.max() <= 1 / 3
    # Four standard errors of the mean of 4,000 uniform draws of width 5/24.
    np.testing.assert_allclose(slopes.mean(), 11 / 48, atol=4 * (5 / 24) / math.sqrt(12 * 4000))


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [("rellu", None, "Did you mean 'relu'"), ("relu", 0.1, "'relu' takes no parameter")],
)
def test_bad_input(name, parameter, message):
    with pytest.raises(InputError, match=message):
        apply(name, jnp.ones((1, 1)), parameter)
