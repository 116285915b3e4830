"""Models from elsewhere train as any other."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdl import experiment
from jaxdl.models import adapters


class Network(nnx.Module):
    """With everything that carries state: batch statistics and dropout."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.norm(self.first(inputs.reshape(len(inputs), -1))))
        return self.last(self.dropout(hidden))


def linear_init(key, inputs):
    return {"kernel": 0.01 * jax.random.normal(key, (inputs[0].size, 10)), "bias": jnp.zeros((10,))}


def linear_apply(params, inputs):
    return inputs.reshape(len(inputs), -1) @ params["kernel"] + params["bias"][None]


MODELS = {"nnx": adapters.from_nnx(Network), "functions": adapters.from_functions(linear_init, linear_apply)}


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_saves_and_resumes(name, tmp_path):
    flags = [
        "--dataset=digits",
        "--batch_size=32",
        "--learning_rate=0.01",
        "--mesh=data:1",
        "--plots=false",
        "--eval_every=50",
    ]

    def run(folder, steps):
        settings = experiment.parse([*flags, f"--steps={steps}", f"--workdir={tmp_path / folder}"], given=("model",))
        return experiment.run(settings, model=MODELS[name])

    whole = run("whole", 100)
    assert whole.metrics["test"]["accuracy"] > 0.85
    _, evaluated = experiment.evaluate(tmp_path / "whole", model=MODELS[name])
    assert evaluated["accuracy"] == pytest.approx(whole.metrics["test"]["accuracy"], abs=1e-6)
    run("parts", 60)
    parts = run("parts", 100)
    for ours, theirs in zip(jax.tree.leaves(whole.state), jax.tree.leaves(parts.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nnx_equals_the_module_itself():
    inputs = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    model = MODELS["nnx"]
    variables = model.init({"params": jax.random.key(3)}, inputs, train=False)
    module = Network(nnx.Rngs(jax.random.key(3)))
    module.eval()
    np.testing.assert_allclose(model.apply(variables, inputs, train=False), module(inputs), rtol=1e-6)


def test_example():
    assert doctest.testmod(adapters).failed == 0
