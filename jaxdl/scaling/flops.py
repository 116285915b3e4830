"""Floating-point operations and parameters of a model, counted without running it.

>>> from jaxdl.models import create
>>> forward_flops(create("linear_regression"), (10,))
21
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax


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


def traced_flops(traced) -> int | None:
    """XLA's count of a program before optimisation, in which what a scan repeats counts each time; XLA counts it once.

    Args:
      traced: what `jax.jit(f).trace(...)` gives.

    Returns:
      The count; None where the backend has none. What other loops repeat counts once: none knows how often they run.
    """
    flops = xla_flops(traced.lower())
    if flops is None:
        return None
    for length, body in _scans(traced.jaxpr.jaxpr):
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in body.in_avals]
        once = jax.jit(lambda *args, body=body: jax.core.eval_jaxpr(body.jaxpr, body.consts, *args)).trace(*shapes)
        flops += length * traced_flops(once) - xla_flops(once.lower())
    return flops


def _scans(jaxpr) -> Iterator[tuple[int, Any]]:
    """Length and body of each scan of a jaxpr, and of the functions that it calls, but not of those within a scan."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["length"], equation.params["jaxpr"]
            continue
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from _scans(getattr(value, "jaxpr", value))


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def example_inputs(input_shape, input_dtype: str = "float32", batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The model's positional inputs, without values.

    Args:
      input_shape: shape of one example, without the batch axis; of several inputs, the shapes of all.
      input_dtype: dtype of all inputs: float32, or int32 for tokens.
      batch_size: number of examples.
    """
    shapes = input_shape if any(isinstance(size, tuple) for size in input_shape) else (input_shape,)
    return tuple(jax.ShapeDtypeStruct((batch_size, *shape), input_dtype) for shape in shapes)


def model_shapes(model, input_shape, input_dtype: str = "float32"):
    """Shapes and dtypes of the model's variables, for such examples (`example_inputs`). Nothing is computed."""
    inputs = example_inputs(input_shape, input_dtype)
    return jax.eval_shape(lambda key, *inputs: model.init(key, *inputs, train=False), jax.random.key(0), *inputs)


def forward_flops(model, input_shape, input_dtype: str = "float32", variables=None) -> int | None:
    """Floating-point operations of one example's evaluation pass, as `traced_flops` counts them.

    Args:
      model: a Linen module, called `model(*inputs, train=False)`.
      input_shape, input_dtype: of one example, as in `example_inputs`.
      variables: the model's variables or their shapes, where they are at hand.
    """
    if variables is None:
        variables = model_shapes(model, input_shape, input_dtype)
    program = jax.jit(lambda variables, *inputs: model.apply(variables, *inputs, train=False))
    return traced_flops(program.trace(variables, *example_inputs(input_shape, input_dtype)))
