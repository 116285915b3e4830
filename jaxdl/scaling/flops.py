"""Floating-point operations and parameters of a model, counted without running it.

>>> from jaxdl.models import create
>>> forward_flops(create("linear_regression"), (10,))
21
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp


def parameter_count(variables) -> int:
    """Number of trained parameters: of the collection `params` where there is one, else of the whole tree.

    Args:
      variables: arrays or their shapes (`jax.eval_shape`); statistics, outside `params`, do not count.
    """
    params = variables["params"] if isinstance(variables, Mapping) and "params" in variables else variables
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def xla_flops(program) -> int | None:
    """XLA's count of a program's floating-point operations, a multiply and an add being two.

    Args:
      program: what `jax.jit(f).lower(...)` gives, compiled or not. Compiled, it counts what one device does after
        optimisation; not compiled, what the program says.

    Returns:
      The count; None where the backend has none.
    """
    analysis = program.cost_analysis()
    # Older backends give a list, one for each device program.
    if isinstance(analysis, list):
        analysis = analysis[0] if analysis else None
    if not analysis or "flops" not in analysis:
        return None
    return round(analysis["flops"])


def model_shapes(model, input_shape: tuple[int, ...]):
    """Shapes and dtypes of the model's variables, for examples of shape `input_shape`. Nothing is computed."""
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), inputs)


def forward_flops(model, input_shape: tuple[int, ...], variables=None) -> int | None:
    """Floating-point operations of one example's evaluation pass, as XLA counts the program before optimisation.

    Args:
      model: a Linen module, called `model(inputs, train=False)`.
      input_shape: shape of one example, without the batch axis.
      variables: the model's variables or their shapes, where they are at hand.
    """
    if variables is None:
        variables = model_shapes(model, input_shape)
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    program = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    return xla_flops(program.lower(variables, inputs))
