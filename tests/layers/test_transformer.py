"""The block's order of operations, and that scanning and rematerialisation change no number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.attention import MultiHeadAttention
from jaxdl.layers.transformer import MLP, TransformerBlock, TransformerStack

X = jax.random.normal(jax.random.key(0), (2, 5, 8))
BLOCK = functools.partial(TransformerBlock, 2)


def randomized(module, x):
    variables = module.init(jax.random.key(1), x, train=False)
    return jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) / 2, variables)


def layer_norm(params, x):
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * params["layer"]["scale"][None, None] + params["layer"]["bias"][None, None]


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_block_is_two_residual_branches(norm_position):
    block = BLOCK(norm_position=norm_position)
    variables = randomized(block, X)
    params = variables["params"]
    attention = lambda x: MultiHeadAttention(2).apply({"params": params["attention"]}, x)[0]
    mlp = lambda x: MLP(32).apply({"params": params["mlp"]}, x, train=False)
    expected = X
    for branch, name in ((attention, "attention_norm"), (mlp, "mlp_norm")):
        norm = functools.partial(layer_norm, params[name])
        expected = expected + branch(norm(expected)) if norm_position == "pre" else norm(expected + branch(expected))
    np.testing.assert_allclose(block.apply(variables, X, train=False)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("activation", "function"), [("swiglu", jax.nn.silu), ("geglu", functools.partial(jax.nn.gelu, approximate=False))]
)
def test_gate(activation, function):
    mlp = MLP(6, activation, use_bias=False)
    variables = randomized(mlp, X)
    gate, hidden, output = (variables["params"][name]["kernel"] for name in ("gate", "hidden", "output"))
    expected = (function(X @ gate) * (X @ hidden)) @ output
    np.testing.assert_allclose(mlp.apply(variables, X, train=False), expected, atol=1e-5)


def test_bad_norm_position():
    with pytest.raises(InputError, match="norm_position is pre or post, not 'before'"):
        BLOCK(norm_position="before").init(jax.random.key(0), X, train=False)


def test_adaptive_blocks_normalise_before_their_branches():
    with pytest.raises(InputError, match="an adaptive block normalises before its branches"):
        BLOCK(norm_position="post", adaptive=True).init(jax.random.key(0), X, train=False, condition=X[:, 0])


def test_a_condition_shifts_scales_and_gates_a_branch():
    """With one token attention is its values' projection, so the block can be written out."""
    block = BLOCK(adaptive=True, use_bias=False, norm_epsilon=1e-6)
    x, condition = X[:, :1], X[:, 1]
    variables = block.init(jax.random.key(1), x, train=False, condition=condition)
    np.testing.assert_array_equal(block.apply(variables, x, train=False, condition=condition)[0], x)
    draw = lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) / 2
    params = jax.tree.map(draw, variables["params"])
    assert set(params) == {"attention", "mlp", "attention_modulation", "mlp_modulation"}
    attention = lambda x: x @ params["attention"]["value"]["kernel"] @ params["attention"]["output"]["kernel"]
    mlp = lambda x: MLP(32, use_bias=False).apply({"params": params["mlp"]}, x, train=False)
    expected = x
    for branch, name in ((attention, "attention"), (mlp, "mlp")):
        dense = params[f"{name}_modulation"]["dense"]
        shift, scale, gate = jnp.split(jax.nn.silu(condition) @ dense["kernel"] + dense["bias"][None], 3, axis=-1)
        mean, variance = expected.mean(-1, keepdims=True), expected.var(-1, keepdims=True)
        normed = (expected - mean) / jnp.sqrt(variance + 1e-6)
        expected = expected + gate[:, None] * branch(normed * (1 + scale[:, None]) + shift[:, None])
    np.testing.assert_allclose(
        block.apply({"params": params}, x, train=False, condition=condition)[0], expected, atol=1e-4
    )


def test_without_bias_there_is_none():
    params = BLOCK(use_bias=False).init(jax.random.key(0), X, train=False)["params"]
    assert not any("bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))


@functools.cache
def looped_outputs_and_gradient(scan, remat):
    """Of the same weights however the stack runs; gradients with a leading axis of layers."""
    looped = TransformerStack(BLOCK, 3)
    params = randomized(looped, X)["params"]
    if scan:
        params = {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block{i}"] for i in range(3)))}
    stack = TransformerStack(BLOCK, 3, scan, remat)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        outputs, _ = stack.apply({"params": params}, X, train=False, is_causal=True)
        return (outputs**2).mean(), outputs

    (_, outputs), gradient = loss(params)
    if not scan:
        gradient = {
            "block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(gradient[f"block{i}"] for i in range(3)))
        }
    return outputs, gradient


@pytest.mark.parametrize(("scan", "remat"), [(True, False), (False, True), (True, True)])
def test_scan_and_remat_change_nothing(scan, remat):
    expected = looped_outputs_and_gradient(False, False)
    for ours, theirs in zip(jax.tree.leaves(looped_outputs_and_gradient(scan, remat)), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_scanned_layers_start_with_numbers_of_their_own():
    params = TransformerStack(BLOCK, 2, scan=True).init(jax.random.key(0), X, train=False)["params"]["block"]
    kernels = params["attention"]["query"]["kernel"]
    assert kernels.shape == (2, 8, 8) and not np.allclose(kernels[0], kernels[1])
    assert 0.015 < kernels.std() < 0.025


@pytest.mark.parametrize("scan", [False, True])
def test_layers_drop_with_keys_of_their_own_on_any_number_of_devices(scan, whole_and_sharded):
    stack = TransformerStack(functools.partial(BLOCK, dropout_rate=0.5), 2, scan)
    x = jax.random.normal(jax.random.key(3), (8, 4, 8))
    variables = randomized(stack, x)
    rngs = {"dropout": jax.random.key(4)}
    whole, sharded = whole_and_sharded(lambda x: stack.apply(variables, x, train=True, rngs=rngs)[0], x)
    np.testing.assert_allclose(whole, sharded, rtol=1e-4, atol=1e-4)
    still = stack.apply(variables, x, train=False)[0]
    assert not np.allclose(whole, still, atol=0.1)
