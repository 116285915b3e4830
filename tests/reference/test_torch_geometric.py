"""Graph layers held against PyTorch Geometric's: same weights in, same outputs and gradients out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
geometric = pytest.importorskip("torch_geometric")

from torch_geometric import nn as pyg  # noqa: E402

from jaxdl.layers import message_passing as ours  # noqa: E402
from jaxdl.layers.graph import batch, graph  # noqa: E402

pytestmark = pytest.mark.reference

F, D, OUT, H = 5, 3, 4, 2
# Float32 sums of some ten terms near one, in another order, and exponentials of them.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
# Node 3 has a self-loop, node 6 no edge at all, the edge 0 -> 1 is there twice, and 4 -> 5 has no way back.
EDGES = np.array([[0, 1], [0, 1], [1, 0], [1, 2], [2, 1], [2, 0], [0, 2], [3, 3], [3, 2], [4, 5]])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs():
    return graph(draw(7, F), EDGES[:, 0], EDGES[:, 1], draw(len(EDGES), D, seed=1))


def arrays_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def dense(weights, name):
    """The parameters of a `Project` from those of a linear layer."""
    params = {"kernel": weights[f"{name}.weight"].T}
    return params | {"bias": weights[f"{name}.bias"]} if f"{name}.bias" in weights else params


def randomized(module):
    """The module with random numbers in every parameter, biases too."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def compare(theirs, forward, params, apply):
    """Outputs, and gradients of a weighted sum of them with respect to the nodes' features and every parameter.

    Args:
      theirs: the module, whose parameters are used.
      forward: (x, edge_index, edge_features) -> outputs, in PyTorch.
      params: arrays by name -> our parameters.
      apply: (params, x, graph) -> outputs.
    """
    mine = inputs()
    padded = batch([mine], num_nodes=9, num_edges=13)  # what is padding must change nothing
    x = torch.from_numpy(mine.nodes).requires_grad_()
    outputs = forward(x, torch.from_numpy(EDGES.T.copy()), torch.from_numpy(mine.edges))
    weights = draw(*outputs.shape, seed=2)
    (outputs * torch.from_numpy(weights)).sum().backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}

    def objective(arguments):
        found = apply(arguments["params"], arguments["x"], padded)[: len(weights)]
        return (found * weights).sum(), found

    arguments = {"params": params(arrays_of(theirs)), "x": padded.nodes}
    gradient, found = jax.jit(jax.grad(objective, has_aux=True))(arguments)
    np.testing.assert_allclose(found, outputs.detach().numpy(), **TOLERANCE)
    np.testing.assert_allclose(gradient["x"][:7], x.grad.numpy(), **TOLERANCE)
    assert not gradient["x"][7:].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), gradient["params"], params(gradients))


def applied(layer, **options):
    return lambda params, x, graph: layer.apply({"params": params}, x, graph, **options)


def test_gcn():
    theirs = randomized(pyg.GCNConv(F, OUT))
    params = lambda weights: {"projection": dense(weights, "lin"), "bias": weights["bias"]}
    compare(theirs, lambda x, edges, _: theirs(x, edges), params, applied(ours.GCNLayer(OUT)))


@pytest.mark.parametrize("concatenate", [True, False])
def test_gat(concatenate):
    theirs = randomized(pyg.GATConv(F, OUT, heads=H, concat=concatenate))

    def params(weights):
        attention = {
            "sender_attention": weights["att_src"][0],
            "receiver_attention": weights["att_dst"][0],
        }
        return {"projection": dense(weights, "lin"), "bias": weights["bias"], **attention}

    layer = ours.GATLayer(OUT, H, concatenate)
    compare(theirs, lambda x, edges, _: theirs(x, edges), params, applied(layer, train=False))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("aggregation", ["mean", "sum", "max"])
def test_graphsage(aggregation, normalize):
    theirs = randomized(pyg.SAGEConv(F, OUT, aggr=aggregation, normalize=normalize))

    def params(weights):
        own, neighbours = {"kernel": weights["lin_r.weight"].T}, {"kernel": weights["lin_l.weight"].T}
        return {"own": own | {"bias": weights["lin_l.bias"]}, "neighbours": neighbours}

    layer = ours.SAGELayer(OUT, aggregation, normalize)
    compare(theirs, lambda x, edges, _: theirs(x, edges), params, applied(layer))


@pytest.mark.parametrize("learn_epsilon", [False, True])
def test_gin(learn_epsilon):
    mlp = torch.nn.Sequential(torch.nn.Linear(F, OUT), torch.nn.ReLU(), torch.nn.Linear(OUT, OUT))
    theirs = randomized(pyg.GINConv(mlp, train_eps=learn_epsilon))

    def params(weights):
        found = {"hidden": dense(weights, "nn.0"), "output": dense(weights, "nn.2")}
        return found | ({"epsilon": weights["eps"].reshape(())} if learn_epsilon else {})

    layer = ours.GINLayer(OUT, learn_epsilon=learn_epsilon, normalization="none")
    compare(theirs, lambda x, edges, _: theirs(x, edges), params, applied(layer, train=False))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_edge_network(aggregation):
    """With a linear update it is NNConv, whose network of the edge is one linear layer."""
    theirs = randomized(pyg.NNConv(F, OUT, torch.nn.Linear(D, F * OUT), aggr=aggregation))

    def params(weights):
        matrices = np.concatenate([weights["nn.bias"][None], weights["nn.weight"].T]).reshape(D + 1, F, OUT)
        own = {"kernel": weights["lin.weight"].T, "bias": weights["bias"]}
        return {"edge_network": matrices, "own": own}

    layer = ours.MessagePassing(OUT, "edge_network", aggregation, "linear")
    compare(theirs, theirs, params, applied(layer, train=False))


class Pairs(pyg.MessagePassing):
    """A network of (x_u, x_v, e) as message, and a GRU as update."""

    def __init__(self):
        super().__init__(aggr="add")
        self.first, self.second = torch.nn.Linear(2 * F + D, F), torch.nn.Linear(F, F)
        self.gru = torch.nn.GRUCell(F, F)

    def forward(self, x, edge_index, edge_attr):
        return self.gru(self.propagate(edge_index, x=x, edge_attr=edge_attr), x)

    def message(self, x_i, x_j, edge_attr):
        return self.second(torch.relu(self.first(torch.cat([x_j, x_i, edge_attr], dim=1))))


def test_pair_messages_and_a_gru():
    theirs = randomized(Pairs())

    def params(weights):
        sender, receiver, edge = np.split(weights["first.weight"].T, [F, 2 * F])
        return {
            "sender": {"kernel": sender, "bias": weights["first.bias"]},
            "receiver": {"kernel": receiver},
            "edge": {"kernel": edge},
            "message": dense(weights, "second"),
            "gru_input": {"kernel": weights["gru.weight_ih"].T, "bias": weights["gru.bias_ih"]},
            "gru_hidden": {"kernel": weights["gru.weight_hh"].T, "bias": weights["gru.bias_hh"]},
        }

    compare(theirs, theirs, params, applied(ours.MessagePassing(F, "pair", "sum", "gru"), train=False))


@pytest.mark.parametrize("how", ["sum", "mean", "max", "attention"])
def test_readout(how):
    x, sizes = draw(9, F), [4, 1, 4]
    parts = np.split(x, np.cumsum(sizes)[:-1])
    several = batch([graph(part, [0], [0]) for part in parts], num_nodes=12)
    of = torch.from_numpy(np.repeat(np.arange(3), sizes))
    if how == "attention":
        gate = torch.nn.Linear(F, 1, bias=False)
        theirs, params = pyg.aggr.AttentionalAggregation(gate), {"score": {"kernel": gate.weight.detach().numpy().T}}
    else:
        kinds = {"sum": pyg.SumAggregation, "mean": pyg.MeanAggregation, "max": pyg.MaxAggregation}
        theirs, params = kinds[how](), {}
    found = jax.jit(ours.Readout(how).apply)({"params": params}, jnp.asarray(several.nodes), several)
    np.testing.assert_allclose(found, theirs(torch.from_numpy(x), of).detach().numpy(), **TOLERANCE)
