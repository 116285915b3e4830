"""Graphs packed into one: on the device out of padded batches, on the host out of graphs; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.graph import SparseRows, batch, first_nodes, graph, pack, unbatch

TRIANGLE = graph(np.eye(3), [0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2], np.arange(6)[:, None])
ALONE = graph(np.full((2, 3), 7), [], [], np.zeros((0, 1)))  # two nodes without an edge
EMPTY = graph(np.zeros((0, 3)), [], [], np.zeros((0, 1)))
PATH = graph(np.ones((2, 3)), [0, 1], [1, 0], np.full((2, 1), 9))


def padded(graphs, num_nodes=4, num_edges=7):
    """A padded batch, with rubbish where nothing is: nodes, edges, counts and features of edges."""
    random = np.random.default_rng(0)
    nodes = random.normal(size=(len(graphs), num_nodes, 3)).astype(np.float32)
    edges = random.integers(-50, 50, (len(graphs), num_edges, 2)).astype(np.int32)
    features = random.normal(size=(len(graphs), num_edges, 1)).astype(np.float32)
    for row, one in enumerate(graphs):
        nodes[row, : one.num_nodes] = one.nodes
        edges[row, : len(one.senders)] = np.stack([one.senders, one.receivers], axis=1)
        features[row, : len(one.senders)] = one.edges
    counts = [[one.num_nodes for one in graphs], [len(one.senders) for one in graphs]]
    return nodes, edges, *map(np.int32, counts), features


def same(ours, theirs):
    for name, a, b in zip(ours._fields, ours, theirs):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 0], [1, 1], [2, 2, 0], [1]])
@pytest.mark.parametrize("budget", [(None, None), (12, 20)])
def test_packing_is_batching(order, budget):
    """On the device as on the host, and unpacked it is what it was."""
    graphs = [[TRIANGLE, ALONE, EMPTY, PATH][index] for index in order]
    packed = jax.jit(pack, static_argnums=(5, 6))(*padded(graphs), *budget)
    expected = batch(graphs, packed.num_nodes, len(packed.senders))
    # Of padding only the masks count: its graph may be any, and its ends any node.
    for one, other in zip(unbatch(packed), graphs, strict=True):
        same(one, other)
    for name in ("nodes", "senders", "receivers", "edges", "node_place", "node_mask", "edge_mask", "graph_mask"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(expected, name), err_msg=name)
    assert packed.node_graph.max() < len(graphs)


def test_places_of_nodes_in_a_packed_graph():
    assert first_nodes(jnp.array([3, 0, 2])).tolist() == [0, 3, 3]
    both = batch([TRIANGLE, PATH], num_nodes=9)
    assert both.node_graph.tolist()[:5] == [0, 0, 0, 1, 1]
    assert both.node_place.tolist()[:5] == [0, 1, 2, 0, 1]
    assert both.senders.tolist()[-2:] == [3, 4]


def test_self_loops_are_one_a_node():
    looped = graph(np.eye(2), [0, 0, 1], [0, 1, 1])
    edges = batch([looped], num_nodes=3, num_edges=5).with_self_loops()
    real = sorted(zip(edges.senders[edges.edge_mask].tolist(), edges.receivers[edges.edge_mask].tolist()))
    assert real == [(0, 0), (0, 1), (1, 1)]


def test_keys_do_not_depend_on_padding_or_budget():
    key = jax.random.key(0)
    graphs = [TRIANGLE, EMPTY, PATH]
    tight, wide = batch(graphs), pack(*padded(graphs))
    for draw in (lambda g: g.node_keys(key), lambda g: g.edge_keys(key), lambda g: g.with_self_loops().edge_keys(key)):
        ours, theirs = (np.asarray(jax.random.key_data(draw(jax.tree.map(jnp.asarray, g)))) for g in (tight, wide))
        drawn = [set(map(tuple, keys.tolist())) for keys in (ours, theirs)]
        assert len(drawn[0]) == len(ours), "every row has a key of its own"
        assert drawn[0] <= drawn[1]


def test_sparse_rows_are_the_matrix():
    rows = SparseRows(jnp.array([[0, 2], [1, 1], [0, 0]]), jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]), 4)
    matrix = np.array([[1, 0, 2, 0], [0, 7, 0, 0], [0, 0, 0, 0]])
    assert rows.shape == (3, 4)
    np.testing.assert_array_equal(rows.dense(), matrix)
    kernel = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(rows.times(kernel), matrix @ kernel, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((np.eye(3), [0], [3]), "edge 0 joins nodes 0 and 3, but its 3 nodes are numbered from 0 to 2"),
        ((np.eye(3), [-1], [0]), "joins nodes -1 and 0"),
        ((np.eye(3), [2**32], [0]), "joins nodes 4294967296 and 0"),
        ((np.eye(3), [0], [0.5]), "receivers are float64; they must be whole numbers"),
        ((np.eye(3), [0, 1], [1]), "2 senders and 1 receivers"),
        ((np.eye(3), [0], [1], np.zeros((2, 1))), "1 senders and 1 receivers and 2 edges"),
        ((np.eye(3), [0], [1], np.zeros(1)), r"edges are \[1\]; they must be \[edges, features\]"),
        ((np.zeros(3), [0], [1]), r"nodes are \[3\]; they must be \[nodes, features\]"),
    ],
)
def test_wrong_graphs(arguments, told):
    with pytest.raises(InputError, match=told):
        graph(*arguments)


def test_wrong_batches():
    with pytest.raises(InputError, match="a batch needs a graph or more"):
        batch([])
    with pytest.raises(InputError, match="a batch of 2 graphs has 5 nodes; its padding budget is 4"):
        batch([TRIANGLE, PATH], num_nodes=4)
    with pytest.raises(InputError, match="a batch of 1 graphs has 6 edges; its padding budget is 5"):
        batch([TRIANGLE], num_edges=5)
    with pytest.raises(InputError, match="a batch of 2 graphs has 5 nodes; its padding budget is 4"):
        pack(*padded([TRIANGLE, PATH]), max_nodes=4)
    with pytest.raises(InputError, match="a batch of 1 graphs has 6 edges; its padding budget is 5"):
        pack(*padded([TRIANGLE]), max_edges=5)
    with pytest.raises(InputError, match="nodes of graphs in one batch have 2 and 3 features"):
        batch([TRIANGLE, graph(np.eye(2), [], [], np.zeros((0, 1)))])
    with pytest.raises(InputError, match="edges of graphs in one batch have 1 and no features"):
        batch([TRIANGLE, graph(np.eye(3), [], [])])
