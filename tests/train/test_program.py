"""The pure step: the same result however it is computed, and settings that may be traced."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment, metrics
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.optimizers import SGD, Update
from jaxdl.schedules import Constant
from jaxdl.tasks.base import Task
from jaxdl.train.program import Program

BASE = [
    "--dataset=digits",
    "--batch_size=16",
    "--steps=10",
    "--model=mlp",
    "--model.widths=8",
    "--model.dropout_rate=0.2",
]


def build(*flags: str) -> Program:
    return experiment.build(experiment.parse([*BASE, *flags]))


def batches(count: int):
    rng = np.random.default_rng(0)
    return [
        {
            "inputs": rng.integers(0, 256, (16, 8, 8, 1), dtype=np.uint8),
            "labels": rng.integers(0, 10, 16).astype(np.int32),
        }
        for _ in range(count)
    ]


def run(program: Program, seed=0, count=3, step=None):
    step = step or jax.jit(program.step)
    state = program.init(seed, batches(1)[0])
    for batch in batches(count):
        state, values = step(state, batch)
    return state, values


def assert_close(ours, theirs, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_jit_equals_no_jit():
    program = build("--augment=gaussian_noise")
    assert_close(run(program)[0].params, run(program, step=program.step)[0].params, rtol=1e-5, atol=1e-6)


def test_rematerialisation_changes_nothing():
    program = build()
    remat = dataclasses.replace(program, remat=True)
    assert_close(run(program)[0].params, run(remat)[0].params, rtol=1e-5, atol=1e-6)
    text = str(jax.make_jaxpr(remat.step)(remat.init(0, batches(1)[0]), batches(1)[0]))
    assert "remat" in text or "checkpoint" in text


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_in_half_and_keeps_float32(precision):
    program = build(f"--precision={precision}")
    state, values = run(program)
    full, _ = run(build())
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.model_state))} == {jnp.dtype("float32")}
    jaxpr = str(jax.make_jaxpr(program.step)(state, batches(1)[0]))
    assert {"bfloat16": "bf16[", "float16": "f16["}[precision] in jaxpr
    # Three steps of Adam move each weight by up to 3e-3; a half-precision gradient changes some of their signs.
    assert_close(state.params, full.params, atol=6e-3)
    assert np.isfinite(jax.device_get(values["loss"]).compute())


def test_float16_overflow_halves_the_scale_and_skips_the_update():
    program = build("--precision=float16")
    state = program.init(0, batches(1)[0])
    huge = state.replace(loss_scale=state.loss_scale.replace(scale=jnp.float32(2.0**60)))
    after, _ = jax.jit(program.step)(huge, batches(1)[0])
    assert float(after.loss_scale.scale) == 2.0**59
    assert_close(after.params, state.params, rtol=0)
    assert int(after.nonfinite_step) == -1 and int(after.step) == 1


def test_numbers_may_be_traced():
    """What a vectorised sweep needs: one program over learning rates, seeds and dropout rates, vmapped."""
    program = build(
        "--weight_decay=0.01", "--ema_decay=0.9", "--clip_norm=1.0", "--task.label_smoothing=0.1", "--schedule=cosine"
    )
    rates, seeds, dropouts = jnp.array([1e-3, 1e-2]), jnp.array([0, 7], jnp.uint32), jnp.array([0.1, 0.4])

    def trial(rate, seed, dropout):
        update = dataclasses.replace(program.update, learning_rate=rate, weight_decay=rate * 3)
        task = dataclasses.replace(program.task, label_smoothing=dropout / 2)
        traced = dataclasses.replace(program, update=update, task=task, model=program.model.clone(dropout_rate=dropout))
        return run(traced, seed, step=traced.step)[0].params

    together = jax.jit(jax.vmap(trial))(rates, seeds, dropouts)
    for index in range(2):
        alone = jax.jit(trial)(rates[index], seeds[index], dropouts[index])
        assert_close(jax.tree.map(lambda x, i=index: x[i], together), alone, rtol=2e-4, atol=1e-5)


def test_penalties_are_in_the_gradient_and_spare_biases():
    plain, penalised = build("--optimizer=sgd"), build("--optimizer=sgd", "--l1_penalty=0.1", "--l2_penalty=0.5")
    start = plain.init(0, batches(1)[0])
    ours, theirs = (jax.jit(program.step)(start, batches(1)[0])[0].params for program in (penalised, plain))
    for path, before in jax.tree_util.tree_leaves_with_path(start.params):
        name = jax.tree_util.keystr(path)
        expected = 0 if "bias" in name else -1e-3 * (0.1 * jnp.sign(before) + 0.5 * before)
        difference = (
            dict(jax.tree_util.tree_leaves_with_path(ours))[path]
            - dict(jax.tree_util.tree_leaves_with_path(theirs))[path]
        )
        np.testing.assert_allclose(difference, jnp.broadcast_to(expected, before.shape), atol=1e-7)


def test_averages_of_parameters_serve_in_evaluation():
    for flags, expected in (([], 0.9), (["--ema_debias"], 0.0)):
        program = build("--ema_decay=0.9", *flags)
        start = program.init(0, batches(1)[0])
        after, _ = jax.jit(program.step)(start, batches(1)[0])
        mixed = jax.tree.map(lambda old, new: expected * old + (1 - expected) * new, start.params, after.params)
        assert_close(after.ema, mixed, rtol=1e-5, atol=1e-7)
        outputs = program.predict(after, batches(1)[0])
        assert_close(outputs, program.predict(after.replace(params=start.params), batches(1)[0]), rtol=0)
        assert not np.array_equal(outputs, program.predict(after.replace(ema=start.params), batches(1)[0]))


def nonfinite_batch():
    return {"inputs": np.full((16, 8, 8, 1), np.nan, np.float32), "labels": np.zeros(16, np.int32)}


@pytest.mark.parametrize("policy", ["skip", "halt", "ignore"])
def test_nonfinite(policy):
    program = build(f"--on_nonfinite={policy}", "--ema_decay=0.9")
    before, _ = run(program)
    float_batches = [{**batch, "inputs": batch["inputs"].astype(np.float32) / 255} for batch in batches(1)]
    step = jax.jit(program.step)
    after, values = step(before, nonfinite_batch())
    if policy == "ignore":
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
        return
    assert_close((after.params, after.ema, after.opt_state), (before.params, before.ema, before.opt_state), rtol=0)
    assert np.isnan(jax.device_get(values["loss"]).compute()), "a step that was left out counts for nothing"
    later, values = step(after, float_batches[0])
    if policy == "skip":
        assert int(after.step) == int(before.step) + 1 and int(later.nonfinite_step) == -1
        assert np.isfinite(jax.device_get(values["loss"]).compute())
    else:
        assert int(after.nonfinite_step) == int(before.step)
        assert_close(later.params, before.params, rtol=0)
        assert int(later.nonfinite_step) == int(before.step)


class Game(nn.Module):
    """Two scalars, pulled apart and together by two players."""

    num_outputs: int = 1

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        x = self.param("x", lambda key: {"value": jnp.float32(1.0)})["value"]
        y = self.param("y", lambda key: {"value": jnp.float32(2.0)})["value"]
        return x, y


@dataclasses.dataclass(frozen=True)
class Duel(Task):
    """x minimises x * y, y minimises -x * y: the bilinear game."""

    players = ("x", "y")

    def model_fields(self, data):
        return {}

    def loss(self, forward, batch, key, player="model"):
        x, y = forward(batch["inputs"])
        value = x * y if player == "x" else -x * y
        return value, {f"{player}_loss": metrics.Mean.of_sums(value, 1.0)}

    def evaluate(self, forward, batch):
        return {}


def test_two_players_move_in_turn_and_only_themselves():
    data = Data(splits={"train": ArraySource({"inputs": np.zeros((4, 1), np.float32)})})
    program = Program(Game(), Duel(), data, Update(learning_rate=0.1), SGD(), Constant(), total_steps=1)
    batch = {"inputs": np.zeros((4, 1), np.float32)}
    state, values = jax.jit(program.step)(program.init(0, batch), batch)
    # x: 1 - 0.1 * 2 = 0.8; then y sees the new x: 2 + 0.1 * 0.8 = 2.08.
    np.testing.assert_allclose(state.params["x"]["value"], 0.8, rtol=1e-6)
    np.testing.assert_allclose(state.params["y"]["value"], 2.08, rtol=1e-6)
    assert set(state.opt_state) == {"x", "y"}
    assert {"x_loss", "y_loss", "x/learning_rate", "y/gradient_norm"} <= set(values)
