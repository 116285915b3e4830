"""Environments: what all of them keep to, how episodes end and begin, and what is refused."""

import dataclasses
import doctest
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data import DATASETS
from jaxdl.environments import base, cartpole, pendulum
from jaxdl.environments.base import Box, Discrete, Environment, Transition, advance, begin, check
from jaxdl.environments.playing import EpisodeSampler, play, record
from jaxdl.errors import InputError
from jaxdl.models import create

KEY = jax.random.key(0)
ENVIRONMENTS = {
    name: entry.load() for name, entry in DATASETS.items() if entry.module.startswith("jaxdl.environments.")
}


@dataclasses.dataclass(frozen=True)
class Counter(Environment):
    """Counts from 0; action 1 ends it. The reward of a step is the count before it."""

    time_limit: int = 4
    actions: ClassVar[Discrete] = Discrete(2)

    def reset(self, key):
        return {"count": jnp.int32(0)}, jnp.zeros(1)

    def step(self, state, action, key):
        count = state["count"] + 1
        return Transition({"count": count}, jnp.float32(count)[None], state["count"], action == 1)


@pytest.fixture(params=ENVIRONMENTS)
def environment(request):
    return ENVIRONMENTS[request.param]()


@pytest.mark.parametrize("module", [base, cartpole, pendulum], ids=lambda module: module.__name__)
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_every_environment_passes_the_check_and_loads(environment):
    data = environment.load("")
    assert data.environment is environment
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "validation": 20, "test": 100}
    numbers = [data.splits[name].arrays["inputs"] for name in ("validation", "test")]
    assert not set(numbers[0]) & set(numbers[1]), "a test episode begins as no validation episode does"
    observation = jax.eval_shape(environment.reset, KEY)[1]
    assert len(environment.observation_names) == observation.size


def test_many_at_once_are_what_each_is_alone(environment):
    keys = jax.random.split(KEY, 3)
    episodes = jax.vmap(functools.partial(begin, environment))(keys)
    actions = jnp.ones((3, *environment.actions.example.shape), environment.actions.example.dtype)
    step = functools.partial(advance, environment)
    together = jax.jit(jax.vmap(step))(episodes, actions, keys)
    for index in range(3):
        alone = step(jax.tree.map(lambda x: x[index], episodes), actions[index], keys[index])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
            np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-6)


def test_chance_is_of_the_key_alone(environment):
    same, other = (begin(environment, jax.random.key(seed)).observation for seed in (0, 1))
    np.testing.assert_array_equal(same, begin(environment, KEY).observation)
    assert not np.array_equal(same, other)


def test_time_runs_out_apart_from_ending():
    """Four steps are the limit: of not ending, of ending at the third, and of ending at the fourth."""
    for ends_at, length, terminated, truncated in ((9, 4, False, True), (3, 3, True, False), (4, 4, True, True)):
        episode = begin(Counter(), KEY)
        for step in range(1, length + 1):
            assert (int(episode.length), float(episode.total)) == (step - 1, sum(range(step - 1)))
            episode, outcome = advance(Counter(), episode, jnp.int32(step == ends_at), KEY)
            assert bool(outcome.over) == (step == length)
        assert (bool(outcome.terminated), bool(outcome.truncated)) == (terminated, truncated)
        # The outcome tells of the old episode; the next has begun.
        assert (int(outcome.length), float(outcome.total), float(outcome.observation[0])) == (
            length,
            sum(range(length)),
            length,
        )
        assert (int(episode.length), float(episode.total), int(episode.state["count"])) == (0, 0, 0)


def test_actions_outside_their_bounds_count_as_the_bounds():
    environment = pendulum.Pendulum()
    start = begin(environment, KEY)
    far, near = (advance(environment, start, jnp.array([torque]), KEY)[1] for torque in (100.0, 2.0))
    np.testing.assert_array_equal(far.observation, near.observation)
    np.testing.assert_array_equal(far.reward, near.reward)


def test_a_pendulum_keeps_its_energy_without_torque():
    """Small swings around the bottom: Euler's symplectic method errs by the step, and does not drift."""
    environment = pendulum.Pendulum()
    state = jnp.array([jnp.pi - 0.1, 0.0])
    energies = []
    for _ in range(200):
        state = environment.step(state, jnp.zeros(1), KEY).state
        energies.append(float(state[1] ** 2 / 6 + pendulum.GRAVITY / 2 * jnp.cos(state[0])))
    lowest = -pendulum.GRAVITY / 2
    swing = np.array(energies) - lowest
    assert 0.5 < swing[-50:].mean() / swing[:50].mean() < 2 and swing.min() > 0


class Policy:
    """Pushes to the side that the pole leans to, or a coin's."""

    def __init__(self, odds):
        self.odds = odds

    def __call__(self, observations):
        from jaxdl.layers.distributions import Categorical

        lean = observations[:, 2] + observations[:, 3]
        return Categorical(self.odds * jnp.stack([-lean, lean], axis=-1)), jnp.zeros(len(observations))


@pytest.mark.parametrize("greedy", [True, False])
def test_what_is_recorded_is_what_is_played(greedy):
    environment = cartpole.CartPole(time_limit=60)
    keys = jax.random.split(KEY, 4)
    returns, lengths = jax.jit(lambda keys: play(environment, Policy(0.3), keys, greedy=greedy))(keys)
    for index in range(2):
        recorded = record(environment, Policy(0.3), keys[index], greedy=greedy)
        assert len(recorded.rewards) == len(recorded.observations) == lengths[index]
        assert recorded.rewards.sum() == returns[index]
        assert recorded.terminated == (lengths[index] < 60)
    assert greedy == bool((np.asarray(lengths) == 60).all()), (
        "leaning into the fall keeps it up, mostly a coin does not"
    )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_episode_is_shown(name):
    environment = dataclasses.replace(ENVIRONMENTS[name](), time_limit=20)
    policy = "categorical" if isinstance(environment.actions, Discrete) else "gaussian"
    model = create("actor_critic", num_actions=environment.actions.size, policy=policy, widths=(4,))
    observation = jax.eval_shape(environment.reset, KEY)[1]
    variables = model.init(KEY, jnp.zeros((1, *observation.shape)), train=False)
    samples = EpisodeSampler(pictures=3).sample(model, variables, environment.load(), KEY)
    assert "return" in samples["episode_summary"] and "steps" in samples["episode_summary"]
    axes = [axes for part in samples["episode"].subfigs for axes in part.axes]
    assert len(axes) == 3 + observation.size + (1 if policy == "categorical" else environment.actions.size)
    assert any(line.get_xdata().size > 5 for line in axes[-1].lines)


# What is wrong: (reset, step, what is said).
def _state(key):
    return jnp.zeros(2), jnp.zeros(2)


def _step(state, action, key):
    return Transition(state, state, jnp.float32(0), jnp.bool_(False))


WRONG = {
    "shape": (
        _state,
        lambda s, a, k: _step(jnp.zeros(3), a, k),
        r"state is float32\[2\] before a step and float32\[3\]",
    ),
    "type": (lambda key: (jnp.int32(0), jnp.zeros(1)), lambda s, a, k: (s + 0.5, jnp.zeros(1), 0.0, s > 1), "int32"),
    "observation": (
        _state,
        lambda s, a, k: _step(s, a, k)._replace(observation=jnp.zeros((2, 1))),
        r"observation is float32\[2\] before a step and float32\[2, 1\] after it",
    ),
    "structure": (_state, lambda s, a, k: _step(s, a, k)._replace(state=(s, s)), "turns a state of"),
    "reward": (_state, lambda s, a, k: _step(s, a, k)._replace(reward=s), "the reward of a step is"),
    "end": (_state, lambda s, a, k: _step(s, a, k)._replace(terminated=jnp.float32(0)), "expected one bool"),
    "no reward": (_state, lambda s, a, k: _step(s, a, k)._replace(reward=None), "the reward of a step is nothing"),
    "no end": (_state, lambda s, a, k: _step(s, a, k)._replace(terminated=None), "of a step is nothing"),
    "too few": (_state, lambda s, a, k: (s, s, 0.0), "expected a Transition"),
    "python": (_state, lambda s, a, k: _step(s, a, k) if s[0] > 0 else _step(s, a, k), "step cannot be traced"),
    "reset": (lambda key: jnp.zeros(2), _step, "expected a state and an observation"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told_in_a_line(case):
    reset, step, told = WRONG[case]
    methods = {"reset": lambda self, key: reset(key), "step": lambda self, *args: step(*args)}
    wrong = type("Wrong", (Environment,), {"actions": Discrete(2), **methods})
    with pytest.raises(InputError, match=told) as caught:
        wrong().load("")
    assert "\n" not in str(caught.value) and "environment Wrong" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "give `actions`"),
        ({"actions": Discrete(0)}, "Wrong has no actions"),
        ({"actions": Box((0.0,), (1.0, 1.0))}, "each low needs a high above it"),
        ({"actions": Box((1.0,), (-1.0,))}, r"actions are from \(1.0,\) to \(-1.0,\)"),
        ({"actions": Discrete(2)}, "Wrong has no reset"),
        ({"actions": Discrete(2), "reset": lambda self, key: _state(key)}, "Wrong has no step"),
    ],
)
def test_what_an_environment_must_have(fields, told):
    with pytest.raises(InputError, match=told):
        check(type("Wrong", (Environment,), fields)())


def test_a_state_of_pythons_numbers_is_an_array():
    """Without a type of its own it would change in the first sum, and the compiled step with it."""

    class Plain(Counter):
        def reset(self, key):
            return {"count": 0}, jnp.zeros(1)

    assert not jax.eval_shape(functools.partial(begin, Plain()), KEY).state["count"].weak_type


def test_box_has_a_size():
    assert (Box((-1.0, -1.0), (1.0, 1.0)).size, Discrete(3).size) == (2, 3)
