"""Variables and inputs for a model under test, without the time that compiling its initialisers takes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.layers.graph import Graph, batch, graph, unbatch
from jaxdl.scaling.flops import example_inputs, model_shapes


def random_inputs(shape, dtype="float32", batch_size=4):
    """The model's positional inputs. Integers are 1 and 2, which are tokens and lengths alike."""
    random = np.random.default_rng(1)
    if dtype == "graph":
        return (_random_graphs(random, *shape, batch_size=batch_size),)

    def draw(x):
        values = random.integers(1, 3, x.shape) if x.dtype == jnp.int32 else random.normal(size=x.shape)
        return jnp.asarray(values, x.dtype)

    return tuple(map(draw, example_inputs(shape, dtype, batch_size)))


def _random_graphs(random, num_nodes, num_edges, features, edge_features=0, *, batch_size):
    """As many graphs, each of at most that size, in one; with padding."""

    def one():
        nodes, edges = random.integers(1, num_nodes + 1), random.integers(0, num_edges + 1)
        of_edges = random.normal(size=(edges, edge_features)) if edge_features else None
        return graph(random.normal(size=(nodes, features)), *random.integers(0, nodes, (2, edges)), of_edges)

    packed = batch([one() for _ in range(batch_size)], batch_size * num_nodes, batch_size * num_edges)
    return jax.tree.map(jnp.asarray, packed)


def take_rows(inputs, order):
    """Those examples of a model's inputs, int [k]: rows of arrays, or graphs of a batch of them."""

    def take(x):
        if not isinstance(x, Graph):
            return x[order]
        graphs = unbatch(x)
        return jax.tree.map(jnp.asarray, batch([graphs[index] for index in order.tolist()], x.num_nodes))

    return tuple(map(take, inputs))


def random_variables(model, shape, dtype="float32"):
    """Random numbers in place of every array, so that no bias, scale or statistic is trivially zero or one."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[0].key == "batch_stats":
            return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(random.normal(size=leaf.shape) / np.sqrt(math.prod(leaf.shape[:-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, model_shapes(model, shape, dtype))
