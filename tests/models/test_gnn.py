"""Graph networks: which graphs they tell apart, whatever their weights; nodes, graphs and links; training with padding.

Two graphs that the Weisfeiler-Lehman test of one dimension takes to be equal are equal to every network here; those
that it tells apart are told apart by sums (GIN), and not always by means, maxima or GCN's. Xu et al. 2019, arXiv
1810.00826.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.graph import batch, graph
from jaxdl.models import create

ENTRIES = ("gcn", "gat", "graphsage", "gin", "mpnn")


def undirected(num_nodes, pairs, nodes=None):
    ends = np.array([*pairs, *[(b, a) for a, b in pairs]])
    return graph(np.ones((num_nodes, 1)) if nodes is None else nodes, ends[:, 0], ends[:, 1])


def ring(size, first=0):
    return [(first + node, first + (node + 1) % size) for node in range(size)]


HEXAGON = undirected(6, ring(6))
TWO_TRIANGLES = undirected(6, [*ring(3), *ring(3, 3)])
PRISM = undirected(6, [*ring(3), *ring(3, 3), (0, 3), (1, 4), (2, 5)])  # three neighbours each, and not two
STARS = [
    undirected(1 + 2 * count, [(0, node) for node in range(1, 1 + 2 * count)], np.eye(2)[[0] + [0, 1] * count])
    for count in (1, 2)
]


RINGS = batch([TWO_TRIANGLES, HEXAGON, PRISM])


def random_weights(model, *inputs, networks=()):
    """Variables without the time that compiling initialisers takes; of several networks in one, of that shape."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda *inputs: model.init(jax.random.key(0), *inputs, train=False), *inputs)
    draw = lambda x: jnp.asarray(random.normal(size=(*networks, *x.shape)) / np.sqrt(x.shape[0]), jnp.float32)
    return jax.tree.map(draw, shapes)


@functools.cache
def told_apart(name, fields):
    """Of three pairs of graphs, whether each of eight random networks has different outputs for them."""
    model = create(name, level="graph", num_outputs=3, num_layers=3, width=8, **dict(fields))
    variables = random_weights(model, RINGS, networks=(8,))
    outputs = jax.jit(jax.vmap(lambda variables: model.apply(variables, RINGS, train=False)))(variables)
    triangles, hexagon, prism = np.moveaxis(np.asarray(outputs), 1, 0)
    differ = lambda ours, theirs: [not np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, theirs)]
    return {"triangles and hexagon": differ(triangles, hexagon), "hexagon and prism": differ(hexagon, prism)}


PLAIN = {"normalization": "none"}
MEANS = [
    ("gcn", {"readout": "sum"}),
    ("gat", {"readout": "sum"}),
    ("graphsage", {"readout": "sum"}),
    ("graphsage", {"readout": "sum", "aggregation": "max"}),
    ("gin", PLAIN | {"aggregation": "mean"}),
]
SUMS = [("gin", PLAIN), ("mpnn", {"readout": "sum"}), ("mpnn", {"readout": "sum", "message": "pair"})]
SUMS += [("graphsage", {"readout": "sum", "aggregation": "sum"})]


def each(cases):
    ids = [" ".join([name, *fields.values()]) for name, fields in cases]
    return pytest.mark.parametrize(
        ("name", "fields"), [(name, tuple(fields.items())) for name, fields in cases], ids=ids
    )


@each([*MEANS, *SUMS])
def test_none_passes_the_weisfeiler_lehman_test(name, fields):
    """Two triangles and a hexagon: every node has two neighbours that have two neighbours ..."""
    assert not any(told_apart(name, fields)["triangles and hexagon"])


@each(MEANS)
def test_means_maxima_and_gcn_do_not_count_neighbours(name, fields):
    """A hexagon and a prism: two neighbours, or three, all alike."""
    assert not any(told_apart(name, fields)["hexagon and prism"])


@each(SUMS)
def test_sums_count_neighbours(name, fields):
    assert all(told_apart(name, fields)["hexagon and prism"])


@pytest.mark.parametrize(("aggregation", "expected"), [("sum", True), ("mean", False), ("max", False)])
def test_only_sums_tell_a_multiset_from_its_double(aggregation, expected):
    """The centre of a star, with one neighbour of each kind or two (the paper's figure 3)."""
    model = create("gin", level="node", num_outputs=3, num_layers=1, width=8, aggregation=aggregation, **PLAIN)
    both = batch(STARS)
    variables = random_weights(model, both, networks=(8,))
    outputs = jax.jit(jax.vmap(lambda variables: model.apply(variables, both, train=False)))(variables)
    for ours, theirs in np.asarray(outputs[:, jnp.array([0, 3])]):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5) != expected


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("name", ENTRIES)
def test_renumbering_padding_and_batching_change_nothing(name, level):
    """Nodes in another order, edges in another order, and other graphs and rubbish beside them."""
    random = np.random.default_rng(1)
    ends = np.array([[0, 1, 1, 2, 2, 3, 0], [1, 0, 2, 1, 3, 3, 1]])  # a self-loop, an edge twice; node 4 is alone
    one = graph(random.normal(size=(5, 1)), *ends)
    order, edges = np.array([3, 0, 4, 2, 1]), random.permutation(7)
    other = graph(one.nodes[order], *np.argsort(order)[ends[:, edges]])
    wide = batch([PRISM, one], num_nodes=14, num_edges=30)
    wide.nodes[~wide.node_mask] = 1e3
    model = create(name, level=level, num_outputs=3, num_layers=2, width=8)
    variables = random_weights(model, one)
    apply = jax.jit(lambda *graphs: [model.apply(variables, g, train=False) for g in graphs])
    outputs, renumbered, among = apply(one, other, wide)
    expected, found = (outputs[order], among[6:11]) if level == "node" else (outputs, among[1:])
    np.testing.assert_allclose(renumbered, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ENTRIES)
def test_links_are_inner_products_of_nodes(name):
    fields = {"num_outputs": 4, "width": 6}
    nodes, links = create(name, level="node", **fields), create(name, level="link", **fields)
    pairs = jnp.array([[0, 1], [2, 2], [5, 0]])
    variables = random_weights(nodes, PRISM)
    x, logits = jax.jit(
        lambda: (nodes.apply(variables, PRISM, train=False), links.apply(variables, PRISM, pairs, train=False))
    )()
    assert x.shape == (6, 4)
    np.testing.assert_allclose(logits, (x[pairs[:, 0]] * x[pairs[:, 1]]).sum(axis=1), rtol=1e-4)
    with pytest.raises(InputError, match="needs pairs of nodes"):
        links.apply(variables, PRISM, train=False)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_array_is_no_graph(name):
    with pytest.raises(InputError, match="takes a Graph, and the inputs are none"):
        create(name).init(jax.random.key(0), jnp.ones((2, 3)), train=False)


@pytest.mark.parametrize("name", ["gat", "gin"])
def test_training_knows_nothing_of_padding(name):
    """Batch statistics and dropout are those of the real nodes, whatever padding there is and whatever it holds."""
    model = create(name, level="graph", width=4, normalization="batch", dropout_rate=0.4)
    variables = random_weights(model, PRISM)
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    tight = batch([PRISM, HEXAGON, STARS[0]._replace(nodes=STARS[0].nodes[:, :1])])
    wide = batch([tight], num_nodes=29, num_edges=70)
    wide.nodes[~wide.node_mask] = 1e3

    @jax.jit
    def train(g):
        return model.apply(variables, g, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])

    for a, b in zip(*map(jax.tree.leaves, (train(tight), train(wide))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
