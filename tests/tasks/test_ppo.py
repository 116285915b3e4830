"""PPO: advantages, the clipped objective, what a step learns from, and that it is one step on any number of devices."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.environments.base import Box, Discrete, Environment, Transition, begin
from jaxdl.errors import InputError
from jaxdl.layers.distributions import Categorical
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.ppo import PPO, clipped_objective, generalized_advantages
from jaxdl.train.precision import LossScale
from jaxdl.train.program import Program

_rng = np.random.default_rng(0)
B, T = 3, 7
REWARDS, VALUES, NEXT_VALUES = _rng.normal(size=(3, B, T)).astype(np.float32)
NEVER = np.zeros((B, T), bool)
TERMINATED, TRUNCATED = _rng.random((2, B, T)) < 0.2
BASE = ["--task=ppo", "--model=actor_critic", "--model.widths=8", "--dataset=cartpole", "--batch_size=8", "--steps=20"]
BASE += ["--task.rollout_steps=8", "--task.update_epochs=2", "--task.minibatches=2", "--task.entropy_coefficient=0.01"]


def build(*flags: str, check: bool = False, **given) -> Program:
    return experiment.build(experiment.parse([*BASE, *flags], given=tuple(given)), given, check)


def compiled(function):
    """Jitted without optimisation: here nothing runs long."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def plain():
    """A program, its first state, and its step."""
    program = build("--optimizer=sgd", "--learning_rate=0.01")
    return program, start(program), compiled(program.step)


def everyone(program) -> dict:
    return {"inputs": np.arange(program.task.environment.num_environments, dtype=np.int32)}


def start(program, seed=0):
    return compiled(program.init)(seed, everyone(program))


def value_of(metric) -> float:
    return jax.device_get(metric).compute()


def assert_close(ours, theirs, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# Advantages.


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("ends", [(NEVER, NEVER), (TERMINATED, NEVER), (NEVER, TRUNCATED), (TERMINATED, TRUNCATED)])
def test_advantages_are_those_of_a_plain_recursion(gae_lambda, ends):
    terminated, truncated = ends
    expected = np.zeros((B, T))
    for row in range(B):
        following = 0.0
        for t in reversed(range(T)):
            worth = 0.0 if terminated[row, t] else 0.97 * NEXT_VALUES[row, t]
            if terminated[row, t] or truncated[row, t]:
                following = 0.0
            following = REWARDS[row, t] + worth - VALUES[row, t] + 0.97 * gae_lambda * following
            expected[row, t] = following
    ours = compiled(generalized_advantages)(REWARDS, VALUES, NEXT_VALUES, terminated, truncated, 0.97, gae_lambda)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_closed_forms():
    """Lambda 0: one step's error. Lambda 1: the discounted rewards to the end, and the value there, less the value."""
    following = np.concatenate([VALUES[:, 1:], NEXT_VALUES[:, -1:]], axis=1)  # what is next is what was after
    one_step = generalized_advantages(REWARDS, VALUES, following, NEVER, NEVER, 0.9, 0.0)
    np.testing.assert_allclose(one_step, REWARDS + 0.9 * following - VALUES, rtol=1e-5, atol=1e-6)
    whole = generalized_advantages(REWARDS, VALUES, following, NEVER, NEVER, 0.9, 1.0)
    powers = 0.9 ** np.arange(T)
    returns = [(REWARDS[:, t:] * powers[: T - t]).sum(axis=1) + 0.9 ** (T - t) * following[:, -1] for t in range(T)]
    np.testing.assert_allclose(whole, np.stack(returns, axis=1) - VALUES, rtol=1e-4, atol=1e-5)


def test_truncation_bootstraps_and_termination_does_not():
    """An episode of reward 1 for ever is worth 1 / (1 - discount) wherever its time is up, if the critic knows that."""
    worth = 1 / (1 - 0.9)
    values = np.full((1, T), worth, np.float32)
    ends = np.arange(T)[None] % 3 == 2
    ones = np.ones((1, T), np.float32)
    cut = generalized_advantages(ones, values, values, np.zeros((1, T), bool), ends, 0.9, 0.95)
    np.testing.assert_allclose(cut, 0, atol=1e-5)
    ended = generalized_advantages(ones, values, values, ends, np.zeros((1, T), bool), 0.9, 0.95)
    np.testing.assert_allclose(ended[ends], 1 - worth, rtol=1e-5)


def test_nothing_flows_from_one_episode_into_the_one_before():
    def first(rewards, terminated, truncated):
        return generalized_advantages(rewards, VALUES, NEXT_VALUES, terminated, truncated, 0.9, 0.9)[:, :3].sum()

    end = np.broadcast_to(np.arange(T) == 2, (B, T))
    for terminated, truncated in ((end, NEVER), (NEVER, end)):
        gradient = jax.grad(first)(REWARDS, terminated, truncated)
        assert (gradient[:, :3] != 0).all() and not gradient[:, 3:].any()


# The objective.


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.0),
        (1.3, 2.0, 2.4, 0.0),  # beyond the clip, and better still: no gradient
        (1.3, -2.0, -2.6, -2.0),  # beyond it, and worse: back
        (0.7, 2.0, 1.4, 2.0),
        (0.7, -2.0, -1.6, 0.0),
        (0.9, -2.0, -1.8, -2.0),
    ],
)
def test_the_clipped_objective_and_its_gradient(ratio, advantage, value, slope):
    objective = lambda log_ratio: clipped_objective(log_ratio, advantage, 0.2)
    ours, gradient = jax.value_and_grad(objective)(jnp.log(ratio))
    np.testing.assert_allclose(ours, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope * ratio, rtol=1e-5)  # d r / d log r = r


def minibatch(size=6):
    return {
        "inputs": jnp.asarray(_rng.normal(size=(size, 2)), jnp.float32),
        "actions": jnp.arange(size) % 2,
        "log_probabilities": jnp.full(size, -0.7),
        "values": jnp.asarray(_rng.normal(size=size), jnp.float32),
        "advantages": jnp.asarray(_rng.normal(size=size), jnp.float32),
        "returns": jnp.asarray(_rng.normal(size=size), jnp.float32),
    }


def linear(inputs):
    """A model whose logits are its inputs, and whose value is their sum."""
    return Categorical(inputs), inputs.sum(axis=-1)


def test_the_loss_is_the_weighed_sum_of_its_parts():
    batch, task = minibatch(), PPO(value_coefficient=0.3, entropy_coefficient=0.2)
    loss, told = task.loss(linear, batch, jax.random.key(0))
    told = {name: value_of(metric) for name, metric in told.items()}
    parts = told["policy_loss"] + 0.3 * told["value_loss"] - 0.2 * told["entropy"]
    np.testing.assert_allclose([loss, told["loss"]], parts, rtol=1e-5)
    logits = np.asarray(batch["inputs"])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    taken = np.log(probabilities[range(6), np.asarray(batch["actions"])]) + 0.7
    np.testing.assert_allclose(told["kl"], np.mean(np.exp(taken) - 1 - taken), rtol=1e-4)
    np.testing.assert_allclose(told["clip_fraction"], np.mean(np.abs(np.exp(taken) - 1) > 0.2), rtol=1e-6)
    np.testing.assert_allclose(told["value_loss"], np.mean((logits.sum(axis=1) - batch["returns"]) ** 2) / 2, rtol=1e-5)


def test_a_clipped_value_has_no_gradient_where_it_went_too_far_in_the_right_direction():
    task = PPO(value_clip=0.1, value_coefficient=1.0)
    batch = {**minibatch(1), "values": jnp.zeros(1), "returns": jnp.ones(1)}

    def loss(value):
        model = lambda inputs: (Categorical(inputs), value[None])
        return task.loss(model, batch, jax.random.key(0))[0]

    slopes = [float(jax.grad(loss)(value)) for value in (0.05, 0.5, -0.5)]
    np.testing.assert_allclose(slopes, [-0.95, 0.0, -1.5], rtol=1e-5)


# A step.


def test_a_step_is_what_its_parts_say():
    """Without minibatches and with plain descent: the gradient of the loss over all that was done."""
    program = build(
        *("--task.update_epochs=1", "--task.minibatches=1", "--optimizer=sgd", "--learning_rate=0.1"),
        *("--task.normalize_advantages=false", "--clip_norm=0.5"),
    )
    state = start(program)
    new, told = compiled(program.step)(state, everyone(program))

    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    acting_key = jax.random.split(jax.random.split(key)[1])[0]
    episodes, experience, _ = program.task.act(program.bind(state), state.carry, acting_key)
    assert_close(new.carry, episodes, rtol=1e-5, atol=1e-6)
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in experience.items()}

    def loss(params):
        forward = lambda inputs: program.model.apply({"params": params}, inputs, train=True)
        return program.task.loss(forward, flat, jax.random.key(0))[0]

    gradient = jax.grad(loss)(state.params)
    norm = float(jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradient))))
    np.testing.assert_allclose(value_of(told["gradient_norm"]), norm, rtol=1e-4)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g * min(1, 0.5 / norm), state.params, gradient)
    assert_close(new.params, expected, rtol=1e-4, atol=1e-6)
    assert value_of(told["environment_steps"]) == 8 * 8
    # Nothing has been learned yet when the only update is made.
    assert abs(value_of(told["kl"])) < 1e-6 and value_of(told["clip_fraction"]) == 0


@dataclasses.dataclass(frozen=True)
class Clock(Environment):
    """Shows how many steps of the episode were made; every one is rewarded by 1, the third is the last."""

    time_limit: int = 3
    ends: bool = False
    actions: ClassVar[Discrete] = Discrete(2)

    def reset(self, key):
        return jnp.float32(0), jnp.zeros(1)

    def step(self, state, action, key):
        return Transition(state + 1, (state + 1)[None], jnp.float32(1), self.ends & (state == 2))


@pytest.mark.parametrize("ends", [False, True])
def test_what_is_learned_from_the_last_step_is_worth_what_was_seen_after_it(ends):
    """Not what the next episode begins with; and nothing where the episode ended by itself."""
    environment = Clock(ends=ends)
    task = PPO(rollout_steps=7, gae_lambda=0.0, discount=0.9, environment=environment)
    forward = lambda observations: (Categorical(jnp.zeros((len(observations), 2))), 10 * observations[:, 0])
    episodes = jax.vmap(functools.partial(begin, environment))(jax.random.split(jax.random.key(0), 2))
    _, experience, told = task.act(forward, episodes, jax.random.key(1))
    count = np.arange(7) % 3
    following = np.where(ends & (count == 2), 0, 10 * (count + 1))
    expected = np.broadcast_to(1 + 0.9 * following - 10 * count, (2, 7))
    np.testing.assert_allclose(experience["advantages"], expected, rtol=1e-5)
    np.testing.assert_allclose(experience["returns"], expected + 10 * count, rtol=1e-5)
    assert value_of(told["return"]) == value_of(told["length"]) == 3


def test_each_pass_learns_from_each_step_once(monkeypatch):
    program = build("--task.rollout_steps=6", "--task.minibatches=3", "--task.update_epochs=2")

    def update_player(self, player, state, batch, key):
        """Writes down what it was given."""
        seen, number = state
        return (seen.at[number].set(batch["inputs"]), number + 1), {}, jnp.bool_(True)

    monkeypatch.setattr(Program, "update_player", update_player)
    experience = {"inputs": jnp.arange(48).reshape(8, 6), "actions": jnp.zeros((8, 6)), "advantages": jnp.zeros((8, 6))}
    state = jnp.zeros((6, 16), jnp.int32), jnp.int32(0)
    learn = compiled(lambda state, key: program.task._learn(program, state, experience, key))
    (seen, number), _, _ = learn(state, jax.random.key(0))
    assert number == 6
    for batches in (seen[:3], seen[3:]):
        assert sorted(batches.ravel().tolist()) == list(range(48))
        for batch in batches:  # as many steps of every environment
            np.testing.assert_array_equal(np.bincount(batch // 6), [2] * 8)
    assert not np.array_equal(seen[0], seen[3]), "another order in each pass"


def test_averages_are_of_the_parameters_after_a_step_and_do_not_act():
    program, (_, state, step_without) = build("--optimizer=sgd", "--learning_rate=0.01", "--ema_decay=0.5"), plain()
    step, state = compiled(program.step), state.replace(ema=state.params)
    first, _ = step(state, everyone(program))
    assert_close(first.ema, jax.tree.map(lambda a, b: (a + b) / 2, state.params, first.params), rtol=1e-5, atol=1e-7)
    # The average is for evaluation; the next step is that of a run without one.
    second, _ = step_without(first.replace(ema=None), everyone(program))
    assert_close(step(first, everyone(program))[0].params, second.params, rtol=1e-5, atol=1e-7)


def test_some_of_the_environments_may_act():
    program, state, _ = plain()
    new, told = compiled(program.step)(state, {"inputs": np.array([5, 2], np.int32)})
    moved = np.flatnonzero(np.asarray(new.carry.observation != state.carry.observation).any(axis=1))
    assert list(moved) == [2, 5]
    assert value_of(told["environment_steps"]) == 2 * 8


def test_a_loss_that_is_not_finite_leaves_all_as_it_was():
    program = build("--on_nonfinite=skip")
    state = start(program)
    broken = state.replace(carry=state.carry._replace(observation=state.carry.observation.at[0, 0].set(jnp.nan)))
    after, _ = compiled(program.step)(broken, everyone(program))
    assert_close((after.params, after.opt_state, after.carry), (state.params, state.opt_state, broken.carry), rtol=0)
    assert int(after.step) == 1


@pytest.mark.parametrize(
    "flags", [["--precision=bfloat16"], ["--precision=float16"], ["--remat"], ["--gradient_accumulation=2"]]
)
def test_it_trains_in_every_way_that_others_do(flags):
    _, state, step = plain()
    program = build(*flags, "--optimizer=sgd", "--learning_rate=0.01")
    scale = LossScale.create() if "float16" in flags[0].partition("=")[2].split() else None
    theirs, _ = step(state, everyone(program))
    ours, told = compiled(program.step)(state.replace(loss_scale=scale), everyone(program))
    # Of the same actions; a policy near one half is hardly moved by half precision's rounding.
    precision = 2e-2 if "precision" in flags[0] else 1e-4
    assert_close(ours.params, theirs.params, rtol=precision, atol=precision)
    assert np.isfinite(value_of(told["loss"]))


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_equal_one(mode):
    program, state, step = plain()
    placement = Placement(make_mesh("data:8"), mode)
    sharded_step = placement.parallel(program.step, (None, 0))
    whole, ours = state, placement.replicate(state)
    for _ in range(3):
        whole, told = step(whole, everyone(program))
        ours, ours_told = sharded_step(ours, placement.place_batch(everyone(program)))
    ours_told, told = jax.device_get((ours_told, told))
    assert_close(jax.device_get(ours), whole, rtol=1e-3, atol=1e-4)
    assert {name: m.compute() for name, m in ours_told.items()} == pytest.approx(
        {name: m.compute() for name, m in told.items()}, rel=1e-3, abs=1e-4, nan_ok=True
    )


def test_evaluation_is_of_the_episodes_numbers_alone():
    program, state, _ = plain()
    evaluate = compiled(program.evaluate)
    numbers = np.arange(6, dtype=np.int32)
    one = {"weight": np.ones(1, np.float32), "index": np.zeros(1, np.int32)}
    alone = [value_of(evaluate(state, {"inputs": numbers[i : i + 1], **one})["return"]) for i in range(6)]
    batch = {"inputs": numbers[::-1], "weight": np.float32(numbers[::-1] < 4), "index": numbers}
    together = evaluate(state, batch)
    assert value_of(together["return"]) == pytest.approx(np.mean(alone[:4]))
    assert value_of(together["length"]) == value_of(together["return"]), "one for each step"
    assert len(set(alone)) > 1


# Learning, and what is refused.


@dataclasses.dataclass(frozen=True)
class Sides(Environment):
    """Shows -1 or 1; the action of that sign is rewarded by 1."""

    time_limit: int = 5
    actions: ClassVar[Discrete] = Discrete(2)

    def reset(self, key):
        side = jax.random.rademacher(key, (1,), jnp.float32)
        return side, side

    def step(self, state, action, key):
        new = jax.random.rademacher(key, (1,), jnp.float32)
        return Transition(new, new, jnp.float32((action == 1) == (state[0] > 0)), jnp.bool_(False))


@dataclasses.dataclass(frozen=True)
class Target(Environment):
    """Shows a number in -1 .. 1, which is to be said."""

    time_limit: int = 5
    actions: ClassVar[Box] = Box((-3.0,), (3.0,))

    def reset(self, key):
        goal = jax.random.uniform(key, (1,), minval=-1.0)
        return goal, goal

    def step(self, state, action, key):
        new = jax.random.uniform(key, (1,), minval=-1.0)
        return Transition(new, new, -jnp.square(action[0] - state[0]), jnp.bool_(False))


@pytest.mark.parametrize(("environment", "greedy", "least"), [(Sides, "false", 4.5), (Target, "true", -0.25)])
def test_it_learns(environment, greedy, least):
    """An agent that knows nothing has a return of 2.5 of 5; one that always says 0, of -5/3."""
    flags = "--learning_rate=0.01", "--steps=60", f"--task.greedy_evaluation={greedy}"
    program = build(*flags, dataset=environment().load())
    state = start(program)
    sixty = lambda state: jax.lax.scan(lambda s, _: program.step(s, everyone(program)), state, None, length=60)[0]
    step, evaluate = compiled(sixty), compiled(program.evaluate)
    batch = {"inputs": np.arange(50, dtype=np.int32), "weight": np.ones(50, np.float32), "index": np.arange(50)}
    before, after = (value_of(evaluate(s, batch)["return"]) for s in (state, step(state)))
    assert before < least < after


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--dataset=digits"], "ppo needs an environment"),
        (["--task.minibatches=3"], "--task.minibatches=3 does not divide --task.rollout_steps=8"),
        (["--batch_size=3"], "--batch_size=3 environments act in a step, which does not divide --dataset.num_env"),
        (["--batch_size=16"], "larger than the training split of 8"),
        (["--model.widths=8,0"], "--model.widths=8,0: expected a comma-separated list, each a whole number, at least"),
        (["--model=mlp"], "model 'mlp' has no field num_actions"),
        (["--model.num_actions=3"], "--model.num_actions=3: the dataset needs 2"),
        (["--task=classification", "--model=mlp"], "the dataset has none"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(flags, told):
    base = [flag for flag in BASE if flag.partition("=")[0] not in {"--model.widths"}]
    if "--task=classification" in flags:
        base = [flag for flag in base if not flag.startswith("--task.")]
    with pytest.raises(InputError, match=told) as caught:
        experiment.build(experiment.parse([*base, *flags]))
    assert "\n" not in str(caught.value)


def test_an_environment_of_ones_own_is_named_by_its_place(tmp_path, write_module):
    write_module(
        "my_world",
        "import dataclasses, jax.numpy as jnp\n"
        "from jaxdl.environments.base import Discrete, Environment, Transition\n\n\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class World(Environment):\n"
        '    """A world.\n\n    Attributes:\n      size: of what is observed.\n    """\n\n'
        "    size: int = 2\n    actions = Discrete(3)\n\n"
        "    def reset(self, key):\n        return jnp.zeros(self.size), jnp.zeros(self.size)\n\n"
        "    def step(self, state, action, key):\n"
        "        return Transition(jnp.zeros(self.size + action.ndim), state, jnp.float32(1), action == 2)\n",
    )
    program = build("--dataset=my_world:World", "--dataset.size=5", "--dataset.num_environments=4", "--batch_size=4")
    assert program.model.num_actions == 3 and start(program).carry.observation.shape == (4, 5)
    text = (tmp_path / "my_world.py").read_text().replace("action.ndim", "1")
    write_module("my_wrong_world", text)
    with pytest.raises(
        InputError, match="environment World: state is float32.2. before a step and float32.3. after it"
    ):
        build("--dataset=my_wrong_world:World", check=True)
