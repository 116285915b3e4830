"""Variables and inputs for a model under test, without the time that compiling its initialisers takes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.scaling.flops import example_inputs, model_shapes


def random_inputs(shape, dtype="float32", batch_size=4):
    """The model's positional inputs. Integers are 1 and 2, which are tokens and lengths alike."""
    random = np.random.default_rng(1)

    def draw(x):
        values = random.integers(1, 3, x.shape) if dtype == "int32" else random.normal(size=x.shape)
        return jnp.asarray(values, dtype)

    return tuple(map(draw, example_inputs(shape, dtype, batch_size)))


def random_variables(model, shape, dtype="float32"):
    """Random numbers in place of every array, so that no bias, scale or statistic is trivially zero or one."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[0].key == "batch_stats":
            return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(random.normal(size=leaf.shape) / np.sqrt(math.prod(leaf.shape[:-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, model_shapes(model, shape, dtype))
