"""Graph networks: GCN, GAT, GraphSAGE, GIN, and message passing with features of edges, for nodes, graphs and links.

Their layers are jaxdl.layers.message_passing; their input is one `Graph`, which may be several packed into one.

>>> import jax, numpy as np
>>> from jaxdl.layers.graph import graph
>>> triangle = graph(np.eye(3), senders=[0, 1, 1, 2, 2, 0], receivers=[1, 0, 2, 1, 0, 2])
>>> GCN(num_outputs=2).init_with_output(jax.random.key(0), triangle, train=False)[0].shape
(3, 2)
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.activations import Activation
from jaxdl.layers.graph import Graph
from jaxdl.layers.message_passing import (
    Aggregation,
    GATLayer,
    GCNLayer,
    GINLayer,
    MessagePassing,
    Project,
    Readout,
    ReadoutName,
    SAGELayer,
    dense,
    drop_features,
)
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.regularization import Dropout
from jaxdl.types import PositiveInt, Rate

Level = Literal["node", "graph", "link"]


def link_logits(x, pairs):
    """The log odds of an edge between two nodes, by inner products: [P] from x [N, F] and pairs int32 [P, 2].

    Kipf and Welling 2016, Variational graph auto-encoders, arXiv:1611.07308, section 2.
    """
    return jnp.einsum("pf,pf->p", x[pairs[:, 0]], x[pairs[:, 1]])


class _GNN(nn.Module):
    """What all graph networks share.

    Attributes:
      num_outputs: classes or targets; of links, the size of the embeddings whose inner products are the log odds.
      level: what the outputs are of: node, graph or link.
      num_layers: rounds of message passing.
      width: features of a node between the layers.
      readout: a graph's vector from those of its nodes: sum, mean, max or attention.
      activation: activation by name (jaxdl.layers.activations).
      normalization: normalisation by name: batch, layer, rms or none.
      dropout_rate: probability of dropping a feature of a node.
      initializer: kernel initialiser by name (jaxdl.layers.initializers).
    """

    num_outputs: PositiveInt = 7
    level: Level = "node"
    num_layers: PositiveInt = 2
    width: PositiveInt = 16
    readout: ReadoutName = "mean"
    activation: str = "relu"
    normalization: Normalization = "none"
    dropout_rate: Rate = 0.0
    initializer: str = "xavier_uniform"

    def _nodes(self, graph: Graph):
        """The features of the graph's nodes. Raises InputError for anything but a graph."""
        if not isinstance(graph, Graph):
            raise InputError("a graph network takes a Graph, and the inputs are none; try --task=graph_classification.")
        return graph.nodes

    def _finished(self, x, pairs):
        """What is given back of outputs [N or B, num_outputs]: those of links are log odds of pairs [P]."""
        if self.level != "link":
            return x
        if pairs is None:
            raise InputError("a model of links needs pairs of nodes beside the graph.")
        return link_logits(x, pairs)


class _Convolutional(_GNN):
    """Layers one after the other, each with dropout before it; of nodes and links, the last one gives the outputs."""

    @nn.compact
    def __call__(self, graph: Graph, pairs=None, *, train: bool):
        """A packed graph to outputs [N, num_outputs] of nodes, [B, num_outputs] of graphs, or [P] of pairs [P, 2]."""
        x = self._nodes(graph)
        for index in range(self.num_layers):
            last = self.level != "graph" and index == self.num_layers - 1
            x = drop_features(x, self.dropout_rate, graph, train=train, name=f"dropout{index}")
            use_bias = last or not adds_bias(self.normalization)
            features = self.num_outputs if last else self.width
            x = self._layer(x, graph, features, last, {"use_bias": use_bias, "name": f"layer{index}"}, train)
            if not last:
                x = Norm(self.normalization, name=f"norm{index}")(x, train=train, mask=graph.node_mask)
                x = Activation(self.activation, name=f"activation{index}")(x, train=train)
        if self.level == "graph":
            x = Readout(self.readout, name="readout")(x, graph)
            x = Dropout(self.dropout_rate, name="dropout")(x, train=train)
            x = Project(self.num_outputs, True, self.initializer, name="output")(x)
        return self._finished(x, pairs)

    def _layer(self, x, graph: Graph, features: int, last: bool, options: dict, train: bool):
        """One layer, from [N, F]; `options` are fields that all kinds of layers have."""
        raise NotImplementedError


class GCN(_Convolutional):
    """Graph convolutional network. Kipf and Welling 2017, arXiv:1609.02907, eq. 9."""

    def _layer(self, x, graph, features, last, options, train):
        return GCNLayer(features, initializer=self.initializer, **options)(x, graph)


class GAT(_Convolutional):
    """Graph attention network. Velickovic et al. 2018, arXiv:1710.10903, section 3.3.

    Attributes:
      width: features of each head of a layer that is not the last one; heads stand side by side.
      num_heads: heads of a layer that is not the last one.
      output_heads: heads of the last layer of a network of nodes or links; their mean is taken.
      attention_dropout_rate: probability of dropping an attention weight.
    """

    width: PositiveInt = 8
    activation: str = "elu"
    num_heads: PositiveInt = 8
    output_heads: PositiveInt = 1
    attention_dropout_rate: Rate = 0.0

    def _layer(self, x, graph, features, last, options, train):
        heads = self.output_heads if last else self.num_heads
        rate = self.attention_dropout_rate
        layer = GATLayer(features, heads, not last, rate, initializer=self.initializer, **options)
        return layer(x, graph, train=train)


class GraphSAGE(_Convolutional):
    """GraphSAGE. Hamilton et al. 2017, arXiv:1706.02216, algorithm 1.

    Attributes:
      aggregation: mean, sum or max of the neighbours.
      normalize: whether every layer's output is divided by its length.
    """

    aggregation: Aggregation = "mean"
    normalize: bool = False

    def _layer(self, x, graph, features, last, options, train):
        layer = SAGELayer(features, self.aggregation, self.normalize, initializer=self.initializer, **options)
        return layer(x, graph)


class GIN(_GNN):
    """Graph isomorphism network. Xu et al. 2019, arXiv:1810.00826, sections 4.1, 4.2 and 7.

    Every layer's features, the input's included, have a linear output of their own, and these are added (eq. 4.2).

    Attributes:
      num_layers: GIN layers; the paper counts the input as one more.
      dropout_rate: probability of dropping an output, of each of these linear layers.
      aggregation: sum; mean and max are the paper's weaker variants.
      learn_epsilon: whether each layer's eps is learned; else it is 0 (GIN-0).
    """

    num_outputs: PositiveInt = 2
    level: Level = "graph"
    num_layers: PositiveInt = 4
    width: PositiveInt = 32
    readout: ReadoutName = "sum"
    normalization: Normalization = "batch"
    initializer: str = "he_normal"
    aggregation: Aggregation = "sum"
    learn_epsilon: bool = False

    @nn.compact
    def __call__(self, graph: Graph, pairs=None, *, train: bool):
        """A packed graph to outputs [N, num_outputs] of nodes, [B, num_outputs] of graphs, or [P] of pairs [P, 2]."""
        x = dense(self._nodes(graph))
        outputs = self._output(x, graph, 0, train)
        for index in range(self.num_layers):
            layer = GINLayer(
                self.width,
                self.aggregation,
                self.learn_epsilon,
                self.activation,
                self.normalization,
                not adds_bias(self.normalization),
                self.initializer,
                name=f"layer{index}",
            )
            x = layer(x, graph, train=train)
            x = Norm(self.normalization, name=f"norm{index}")(x, train=train, mask=graph.node_mask)
            x = Activation(self.activation, name=f"activation{index}")(x, train=train)
            outputs = outputs + self._output(x, graph, index + 1, train)
        return self._finished(outputs, pairs)

    def _output(self, x, graph: Graph, index: int, train: bool):
        """The part of the outputs that one layer's features have."""
        project = Project(self.num_outputs, True, self.initializer, name=f"output{index}")
        if self.level != "graph":
            return drop_features(project(x), self.dropout_rate, graph, train=train, name=f"dropout{index}")
        x = project(Readout(self.readout, name=f"readout{index}")(x, graph))
        return Dropout(self.dropout_rate, name=f"dropout{index}")(x, train=train)


class MPNN(_GNN):
    """Message passing neural network. Gilmer et al. 2017, arXiv:1704.01212, section 5.

    A dense layer takes the nodes to `width` features, every round of messages updates them, and two dense layers make
    the outputs of each node, or of the readout. The paper's readout is set2set.

    Attributes:
      message: edge_network, a matrix made of the edge's features; or pair, a network of both nodes and the edge.
      aggregation: sum, mean or max of the messages.
      update: gru; or linear.
      shared: whether all rounds have the same parameters, as in the paper.
    """

    num_outputs: PositiveInt = 1
    level: Level = "graph"
    num_layers: PositiveInt = 3
    width: PositiveInt = 64
    readout: ReadoutName = "attention"
    message: Literal["edge_network", "pair"] = "edge_network"
    aggregation: Aggregation = "sum"
    update: Literal["gru", "linear"] = "gru"
    shared: bool = True

    @nn.compact
    def __call__(self, graph: Graph, pairs=None, *, train: bool):
        """A packed graph to outputs [N, num_outputs] of nodes, [B, num_outputs] of graphs, or [P] of pairs [P, 2]."""
        activate = lambda x, name: Activation(self.activation, name=name)(x, train=train)
        project = lambda features, name: Project(features, True, self.initializer, name=name)
        x = activate(project(self.width, "input")(self._nodes(graph)), "input_activation")
        options = {
            "message": self.message,
            "aggregation": self.aggregation,
            "update": self.update,
            "activation": self.activation,
            "use_bias": not adds_bias(self.normalization),
            "initializer": self.initializer,
        }
        num_layers = 1 if self.shared else self.num_layers
        layers = [MessagePassing(self.width, **options, name=f"layer{index}") for index in range(num_layers)]
        for index in range(self.num_layers):
            x = layers[0 if self.shared else index](x, graph, train=train)
            x = Norm(self.normalization, name=f"norm{index}")(x, train=train, mask=graph.node_mask)
            if self.update == "linear":
                x = activate(x, f"activation{index}")
            x = drop_features(x, self.dropout_rate, graph, train=train, name=f"dropout{index}")
        if self.level == "graph":
            x = Readout(self.readout, name="readout")(x, graph)
        x = activate(project(self.width, "hidden")(x), "hidden_activation")
        return self._finished(project(self.num_outputs, "output")(x), pairs)
