"""Layers on graphs: each node hears from the nodes that have an edge to it (Gilmer et al. 2017, arXiv:1704.01212).

    m_v = aggregate of message(x_u, x_v, e_uv) over the edges u -> v         x'_v = update(x_v, m_v)

A layer is `layer(x, graph)`, from x [N, F] to [N, features]; a node that no edge goes to hears zeros. What padded nodes
and edges hold changes nothing for the others; what comes out for padded nodes means nothing.

Shapes: as in jaxdl.layers.graph; H heads.

>>> import jax, numpy as np
>>> from jaxdl.layers.graph import graph
>>> path = graph(np.eye(3), senders=[0, 1, 1, 2], receivers=[1, 0, 2, 1])
>>> GCNLayer(5).init_with_output(jax.random.key(0), path.nodes, path)[0].shape
(3, 5)
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.activations import Activation
from jaxdl.layers.graph import Graph, SparseRows
from jaxdl.layers.initializers import initializer
from jaxdl.layers.normalization import Norm, Normalization, adds_bias
from jaxdl.layers.recurrent import gru
from jaxdl.layers.regularization import Dropout
from jaxdl.types import PositiveInt, Rate

Aggregation = Literal["sum", "mean", "max"]
ReadoutName = Literal["sum", "mean", "max", "attention"]


# Sums over segments: of the edges of a node, of the nodes of a graph.


def segment(values, segments, mask, num_segments: int, how: Aggregation = "sum"):
    """The sum, mean or greatest of the rows of each segment; zeros of a segment without rows.

    Args:
      values: [R, ...].
      segments: int [R], the segment of each row.
      mask: bool [R]; rows where it is False do not count, whatever they hold.
      num_segments: S.
      how: sum, mean or max.

    Returns:
      [S, ...].
    """
    places = jnp.where(mask, segments, num_segments)  # beyond the last one, where rows are dropped
    shape = (num_segments, *values.shape[1:])
    if how == "max":
        greatest = jnp.full(shape, -jnp.inf, values.dtype).at[places].max(values, mode="drop")
        return jnp.where(greatest == -jnp.inf, 0, greatest)
    total = jnp.zeros(shape, values.dtype).at[places].add(values, mode="drop")
    if how == "sum":
        return total
    if how != "mean":
        raise InputError(f"no aggregation is called '{how}': it is sum, mean or max.")
    count = jnp.maximum(segment_count(segments, mask, num_segments), 1).astype(values.dtype)
    return total / count.reshape(-1, *(1,) * (values.ndim - 1))


def segment_count(segments, mask, num_segments: int):
    """How many rows each segment has, float32 [S]; the arguments are those of `segment`."""
    return segment(jnp.ones(segments.shape, jnp.float32), segments, mask, num_segments)


def segment_softmax(logits, segments, mask, num_segments: int):
    """The softmax over the rows of each segment, [R, ...]; 0 where `mask` is False."""
    greatest = jax.lax.stop_gradient(segment(logits, segments, mask, num_segments, "max"))
    rows = mask.reshape(-1, *(1,) * (logits.ndim - 1))
    weights = jnp.where(rows, jnp.exp(jnp.where(rows, logits - greatest[segments], 0)), 0)
    total = segment(weights, segments, mask, num_segments)
    return weights / jnp.where(rows, total[segments], 1)


def aggregate(messages, graph: Graph, how: Aggregation = "sum"):
    """What each node hears: [N, ...] from the messages of the edges, [E, ...]."""
    return segment(messages, graph.receivers, graph.edge_mask, graph.num_nodes, how)


class Project(nn.Module):
    """A dense layer on the features of nodes, [N, F] or `SparseRows`; its parameters are those of `nn.Dense`.

    Attributes:
      features: size of the output.
      use_bias: whether there is a bias.
      initializer: name of the kernel's initialiser.
    """

    features: PositiveInt = 16
    use_bias: bool = True
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, x):
        """[N, F] to [N, features]. Raises InputError for parameters that are for another F."""
        if self.has_variable("params", "kernel"):
            expected = self.get_variable("params", "kernel").shape[0]
            if x.shape[-1] != expected:
                raise InputError(f"there are {x.shape[-1]} features, and '{self.name}' has parameters for {expected}.")
        kernel = self.param("kernel", initializer(self.initializer), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        kernel = kernel.astype(x.dtype)
        outputs = x.times(kernel) if isinstance(x, SparseRows) else x @ kernel
        return outputs if bias is None else outputs + bias[None].astype(x.dtype)


def dense(x):
    """Features of nodes as an array [N, F]."""
    return x.dense() if isinstance(x, SparseRows) else x


def drop_features(x, rate, graph: Graph, *, train: bool, name: str):
    """Dropout of the features of nodes, of which each node has a key of its own. Called in a compact method."""
    layer = Dropout(rate, name=name)
    if isinstance(x, SparseRows):  # an entry that is zero is zero, dropped or not
        return x.replace(values=layer(x.values, train=train, keys=graph.node_keys))
    return layer(x, train=train, keys=graph.node_keys)


# Layers.


class GCNLayer(nn.Module):
    """Graph convolution: x' = D^-1/2 (A + I) D^-1/2 x W + b. Kipf and Welling 2017, arXiv:1609.02907, eq. 2.

    D_v is one more than the number of edges to v. Edges are taken to be in both directions, as theirs are. A self-loop
    counts once, whether the graph has it or not; an edge that is there twice counts twice.

    Attributes:
      features: size of the output.
      use_bias: whether there is a bias.
      initializer: name of the kernel's initialiser.
    """

    features: PositiveInt = 16
    use_bias: bool = True
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, x, graph: Graph):
        x = Project(self.features, False, self.initializer, name="projection")(x)
        graph = graph._replace(edge_mask=graph.edge_mask & (graph.senders != graph.receivers))
        degree = 1 + segment_count(graph.receivers, graph.edge_mask, graph.num_nodes)
        scale = jax.lax.rsqrt(degree)[:, None].astype(x.dtype)
        x = scale * x
        x = scale * (x + aggregate(x[graph.senders], graph))
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.features,))[None].astype(x.dtype)


class GATLayer(nn.Module):
    """Graph attention: a softmax over the neighbours and the node itself. Velickovic et al. 2018, arXiv:1710.10903.

        x'_v = b + sum_u alpha_uv W x_u     alpha_uv = softmax_u(leaky_relu(a . W x_u + a' . W x_v))     (eqs. 1 - 6)

    A self-loop counts once, whether the graph has it or not.

    Attributes:
      features: size of the output of one head.
      num_heads: heads.
      concatenate: heads side by side, num_heads * features outputs; else their mean.
      dropout_rate: probability of dropping an attention weight after the softmax.
      negative_slope: slope of the leaky ReLU below zero.
      use_bias: whether there is a bias.
      initializer: name of the kernels' initialiser.
    """

    features: PositiveInt = 8
    num_heads: PositiveInt = 8
    concatenate: bool = True
    dropout_rate: Rate = 0.0
    negative_slope: float = 0.2
    use_bias: bool = True
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, x, graph: Graph, *, train: bool):
        heads, features = self.num_heads, self.features
        init = initializer(self.initializer)
        x = Project(heads * features, False, self.initializer, name="projection")(x).reshape(-1, heads, features)
        of_sender, of_receiver = (
            jnp.einsum("nhf,hf->nh", x, self.param(name, init, (heads, features)).astype(x.dtype))
            for name in ("sender_attention", "receiver_attention")
        )
        looped = graph.with_self_loops()
        logits = of_sender[looped.senders] + of_receiver[looped.receivers]
        logits = jnp.where(logits >= 0, logits, self.negative_slope * logits)
        weights = segment_softmax(logits, looped.receivers, looped.edge_mask, looped.num_nodes)
        weights = Dropout(self.dropout_rate, name="dropout")(weights, train=train, keys=looped.edge_keys)
        x = aggregate(weights[..., None] * x[looped.senders], looped)
        x = x.reshape(-1, heads * features) if self.concatenate else x.mean(axis=1)
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (x.shape[-1],))[None].astype(x.dtype)


class SAGELayer(nn.Module):
    """GraphSAGE: x'_v = W x_v + W' aggregate(x_u) + b. Hamilton et al. 2017, arXiv:1706.02216, algorithm 1.

    One matrix for (x_v, aggregate) side by side, as there, is two that add.

    Attributes:
      features: size of the output.
      aggregation: mean, sum or max of the neighbours.
      normalize: whether each output is divided by its length, as line 7 there.
      use_bias: whether there is a bias.
      initializer: name of the kernels' initialiser.
    """

    features: PositiveInt = 16
    aggregation: Aggregation = "mean"
    normalize: bool = False
    use_bias: bool = True
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, x, graph: Graph):
        own = Project(self.features, self.use_bias, self.initializer, name="own")
        neighbours = Project(self.features, False, self.initializer, name="neighbours")
        if self.aggregation == "max":
            heard = neighbours(aggregate(dense(x)[graph.senders], graph, "max"))
        else:  # linear, so that the order does not matter, and fewer numbers travel
            heard = aggregate(neighbours(x)[graph.senders], graph, self.aggregation)
        x = own(x) + heard
        if not self.normalize:
            return x
        square = jnp.square(x.astype(jnp.float32)).sum(axis=-1, keepdims=True)
        return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


class GINLayer(nn.Module):
    """Graph isomorphism network: x'_v = MLP((1 + eps) x_v + sum_u x_u). Xu et al. 2019, arXiv:1810.00826, eq. 4.1.

    The MLP is dense, normalisation, activation, dense.

    Attributes:
      features: size of the output and of the hidden layer.
      aggregation: sum; mean and max are the paper's weaker variants.
      learn_epsilon: whether eps is learned, from 0; else it is 0 (GIN-0).
      activation: activation of the MLP by name (jaxdl.layers.activations).
      normalization: normalisation within the MLP: batch, layer, rms or none.
      use_bias: whether the MLP's last layer has a bias.
      initializer: name of the kernels' initialiser.
    """

    features: PositiveInt = 32
    aggregation: Aggregation = "sum"
    learn_epsilon: bool = False
    activation: str = "relu"
    normalization: Normalization = "batch"
    use_bias: bool = True
    initializer: str = "he_normal"

    @nn.compact
    def __call__(self, x, graph: Graph, *, train: bool):
        x = dense(x)
        heard = aggregate(x[graph.senders], graph, self.aggregation)
        if self.learn_epsilon:
            x = x * (1 + self.param("epsilon", nn.initializers.zeros, ())).astype(x.dtype)
        x = Project(self.features, not adds_bias(self.normalization), self.initializer, name="hidden")(x + heard)
        x = Norm(self.normalization, name="norm")(x, train=train, mask=graph.node_mask)
        x = Activation(self.activation, name="activation")(x, train=train)
        return Project(self.features, self.use_bias, self.initializer, name="output")(x)


class MessagePassing(nn.Module):
    """Message passing with features of edges, in its general form. Gilmer et al. 2017, arXiv:1704.01212, section 5.

    Messages (section 5.1): `edge_network`, A(e) x_u with a matrix A that is affine in e; or `pair`, a dense layer,
    activation and dense layer of x_u, x_v and e. Edges without features have the matrix alone, or none in the pair.
    Updates: `gru`, of the state x_v by m_v (there too); `linear`, W x_v + m_v + b, which with an edge network is the
    layer of Simonovsky and Komodakis 2017, arXiv:1704.02901, with sums; or `none`, m_v itself.

    Attributes:
      features: size of the output; with gru that of the input, too.
      message: edge_network or pair.
      aggregation: sum, mean or max of the messages.
      update: gru, linear or none.
      activation: activation within a pair message by name.
      use_bias: whether a linear update has a bias.
      initializer: name of the kernels' initialiser.
    """

    features: PositiveInt = 64
    message: Literal["edge_network", "pair"] = "edge_network"
    aggregation: Aggregation = "sum"
    update: Literal["gru", "linear", "none"] = "gru"
    activation: str = "relu"
    use_bias: bool = True
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, x, graph: Graph, *, train: bool):
        """Raises InputError when a GRU's state is not of `features` numbers, or parameters are for other edges."""
        x = dense(x)
        messages = self._edge_network(x, graph) if self.message == "edge_network" else self._pair(x, graph, train)
        heard = aggregate(messages, graph, self.aggregation)
        if self.update == "none":
            return heard
        if self.update == "linear":
            return heard + Project(self.features, self.use_bias, self.initializer, name="own")(x)
        if x.shape[-1] != self.features:
            raise InputError(
                f"a GRU updates a state of its own size: {x.shape[-1]} features of a node are not {self.features}."
            )
        gates = [
            Project(3 * self.features, True, self.initializer, name=name)(value)
            for name, value in (("gru_input", heard), ("gru_hidden", x))
        ]
        return gru(*gates, (x,))[0]

    def _edge_network(self, x, graph: Graph):
        """A(e) x_u of each edge. A is affine in e, so x goes through each of its D + 1 matrices before it travels."""
        width = 0 if graph.edges is None else graph.edges.shape[-1]
        if self.has_variable("params", "edge_network"):
            expected = self.get_variable("params", "edge_network").shape[0] - 1
            if width != expected:
                raise InputError(f"edges have {width} features, and '{self.name}' has parameters for {expected}.")
        shape = (1 + width, x.shape[-1], self.features)
        matrices = self.param("edge_network", initializer(self.initializer), shape).astype(x.dtype)
        products = jnp.einsum("nf,dfo->ndo", x, matrices)[graph.senders]
        if graph.edges is None:
            return products[:, 0]
        return products[:, 0] + jnp.einsum("ed,edo->eo", graph.edges.astype(x.dtype), products[:, 1:])

    def _pair(self, x, graph: Graph, train: bool):
        """The two layers of (x_u, x_v, e), of which the first is a sum of three, so that nodes are multiplied once."""
        project = lambda name, use_bias: Project(self.features, use_bias, self.initializer, name=name)
        hidden = project("sender", True)(x)[graph.senders] + project("receiver", False)(x)[graph.receivers]
        if graph.edges is not None:
            hidden = hidden + project("edge", False)(graph.edges.astype(x.dtype))
        hidden = Activation(self.activation, name="activation")(hidden, train=train)
        return project("message", True)(hidden)


class Readout(nn.Module):
    """One vector a graph from those of its nodes: [B, F] from [N, F]; zeros of a graph without nodes.

    `attention` is the mean weighted by a softmax over the graph's nodes of one learned score of each (the soft
    attention of Li et al. 2016, arXiv:1511.05493, section 3.3, with its sigmoid a softmax).

    Attributes:
      how: sum, mean, max or attention.
    """

    how: ReadoutName = "mean"

    @nn.compact
    def __call__(self, x, graph: Graph):
        segments = graph.node_graph, graph.node_mask, graph.num_graphs
        if self.how != "attention":
            return segment(x, *segments, self.how)
        scores = Project(1, False, name="score")(x)
        return segment(segment_softmax(scores, *segments) * x, *segments)
