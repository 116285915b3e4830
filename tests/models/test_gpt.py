"""GPT: what a causal language model must satisfy, for every kind of positions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data.pipeline import Pipeline
from jaxdl.errors import InputError
from jaxdl.models import create
from jaxdl.models.gpt import GPT
from jaxdl.scaling.flops import forward_flops, model_shapes, parameter_count
from jaxdl.sharding import Placement, make_mesh
from tests.models.variables import random_variables

SMALL = {"vocab_size": 11, "max_length": 16, "num_layers": 2, "num_heads": 4, "width": 16}
CASES = {
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "rotary": {"positions": "rotary"},
    "alibi": {"positions": "alibi"},
    "alibi, 3 heads": {"positions": "alibi", "num_heads": 3, "head_dim": 4},
    "none": {"positions": "none"},
    "grouped queries": {"positions": "rotary", "num_kv_heads": 2, "normalization": "rms", "activation": "swiglu"},
    "scan": {"positions": "rotary", "num_kv_heads": 1, "scan_layers": True, "remat": True, "tied_head": False},
    "scan, alibi": {"positions": "alibi", "scan_layers": True, "use_bias": False},
}
TOKENS = jax.random.randint(jax.random.key(0), (3, 12), 0, 11)
# Two layers of sums of 16 to 64 float32 terms near one.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@functools.cache
def built(case):
    model = GPT(**{**SMALL, **CASES[case]})
    return model, random_variables(model, (12,), "int32")


def logits(case, tokens, segments=None):
    model, variables = built(case)
    return jax.jit(functools.partial(model.apply, train=False))(variables, tokens, segments)


@pytest.mark.parametrize("case", CASES)
def test_a_token_has_no_influence_on_what_stands_before_it(case):
    changed = TOKENS.at[:, 7].set((TOKENS[:, 7] + 1) % 11)
    before, after = logits(case, TOKENS), logits(case, changed)
    np.testing.assert_allclose(before[:, :7], after[:, :7], **CLOSE)
    assert (abs(before - after).max(-1)[:, 7:] > 1e-3).all()


@pytest.mark.parametrize("case", CASES)
def test_order_matters_but_without_positions_only_through_what_a_token_sees(case):
    swapped = TOKENS.at[0, :3].set(jnp.array([2, 1, 5])), TOKENS.at[0, :3].set(jnp.array([1, 2, 5]))
    first, second = (logits(case, tokens)[0, 2] for tokens in swapped)
    assert not np.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_packed_documents_are_as_each_alone(case):
    row = TOKENS[:1]
    segments = jnp.array([[1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 0, 0]])
    packed = logits(case, row, segments)
    for begin, end in ((0, 4), (4, 5), (5, 10)):
        np.testing.assert_allclose(packed[:, begin:end], logits(case, row[:, begin:end]), **CLOSE)
    assert jnp.isfinite(packed).all()


@pytest.mark.parametrize("case", CASES)
def test_padding_on_the_right_changes_nothing(case):
    np.testing.assert_allclose(logits(case, TOKENS)[:, :5], logits(case, TOKENS[:, :5]), **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_cached_logits_are_the_uncached(case):
    model, variables = built(case)
    expected = logits(case, TOKENS)
    lengths = jnp.array([1, 5, 3])
    start = jax.jit(functools.partial(model.apply, method="start"), static_argnums=3)
    step = jax.jit(functools.partial(model.apply, method="step"))
    carry, predicted = start(variables, TOKENS[:, :5], lengths, 12)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(carry))
    for offset in range(8):
        places = lengths + offset
        reached = places <= 12
        np.testing.assert_allclose(
            predicted[reached], expected[jnp.arange(3), jnp.minimum(places, 12) - 1][reached], **CLOSE
        )
        carry, predicted = step(variables, carry, TOKENS[jnp.arange(3), jnp.minimum(places, 11)])


def test_beyond_the_capacity_is_nan():
    model, variables = built("rotary")
    carry, _ = model.apply(variables, TOKENS[:, :3], jnp.array([1, 2, 3]), 3, method="start")
    _, predicted = model.apply(variables, carry, TOKENS[:, 3], method="step")
    assert jnp.isnan(predicted).all(axis=-1).tolist() == [False, False, True]


@pytest.mark.parametrize("case", ["sinusoidal", "rotary", "alibi", "none"])
def test_only_learned_positions_limit_the_length(case):
    long = jnp.tile(TOKENS, (1, 2))
    assert jnp.isfinite(logits(case, long)).all()


def test_scan_is_the_loop_of_the_same_weights():
    model, variables = built("scan")
    layers = variables["params"]["layers"]["block"]
    looped = {f"block{i}": jax.tree.map(lambda leaf: leaf[i], layers) for i in range(2)}
    params = {**variables["params"], "layers": looped}
    outputs = model.clone(scan_layers=False, remat=False).apply({"params": params}, TOKENS, train=False)
    np.testing.assert_allclose(outputs, logits("scan", TOKENS), **CLOSE)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_numbers_and_seeds_are_a_batch_axis(scan_layers):
    """Trials in one program: seeds, dropout rates, epsilons and bases of rotary positions, with remat."""
    model = GPT(**SMALL, positions="rotary", scan_layers=scan_layers, remat=True)
    traced = {"dropout_rate": [0.1, 0.4], "norm_epsilon": [1e-5, 1e-2], "rope_theta": [10.0, 10_000.0]}

    def gradient(seed, numbers):
        trial = model.clone(**numbers)
        params = trial.init(jax.random.key(seed), TOKENS, train=False)["params"]
        rngs = {"dropout": jax.random.key(seed)}
        return jax.grad(lambda p: trial.apply({"params": p}, TOKENS, train=True, rngs=rngs).var())(params)

    seeds = jnp.array([3, 4])
    together = jax.jit(jax.vmap(gradient))(seeds, {name: jnp.array(values) for name, values in traced.items()})
    for index in range(2):
        alone = jax.jit(gradient)(seeds[index], {name: values[index] for name, values in traced.items()})
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[index], theirs, rtol=1e-3, atol=1e-5)


def test_initialisation_is_that_of_gpt2():
    model = GPT(vocab_size=50, num_layers=8, num_heads=2, width=64)
    params = jax.jit(lambda: model.init(jax.random.key(0), TOKENS, train=False))()["params"]
    block = params["layers"]["block3"]
    residual = 0.02 / np.sqrt(16)
    assert params["token_embedding"]["embedding"].std() == pytest.approx(0.02, rel=0.1)
    assert block["mlp"]["hidden"]["kernel"].std() == pytest.approx(0.02, rel=0.1)
    for kernel in (block["attention"]["output"]["kernel"], block["mlp"]["output"]["kernel"]):
        assert kernel.std() == pytest.approx(residual, rel=0.1)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_flops_are_two_for_each_weight_and_token_and_those_of_attention(scan_layers):
    """2 N and 4 layers * length * width a token. Kaplan et al. 2020, arXiv:2001.08361, section 2.1, attends to half.

    XLA counts what is masked as well, and softmax, normalisation and GELU, some 10 % at this size.
    """
    length = 128
    model = create(
        "gpt", num_layers=4, width=256, num_heads=4, vocab_size=512, max_length=length, scan_layers=scan_layers
    )
    weights = parameter_count(model_shapes(model, (length,), "int32")) - length * 256
    expected = length * (2 * weights + 4 * 4 * length * 256)
    assert forward_flops(model, (length,), "int32") == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(
    ("hyperparameters", "call", "message"),
    [
        (
            {},
            lambda m, v: m.apply(v, jnp.zeros((1, 17), jnp.int32), train=False),
            "17 tokens are more than max_length=16",
        ),
        (
            {},
            lambda m, v: m.apply(v, TOKENS, jnp.array([1, 1, 1]), 17, method="start"),
            "17 tokens are more than the model's max_length=16 positions",
        ),
        (
            {"positions": "none"},
            lambda m, v: m.apply(v, TOKENS, jnp.array([1, 1, 1]), 11, method="start"),
            "a prompt of 12 tokens is longer than the capacity of 11",
        ),
        ({"positions": "rotatory"}, None, "no positions 'rotatory'; there are: learned"),
        ({"num_heads": 3}, None, "16 channels do not divide into num_heads=3"),
    ],
)
def test_bad_input(hyperparameters, call, message):
    model = GPT(**{**SMALL, **hyperparameters})
    with pytest.raises(InputError, match=message):
        variables = random_variables(model, (12,), "int32")
        call(model, variables)


def test_a_token_outside_the_vocabulary_is_not_taken_for_another():
    assert jnp.isnan(logits("rotary", TOKENS.at[0, 3].set(11))[0, 3]).all()


TRAINING = {
    "documents": ["--dataset.packing=documents", "--model.positions=alibi"],
    "scan, remat, accumulation": ["--model.scan_layers", "--model.remat", "--gradient_accumulation=2"],
}


@pytest.fixture(scope="module", params=TRAINING)
def trained(request, tmp_path_factory):
    """A program, its batches, and its losses and parameters on one device."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("\n\n".join("abracadabra"[: 3 + n % 8] for n in range(200)))
    flags = ["--task=language_modeling", "--dataset=text", f"--dataset.path={text}", "--dataset.documents=blank_line"]
    flags += ["--dataset.length=8", "--model=gpt", "--model.num_layers=2", "--model.num_heads=2", "--model.width=16"]
    flags += ["--model.max_length=8", "--model.dropout_rate=0.2", "--batch_size=16", "--steps=5", "--optimizer=sgd"]
    flags += ["--learning_rate=0.5", *TRAINING[request.param]]
    program = experiment.build(experiment.parse(flags))
    pipeline = Pipeline(program.data.splits["train"], batch_size=16, seed=0, collate=program.data.collate)
    batches = [pipeline.batch(step) for step in range(5)]
    return program, batches, train(program, Placement(make_mesh("data:1")), batches)


def train(program, placement, batches):
    step = placement.parallel(program.step, (None, 0))
    state = placement.replicate(program.init(0, {name: value[:1] for name, value in batches[0].items()}))
    losses = []
    for batch in batches:
        state, metrics = step(state, placement.place_batch(batch))
        losses.append(jax.device_get(metrics["loss"]).compute())
    return np.array(losses), jax.device_get(state.params)


@pytest.mark.parametrize("mode", ["jit", "shard_map"])
def test_eight_devices_train_as_one(trained, mode):
    program, batches, (losses, params) = trained
    assert losses[-1] < losses[0]
    sharded_losses, sharded_params = train(program, Placement(make_mesh("data:8"), mode), batches)
    # Five steps of sums of 128 float32 terms in another order.
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(sharded_params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
