"""Tasks on graphs: what is predicted of whole graphs, of their nodes, and of links between nodes.

A batch is graphs padded to one size (jaxdl.data.graphs); the model's input is one `Graph`, packed of all of them.
Shapes: B graphs of n rows of nodes, N packed nodes, P pairs of nodes of a graph.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.data.graphs import NodeBudget
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys
from jaxdl.layers.graph import Graph, SparseRows, first_nodes, pack
from jaxdl.tasks.base import Task
from jaxdl.tasks.classification import Classification
from jaxdl.tasks.multi_label import MultiLabel
from jaxdl.tasks.regression import Regression


@dataclasses.dataclass(frozen=True)
class _OfGraphs(Task):
    """What all tasks on graphs share.

    Attributes:
      budget: how many packed nodes and edges a batch needs; from the data, no flag.
      num_features: int, of sparse features of nodes; from the data, no flag.
    """

    budget: NodeBudget | None = dataclasses.field(default=None, compare=False, repr=False)
    num_features: Any = dataclasses.field(default=None, compare=False, repr=False)

    level: ClassVar[str] = "graph"
    fills: ClassVar[tuple[str, ...]] = ("num_outputs", "level")

    def for_data(self, data):
        example = data.splits["train"][0]
        missing = [name for name in ("inputs", "edges", "num_nodes", "num_edges") if name not in example]
        if missing:
            raise InputError(f"this task needs graphs, and an example of the dataset has no {', '.join(missing)}.")
        num_features = getattr(data.splits["train"], "num_features", None)
        budget = NodeBudget.of(data.splits)
        return dataclasses.replace(super().for_data(data), budget=budget, num_features=num_features)

    def model_fields(self, data) -> dict:
        return super().model_fields(data) | {"level": self.level}

    def inputs(self, batch) -> tuple:
        return (self.graph(batch),)

    def graph(self, batch) -> Graph:
        """The batch as one graph, without the examples of weight 0; `inputs` that are one stay as they are."""
        nodes, num_nodes, num_edges = batch["inputs"], batch.get("num_nodes"), batch.get("num_edges")
        if isinstance(nodes, Graph):
            return nodes
        if "values" in batch:
            nodes = SparseRows(nodes, batch["values"], self.num_features)
        if "weight" in batch:
            num_nodes, num_edges = (jnp.where(batch["weight"] > 0, counts, 0) for counts in (num_nodes, num_edges))
        max_nodes, max_edges = self.budget.rows(len(num_nodes))
        return pack(nodes, batch["edges"], num_nodes, num_edges, batch.get("edge_features"), max_nodes, max_edges)


@dataclasses.dataclass(frozen=True)
class GraphClassification(_OfGraphs, Classification):
    """One class out of several for each graph: labels int [B]."""

    def check(self, data) -> None:
        super().check(data)
        if "node_weight" in data.splits["train"][0]:
            raise InputError("the dataset's labels are of nodes, not of graphs; try --task=node_classification.")


@dataclasses.dataclass(frozen=True)
class GraphRegression(_OfGraphs, Regression):
    """Real targets for each graph: targets float [B, T]."""

    def check(self, data) -> None:
        super().check(data)
        if "target_weight" in data.splits["train"][0]:
            raise InputError("the targets are labels, of which some are missing; try --task=graph_multi_label.")


@dataclasses.dataclass(frozen=True)
class GraphMultiLabel(_OfGraphs, MultiLabel):
    """Several labels of yes or no for each graph, of which some may be missing: targets float [B, T]."""


@dataclasses.dataclass(frozen=True)
class NodeClassification(_OfGraphs, Classification):
    """One class out of several for each node that `node_weight` (float [B, n]) is 1 for: labels int [B, n].

    The mean is over these nodes of all graphs.
    """

    level: ClassVar[str] = "node"

    def check(self, data) -> None:
        super().check(data)
        if "node_weight" not in data.splits["train"][0]:
            raise InputError(
                "this task needs labels of nodes, and the dataset has none; try --task=graph_classification."
            )

    def loss(self, forward, batch, key, player="model"):
        return super().loss(forward, self._by_node(batch), key, player)

    def evaluate(self, forward, batch):
        return super().evaluate(forward, self._by_node(batch))

    def figures(self, predict, batches, data):
        def nodes():
            for batch in batches:
                found = self._by_node(batch)
                yield {"inputs": np.asarray(predict(batch)), "labels": found["labels"], "weight": found["weight"]}

        return super().figures(lambda batch: batch["inputs"], nodes(), data)

    def _by_node(self, batch) -> dict:
        """The batch with nodes as examples: their graph as inputs, labels int [N] and weight float [N]."""
        graph = self.graph(batch)
        packed = lambda values: values[graph.node_graph, graph.node_place]
        weight = jnp.where(graph.node_mask, packed(jnp.asarray(batch["node_weight"])), 0)
        return {"inputs": graph, "labels": packed(jnp.asarray(batch["labels"])), "weight": weight}


@dataclasses.dataclass(frozen=True)
class LinkPrediction(_OfGraphs):
    """Whether there is an edge between two nodes: pairs int [B, P, 2], with `pair_labels` and `pair_weight` [B, P].

    In training every pair of label 1 is told from one drawn uniformly from all pairs of nodes of its graph, anew at
    each step; a pair that happens to be an edge is not drawn again (Kipf and Welling 2016, arXiv:1611.07308, weigh all
    pairs instead). Evaluations take the pairs of both labels that the data has.

    Attributes:
      num_examples: int, graphs of the largest split; from the data, no flag.
    """

    num_examples: Any = dataclasses.field(default=None, compare=False, repr=False)

    level: ClassVar[str] = "link"
    fills: ClassVar[tuple[str, ...]] = ("level",)
    selection: ClassVar[tuple[str, str]] = ("roc_auc", "max")

    def for_data(self, data):
        return dataclasses.replace(super().for_data(data), num_examples=max(map(len, data.splits.values())))

    def model_fields(self, data) -> dict:
        return {"level": self.level}

    def check(self, data) -> None:
        if "pairs" not in data.splits["train"][0]:
            raise InputError(
                "link_prediction needs pairs of nodes, and the dataset has none; of planetoid, "
                "--dataset.predict=links gives them."
            )

    def inputs(self, batch) -> tuple:
        graph = self.graph(batch)
        return graph, self._packed(batch, batch["pairs"])

    def loss(self, forward, batch, key, player="model"):
        pairs = batch["pairs"]
        keys = example_keys(key, len(pairs))
        draw = lambda key, size: jax.random.randint(key, pairs.shape[1:], 0, jnp.maximum(size, 1))
        negatives = jax.vmap(draw)(keys, batch["num_nodes"])
        both = jnp.concatenate([pairs, negatives], axis=1)
        logits = forward(self.graph(batch), self._packed(batch, both)).reshape(both.shape[:2])
        labels = jnp.concatenate([jnp.ones(pairs.shape[:2]), jnp.zeros(pairs.shape[:2])], axis=1)
        weight = jnp.tile(self._weight(batch) * batch["pair_labels"], (1, 2))
        values = losses.sigmoid_cross_entropy(logits, labels)
        return losses.share_of_mean(values, weight), {"loss": metrics.Mean.of(values, weight)}

    def evaluate(self, forward, batch):
        labels, weight = batch["pair_labels"], self._weight(batch)
        logits = forward(*self.inputs(batch)).reshape(labels.shape)
        ranked = (logits, labels, weight, batch["index"], self.num_examples, True)
        return {
            "loss": metrics.Mean.of(losses.sigmoid_cross_entropy(logits, labels), weight),
            "roc_auc": metrics.RocAuc.of(*ranked),
            "average_precision": metrics.AveragePrecision.of(*ranked),
        }

    def figures(self, predict, batches, data):
        from jaxdl import plots

        rows = [(predict(batch), batch["pair_labels"], self._weight(batch)) for batch in batches]
        if not rows:
            return {}
        columns = [np.concatenate([np.ravel(x) for x in column])[:, None] for column in zip(*rows, strict=True)]
        return {"roc": plots.roc_curves(*columns, ("links",))}

    def _packed(self, batch, pairs):
        """Pairs of nodes of each graph, [B, P, 2], as numbers of packed nodes, [B P, 2]."""
        num_nodes = batch["num_nodes"]
        if "weight" in batch:
            num_nodes = jnp.where(batch["weight"] > 0, num_nodes, 0)
        return (pairs + first_nodes(num_nodes)[:, None, None]).reshape(-1, 2)

    def _weight(self, batch):
        """1 for each pair that counts: [B, P]."""
        weight = batch["pair_weight"]
        return weight * batch["weight"][:, None] if "weight" in batch else weight
