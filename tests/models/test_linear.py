"""The closed form of linear regression against scikit-learn, and the perceptron's threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge

from jaxdl.models import create
from jaxdl.models.linear import normal_equations
from jaxdl.models.perceptron import threshold

X, Y = load_diabetes(return_X_y=True)
Y = np.stack([Y, Y[::-1] ** 2 / 100], axis=1)


def expected(l2, x=X):
    model = LinearRegression() if l2 == 0 else Ridge(l2, solver="svd")
    fitted = model.fit(x, Y)
    return fitted.coef_.T, fitted.intercept_


@pytest.mark.parametrize("l2", [0.0, 0.1, 10.0])
# Rounding unit times condition number (21 for these inputs), with a margin; relative to the largest coefficient.
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_equals_scikit_learn(l2, precision, tolerance):
    with jax.enable_x64(precision == "float64"):
        kernel, bias = normal_equations(jnp.asarray(X, precision), jnp.asarray(Y, precision), l2)
    expected_kernel, expected_bias = expected(l2)
    assert kernel.dtype == precision
    np.testing.assert_allclose(kernel, expected_kernel, rtol=0, atol=tolerance * np.abs(expected_kernel).max())
    np.testing.assert_allclose(bias, expected_bias, rtol=tolerance)


def test_is_the_model_s_minimum():
    inputs, targets = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    kernel, bias = normal_equations(inputs, targets)
    model = create("linear_regression", num_outputs=2)

    def loss(params):
        return jnp.mean((model.apply({"params": params}, inputs, train=True) - targets) ** 2)

    minimum = {"output": {"kernel": kernel, "bias": bias}}
    at_zero = jax.tree.map(jnp.zeros_like, minimum)
    # The gradient at the minimum, relative to that at zero, is rounding.
    for here, there in zip(jax.tree.leaves(jax.grad(loss)(minimum)), jax.tree.leaves(jax.grad(loss)(at_zero))):
        assert jnp.abs(here).max() < 1e-4 * jnp.abs(there).max()


def test_ill_conditioned_inputs():
    """Columns of a condition number of 1e5: X'X would have one of 1e10, beyond float32 and hard on float64."""
    inputs = X.copy()
    inputs[:, 1] = inputs[:, 0] + 1e-5 * inputs[:, 1]
    with jax.enable_x64(True):
        kernel, _ = normal_equations(jnp.asarray(inputs), jnp.asarray(Y))
    expected_kernel, _ = expected(0, inputs)
    np.testing.assert_allclose(kernel, expected_kernel, rtol=0, atol=1e-9 * np.abs(expected_kernel).max())


def test_dependent_columns_give_the_solution_of_least_norm():
    inputs = np.concatenate([X, X[:, :3], np.ones((len(X), 1))], axis=1)
    with jax.enable_x64(True):
        kernel, _ = normal_equations(jnp.asarray(inputs), jnp.asarray(Y))
        gradient = jax.grad(lambda y: normal_equations(jnp.asarray(inputs), y)[0].sum())(jnp.asarray(Y))
    expected_kernel, _ = expected(0, inputs)
    np.testing.assert_allclose(kernel, expected_kernel, rtol=0, atol=1e-10 * np.abs(expected_kernel).max())
    assert jnp.isfinite(gradient).all()


def test_more_columns_than_rows_fits_exactly():
    inputs, targets = jnp.asarray(X[:5], jnp.float32), jnp.asarray(Y[:5], jnp.float32)
    kernel, bias = normal_equations(inputs, targets)
    np.testing.assert_allclose(inputs @ kernel + bias[None], targets, rtol=1e-4)


def test_traced_penalty():
    inputs, targets = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    kernels, _ = jax.jit(jax.vmap(lambda l2: normal_equations(inputs, targets, l2)))(jnp.array([0.0, 1.0]))
    for kernel, l2 in zip(kernels, (0, 1)):
        expected_kernel, _ = expected(l2)
        np.testing.assert_allclose(kernel, expected_kernel, rtol=0, atol=2e-6 * np.abs(expected_kernel).max())


@pytest.mark.parametrize("name", ["linear_regression", "softmax_regression", "perceptron"])
def test_linear_models_start_at_zero(name):
    outputs, _ = create(name).init_with_output(jax.random.key(0), jnp.ones((2, 3)), train=False)
    assert not outputs.any()


def test_threshold():
    assert threshold(jnp.array([-0.1, 0.0, 2.0])).tolist() == [0.0, 1.0, 1.0]
