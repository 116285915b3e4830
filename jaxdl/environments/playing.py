"""Whole episodes, played by a policy: many at once for their returns, or one to look at.

A policy is `forward(observations [B, ...]) -> (distribution of actions, values [B])`, as `jaxdl.models.actor_critic`
gives it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.environments.base import Discrete, Environment, advance, begin
from jaxdl.types import PositiveInt


def play(environment: Environment, forward, keys: jax.Array, *, greedy: bool) -> tuple[jax.Array, jax.Array]:
    """Plays one episode for each key, [B].

    Args:
      greedy: act by the most probable action, not by one drawn.

    Returns:
      The sum of rewards, float32 [B], and the steps, int32 [B], of each.
    """

    def going_on(carry):
        return ~carry[-1].all()

    def step(carry):
        time, episodes, returns, lengths, ended = carry
        episodes, outcome, _ = act(environment, forward, episodes, step_keys, time, greedy)
        last = outcome.over & ~ended
        returns, lengths = jnp.where(last, outcome.total, returns), jnp.where(last, outcome.length, lengths)
        return time + 1, episodes, returns, lengths, ended | outcome.over

    start_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    episodes = jax.vmap(functools.partial(begin, environment))(start_keys)
    start = jnp.int32(0), episodes, episodes.total, episodes.length, jnp.zeros(len(keys), bool)
    _, _, returns, lengths, _ = jax.lax.while_loop(going_on, step, start)
    return returns, lengths


def act(environment: Environment, forward, episodes, keys: jax.Array, time: jax.Array, greedy: bool):
    """One step of each of B episodes: they, their outcomes, and the actions. Chance is of keys [B] and time alone."""
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, time)), out_axes=1)(keys)
    policy, _ = forward(episodes.observation)
    action = policy.mode() if greedy else policy.sample(keys[0])
    episodes, outcome = jax.vmap(functools.partial(advance, environment))(episodes, action, keys[1])
    return episodes, outcome, action


class Recording(NamedTuple):
    """An episode of L steps on the host: what it was before each step, and what was done.

    Attributes:
      states: a tree of arrays [L, ...].
      observations: [L, ...].
      actions: [L] or [L, D].
      rewards: [L].
      terminated: whether it ended in the environment, not by the time.
    """

    states: Any
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool


def record(environment: Environment, forward, key: jax.Array, *, greedy: bool) -> Recording:
    """Plays one episode and keeps all of it: the one that `play` plays for this key."""

    def step(episodes, time):
        after, outcome, action = act(environment, forward, episodes, step_key[None], time, greedy)
        return after, (episodes.state, episodes.observation, action, outcome)

    start_key, step_key = jax.random.split(key)
    episodes = jax.tree.map(lambda x: x[None], begin(environment, start_key))
    _, taken = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(environment.time_limit)))(episodes)
    states, observations, actions, outcome = jax.tree.map(lambda x: np.asarray(x[:, 0]), jax.device_get(taken))
    last = int(np.argmax(outcome.over))
    kept = jax.tree.map(lambda x: x[: last + 1], (states, observations, actions, outcome.reward))
    return Recording(*kept, terminated=bool(outcome.terminated[last]))


@dataclasses.dataclass(frozen=True)
class EpisodeSampler:
    """Shows an episode: pictures of some of its states, and what was observed and done all along.

    Attributes:
      greedy: act by the most probable action, not by one drawn.
      pictures: how many states are drawn.
    """

    greedy: bool = True
    pictures: PositiveInt = 8

    def sample(self, model, variables, data, key) -> dict[str, Any]:
        """The figure `episode`, and its length and return in words."""
        forward = functools.partial(model.apply, variables, train=False)
        played = record(data.environment, forward, key, greedy=self.greedy)
        end = "it ended there" if played.terminated else "the time was up"
        told = f"return {played.rewards.sum():.6g} in {len(played.rewards)} steps; {end}"
        return {"episode": self._figure(data.environment, played, told), "episode_summary": told}

    def _figure(self, environment: Environment, played: Recording, title: str):
        from jaxdl import plots

        observed = played.observations.reshape(len(played.rewards), -1)
        done = played.actions.reshape(len(played.rewards), -1)
        names = environment.observation_names or tuple(f"observation {i}" for i in range(observed.shape[1]))
        discrete = isinstance(environment.actions, Discrete)
        of_actions = (
            ("action",) if discrete else environment.actions.names or tuple(f"action {i}" for i in range(done.shape[1]))
        )
        curves = [*zip(names, observed.T), *zip(of_actions, done.T)][: plots.MAX_TARGETS]
        shown = np.unique(np.linspace(0, len(played.rewards) - 1, self.pictures).round().astype(int))
        figure = plots.Figure(figsize=(9, 1.2 + 1.05 * len(curves)), layout="constrained")
        top, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.05 * len(curves)])
        for axes, index in zip(top.subplots(1, len(shown), squeeze=False)[0], shown):
            environment.draw(axes, jax.tree.map(lambda x: x[index], played.states))
            axes.set_title(f"step {index}", fontsize=8)
        panels = below.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, curves):
            plots.style(axes, "step" if axes is panels[-1] else "", name)
            if name not in of_actions or not discrete:
                axes.plot(values, color=plots.BLUE, linewidth=1)
                continue
            axes.plot(values, "|", color=plots.BLUE, markersize=9, markeredgewidth=0.6)
            axes.set_ylim(-0.6, environment.actions.n - 0.4)
            axes.set_yticks(range(environment.actions.n), environment.actions.names or None)
        figure.suptitle(title, fontsize=9)
        return figure
