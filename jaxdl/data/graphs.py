"""Graphs as examples: each one an example of its own, padded to one size.

An example is `inputs`, the features of its nodes, float32 [n, F] (or of sparse ones the columns of the entries, int32
[n, K], with `values`, float32 [n, K]); `edges` int32 [e, 2], sender and receiver; `edge_features` float32 [e, D] where
there are; `num_nodes` and `num_edges`, int32 []; and what is to be predicted. An undirected edge stands in both
directions. So batching, shuffling, sharding and microbatches are those of any examples, and `jaxdl.layers.graph.pack`
makes one graph of a batch where it is used.

Shapes: G graphs; n and e, the rows that each example has.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.sources import Batch, Example, Source
from jaxdl.errors import InputError
from jaxdl.layers.graph import check_ends


class GraphSource:
    """Graphs of any sizes, held one after the other without padding, and padded as they are read.

    Args:
      num_nodes: int [G].
      num_edges: int [G].
      by_node: arrays [sum of num_nodes, ...] by name, `inputs` among them.
      by_edge: arrays [sum of num_edges, ...] by name, `edges` among them.
      by_graph: arrays [G, ...] by name.
      num_features: F of sparse features, whose columns `inputs` are; None: they are dense.
      max_nodes: n; None: the nodes of the largest graph.
      max_edges: e, likewise.

    Raises:
      InputError: a graph that does not fit into the padding.
    """

    def __init__(
        self,
        num_nodes: np.ndarray,
        num_edges: np.ndarray,
        by_node: Mapping[str, np.ndarray],
        by_edge: Mapping[str, np.ndarray],
        by_graph: Mapping[str, np.ndarray],
        *,
        num_features: int | None = None,
        max_nodes: int | None = None,
        max_edges: int | None = None,
    ):
        self.num_nodes, self.num_edges = (np.asarray(counts, np.int32) for counts in (num_nodes, num_edges))
        self.by_node, self.by_edge, self.by_graph = dict(by_node), dict(by_edge), dict(by_graph)
        self.num_features = num_features
        self.max_nodes = self._padding("nodes", self.num_nodes, max_nodes)
        self.max_edges = self._padding("edges", self.num_edges, max_edges)
        self._held = {
            "first_node": _before(self.num_nodes),
            "first_edge": _before(self.num_edges),
            "num_nodes": self.num_nodes,
            "num_edges": self.num_edges,
            **{f"node/{name}": array for name, array in self.by_node.items()},
            **{f"edge/{name}": array for name, array in self.by_edge.items()},
            **{f"graph/{name}": array for name, array in self.by_graph.items()},
        }

    def _padding(self, what: str, counts: np.ndarray, most: int | None) -> int:
        largest = int(counts.max(initial=0))
        if most is not None and largest > most:
            over = counts > most
            raise InputError(
                f"graph {int(np.argmax(over))} has {counts[over][0]} {what} and the padding budget is {most}; "
                f"{int(over.sum())} of {len(counts)} graphs are over it, the largest has {largest}: "
                f"--dataset.max_{what}={largest} would do."
            )
        return max(largest if most is None else most, 1)

    def __len__(self) -> int:
        return len(self.num_nodes)

    def __getitem__(self, index: int) -> Example:
        return {name: value[0] for name, value in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        return self._rows(self._held, np.asarray(indices), np)

    def resident(self) -> dict[str, np.ndarray]:
        """What a device holds to make batches by itself (`rows`)."""
        return self._held

    def rows(self, resident: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
        """On the device: the batch of graphs `indices`, int32 [...], out of `resident`."""
        return self._rows(resident, indices, jnp)

    def _rows(self, held, indices, xp) -> dict:
        result = {}
        for kind, size in (("node", self.max_nodes), ("edge", self.max_edges)):
            count = held[f"num_{kind}s"][indices]
            place = xp.arange(size).reshape((1,) * indices.ndim + (-1,))
            real = place < count[..., None]
            rows = xp.where(real, held[f"first_{kind}"][indices][..., None] + place, 0)
            for name, array in held.items():
                if not name.startswith(f"{kind}/"):
                    continue
                if len(array):
                    found = array[rows]
                else:  # no graph has an edge
                    found = xp.zeros((*rows.shape, *array.shape[1:]), array.dtype)
                found = xp.where(real.reshape(*real.shape, *(1,) * (array.ndim - 1)), found, xp.zeros((), array.dtype))
                result[name.partition("/")[2]] = found.astype(xp.float32) if array.dtype == np.uint8 else found
            result[f"num_{kind}s"] = count
        result |= {name.partition("/")[2]: array[indices] for name, array in held.items() if name.startswith("graph/")}
        return result

    def select(self, indices: np.ndarray) -> "GraphSource":
        """The graphs `indices` alone, int [k], padded as all are."""
        nodes, edges = (
            np.concatenate(
                [np.arange(start, start + count) for start, count in zip(_before(counts)[indices], counts[indices])]
            )
            for counts in (self.num_nodes, self.num_edges)
        )
        return GraphSource(
            self.num_nodes[indices],
            self.num_edges[indices],
            {name: array[nodes] for name, array in self.by_node.items()},
            {name: array[edges] for name, array in self.by_edge.items()},
            {name: array[indices] for name, array in self.by_graph.items()},
            num_features=self.num_features,
            max_nodes=self.max_nodes,
            max_edges=self.max_edges,
        )

    def split(self, split, labels: np.ndarray | None = None, test_fraction: float = 0.0) -> dict[str, Source]:
        """These graphs in splits, each a `GraphSource`; `split` is that of a dataset's flags (jaxdl.data.splits)."""
        parts = split(self, labels, test_fraction)
        return {name: part if part is self else self.select(part.indices) for name, part in parts.items()}


def _before(counts: np.ndarray) -> np.ndarray:
    """The sum of the counts before each: int32 [G]."""
    return (np.cumsum(counts) - counts).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class NodeBudget:
    """How many packed rows any batch of so many graphs needs at most.

    Attributes:
      largest: int64 [2, k + 1]: the nodes, and the edges, of the 0, 1, ..., k largest graphs together.
      padding: the rows of nodes, and of edges, that each example has.
    """

    largest: np.ndarray
    padding: tuple[int, int]

    @classmethod
    def of(cls, splits: Mapping[str, Source]) -> "NodeBudget":
        """Of batches from any of these splits. Where they hold no sizes, each graph takes all rows of its padding."""
        sources = [source for source in splits.values() if isinstance(source, GraphSource)]
        if len(sources) < len(splits):
            examples = [source[0] for source in splits.values()]
            padding = tuple(max(len(example[name]) for example in examples) for name in ("inputs", "edges"))
            return cls(np.zeros((2, 0), np.int64), padding)
        most = max(map(len, sources))
        sums = np.zeros((2, most + 1), np.int64)
        for source in sources:
            for row, counts in zip(sums, (source.num_nodes, source.num_edges), strict=True):
                found = np.cumsum(np.concatenate([[0], np.sort(counts)[::-1]]))
                np.maximum(row, np.pad(found, (0, most + 1 - len(found)), mode="edge"), out=row)
        return cls(sums, (max(source.max_nodes for source in sources), max(source.max_edges for source in sources)))

    def rows(self, num_graphs: int) -> tuple[int, int]:
        """N and E for batches of `num_graphs`.

        A batch may stand in two epochs, and have a graph from each: at worst the largest ones of both, by halves.
        """
        if not self.largest.shape[1]:
            return tuple(num_graphs * rows for rows in self.padding)
        most = self.largest.shape[1] - 1
        halves = [min(half, most) for half in (num_graphs // 2, num_graphs - num_graphs // 2)]
        needed = self.largest[:, halves].sum(axis=1)
        return tuple(max(1, min(int(n), num_graphs * rows)) for n, rows in zip(needed, self.padding, strict=True))


def both_directions(pairs: np.ndarray) -> np.ndarray:
    """Undirected edges, int [m, 2], each as two: int32 [2 m, 2]; edge i is in rows 2 i and 2 i + 1."""
    return np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2).astype(np.int32)


def simple_edges(edges: np.ndarray, num_nodes: int, where: str, simplify: bool) -> np.ndarray:
    """Checked edges, int [m, 2], without self-loops and each once, in the order of their ends.

    Args:
      where: what they are, for the message.
      simplify: leave self-loops and repeated edges out; else they are refused.

    Raises:
      InputError: an end out of range; a self-loop or an edge that is there twice, unless `simplify`.
    """
    check_ends(edges, num_nodes, where)
    loops = edges[:, 0] == edges[:, 1]
    if loops.any() and not simplify:
        node = edges[int(np.argmax(loops)), 0]
        raise InputError(
            f"{where}: an edge joins node {node} to itself ({int(loops.sum())} edges do); --dataset.simplify leaves "
            "self-loops out."
        )
    edges = edges[~loops]
    unique, first = np.unique(edges, axis=0, return_index=True)
    if len(unique) < len(edges) and not simplify:
        again = edges[int(np.setdiff1d(np.arange(len(edges)), first)[0])]
        raise InputError(
            f"{where}: the edge between nodes {again[0]} and {again[1]} is there more than once "
            f"({len(edges) - len(unique)} are); --dataset.simplify leaves repeated edges out."
        )
    return unique


def concatenated(parts: Sequence[np.ndarray], width: tuple[int, ...], dtype) -> np.ndarray:
    """Rows of all parts in one array [..., *width], also where there are none."""
    return np.concatenate([np.zeros((0, *width), dtype), *[np.asarray(part, dtype) for part in parts]])
