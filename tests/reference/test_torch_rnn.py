"""Recurrent layers held against torch.nn.RNN, LSTM and GRU: same weights in, same outputs, states and gradients out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

from jaxdl.layers.recurrent import CELLS, Recurrent  # noqa: E402
from jaxdl.models.rnn import RNNLanguageModel, from_torch, to_torch  # noqa: E402
from jaxdl.scaling.flops import parameter_count  # noqa: E402

pytestmark = pytest.mark.reference

B, T, D, H = 5, 9, 4, 6
LENGTHS = np.array([9, 1, 4, 9, 6])
# Float32 sums of some ten terms near one in another order, over nine steps and two layers.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def torch_layers(cell, num_layers, bidirectional):
    torch.manual_seed(0)
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": True}
    if cell.startswith("rnn"):
        return torch.nn.RNN(D, H, nonlinearity=cell.removeprefix("rnn_"), **options)
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](D, H, **options)


def arrays_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize(
    ("num_layers", "bidirectional"),
    [(1, False), (1, True), (2, False), (3, True)],
    ids=["one layer", "two directions", "stacked", "stacked in two directions"],
)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_states_and_gradients(cell, num_layers, bidirectional, packed):
    """From a given state, on sequences of several lengths: forward values, and gradients of a weighted sum of them."""
    theirs, ours = torch_layers(cell, num_layers, bidirectional), Recurrent(cell, H, num_layers, bidirectional)
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    places, directions = num_layers * (1 + bidirectional), 1 + bidirectional
    x, state = draw(B, T, D), [draw(B, places, H) for _ in range(CELLS[cell].num_states)]
    output_weights, state_weights = draw(B, T, directions * H), [draw(B, places, H) for _ in state]

    x_there = torch.from_numpy(x).requires_grad_()
    state_there = [torch.from_numpy(array).transpose(0, 1).contiguous().requires_grad_() for array in state]
    given = tuple(state_there) if cell == "lstm" else state_there[0]
    if packed:
        sequences = pack_padded_sequence(x_there, torch.from_numpy(LENGTHS), batch_first=True, enforce_sorted=False)
        outputs_there, final = theirs(sequences, given)
        outputs_there, _ = pad_packed_sequence(outputs_there, batch_first=True, total_length=T)
    else:
        outputs_there, final = theirs(x_there, given)
    final_there = [array.transpose(0, 1) for array in (final if cell == "lstm" else (final,))]
    total = (outputs_there * torch.from_numpy(output_weights)).sum()
    for array, weights in zip(final_there, state_weights, strict=True):
        total = total + (array * torch.from_numpy(weights)).sum()
    total.backward()

    @jax.jit
    def objective(params, x, state):
        lengths = jnp.asarray(LENGTHS) if packed else None
        outputs, final = ours.apply({"params": params}, x, state, lengths, train=False)
        total = (outputs * output_weights).sum()
        return total + sum((a * b).sum() for a, b in zip(final, state_weights, strict=True)), (outputs, final)

    params = from_torch(arrays_of(theirs))
    arguments = (params, x, tuple(jnp.asarray(array) for array in state))
    (_, (outputs, final)), gradients = jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True)(*arguments)

    np.testing.assert_allclose(outputs, outputs_there.detach().numpy(), **TOLERANCE)
    for mine, other in zip(final, final_there, strict=True):
        np.testing.assert_allclose(mine, other.detach().numpy(), **TOLERANCE)
    np.testing.assert_allclose(gradients[1], x_there.grad.numpy(), **TOLERANCE)
    for mine, other in zip(gradients[2], state_there, strict=True):
        np.testing.assert_allclose(mine, other.grad.transpose(0, 1).numpy(), **TOLERANCE)
    by_name = to_torch(gradients[0])
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(by_name[name], parameter.grad.numpy(), err_msg=name, **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_go_back_into_torch(cell):
    """Parameters of ours, loaded by `load_state_dict`, give the same outputs there; the counts are the same."""
    ours, theirs = Recurrent(cell, H, num_layers=2, bidirectional=True), torch_layers(cell, 2, True)
    x = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
    variables = ours.init(jax.random.key(3), x, train=False)
    assert parameter_count(variables) == sum(parameter.numel() for parameter in theirs.parameters())
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in to_torch(variables["params"]).items()}
    theirs.load_state_dict(arrays)
    outputs, _ = ours.apply(variables, x, train=False)
    np.testing.assert_allclose(outputs, theirs(torch.from_numpy(x))[0].detach().numpy(), **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_are_distributed_as_torchs(cell):
    """All of U(-1/sqrt(H), 1/sqrt(H)): the same bounds and the same spread."""
    ours = Recurrent(cell, H, num_layers=2).init(jax.random.key(0), jnp.zeros((1, 1, D)), train=False)
    here = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(ours)])
    there = np.concatenate([array.ravel() for array in arrays_of(torch_layers(cell, 2, False)).values()])
    for values in (here, there):
        # n numbers of a uniform distribution: the largest is within some 10 / n of the bound.
        assert abs(values).max() * np.sqrt(H) == pytest.approx(1, abs=10 / len(values))
        # The standard error of a uniform distribution's standard deviation is 0.45 / sqrt(n) of it: four of them.
        assert values.std() * np.sqrt(3 * H) == pytest.approx(1, abs=4 * 0.45 / np.sqrt(len(values)))


@pytest.mark.parametrize("tied", [False, True])
def test_language_model(tied):
    """Embedding, layers and output of PyTorch's word_language_model: logits, and the number of parameters."""
    vocab_size = 13
    layers = torch.nn.LSTM(H, H, num_layers=2, batch_first=True)
    embedding, output = torch.nn.Embedding(vocab_size, H), torch.nn.Linear(H, vocab_size)
    if tied:
        output.weight = embedding.weight
    ours = RNNLanguageModel(vocab_size, cell="lstm", hidden_size=H, num_layers=2, tied_head=tied)
    table, bias = embedding.weight.detach().numpy(), output.bias.detach().numpy()
    head = {"output_bias": bias} if tied else {"output": {"kernel": output.weight.detach().numpy().T, "bias": bias}}
    params = {"embedding": {"embedding": table}, "recurrent": from_torch(arrays_of(layers)), **head}
    theirs = {id(parameter): parameter for module in (layers, embedding, output) for parameter in module.parameters()}
    assert parameter_count(params) == sum(parameter.numel() for parameter in theirs.values())
    tokens = np.random.default_rng(0).integers(0, vocab_size, (B, T))
    expected = output(layers(embedding(torch.from_numpy(tokens)))[0]).detach().numpy()
    np.testing.assert_allclose(ours.apply({"params": params}, tokens, train=False), expected, **TOLERANCE)
