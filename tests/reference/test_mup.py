"""Maximal update parametrization against Microsoft's package `mup`: initial deviations, and training step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
mup = pytest.importorskip("mup", reason="needs mup without its dependencies: pip install --no-deps 'mup>=1,<2'")

from jaxdl import losses  # noqa: E402
from jaxdl.models.gpt import GPT  # noqa: E402
from jaxdl.models.mlp import MLP  # noqa: E402
from jaxdl.optimizers import SGD, Adam, AdamW, Update, build_optimizer  # noqa: E402
from jaxdl.parametrization import at_width, maximal_update, scale_initial  # noqa: E402
from jaxdl.schedules import Constant  # noqa: E402

pytestmark = pytest.mark.reference
INPUTS, CLASSES, STEPS = 6, 5, 6


class TorchMLP(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.hidden0, self.hidden1 = torch.nn.Linear(INPUTS, width), torch.nn.Linear(width, width)
        self.output = mup.MuReadout(width, CLASSES)

    def forward(self, x):
        return self.output(torch.relu(self.hidden1(torch.relu(self.hidden0(x)))))


class TorchGPT(torch.nn.Module):
    """One block without biases and a tied head; the logits of attention are divided by the head's size."""

    def __init__(self, width, num_heads, base_head):
        super().__init__()
        linear = functools.partial(torch.nn.Linear, bias=False)
        norm = functools.partial(torch.nn.LayerNorm, width, bias=False)
        self.tokens, self.places = torch.nn.Embedding(7, width), torch.nn.Embedding(4, width)
        self.attention_norm, self.mlp_norm, self.output_norm = norm(), norm(), norm()
        self.query, self.key, self.value, self.attended = (linear(width, width) for _ in range(4))
        self.hidden, self.back = linear(width, 4 * width), linear(4 * width, width)
        self.head = mup.MuSharedReadout(self.tokens.weight, bias=False)
        self.num_heads, self.scale = num_heads, base_head**0.5 / (width // num_heads)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places.weight[None]
        heads = lambda layer, x: layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        normed = self.attention_norm(x)
        scores = heads(self.query, normed) @ heads(self.key, normed).transpose(-1, -2) * self.scale
        scores = scores.masked_fill(~torch.ones(4, 4, dtype=bool).tril(), -torch.inf)
        x = x + self.attended((scores.softmax(-1) @ heads(self.value, normed)).transpose(1, 2).flatten(2))
        x = x + self.back(torch.relu(self.hidden(self.mlp_norm(x))))
        return self.head(self.output_norm(x))


GPT_PATHS = {
    "tokens": "token_embedding/embedding",
    "places": "position_embedding/embed/embedding",
    "query": "layers/block0/attention/query/kernel",
    "key": "layers/block0/attention/key/kernel",
    "value": "layers/block0/attention/value/kernel",
    "attended": "layers/block0/attention/output/kernel",
    "hidden": "layers/block0/mlp/hidden/kernel",
    "back": "layers/block0/mlp/output/kernel",
    "attention_norm": "layers/block0/attention_norm/layer/scale",
    "mlp_norm": "layers/block0/mlp_norm/layer/scale",
    "output_norm": "output_norm/layer/scale",
}
MLP_PATHS = {name: f"{name}/kernel" for name in ("hidden0", "hidden1", "output")}
MLP_BIASES = {name: f"{name}/bias" for name in MLP_PATHS}
ADAM = functools.partial(mup.MuAdam, lr=0.02)
# Ours with the flags that say the same, and theirs.
OPTIMIZERS = {
    "sgd": (SGD(momentum=0.9), 0.1, 0.0, functools.partial(mup.MuSGD, lr=0.1, momentum=0.9)),
    "sgd decayed": (SGD(), 0.1, 0.05, functools.partial(mup.MuSGD, lr=0.1, weight_decay=0.05)),
    "adam": (Adam(), 0.02, 0.0, ADAM),
    "adam with a large eps": (Adam(eps=1e-2), 0.02, 0.0, functools.partial(ADAM, eps=1e-2)),
    "adamw": (AdamW(), 0.02, 0.3, functools.partial(mup.MuAdamW, lr=0.02, weight_decay=0.3)),
}


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): leaf for keys, leaf in leaves}


def start(model, base, inputs):
    init = lambda model: jax.jit(lambda: model.init(jax.random.key(1), inputs, train=False)["params"])()
    scales = maximal_update(init, model, base)
    return scale_initial(init(model), scales), scales


def copy(paths, module, params, scales):
    """Ours are c u; theirs u, as `mup` multiplies in the forward pass."""
    for name, path in paths.items():
        value = np.asarray(params[path]) / scales[path].multiplier
        target = getattr(module, name)
        target = target.bias if path.endswith("bias") else target.weight
        is_linear = isinstance(getattr(module, name), torch.nn.Linear) and value.ndim == 2
        target.data = torch.tensor(value.T.copy() if is_linear else value)
        assert target.shape == tuple(target.infshape.shape())


def train_both(model, params, scales, module, optimizer, x, y):
    """The losses of both, step by step, on one batch; and ours' parameters by path."""
    ours, rate, weight_decay, theirs = optimizer
    update = Update(learning_rate=rate, weight_decay=weight_decay, weight_decay_mask="all")
    transformation, _ = build_optimizer(update, ours, Constant(), params, STEPS, scales)

    @jax.jit
    def step(params, state, index):
        objective = lambda p: losses.softmax_cross_entropy(model.apply({"params": p}, x, train=False), y).mean()
        value, gradient = jax.value_and_grad(objective)(params)
        updates, state = transformation.update(gradient, state, params, step=index)
        return value, jax.tree.map(jnp.add, params, updates), state

    state, told = transformation.init(params), []
    descent = theirs(module.parameters())
    tx, ty = (
        torch.tensor(np.asarray(x), dtype=torch.long if x.dtype == jnp.int32 else None),
        torch.tensor(np.asarray(y)),
    )
    for index in range(STEPS):
        value, params, state = step(params, state, index)
        descent.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(tx).flatten(0, -2), ty.long().flatten())
        loss.backward()
        descent.step()
        told.append((float(value), loss.item()))
    return np.array(told), by_path(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_mlp_trains_as_with_mup(name):
    """Six steps at four times the base width, biases included. Float32 sums of 32 terms, carried on."""
    model = MLP(widths=(32, 32), num_outputs=CLASSES)
    rng = np.random.default_rng(0)
    x, y = jnp.float32(rng.normal(size=(16, INPUTS))), jnp.int32(rng.integers(0, CLASSES, 16))
    params, scales = start(model, at_width(model, 8), x)
    module = TorchMLP(32)
    mup.set_base_shapes(module, TorchMLP(8), delta=TorchMLP(16), rescale_params=False)
    for paths in (MLP_PATHS, MLP_BIASES):
        copy(paths, module, by_path(params), scales)
    told, ends = train_both(model, params, scales, module, OPTIMIZERS[name], x, y)
    np.testing.assert_allclose(told[:, 0], told[:, 1], rtol=2e-4)
    assert told[-1, 0] < told[0, 0]
    for layer, path in MLP_PATHS.items():
        theirs = getattr(module, layer).weight.detach().numpy().T * scales[path].multiplier
        np.testing.assert_allclose(ends[path], theirs, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_transformer_trains_as_with_mup(name):
    """As above: a tied head, and heads of four times the base model's size, so that logits are divided by it."""
    model = GPT(7, 4, 1, 2, width=32, activation="relu", use_bias=False)
    base = at_width(model, 8, num_heads=2)
    rng = np.random.default_rng(0)
    x, y = (jnp.int32(rng.integers(0, 7, (8, 4))) for _ in range(2))
    params, scales = start(model, base, x)
    # GPT's own 0.02 is so small that attention would hardly matter.
    params = jax.tree.map(lambda p: p * 10 if p.ndim > 1 else p, params)
    module = TorchGPT(32, 2, base_head=4)
    mup.set_base_shapes(module, TorchGPT(8, 2, 4), delta=TorchGPT(16, 2, 4), rescale_params=False)
    copy(GPT_PATHS, module, by_path(params), scales)
    module.head.weight = module.tokens.weight
    told, ends = train_both(model, params, scales, module, OPTIMIZERS[name], x, y)
    np.testing.assert_allclose(told[:, 0], told[:, 1], rtol=2e-4)
    assert told[-1, 0] < told[0, 0]
    theirs = module.query.weight.detach().numpy().T * scales[GPT_PATHS["query"]].multiplier
    np.testing.assert_allclose(ends[GPT_PATHS["query"]], theirs, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("he_normal", mup.init.kaiming_normal_),
        ("he_normal_fan_out", functools.partial(mup.init.kaiming_normal_, mode="fan_out")),
        ("xavier_uniform", mup.init.xavier_uniform_),
        ("normal", functools.partial(mup.init.normal_, std=0.02)),
    ],
)
def test_initial_values_have_the_deviations_of_mups_initializers(name, theirs):
    """Sampled over 3,000 numbers and more: to 5 %."""
    model = MLP(widths=(512, 512), num_outputs=CLASSES, initializer=name)
    params, scales = start(model, at_width(model, 64), jnp.zeros((1, INPUTS)))
    module = TorchMLP(512)
    mup.set_base_shapes(module, TorchMLP(64), delta=TorchMLP(128), rescale_params=False)
    torch.manual_seed(0)
    for layer, path in MLP_PATHS.items():
        weight = theirs(getattr(module, layer).weight, **({"nonlinearity": "relu"} if "he_" in name else {}))
        ours = np.asarray(by_path(params)[path]) / scales[path].multiplier
        assert ours.std() == pytest.approx(weight.std().item(), rel=0.05), layer
