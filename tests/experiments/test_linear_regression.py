"""Linear regression on diabetes: gradient descent, the closed form and scikit-learn agree."""

import pathlib

import jax
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from jaxdl import experiment
from jaxdl.models.linear import normal_equations
from jaxdl.train.evaluation import Evaluator

FLAG_FILE = pathlib.Path(__file__).parents[2] / "experiments" / "foundations" / "linear_regression_diabetes.flags"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The flag file's run: the mean squared error it reached, and its data standardised, in float64."""
    workdir = tmp_path_factory.mktemp("linear_regression") / "run"
    flags = ["--mesh=data:1", "--plots=false", "--progress=off", "--tensorboard=false", f"--workdir={workdir}"]
    experiment.run(experiment.parse([f"--flagfile={FLAG_FILE}", *flags]))
    settings, program, placement, _, state = experiment.restore(workdir, "latest")
    [metrics] = Evaluator(program, placement, settings.trainer.batch_size).metrics(state, "train")
    source = program.data.splits["train"]
    rows = [source[index] for index in range(len(source))]
    inputs, targets = (np.stack([row[name] for row in rows]).astype(np.float64) for name in ("inputs", "targets"))
    return metrics["mse"], (inputs - program.data.mean) / program.data.std, targets


def mean_squared_error(kernel, bias, inputs, targets):
    return float(np.mean((inputs @ np.asarray(kernel) + np.asarray(bias) - targets) ** 2))


def test_gradient_descent_reaches_the_closed_form(trained):
    mse, inputs, targets = trained
    with jax.enable_x64(True):
        kernel, bias = normal_equations(inputs, targets)
    optimum = mean_squared_error(kernel, bias, inputs, targets)
    assert optimum == pytest.approx(2859.69, abs=0.01), "the residual of ordinary least squares on all 442 patients"
    assert mse == pytest.approx(optimum, rel=1e-4)


def test_closed_form_equals_scikit_learn(trained):
    _, inputs, targets = trained
    reference = LinearRegression().fit(inputs, targets)
    with jax.enable_x64(True):
        kernel, bias = normal_equations(inputs, targets)
    np.testing.assert_allclose(kernel, reference.coef_.T, rtol=1e-6)
    np.testing.assert_allclose(bias, reference.intercept_, rtol=1e-6)


def test_closed_form_in_float32_has_the_same_loss(trained):
    _, inputs, targets = trained
    kernel, bias = normal_equations(inputs.astype(np.float32), targets.astype(np.float32))
    reference = LinearRegression().fit(inputs, targets)
    optimum = mean_squared_error(reference.coef_.T, reference.intercept_, inputs, targets)
    assert mean_squared_error(kernel, bias, inputs, targets) == pytest.approx(optimum, rel=1e-6)
