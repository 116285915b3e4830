"""Optimizers against torch.optim over 50 steps of the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RAdam, RMSProp, Update, build_optimizer
from jaxdl.schedules import Constant

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.reference

STEPS, RATE = 50, 0.01
SHAPES = {"kernel": (4, 3), "bias": (3,)}

CASES = {
    "sgd": (SGD(), {}, torch.optim.SGD, {}),
    "sgd with momentum": (SGD(momentum=0.9), {}, torch.optim.SGD, {"momentum": 0.9}),
    "sgd with nesterov": (SGD(momentum=0.9, nesterov=True), {}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam(), {}, torch.optim.Adam, {}),
    "adam with betas": (Adam(b1=0.8, b2=0.95, eps=1e-4), {}, torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-4}),
    "adamw": (AdamW(), {"weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1}),
    "radam": (RAdam(), {}, torch.optim.RAdam, {}),
    "adagrad": (Adagrad(initial_accumulator=0.1, eps=0.0), {}, torch.optim.Adagrad, {"initial_accumulator_value": 0.1}),
    # PyTorch adds eps to the root; Optax and TensorFlow, and so our default, add it under the root.
    "rmsprop": (RMSProp(0.99, eps_in_sqrt=False), {}, torch.optim.RMSprop, {"alpha": 0.99}),
    "rmsprop with momentum": (
        RMSProp(0.99, eps_in_sqrt=False, momentum=0.9),
        {},
        torch.optim.RMSprop,
        {"alpha": 0.99, "momentum": 0.9},
    ),
    "rmsprop, centred": (
        RMSProp(0.99, eps_in_sqrt=False, centered=True),
        {},
        torch.optim.RMSprop,
        {"alpha": 0.99, "centered": True},
    ),
}


def slopes(step: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([step, len(shape)]).normal(size=shape).astype(np.float32)


def trained_here(optimizer: Optimizer, fields: dict, start: dict) -> dict:
    update = Update(learning_rate=RATE, weight_decay_mask="all", **fields)
    transformation, _ = build_optimizer(update, optimizer, Constant(), start, STEPS)
    gradients = {name: jnp.stack([slopes(step, shape) for step in range(STEPS)]) for name, shape in SHAPES.items()}

    def step(carry, item):
        params, state = carry
        index, gradient = item
        updates, state = transformation.update(gradient, state, params, step=index)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (start, transformation.init(start)), (jnp.arange(STEPS), gradients))[0][0]


def trained_by_torch(cls, arguments: dict, start: dict) -> dict:
    params = {name: torch.nn.Parameter(torch.tensor(np.asarray(value))) for name, value in start.items()}
    optimizer = cls(params.values(), lr=RATE, **arguments)
    for step in range(STEPS):
        for param in params.values():
            param.grad = torch.tensor(slopes(step, tuple(param.shape)))
        optimizer.step()
    return {name: param.detach().numpy() for name, param in params.items()}


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_are_pytorchs(name):
    optimizer, fields, cls, arguments = CASES[name]
    start = {name: jnp.asarray(slopes(99, shape)) for name, shape in SHAPES.items()}
    ours, theirs = trained_here(optimizer, fields, start), trained_by_torch(cls, arguments, start)
    for key in SHAPES:
        # 50 float32 additions to values of about one: 50 roundings of 6e-8, and as much in the moments.
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-5, err_msg=key)
