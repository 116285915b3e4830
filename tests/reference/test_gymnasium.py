"""Environments held against Gymnasium's, step for step, from the same states by the same actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from jaxdl.environments.base import Episode, advance  # noqa: E402
from jaxdl.environments.cartpole import CartPole  # noqa: E402
from jaxdl.environments.pendulum import Pendulum  # noqa: E402

pytestmark = pytest.mark.reference

CASES = {"CartPole-v1": CartPole(), "Pendulum-v1": Pendulum()}


def follow(name, policy, seed):
    """One episode of both by the same actions, each step from Gymnasium's state; yields what each says of it."""
    ours, theirs = CASES[name], gymnasium.make(name)
    observed, _ = theirs.reset(seed=seed)
    theirs.action_space.seed(seed)
    episode = Episode(jnp.zeros(len(theirs.unwrapped.state)), jnp.asarray(observed), jnp.int32(0), jnp.float32(0))
    step = jax.jit(lambda episode, action: advance(ours, episode, action, jax.random.key(0)))
    while True:
        action = policy(theirs, observed)
        # From the state that is Gymnasium's: in float32 a pendulum that turns over is soon another one.
        episode = episode._replace(state=jnp.asarray(theirs.unwrapped.state, jnp.float32))
        observed, reward, terminated, truncated, _ = theirs.step(action)
        episode, outcome = step(episode, jnp.asarray(action))
        yield outcome, (observed, reward, terminated, truncated)
        if terminated or truncated:
            return


def chance(environment, observed):
    return environment.action_space.sample()


def balance(environment, observed):
    return int(observed[2] + 0.3 * observed[3] + 0.05 * observed[0] + 0.1 * observed[1] > 0)


@pytest.mark.parametrize(
    ("name", "policy", "seeds"),
    [("CartPole-v1", chance, range(20)), ("CartPole-v1", balance, range(3)), ("Pendulum-v1", chance, range(3))],
)
def test_step_for_step(name, policy, seeds):
    for seed in seeds:
        steps = list(follow(name, policy, seed))
        for number, (outcome, (observed, reward, terminated, truncated)) in enumerate(steps):
            # Gymnasium computes in float64. A pendulum's angle is up to some ten turns, which float32 holds to 4e-6.
            np.testing.assert_allclose(outcome.observation, observed, rtol=1e-5, atol=3e-5, err_msg=f"step {number}")
            np.testing.assert_allclose(outcome.reward, reward, rtol=1e-4, atol=1e-5)
            assert (bool(outcome.terminated), bool(outcome.truncated)) == (terminated, truncated)
        length = {"chance": None, "balance": 500}[policy.__name__] if name == "CartPole-v1" else 200
        assert length is None or len(steps) == length and bool(outcome.truncated) and not bool(outcome.terminated)
        assert length is not None or bool(outcome.terminated)


def test_one_step_from_anywhere():
    """The equations alone, to rounding: random states and both actions, beyond the bounds, too."""
    theirs = gymnasium.make("CartPole-v1").unwrapped
    random = np.random.default_rng(0)
    theirs.reset(seed=0)
    for action in (0, 1):
        for state in random.normal(size=(50, 4)) * [2, 2, 0.15, 2]:
            theirs.state, theirs.steps_beyond_terminated = state, None
            observed, _, terminated, _, _ = theirs.step(action)
            ours = CartPole().step(jnp.asarray(state, jnp.float32), action, jax.random.key(0))
            np.testing.assert_allclose(ours.state, observed, rtol=1e-5, atol=1e-6)
            assert bool(ours.terminated) == terminated


def test_episodes_begin_alike():
    """By the bounds and the moments of what is drawn."""
    for name, environment in CASES.items():
        theirs = gymnasium.make(name)
        drawn = np.stack([theirs.reset(seed=seed)[0] for seed in range(2000)])
        ours = np.asarray(jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), 2000))[1])
        np.testing.assert_allclose(ours.mean(axis=0), drawn.mean(axis=0), atol=0.1 * drawn.std(axis=0).max())
        np.testing.assert_allclose(ours.std(axis=0), drawn.std(axis=0), rtol=0.05)
        np.testing.assert_allclose(np.abs(ours).max(axis=0), np.abs(drawn).max(axis=0), rtol=0.02)
