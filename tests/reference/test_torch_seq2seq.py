"""Sequence to sequence held against an encoder and decoder of PyTorch's modules: same weights, same logits."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from jaxdl.models.seq2seq import Seq2Seq  # noqa: E402

pytestmark = pytest.mark.reference

B, S, T, START = 4, 6, 5, 3
SIZES = {"vocab_size": 11, "target_vocab_size": 9, "hidden_size": 8, "embedding_size": 5, "start_token": START}


class TorchSeq2Seq(torch.nn.Module):
    """Luong et al. 2015 with input feeding, and the scores of Bahdanau et al. 2015; a step of the decoder at a time."""

    def __init__(self, cell, attention, num_layers, bidirectional):
        super().__init__()
        hidden, embedding, self.attention, self.layers = 8, 5, attention, num_layers
        directions = 2 if bidirectional else 1
        network, step = {
            "lstm": (torch.nn.LSTM, torch.nn.LSTMCell),
            "gru": (torch.nn.GRU, torch.nn.GRUCell),
            "rnn_tanh": (torch.nn.RNN, torch.nn.RNNCell),
        }[cell]
        self.source, self.target = torch.nn.Embedding(11, embedding), torch.nn.Embedding(9, embedding)
        self.encoder = network(
            embedding, hidden // directions, num_layers, batch_first=True, bidirectional=bidirectional
        )
        first = embedding + (0 if attention == "none" else hidden)
        self.cells = torch.nn.ModuleList([step(first if i == 0 else hidden, hidden) for i in range(num_layers)])
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False)
        self.key, self.query, self.vector = linear(hidden, hidden), linear(hidden, hidden), linear(hidden, 1)
        self.combine, self.output = linear(2 * hidden, hidden), torch.nn.Linear(hidden, 9)

    def scores(self, query, memory):
        """[B, S]."""
        if self.attention == "additive":
            return self.vector(torch.tanh(self.query(query)[:, None] + self.key(memory)))[..., 0]
        keys = self.key(memory) if self.attention == "bilinear" else memory
        return torch.bmm(keys, query[..., None])[..., 0]

    def forward(self, source, lengths, target):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.source(source), lengths, batch_first=True, enforce_sorted=False
        )
        memory, final = self.encoder(packed)
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(memory, batch_first=True, total_length=S)
        final = final if isinstance(final, tuple) else (final,)
        # [layers * directions, B, H / directions] to a list of [B, H].
        final = [list(x.unflatten(0, (self.layers, -1)).transpose(1, 2).flatten(2)) for x in final]
        states = [parts if len(parts) > 1 else parts[0] for parts in zip(*final)]
        mask = torch.arange(S)[None] < lengths[:, None]
        tokens = torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)
        attentional, logits = torch.zeros(B, 8), []
        for t in range(T):
            x = self.target(tokens[:, t])
            if self.attention != "none":
                x = torch.cat([x, attentional], dim=1)
            for i, cell in enumerate(self.cells):
                states[i] = cell(x, states[i])
                x = states[i][0] if isinstance(states[i], tuple) else states[i]
            if self.attention != "none":
                weights = self.scores(x, memory).masked_fill(~mask, -torch.inf).softmax(dim=1)
                context = torch.bmm(weights[:, None], memory)[:, 0]
                x = attentional = torch.tanh(self.combine(torch.cat([context, x], dim=1)))
            logits.append(self.output(x))
        return torch.stack(logits, dim=1)


def array(tensor):
    return tensor.detach().numpy()


def layer(module, suffix=""):
    """A layer and direction of a recurrent module or cell."""
    weight = lambda kind, of: array(getattr(module, f"{kind}_{of}{suffix}"))
    return {
        "input_kernel": weight("weight", "ih").T,
        "input_bias": weight("bias", "ih"),
        "hidden_kernel": weight("weight", "hh").T,
        "hidden_bias": weight("bias", "hh"),
    }


def variables_of(theirs):
    directions = {"forward": ""} | ({"backward": "_reverse"} if theirs.encoder.bidirectional else {})
    params = {
        "source_embedding": {"embedding": array(theirs.source.weight)},
        "target_embedding": {"embedding": array(theirs.target.weight)},
        "encoder": {
            f"layer{i}_{name}": layer(theirs.encoder, f"_l{i}{suffix}")
            for i in range(theirs.layers)
            for name, suffix in directions.items()
        },
        "decoder": {f"layer{i}_forward": layer(cell) for i, cell in enumerate(theirs.cells)},
        "output": {"kernel": array(theirs.output.weight).T, "bias": array(theirs.output.bias)},
    }
    if theirs.attention == "none":
        return {"params": params}
    names = {"dot": [], "bilinear": ["key"], "additive": ["key", "query", "vector"]}[theirs.attention]
    kernel = lambda linear: {"kernel": array(linear.weight).T}
    params["combine"] = kernel(theirs.combine)
    if names:
        params["attend"] = {name: kernel(getattr(theirs, name)) for name in names}
    return {"params": params}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("cell", "attention", "num_layers"),
    [
        ("lstm", "additive", 1),
        ("lstm", "dot", 2),
        ("lstm", "none", 2),
        ("gru", "additive", 2),
        ("gru", "dot", 1),
        ("rnn_tanh", "bilinear", 1),
    ],
)
def test_logits(cell, attention, num_layers, bidirectional):
    torch.manual_seed(0)
    choices = {"cell": cell, "attention": attention, "num_layers": num_layers, "bidirectional": bidirectional}
    theirs, ours = TorchSeq2Seq(**choices), Seq2Seq(**SIZES, **choices)
    random = np.random.default_rng(0)
    source, target = random.integers(0, 11, (B, S)), random.integers(0, 9, (B, T))
    lengths = np.array([6, 1, 4, 3])
    variables = variables_of(theirs)
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), source, lengths, target, train=False))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    with torch.no_grad():
        expected = theirs(*map(torch.from_numpy, (source, lengths, target))).numpy()
    logits = jax.jit(lambda *arrays: ours.apply(variables, *arrays, train=False))(source, lengths, target)
    # Five steps of sums of some twenty terms near one, in another order.
    np.testing.assert_allclose(logits, expected, atol=2e-6)
    assert np.abs(expected).max() > 0.1
