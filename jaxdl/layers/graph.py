"""Graphs, several of them packed into one: the input of every graph network here.

The nodes of all graphs stand in one array, those of graph 0, then those of graph 1, and so on, then padding; so do
the edges, whose ends are numbers of packed nodes. Graphs that share no edge do not know of each other, so a batch is
one large graph, and padding is nodes and edges that the masks leave out. An edge carries a message from its sender to
its receiver; an undirected edge is two.

Shapes: B graphs, N nodes and E edges with padding, F features of a node, D of an edge; n and e are the rows of nodes
and edges that each graph has in a padded batch [B, n, F].

>>> import numpy as np
>>> path = graph(np.eye(3), senders=[0, 1, 1, 2], receivers=[1, 0, 2, 1])
>>> both = batch([path, path], num_nodes=8)
>>> both.nodes.shape, both.senders.tolist(), both.node_graph.tolist()
((8, 3), [0, 1, 1, 2, 3, 4, 4, 5], [0, 0, 0, 1, 1, 1, 1, 1])
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys

_LOOP_PLACE = 2**30  # where the places of self-loops begin, beyond those of all edges


@flax.struct.dataclass
class SparseRows:
    """A matrix [..., num_columns] of which each row has at most K entries: words of a document, say.

    Attributes:
      columns: int32 [..., K], where the entries stand; several in one place add up.
      values: float [..., K]; 0 for none.
      num_columns: the width of the matrix.
    """

    columns: jax.Array
    values: jax.Array
    num_columns: int = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.columns.shape[:-1], self.num_columns)

    @property
    def dtype(self):
        return self.values.dtype

    def dense(self) -> jax.Array:
        """The matrix [N, num_columns] itself."""
        rows = jnp.arange(len(self.columns))[:, None]
        return jnp.zeros(self.shape, self.dtype).at[rows, self.columns].add(self.values)

    def times(self, kernel: jax.Array) -> jax.Array:
        """The product with `kernel` [num_columns, features]: [N, features]."""
        return jnp.einsum("nk,nkf->nf", self.values, kernel[self.columns])


class Graph(NamedTuple):
    """A batch of graphs packed into one.

    Attributes:
      nodes: features, float [N, F], or `SparseRows`.
      senders: int32 [E], the node that each edge comes from.
      receivers: int32 [E], the node that it goes to.
      edges: features, float [E, D], or None.
      node_graph: int32 [N], each node's graph; in 0 .. B - 1 for padding too.
      node_place: int32 [N], each node's number within its graph.
      edge_place: int32 [E], each edge's number within its graph.
      node_mask: bool [N], False for padding.
      edge_mask: bool [E], False for padding.
      graph_mask: bool [B], False for graphs without nodes.
    """

    nodes: jax.Array | SparseRows
    senders: jax.Array
    receivers: jax.Array
    edges: jax.Array | None
    node_graph: jax.Array
    node_place: jax.Array
    edge_place: jax.Array
    node_mask: jax.Array
    edge_mask: jax.Array
    graph_mask: jax.Array

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.node_mask)

    @property
    def num_graphs(self) -> int:
        """B."""
        return len(self.graph_mask)

    def node_keys(self, key: jax.Array) -> jax.Array:
        """A random key for each node, [N], the same however graphs are padded and split over devices."""
        keys = example_keys(key, self.num_graphs)[self.node_graph]
        return jax.vmap(jax.random.fold_in)(keys, self.node_place)

    def edge_keys(self, key: jax.Array) -> jax.Array:
        """A random key for each edge, [E], as `node_keys`."""
        keys = example_keys(key, self.num_graphs)[self.node_graph[self.receivers]]
        return jax.vmap(jax.random.fold_in)(keys, self.edge_place)

    def with_self_loops(self) -> "Graph":
        """One edge from each node to itself, after all others, in place of those that are there; without `edges`."""
        own = jnp.arange(self.num_nodes, dtype=jnp.int32)
        return self._replace(
            senders=jnp.concatenate([self.senders, own]),
            receivers=jnp.concatenate([self.receivers, own]),
            edges=None,
            edge_place=jnp.concatenate([self.edge_place, _LOOP_PLACE + self.node_place]),
            edge_mask=jnp.concatenate([self.edge_mask & (self.senders != self.receivers), self.node_mask]),
        )


# On the device: from a padded batch.


def pack(
    nodes: jax.Array | SparseRows,
    edges: jax.Array,
    num_nodes: jax.Array,
    num_edges: jax.Array,
    edge_features: jax.Array | None = None,
    max_nodes: int | None = None,
    max_edges: int | None = None,
) -> Graph:
    """A padded batch, each row a graph, as one graph.

    Args:
      nodes: [B, n, F].
      edges: int [B, e, 2], sender and receiver, numbers of nodes within the graph.
      num_nodes: int [B], at most n; the rows of `nodes` after these are padding. A graph of none is padding itself.
      num_edges: int [B], at most e.
      edge_features: [B, e, D].
      max_nodes: N. It must be enough for any batch, which cannot be checked of a traced one. None: B n, which always
        is; `NodeBudget` in jaxdl.data.graphs knows how much less will do.
      max_edges: E, likewise.

    Raises:
      InputError: more nodes or edges than that, where the counts are known.
    """
    arrays = nodes, edges, num_nodes, num_edges, edge_features
    nodes, edges, num_nodes, num_edges, edge_features = jax.tree.map(jnp.asarray, arrays)
    max_nodes, max_edges = max_nodes or len(num_nodes) * nodes.shape[1], max_edges or edges.shape[0] * edges.shape[1]
    for name, counts, size in (("nodes", num_nodes, max_nodes), ("edges", num_edges, max_edges)):
        if not isinstance(counts, jax.core.Tracer):
            _check_budget(name, len(counts), np.asarray(counts).sum(), size)
    node_graph, node_place, node_mask = _slots(num_nodes, max_nodes)
    edge_graph, edge_place, edge_mask = _slots(num_edges, max_edges)
    ends = edges[edge_graph, edge_place].astype(jnp.int32) + first_nodes(num_nodes)[edge_graph, None]
    ends = jnp.where(edge_mask[:, None], ends, 0)
    return Graph(
        nodes=jax.tree.map(lambda x: _zero_padding(x[node_graph, node_place], node_mask), nodes),
        senders=ends[:, 0],
        receivers=ends[:, 1],
        edges=None if edge_features is None else _zero_padding(edge_features[edge_graph, edge_place], edge_mask),
        node_graph=node_graph,
        node_place=node_place,
        edge_place=edge_place,
        node_mask=node_mask,
        edge_mask=edge_mask,
        graph_mask=num_nodes > 0,
    )


def _check_budget(name: str, num_graphs: int, total: int, size: int) -> None:
    if total > size:
        raise InputError(f"a batch of {num_graphs} graphs has {total} {name}; its padding budget is {size}.")


def first_nodes(num_nodes: jax.Array) -> jax.Array:
    """The packed number of each graph's first node: int32 [B] from int [B]."""
    return (jnp.cumsum(num_nodes) - num_nodes).astype(jnp.int32)


def _slots(counts: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each of `size` packed rows the graph, the place in it, and whether it is one: of graphs with so many rows."""
    ends = jnp.cumsum(counts)
    slot = jnp.arange(size, dtype=jnp.int32)
    of_graph = jnp.searchsorted(ends, slot, side="right", method="scan_unrolled").astype(jnp.int32)
    of_graph = jnp.minimum(of_graph, counts.shape[0] - 1)
    mask = slot < ends[-1]
    return of_graph, jnp.where(mask, slot - (ends - counts)[of_graph], 0).astype(jnp.int32), mask


def _zero_padding(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


# On the host: from graphs as a person has them.


def graph(nodes, senders, receivers, edges=None) -> Graph:
    """One graph, without padding, in NumPy.

    Args:
      nodes: [N, F].
      senders, receivers: int [E], numbers of nodes from 0.
      edges: [E, D].

    Raises:
      InputError: shapes that do not fit, ends that are no whole numbers, or an edge to a node that is not there.
    """
    nodes = np.asarray(nodes, np.float32)
    ends = [np.asarray(x).reshape(-1) for x in (senders, receivers)]
    edges = None if edges is None else np.asarray(edges, np.float32)
    if nodes.ndim != 2:
        raise InputError(f"nodes are {list(nodes.shape)}; they must be [nodes, features].")
    if edges is not None and edges.ndim != 2:
        raise InputError(f"edges are {list(edges.shape)}; they must be [edges, features].")
    counts = {"senders": len(ends[0]), "receivers": len(ends[1])} | ({} if edges is None else {"edges": len(edges)})
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"there are {told}; there must be as many of each.")
    for name, numbers in zip(("senders", "receivers"), ends, strict=True):
        if len(numbers) and not np.issubdtype(numbers.dtype, np.integer):
            raise InputError(f"{name} are {numbers.dtype}; they must be whole numbers, those of nodes.")
    check_ends(np.stack(ends, axis=1), len(nodes), "the graph")
    senders, receivers = (numbers.astype(np.int32) for numbers in ends)
    return Graph(
        nodes=nodes,
        senders=senders,
        receivers=receivers,
        edges=edges,
        node_graph=np.zeros(len(nodes), np.int32),
        node_place=np.arange(len(nodes), dtype=np.int32),
        edge_place=np.arange(len(ends[0]), dtype=np.int32),
        node_mask=np.ones(len(nodes), bool),
        edge_mask=np.ones(len(ends[0]), bool),
        graph_mask=np.array([len(nodes) > 0]),
    )


def check_ends(edges: np.ndarray, num_nodes: int, where: str) -> None:
    """Raises InputError for an edge (a row of int [E, 2]) with an end that is not in 0 .. num_nodes - 1."""
    wrong = ((edges < 0) | (edges >= num_nodes)).any(axis=1)
    if wrong.any():
        edge = int(np.argmax(wrong))
        raise InputError(
            f"{where}: edge {edge} joins nodes {edges[edge, 0]} and {edges[edge, 1]}, but its {num_nodes} nodes are "
            f"numbered from 0 to {num_nodes - 1}."
        )


def batch(graphs: Sequence[Graph], num_nodes: int | None = None, num_edges: int | None = None) -> Graph:
    """Graphs as one, in their order, in NumPy; what padding they have is left out.

    Args:
      graphs: each one graph or several, all with nodes and edges of the same features.
      num_nodes: N, to which nodes are padded; None pads none.
      num_edges: E, likewise.

    Raises:
      InputError: no graphs, more nodes or edges than that, or features of different width.
    """
    parts = [part for several in graphs for part in unbatch(several)]
    if not parts:
        raise InputError("a batch needs a graph or more.")
    for name in ("nodes", "edges"):
        widths = {None if getattr(part, name) is None else getattr(part, name).shape[-1] for part in parts}
        if len(widths) > 1:
            told = " and ".join(sorted(str(width or "no") for width in widths))
            raise InputError(f"{name} of graphs in one batch have {told} features; all must have the same.")
    counts = np.array([[part.num_nodes, len(part.senders)] for part in parts])
    sizes = []
    for name, total, size in zip(("nodes", "edges"), counts.sum(axis=0), (num_nodes, num_edges), strict=True):
        size = int(total) if size is None else size
        _check_budget(name, len(parts), total, size)
        sizes.append(size)
    first = np.cumsum(counts[:, 0]) - counts[:, 0]

    def joined(values, size, fill=0):
        values = np.concatenate(values)
        padding = np.full((size - len(values), *values.shape[1:]), fill, values.dtype)
        return np.concatenate([values, padding])

    nodes_of = lambda values, fill=0: joined(values, sizes[0], fill)
    edges_of = lambda values, fill=0: joined(values, sizes[1], fill)
    return Graph(
        nodes=nodes_of([part.nodes for part in parts]),
        senders=edges_of([part.senders + start for part, start in zip(parts, first)]).astype(np.int32),
        receivers=edges_of([part.receivers + start for part, start in zip(parts, first)]).astype(np.int32),
        edges=None if parts[0].edges is None else edges_of([part.edges for part in parts]),
        node_graph=nodes_of([np.full(part.num_nodes, at, np.int32) for at, part in enumerate(parts)], len(parts) - 1),
        node_place=nodes_of([part.node_place for part in parts]),
        edge_place=edges_of([part.edge_place for part in parts]),
        node_mask=nodes_of([part.node_mask for part in parts]),
        edge_mask=edges_of([part.edge_mask for part in parts]),
        graph_mask=counts[:, 0] > 0,
    )


def unbatch(several: Graph) -> list[Graph]:
    """The graphs of a batch, each by itself and without padding, in NumPy."""
    several = jax.tree.map(np.asarray, several)
    result = []
    for at in range(several.num_graphs):
        own = several.node_mask & (several.node_graph == at)
        own_edges = several.edge_mask & own[several.receivers]
        first = int(np.argmax(own)) if own.any() else 0
        edges = None if several.edges is None else several.edges[own_edges]
        ends = several.senders[own_edges] - first, several.receivers[own_edges] - first
        result.append(graph(several.nodes[own], *ends, edges))
    return result
