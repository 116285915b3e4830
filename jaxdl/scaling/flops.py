"""Floating-point operations and parameters of a model, counted without running it.

Three counts, a multiply and an add being two operations:

- `six_nd`, the rule C = 6 N D of Kaplan et al. 2020 (arXiv 2001.08361), section 2.1. It knows nothing of attention.
- `product_flops`, the matrix products and convolutions of a program, as its jaxpr has them: the formula of whatever
  architecture it is, and what MFU counts (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Causal attention counts
  as the full square of queries and keys, which is what dense attention computes; a kernel that leaves the future out
  does half of that part. `jaxdl.scaling.formulas` has it in closed form for the architectures of the literature.
- `xla_flops` and `traced_flops`, XLA's cost analysis, which counts everything: activations, normalisation, softmax,
  the optimizer.

>>> from jaxdl.models import create
>>> forward_flops(create("linear_regression"), (10,))
21
>>> product_flops(jax.make_jaxpr(lambda x, kernel: x @ kernel)(jax.numpy.ones((3, 4)), jax.numpy.ones((4, 5))))
120
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np


def parameter_count(variables) -> int:
    """Number of trained parameters: of the collection `params` where there is one, else of the whole tree.

    Args:
      variables: arrays or their shapes (`jax.eval_shape`); statistics, outside `params`, do not count.
    """
    params = variables["params"] if isinstance(variables, Mapping) and "params" in variables else variables
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def embedding_count(variables) -> int:
    """Number of those parameters that are tables of embeddings, of tokens or of positions (`flax.linen.Embed`).

    A head that is a layer of its own is none; one that is tied to the embeddings counts once, as these. What is left of
    `parameter_count` is N without embeddings (Kaplan et al. 2020, section 2.1).
    """
    params = variables["params"] if isinstance(variables, Mapping) and "params" in variables else variables
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return sum(math.prod(leaf.shape) for path, leaf in leaves if getattr(path[-1], "key", None) == "embedding")


def six_nd(parameters: float, tokens: float) -> float:
    """FLOPs of training N parameters on D tokens by the rule 6 N D: two a weight and token forward, four backward."""
    return 6 * parameters * tokens


def product_flops(jaxpr) -> int:
    """FLOPs of a program's matrix products and convolutions, two for each multiply-add; nothing else counts.

    What a scan repeats counts each time, and of a branch the costliest side. What a while loop repeats counts once: how
    often it runs is not known. A convolution's products with padding and with the holes of a dilation do not count.
    Attention by cuDNN counts as the products that it replaces. What is computed again in the backward pass (remat)
    counts again.

    Args:
      jaxpr: what `jax.make_jaxpr(f)(...)` gives.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        count = _PRODUCTS.get(equation.primitive.name)
        inner = [product_flops(body) for body in bodies(equation)]
        if count is not None:
            total += count(equation)
        elif equation.primitive.name == "cond":
            total += max(inner)
        elif equation.primitive.name == "scan":
            total += equation.params["length"] * sum(inner)
        else:
            total += sum(inner)
    return total


def _dot_flops(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)


def _convolution_flops(equation) -> int:
    params = equation.params
    lhs, rhs = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    lhs_axes, rhs_axes, out_axes = params["dimension_numbers"]
    products = out[out_axes[0]] * out[out_axes[1]] * rhs[rhs_axes[1]]  # batch, features out, features in of a group
    for axis in range(len(out) - 2):
        places = np.arange(out[out_axes[2 + axis]])[:, None] * params["window_strides"][axis]
        taps = np.arange(rhs[rhs_axes[2 + axis]])[None] * params["rhs_dilation"][axis]
        at = places + taps - params["padding"][axis][0]
        hole = params["lhs_dilation"][axis]
        products *= int(((at >= 0) & (at % hole == 0) & (at // hole < lhs[lhs_axes[2 + axis]])).sum())
    return 2 * products


def _fused_attention_flops(products: int):
    """Of cuDNN's attention: so many products of queries [B, T, N, D] and keys [B, S, K, D], or with T and N swapped."""

    def count(equation) -> int:
        queries, keys = (variable.aval for variable in equation.invars[:2])
        return 2 * products * queries.size * keys.shape[1 if equation.params["layout"] == 0 else 2]

    return count


_PRODUCTS = {
    "dot_general": _dot_flops,
    "conv_general_dilated": _convolution_flops,
    "dot_product_attention_fwd_wrapper": _fused_attention_flops(2),
    "dot_product_attention_bwd_wrapper": _fused_attention_flops(4),
}
"""FLOPs of an equation, by the name of its primitive."""


def bodies(equation) -> Iterator[Any]:
    """The jaxprs that an equation of a jaxpr calls."""
    for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield value


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
        for body in bodies(equation):
            yield from _scans(getattr(body, "jaxpr", body))


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def example_inputs(
    input_shape, input_dtype: str | tuple[str, ...] = "float32", batch_size: int = 1
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The model's positional inputs, without values.

    Args:
      input_shape: shape of one example, without the batch axis; of several inputs, the shapes of all.
      input_dtype: dtype of all inputs: float32, or int32 for tokens; where they differ, the dtypes of all. `graph`: one
        packed graph, whose shape is nodes, edges, features of a node, and of an edge where it has any.
      batch_size: number of examples.
    """
    if input_dtype == "graph":
        return (_example_graph(*input_shape, batch_size=batch_size),)
    shapes = input_shape if any(isinstance(size, tuple) for size in input_shape) else (input_shape,)
    dtypes = (input_dtype,) * len(shapes) if isinstance(input_dtype, str) else input_dtype
    return tuple(jax.ShapeDtypeStruct((batch_size, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True))


def _example_graph(num_nodes: int, num_edges: int, features: int, edge_features: int = 0, *, batch_size: int):
    """`batch_size` graphs of that size in one, without values."""
    from jaxdl.layers.graph import pack

    array = lambda *shape: jax.ShapeDtypeStruct((batch_size, *shape), np.float32 if shape[1:] else np.int32)
    edges = jax.ShapeDtypeStruct((batch_size, num_edges, 2), np.int32)
    of_edges = array(num_edges, edge_features) if edge_features else None
    return jax.eval_shape(pack, array(num_nodes, features), edges, array(), array(), of_edges)


def model_shapes(model, input_shape, input_dtype: str | tuple[str, ...] = "float32"):
    """Shapes and dtypes of the model's variables, for such examples (`example_inputs`). Nothing is computed."""
    inputs = example_inputs(input_shape, input_dtype)
    return jax.eval_shape(lambda key, *inputs: model.init(key, *inputs, train=False), jax.random.key(0), *inputs)


def forward_flops(model, input_shape, input_dtype: str | tuple[str, ...] = "float32", variables=None) -> int | None:
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


def training_step(model, input_shape, input_dtype="float32", variables=None, batch_size: int = 1):
    """What training computes of a model, without a loss or an optimizer: outputs, and a gradient of all parameters.

    Args:
      model, input_shape, input_dtype, variables: as in `forward_flops`.
      batch_size: examples. Compiled for a single one, products with a vector are no products to XLA.

    Returns:
      The function, and the shapes of its arguments: `product_flops(jax.make_jaxpr(step)(*shapes))`,
      `traced_flops(jax.jit(step).trace(*shapes))`, `xla_flops(jax.jit(step).lower(*shapes).compile())`.
    """
    if variables is None:
        variables = model_shapes(model, input_shape, input_dtype)
    others = {name: value for name, value in variables.items() if name != "params"}

    def step(params, others, *inputs):
        outputs, backward = jax.vjp(lambda p: model.apply({"params": p, **others}, *inputs, train=False), params)
        return outputs, backward(jax.tree.map(_cotangent, outputs))

    return step, (variables["params"], others, *example_inputs(input_shape, input_dtype, batch_size))


def _cotangent(output):
    """Ones of an output's shape; nothing of one that is not differentiated."""
    is_float = jax.numpy.issubdtype(output.dtype, jax.numpy.inexact)
    return jax.numpy.ones(output.shape, output.dtype) if is_float else np.zeros(output.shape, jax.dtypes.float0)
