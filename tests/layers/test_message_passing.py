"""Layers on graphs: renumbering, padding and batching change nothing; what graphs they tell apart; and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.extmath import softmax

from jaxdl.errors import InputError
from jaxdl.layers import message_passing as layers
from jaxdl.layers.graph import SparseRows, batch, graph

F, D = 4, 2
TRAINABLE = {
    "gcn": layers.GCNLayer(F),
    "gat": layers.GATLayer(F, 3),
    "gat mean": layers.GATLayer(F, 3, concatenate=False),
    "sage mean": layers.SAGELayer(F),
    "sage sum": layers.SAGELayer(F, "sum"),
    "sage max": layers.SAGELayer(F, "max", normalize=True),
    "gin": layers.GINLayer(F, learn_epsilon=True, normalization="none"),
    "gin batch": layers.GINLayer(F),
    "gin mean": layers.GINLayer(F, "mean", normalization="none"),
    "edge network": layers.MessagePassing(F),
    "pair": layers.MessagePassing(F, "pair", "max", "linear"),
    "messages": layers.MessagePassing(F, "pair", "mean", "none"),
}
TAKES_TRAIN = (layers.GATLayer, layers.GINLayer, layers.MessagePassing)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_graph(num_nodes, num_edges, seed, width=F):
    random = np.random.default_rng(seed)
    ends = random.integers(0, max(num_nodes, 1), (2, num_edges))
    return graph(random.normal(size=(num_nodes, width)), *ends, random.normal(size=(num_edges, D)))


GRAPHS = [random_graph(5, 9, 1), random_graph(1, 0, 2), random_graph(3, 0, 3), random_graph(4, 7, 4)]


def built(name, example=GRAPHS[0]):
    """(apply(graph) -> outputs, not jitted; the layer's variables, random)."""
    layer = TRAINABLE[name]
    options = {"train": False} if isinstance(layer, TAKES_TRAIN) else {}
    shapes = jax.eval_shape(lambda g: layer.init(jax.random.key(0), g.nodes, g, **options), example)
    variables = jax.tree.map(lambda x: jnp.asarray(np.abs(draw(*x.shape, seed=7)) + 0.1, x.dtype), shapes)
    return lambda g: layer.apply(variables, g.nodes, g, **options)


def renumbered(one, order):
    """The same graph whose node i was node order[i], with its edges shuffled."""
    place = np.argsort(order)
    edges = np.random.default_rng(5).permutation(len(one.senders))
    return graph(one.nodes[order], place[one.senders[edges]], place[one.receivers[edges]], one.edges[edges])


@pytest.mark.parametrize("name", TRAINABLE)
def test_renumbering_nodes_renumbers_outputs_and_jit_is_no_jit(name):
    apply, one = built(name), GRAPHS[0]
    order = np.array([3, 0, 4, 2, 1])
    outputs = apply(one)
    np.testing.assert_allclose(apply(renumbered(one, order)), outputs[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(apply)(one), outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRAINABLE)
def test_padding_and_batching_change_nothing(name):
    """Outputs not even where padding holds NaN, and gradients wherever it holds numbers."""
    apply = built(name)
    several = batch(GRAPHS, num_nodes=17, num_edges=21)

    def filled(value):
        nodes, edges = several.nodes.copy(), several.edges.copy()
        nodes[~several.node_mask], edges[~several.edge_mask] = value, value
        return several._replace(nodes=nodes, edges=edges)

    weights = draw(17, 3 * F, seed=6)

    def objective(x, g, weights):
        outputs = apply(g._replace(nodes=x))
        return (outputs * weights[:, : outputs.shape[-1]]).sum()

    outputs = jax.jit(apply)(filled(np.nan))
    weights[~several.node_mask] = 0
    padded = filled(100.0)
    slopes = jax.jit(jax.grad(objective))(padded.nodes, padded, weights)
    start = 0
    for one in GRAPHS:
        rows = slice(start, start + one.num_nodes)
        np.testing.assert_allclose(outputs[rows], apply(one), rtol=1e-5, atol=1e-5)
        alone = jax.grad(objective)(one.nodes, one, weights[rows])
        np.testing.assert_allclose(slopes[rows], alone, rtol=1e-4, atol=1e-4)
        start += one.num_nodes


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_node_hears_from_its_neighbours_alone(name):
    """The gradient of one node's output: itself and those that have an edge to it, not those that it has edges to."""
    path = graph(draw(4, F, seed=3), [0, 1, 2], [1, 2, 3], draw(3, D, seed=4))
    apply = built(name)
    slope = jax.jit(jax.grad(lambda x: apply(path._replace(nodes=x))[2].sum()))(jnp.asarray(path.nodes))
    heard = np.abs(slope).sum(axis=1) > 0
    assert heard.tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", ["edge network", "pair", "messages"])
def test_features_of_edges_count(name):
    apply, one = built(name), GRAPHS[0]
    assert not np.allclose(apply(one), apply(one._replace(edges=one.edges + 1)), atol=1e-3)


def test_gcn_is_the_normalised_adjacency():
    """Kipf and Welling's eq. 2 in dense matrices, on a graph with an isolated node and a self-loop."""
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
    one = graph(draw(5, F), *np.concatenate([pairs, pairs[:, ::-1], [[3, 3]]]).T)
    adjacency = np.eye(5)
    adjacency[tuple(pairs.T)] = adjacency[tuple(pairs[:, ::-1].T)] = 1
    root = np.diag(adjacency.sum(axis=1) ** -0.5)
    layer = layers.GCNLayer(3)
    variables = layer.init(jax.random.key(0), one.nodes, one)
    kernel = variables["params"]["projection"]["kernel"]
    np.testing.assert_allclose(
        layer.apply(variables, one.nodes, one), root @ adjacency @ root @ one.nodes @ kernel, rtol=1e-5, atol=1e-5
    )


def test_an_edge_that_is_there_twice_counts_twice():
    once, twice = (graph(np.eye(2), [0] * count, [1] * count) for count in (1, 2))
    heard = [layers.aggregate(jnp.asarray(g.nodes)[g.senders], g)[1] for g in (once, twice)]
    np.testing.assert_array_equal(heard[1], 2 * heard[0])


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_a_segment_without_rows_is_zero(how):
    values = jnp.array([[-1.0], [-3.0], [np.nan]])
    found = layers.segment(values, jnp.array([2, 2, 0]), jnp.array([True, True, False]), 4, how)
    expected = {"sum": -4.0, "mean": -2.0, "max": -1.0}[how]
    assert found[:, 0].tolist() == [0, 0, expected, 0]


def test_segment_softmax_is_the_softmax_of_each_segment():
    logits = draw(6, seed=8) * 50  # great ones: what is not shifted overflows
    found = layers.segment_softmax(logits, jnp.array([1, 0, 1, 0, 1, 0]), jnp.arange(6) < 5, 3)
    np.testing.assert_allclose(found[jnp.array([0, 2, 4])], softmax(logits[None, [0, 2, 4]])[0], rtol=1e-5)
    np.testing.assert_allclose(found[jnp.array([1, 3])], softmax(logits[None, [1, 3]])[0], rtol=1e-5)
    assert found[5] == 0


def test_attention_is_a_mean_and_its_dropout_keeps_the_expectation():
    one = graph(np.ones((4, F)), [0, 1, 2], [3, 3, 3])
    layer = layers.GATLayer(2, 2, dropout_rate=0.5)
    variables = layer.init(jax.random.key(0), one.nodes, one, train=False)
    still = layer.apply(variables, one.nodes, one, train=False)
    np.testing.assert_allclose(still, np.tile(still[:1], (4, 1)), rtol=1e-5)  # all nodes are equal, so every mean is
    draws = jax.vmap(lambda key: layer.apply(variables, one.nodes, one, train=True, rngs={"dropout": key}))
    many = draws(jax.random.split(jax.random.key(1), 4000))
    # Of at most four weights of 1/4 each, dropped by halves, the mean over 4,000 draws has a deviation of 1/63.
    np.testing.assert_allclose(many.mean(axis=0), still, atol=0.1 * np.abs(still).max())
    assert np.asarray(many).std(axis=0).min() > 0


@pytest.mark.parametrize("name", ["gcn", "gat", "sage mean", "sage max", "gin", "edge network"])
def test_sparse_features_are_their_matrix(name):
    columns, values = jnp.array([[0, 3], [1, 1], [2, 0], [3, 1], [0, 0]]), jnp.asarray(draw(5, 2))
    sparse = GRAPHS[0]._replace(nodes=SparseRows(columns, values, F))
    apply = built(name)
    np.testing.assert_allclose(apply(sparse), apply(sparse._replace(nodes=sparse.nodes.dense())), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["sum", "mean", "max", "attention"])
def test_a_readout_is_of_each_graph_alone(how):
    layer = layers.Readout(how)
    variables = layer.init(jax.random.key(0), GRAPHS[0].nodes, GRAPHS[0])
    empty = graph(np.zeros((0, F)), [], [], np.zeros((0, D)))
    several = batch([*GRAPHS, empty], num_nodes=16, num_edges=20)
    found = jax.jit(layer.apply)(variables, several.nodes, several)
    for row, one in zip(found, GRAPHS):
        order = np.random.default_rng(0).permutation(one.num_nodes)
        alone = layer.apply(variables, one.nodes[order], one)
        np.testing.assert_allclose(row, alone[0], rtol=1e-5, atol=1e-6)
    assert not found[-1].any()


def test_wrong_width_and_state():
    one = GRAPHS[0]
    layer = layers.GCNLayer(3)
    variables = layer.init(jax.random.key(0), one.nodes, one)
    with pytest.raises(InputError, match="there are 2 features, and 'projection' has parameters for 4"):
        layer.apply(variables, one.nodes[:, :2], one)
    with pytest.raises(InputError, match="a GRU updates a state of its own size: 4 features of a node are not 3"):
        layers.MessagePassing(3).init(jax.random.key(0), one.nodes, one, train=False)
    cases = {"edge_network": "edges have 1 features, and .* for 2", "pair": "1 features, and 'edge' has .* for 2"}
    for message, told in cases.items():
        layer = layers.MessagePassing(F, message)
        variables = layer.init(jax.random.key(0), one.nodes, one, train=False)
        with pytest.raises(InputError, match=told):
            layer.apply(variables, one.nodes, one._replace(edges=one.edges[:, :1]), train=False)
    with pytest.raises(InputError, match="no aggregation is called 'median'"):
        layers.aggregate(one.nodes[one.senders], one, "median")
