"""Recurrent networks: padding, directions, state, segments, generation, and the parameters that PyTorch has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl import experiment
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context
from jaxdl.layers.recurrent import CELLS, Recurrent, zero_state
from jaxdl.models import create
from jaxdl.models.rnn import RNN, RNNLanguageModel, Vec2Seq, from_torch, to_torch
from jaxdl.scaling.flops import parameter_count

B, T, D, H, V = 4, 7, 3, 5, 11
LENGTHS = jnp.array([7, 1, 4, 6])
# Another order of some ten sums of some ten terms near one, in float32.
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def inputs(steps=T, seed=1):
    return jax.random.normal(jax.random.key(seed), (B, steps, D))


def tokens(steps=T, seed=1):
    return jax.random.randint(jax.random.key(seed), (B, steps), 0, V)


def random_state(cell, places):
    """A state that is not zero."""
    keys = jax.random.split(jax.random.key(8), CELLS[cell].num_states)
    return tuple(jax.random.normal(key, (B, places, H)) for key in keys)


@functools.cache
def layers(cell, **fields):
    """A stack of layers, and its variables."""
    model = Recurrent(cell, H, **fields)
    return model, jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), inputs())


@functools.partial(jax.jit, static_argnames=("model", "method", "train"))
def apply(model, variables, *args, **kwargs):
    """`model.apply` as one compiled program."""
    return model.apply(variables, *args, **kwargs)


KINDS = ("rnn_tanh", "lstm", "gru")  # the activation of an Elman network has no part in most properties
STACK = {"num_layers": 2, "bidirectional": True}


@pytest.mark.parametrize("cell", KINDS)
def test_padding_changes_nothing(cell):
    """What stands in padded steps, and how many there are, has no influence; outputs there are zero."""
    model, variables = layers(cell, **STACK)
    run = functools.partial(apply, model, variables, train=False, state=random_state(cell, 4))
    outputs, state = run(inputs(), lengths=LENGTHS)
    padding = (jnp.arange(T)[None, :] >= LENGTHS[:, None])[..., None]
    assert (jnp.where(padding, outputs, 0) == 0).all()
    noise, noise_state = run(jnp.where(padding, 1e6, inputs()), lengths=LENGTHS)
    longer, longer_state = run(jnp.pad(inputs(), ((0, 0), (0, 3), (0, 0))), lengths=LENGTHS)
    close(noise, outputs)
    close(longer[:, :T], outputs)
    for ours, theirs in zip((*noise_state, *longer_state), (*state, *state)):
        close(ours, theirs)
    for row, length in ((1, 1), (2, 4)):
        alone, alone_state = apply(
            model,
            variables,
            inputs()[row : row + 1, :length],
            tuple(x[row : row + 1] for x in random_state(cell, 4)),
            train=False,
        )
        close(alone[0], outputs[row, :length])
        for ours, theirs in zip(alone_state, state):
            close(ours[0], theirs[row])


@pytest.mark.parametrize("cell", KINDS)
def test_reversed_input_with_swapped_directions(cell):
    model, variables = layers(cell, bidirectional=True)
    params = variables["params"]
    swapped = {"layer0_forward": params["layer0_backward"], "layer0_backward": params["layer0_forward"]}
    outputs, state = apply(model, variables, inputs(), train=False)
    mirrored, mirrored_state = apply(model, {"params": swapped}, inputs()[:, ::-1], train=False)
    close(mirrored[:, ::-1], jnp.roll(outputs, H, axis=-1))
    for ours, theirs in zip(mirrored_state, state):
        close(ours, theirs[:, ::-1])


@pytest.mark.parametrize("cell", KINDS)
def test_state_carried_over_chunks_is_one_pass(cell):
    model, variables = layers(cell, num_layers=2)
    outputs, state = apply(model, variables, inputs(), train=False)
    first, carried = apply(model, variables, inputs()[:, :3], train=False)
    second, final = apply(model, variables, inputs()[:, 3:], carried, train=False)
    close(jnp.concatenate([first, second], axis=1), outputs)
    for ours, theirs in zip(final, state):
        close(ours, theirs)


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_segments_are_sequences_of_their_own(cell, bidirectional):
    """Each document of a packed row has the outputs that it has alone, in both directions; the last, its state."""
    model, variables = layers(cell, num_layers=2, bidirectional=bidirectional)
    segments = jnp.array([[1, 1, 1, 2, 3, 3, 0]] * B)
    outputs, _ = apply(model, variables, inputs(), segments=segments, train=False)
    for start, end in ((0, 3), (3, 4), (4, 6), (6, 7)):
        close(outputs[:, start:end], apply(model, variables, inputs()[:, start:end], train=False)[0])


@pytest.mark.parametrize("cell", KINDS)
def test_unroll_changes_nothing(cell):
    model, variables = layers(cell, bidirectional=True)
    outputs, _ = apply(model, variables, inputs(), lengths=LENGTHS, train=False)
    for unroll in (3, 100):
        unrolled, _ = apply(model.clone(unroll=unroll), variables, inputs(), lengths=LENGTHS, train=False)
        close(unrolled, outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_step_by_the_equations(cell):
    """One step from a given state, written out with NumPy gate by gate."""
    model, variables = layers(cell)
    state = random_state(cell, 1)
    x, h = np.asarray(inputs(1)[:, 0], np.float64), np.asarray(state[0][:, 0], np.float64)
    p = {name: np.asarray(value, np.float64) for name, value in variables["params"]["layer0_forward"].items()}
    a, b = x @ p["input_kernel"] + p["input_bias"], h @ p["hidden_kernel"] + p["hidden_bias"]
    a, b = np.split(a, CELLS[cell].num_gates, -1), np.split(b, CELLS[cell].num_gates, -1)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    if cell == "gru":
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        expected = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
    elif cell == "lstm":
        i, f, g, o = (x + y for x, y in zip(a, b))
        expected = sigmoid(o) * np.tanh(sigmoid(f) * np.asarray(state[1][:, 0]) + sigmoid(i) * np.tanh(g))
    else:
        expected = {"rnn_tanh": np.tanh, "rnn_relu": lambda z: np.maximum(z, 0)}[cell](a[0] + b[0])
    outputs, final = apply(model, variables, inputs(1), state, train=False)
    close(outputs[:, 0], expected)
    close(final[0][:, 0], expected)


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite_over_long_sequences(cell, scale):
    """With gates at their limits, too, and with padding."""
    model, variables = layers(cell, **STACK)
    steps, lengths = 2000, jnp.array([2000, 1, 700, 1999])

    @jax.jit
    @jax.grad
    def gradient(variables):
        outputs, state = model.apply(variables, scale * inputs(steps), lengths=lengths, train=False)
        return (outputs**2).sum() + sum((x**2).sum() for x in state)

    for leaf in jax.tree.leaves(gradient(variables)):
        assert jnp.isfinite(leaf).all()


def test_no_gradient_flows_from_padding_or_other_segments():
    model, variables = layers("lstm")
    slope = lambda **options: jax.grad(lambda x: model.apply(variables, x, train=False, **options)[0][:, 4].sum())
    assert (slope(lengths=LENGTHS)(inputs())[2] == 0).all()  # step 4 of a sequence of four is padding
    by_step = abs(slope(segments=jnp.array([[1, 1, 1, 2, 2, 2, 2]] * B))(inputs())).sum((0, 2))
    assert (by_step[:3] == 0).all() and (by_step[3:5] > 0).all() and (by_step[5:] == 0).all()


CASES = {
    "many to one": (RNN(num_outputs=2, cell="gru", hidden_size=H, dropout_rate=0.5, **STACK), inputs()),
    "tokens": (RNN(num_outputs=2, vocab_size=V, cell="lstm", hidden_size=H, pooling="max", dropout_rate=0.5), tokens()),
    "many to many": (RNN(num_outputs=2, hidden_size=H, pooling="none", dropout_rate=0.5, **STACK), inputs()),
    "language model": (RNNLanguageModel(V, cell="lstm", hidden_size=H, num_layers=2, dropout_rate=0.5), tokens()),
    "one to many": (Vec2Seq(num_outputs=6, hidden_size=H, num_layers=2, dropout_rate=0.5), inputs()[:, 0]),
}


@pytest.mark.parametrize("case", CASES)
def test_vmap_over_parameters(case):
    """Several networks train as one program, dropout included."""
    model, x = CASES[case]
    init = jax.jit(functools.partial(model.init, train=False))
    variables = [init(jax.random.key(seed), x) for seed in range(2)]

    def loss(variables, key):
        return (model.apply(variables, x, train=True, rngs={"dropout": key}) ** 2).sum()

    keys = jax.random.split(jax.random.key(4), 2)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
    gradients = jax.jit(jax.vmap(jax.grad(loss)))(together, keys)
    gradient = jax.jit(jax.grad(loss))
    for index in range(2):
        alone = gradient(variables[index], keys[index])
        jax.tree.map(lambda ours, theirs: close(ours[index], theirs, rtol=1e-4, atol=1e-5), gradients, alone)


@pytest.mark.parametrize("case", CASES)
def test_eight_devices_are_one(case):
    """Outputs in training, dropout included, under jit with shardings and under shard_map."""
    model, x = CASES[case]
    x = jnp.concatenate([x, x])
    variables = model.init(jax.random.key(0), x, train=False)
    apply = functools.partial(model.apply, train=True, rngs={"dropout": jax.random.key(4)})
    expected = jax.jit(apply)(variables, x)
    mesh, rows = Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data")
    close(jax.jit(apply)(variables, jax.device_put(x, NamedSharding(mesh, rows))), expected)

    def shard(variables, x):
        with batch_context(axis_name="data"):
            return apply(variables, x)

    specs = {"in_specs": (PartitionSpec(), rows), "out_specs": rows, "check_vma": False}
    close(jax.jit(jax.shard_map(shard, mesh=mesh, **specs))(variables, x), expected)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "none"])
@pytest.mark.parametrize("cell", KINDS)
def test_pooling_sees_valid_steps_alone(cell, pooling):
    model = RNN(num_outputs=2, vocab_size=V, cell=cell, hidden_size=H, pooling=pooling, **STACK)
    variables = model.init(jax.random.key(0), tokens(), train=False)
    outputs = apply(model, variables, tokens(), LENGTHS, train=False)
    assert outputs.shape == ((B, T, 2) if pooling == "none" else (B, 2))
    for row, length in ((1, 1), (2, 4)):
        alone = apply(model, variables, tokens()[row : row + 1, :length], train=False)[0]
        close(outputs[row, :length] if pooling == "none" else outputs[row], alone)
        if pooling == "none":
            assert (outputs[row, length:] == 0).all()


def test_rows_of_an_image_are_steps():
    model = RNN(cell="gru", hidden_size=H)
    images = jax.random.normal(jax.random.key(0), (B, 6, 4, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    close(apply(model, variables, images, train=False), apply(model, variables, images.reshape(B, 6, 12), train=False))


@functools.cache
def language_model(cell, tied):
    model = RNNLanguageModel(V, cell=cell, hidden_size=H, num_layers=2, tied_head=tied)
    return model, model.init(jax.random.key(0), tokens(), train=False)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", KINDS)
def test_stateful_generation_is_the_full_pass(cell, tied):
    """Prompts of several lengths, then token by token."""
    model, variables = language_model(cell, tied)
    full = apply(model, variables, tokens(), train=False)
    lengths = jnp.array([3, 1, 2, 3])
    carry, logits = apply(model, variables, tokens()[:, :3], lengths, T, method="start")
    rows = jnp.arange(B)
    close(logits, full[rows, lengths - 1])
    for step in range(T - 3):
        assert all(array.shape[0] == B for array in jax.tree.leaves(carry))
        carry, logits = apply(model, variables, carry, tokens()[rows, lengths + step], method="step")
        close(logits, full[rows, lengths + step])


def test_a_language_model_is_causal_and_knows_no_other_document():
    model, variables = language_model("gru", False)
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 0]] * B)
    changed = tokens().at[:, 1].add(1) % V
    differs = lambda **options: (
        abs(
            apply(model, variables, changed, train=False, **options)
            - apply(model, variables, tokens(), train=False, **options)
        ).max((0, 2))
        > 1e-6
    )
    assert differs().tolist() == [False] + 6 * [True]
    assert differs(segments=segments).tolist() == [False, True, True] + 4 * [False]


def test_chunks_of_a_language_model():
    model, variables = language_model("lstm", False)
    first, state = apply(model, variables, tokens()[:, :4], None, method="continued")
    second, _ = apply(model, variables, tokens()[:, 4:], state, method="continued")
    close(jnp.concatenate([first, second], axis=1), apply(model, variables, tokens(), train=False))


def test_vec2seq_sees_its_own_outputs():
    """Each step is one of the layers on the vector and the step before, by hand."""
    model = Vec2Seq(num_outputs=6, step_size=2, cell="lstm", hidden_size=H)
    vector = inputs()[:, 0]
    variables = model.init(jax.random.key(0), vector, train=False)
    params, before, state = variables["params"], jnp.zeros((B, 2)), zero_state("lstm", (B, 1, H))
    outputs = []
    for _ in range(3):
        x = jnp.concatenate([vector, before], axis=-1)[:, None]
        x, state = apply(Recurrent("lstm", H), {"params": params["recurrent"]}, x, state, train=False)
        before = x[:, 0] @ params["output"]["kernel"] + params["output"]["bias"][None]
        outputs.append(before)
    close(apply(model, variables, vector, train=False), jnp.concatenate(outputs, axis=1))


def test_vec2seq_trains_by_regression(tmp_path):
    """Frequency and phase to the curve: the targets of an example are its sequence."""
    random = np.random.default_rng(0)
    frequency, phase = random.uniform(0.3, 0.6, (512, 1)), random.uniform(-1, 1, (512, 1))
    arrays = {
        "inputs": np.concatenate([frequency, phase], axis=1).astype(np.float32),
        "targets": np.sin(frequency * np.arange(8)[None] + phase).astype(np.float32),
    }
    np.savez(tmp_path / "curves.npz", **arrays)
    flags = ["--model=vec2seq", "--model.hidden_size=16", "--task=regression", "--dataset=arrays", "--progress=off"]
    flags += [f"--dataset.path={tmp_path / 'curves.npz'}", f"--workdir={tmp_path / 'run'}", "--mesh=data:1"]
    flags += ["--steps=300", "--batch_size=64", "--learning_rate=0.02", "--plots=false", "--tensorboard=false"]
    result = experiment.run(experiment.parse(flags))
    assert result.metrics["validation"]["r2"] > 0.95


def torch_count(gates, layers, directions, inputs_, hidden):
    """Parameters of torch.nn.RNN, GRU and LSTM: weight_ih, weight_hh, bias_ih and bias_hh of each layer."""
    widths = [inputs_] + [directions * hidden] * (layers - 1)
    return sum(directions * gates * hidden * (width + hidden + 2) for width in widths)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (3, True)])
def test_parameter_counts_are_torchs(cell, num_layers, bidirectional):
    _, variables = layers(cell, num_layers=num_layers, bidirectional=bidirectional)
    assert parameter_count(variables) == torch_count(CELLS[cell].num_gates, num_layers, 1 + bidirectional, D, H)


def test_weights_of_torch_there_and_back():
    _, variables = layers("gru", **STACK)
    arrays = to_torch(variables["params"])
    assert len(arrays) == 16 and arrays["weight_hh_l1_reverse"].shape == (3 * H, H)
    jax.tree.map(np.testing.assert_array_equal, from_torch(arrays), variables["params"])
    del arrays["bias_hh_l1"]
    with pytest.raises(InputError, match="the weights have no array 'bias_hh_l1'"):
        from_torch(arrays)
    with pytest.raises(InputError, match="not the weights of a torch.nn.RNN, LSTM or GRU: weight_hr_l0"):
        from_torch(to_torch(variables["params"]) | {"weight_hr_l0": np.zeros((2, 2))})
    with pytest.raises(InputError, match="no arrays"):
        from_torch({})


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (RNN(), tokens(), "need --model.vocab_size"),
        (RNN(vocab_size=V), inputs(), "--model.vocab_size is for tokens"),
        (RNN(embedding_size=3), inputs(), "--model.embedding_size is for tokens"),
        (RNN(), inputs()[:, 0], r"takes \[B, T, F\] or \[B, H, W, C\]"),
        (RNN(cell="lsmt"), inputs(), "no recurrent cell is called 'lsmt'. Did you mean 'lstm'"),
        (RNN(pooling="first"), inputs(), "no pooling is called 'first'"),
        (RNNLanguageModel(V, embedding_size=3, tied_head=True), tokens(), "an embedding of 128 numbers"),
        (Vec2Seq(num_outputs=5, step_size=2), inputs(), "--model.step_size=2 does not divide the 5 numbers"),
    ],
)
def test_bad_choices(model, x, message):
    with pytest.raises(InputError, match=message):
        model.init(jax.random.key(0), x, train=False)


def test_bad_states_and_lengths():
    model, variables = layers("lstm")
    with pytest.raises(InputError, match=r"the state of 'lstm' has the shapes \(\(4, 1, 5\),\); "):
        apply(model, variables, inputs(), random_state("gru", 1), train=False)
    with pytest.raises(InputError, match=r"lengths have the shape \[3\]; \[4\] was expected"):
        apply(model, variables, inputs(), lengths=LENGTHS[:3], train=False)
    with pytest.raises(InputError, match=r"takes inputs \[B, T, D\]"):
        apply(model, variables, inputs()[0], train=False)


def test_names_set_the_cell():
    cells = {"rnn": "rnn_tanh", "lstm": "lstm", "gru": "gru"}
    for name, cell in cells.items():
        assert create(name).cell == cell
        assert create(f"{name}_lm").cell == cell
