"""Proximal policy optimization: on-policy reinforcement learning with a clipped objective.

Schulman et al. 2017, Proximal policy optimization algorithms (arXiv 1707.06347), with generalised advantages (Schulman
et al. 2015, arXiv 1506.02438). One step of training is one iteration: T steps of acting in each of B environments, then
K passes over what came of it, each in M minibatches. A minibatch has T / M steps of every environment, drawn anew in
each pass, so that it is the same however the environments are spread over devices.

Shapes: N environments, of which B act in a step; T steps of acting; S = B T / M examples of a minibatch.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl import losses, metrics
from jaxdl.environments.base import Box, Environment, Episode, advance, begin
from jaxdl.environments.playing import EpisodeSampler, play
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_gather, batch_mean, batch_sum, evaluation_keys, example_keys
from jaxdl.tasks.base import Task
from jaxdl.types import NonNegativeFloat, PositiveFloat, PositiveInt, Probability


def generalized_advantages(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Advantages [B, T], arXiv 1506.02438, equation 16, of steps one after the other.

        d_t = r_t + discount [not terminated_t] V'_t - V_t
        A_t = d_t + discount lambda [not terminated_t or truncated_t] A_(t+1)

    Where the time is up what would have come is still worth V'_t; where the episode terminated it is worth nothing.

    Args:
      rewards: [B, T].
      values: V_t, of what was observed before step t, [B, T].
      next_values: V'_t, of what was observed after it and before a new episode began, [B, T].
      terminated, truncated: bool [B, T].
      discount, gae_lambda: in 0 .. 1; may be traced.
    """
    errors = rewards + discount * jnp.where(terminated, 0.0, next_values) - values
    carried = discount * gae_lambda * jnp.where(terminated | truncated, 0.0, 1.0)

    def step(following, item):
        error, factor = item
        advantage = error + factor * following
        return advantage, advantage

    start = jnp.zeros(rewards.shape[0], errors.dtype)
    _, advantages = jax.lax.scan(step, start, (errors.T, carried.T), reverse=True)
    return advantages.T


def clipped_objective(log_ratio: jax.Array, advantages: jax.Array, clip_ratio: float | jax.Array) -> jax.Array:
    """min(r A, clip(r, 1 - clip_ratio, 1 + clip_ratio) A), to be maximised: arXiv 1707.06347, equation 7.

    Args:
      log_ratio: log r, of the action's probability now to that when it was taken, [...].
      advantages: A, [...].
      clip_ratio: may be traced.
    """
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * advantages)


@dataclasses.dataclass(frozen=True)
class PPO(Task):
    """An agent that learns from what it does: the data is an environment, such as cartpole.

    Attributes:
      rollout_steps: steps of acting in each environment before each learning.
      update_epochs: passes over what came of them.
      minibatches: updates in a pass; must divide rollout_steps.
      discount: worth of a reward a step later.
      gae_lambda: of the advantages: 0 trusts the critic after one step, 1 not at all.
      clip_ratio: how far the probability of an action may move, as a fraction, before its gradient is cut off.
      value_clip: how far a value may move from what it was, before its gradient is cut off; none for no bound.
      value_coefficient: weight of the critic's loss, half the squared error of its returns.
      entropy_coefficient: weight of the policy's entropy, which is a gain.
      normalize_advantages: give the advantages of each minibatch the mean 0 and the deviation 1.
      greedy_evaluation: evaluate with the most probable actions, not with drawn ones.
      environment: the data's, which `for_data` fills in.
    """

    rollout_steps: PositiveInt = 128
    update_epochs: PositiveInt = 4
    minibatches: PositiveInt = 4
    discount: Probability = 0.99
    gae_lambda: Probability = 0.95
    clip_ratio: PositiveFloat = 0.2
    value_clip: PositiveFloat | None = None
    value_coefficient: NonNegativeFloat = 0.5
    entropy_coefficient: NonNegativeFloat = 0.0
    normalize_advantages: bool = True
    greedy_evaluation: bool = True
    environment: Environment | None = None

    selection: ClassVar[tuple[str, str]] = ("return", "max")
    fills: ClassVar[tuple[str, ...]] = ("num_actions", "policy")
    sampler: ClassVar[type] = EpisodeSampler

    def for_data(self, data) -> "PPO":
        return dataclasses.replace(self, environment=data.environment)

    def model_fields(self, data) -> dict[str, Any]:
        if data.environment is None:
            raise InputError("ppo needs an environment, and the dataset is none; try --dataset=cartpole.")
        actions = data.environment.actions
        return {"num_actions": actions.size, "policy": "gaussian" if isinstance(actions, Box) else "categorical"}

    def check(self, data) -> None:
        if self.rollout_steps % self.minibatches:
            raise InputError(
                f"--task.minibatches={self.minibatches} does not divide --task.rollout_steps={self.rollout_steps}."
            )

    def init(self, model, key, batch):
        observation = jax.eval_shape(self.environment.reset, key)[1]
        return model.init({"params": key}, jnp.zeros((1, *observation.shape), observation.dtype), train=False)

    def initial_carry(self, key) -> Episode:
        """The episodes that go on, [N]."""
        keys = jax.random.split(key, self.environment.num_environments)
        return jax.vmap(functools.partial(begin, self.environment))(keys)

    def step(self, program, state, batch, key):
        """One iteration: acting, and K M updates."""
        acting_key, learning_key = jax.random.split(key)
        who = batch["inputs"]
        num_acting = batch_sum(jnp.float32(len(who)))
        if self.environment.num_environments % len(who):
            raise InputError(
                f"--batch_size={len(who)} environments act in a step, which does not divide "
                f"--dataset.num_environments={self.environment.num_environments}."
            )
        episodes = jax.tree.map(lambda x: x[who], state.carry)
        forward = program.bind(state.replace(ema=None))  # who acts is who learns, not the average
        episodes, experience, told = self.act(forward, episodes, acting_key)
        everyone, episodes = batch_gather((who, episodes))
        carry = jax.tree.map(lambda x, new: x.at[everyone].set(new), state.carry, episodes)
        told = {name: metric.summed() for name, metric in told.items()}
        told["environment_steps"] = metrics.Last.of((state.step + 1) * num_acting * self.rollout_steps)
        state, learned, finite = self._learn(program, state, experience, learning_key)
        return state.replace(carry=carry), told | learned, finite

    def act(self, forward, episodes: Episode, key: jax.Array):
        """T steps in each of B environments.

        Args:
          forward: the model in evaluation mode.
          episodes: those that go on, [B].

        Returns:
          The episodes afterwards; examples to learn from, arrays [B, T, ...]; metrics.
        """
        num_acting = len(episodes.length)

        def step(episodes, time):
            keys = example_keys(jax.random.fold_in(key, time), num_acting)
            action_keys, environment_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            policy, value = forward(episodes.observation)
            action = policy.sample(action_keys)
            after, outcome = jax.vmap(functools.partial(advance, self.environment))(episodes, action, environment_keys)
            return after, (episodes.observation, action, policy.log_probability(action), value, outcome)

        episodes, taken = jax.lax.scan(step, episodes, jnp.arange(self.rollout_steps))
        observations, actions, log_probabilities, values, outcome = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), taken)
        _, next_values = forward(_joined(outcome.observation))
        advantages = generalized_advantages(
            outcome.reward,
            values,
            next_values.reshape(values.shape),
            outcome.terminated,
            outcome.truncated,
            self.discount,
            self.gae_lambda,
        )
        experience = {
            "inputs": observations,
            "actions": actions,
            "log_probabilities": log_probabilities,
            "values": values,
            "advantages": advantages,
            "returns": advantages + values,
        }
        told = {
            "return": metrics.Mean.of(outcome.total, outcome.over),
            "length": metrics.Mean.of(outcome.length, outcome.over),
            "explained_variance": metrics.ExplainedVariance.of(values.ravel(), experience["returns"].ravel()),
        }
        return episodes, experience, told

    def _learn(self, program, state, experience, key: jax.Array):
        """K passes of M updates: the state, merged metrics, and whether all was finite."""
        num_acting = len(experience["actions"])
        shape = (self.update_epochs, num_acting, self.minibatches, self.rollout_steps // self.minibatches)

        def order(key):
            keys = example_keys(key, num_acting)
            return jax.vmap(lambda key: jax.random.permutation(key, self.rollout_steps))(keys)

        order_key, update_key = jax.random.split(key)
        order = jax.lax.map(order, jax.random.split(order_key, self.update_epochs)).reshape(shape)
        minibatches = jnp.moveaxis(order, 2, 1).reshape(-1, num_acting, shape[-1])  # [K M, B, T / M]

        def update(state, item):
            times, number = item
            examples = jax.tree.map(lambda x: _joined(jax.vmap(lambda row, at: row[at])(x, times)), experience)
            if self.normalize_advantages:
                examples["advantages"] = _normalized(examples["advantages"])
            return program.update_player("model", state, examples, jax.random.fold_in(update_key, number))

        items = minibatches, jnp.arange(len(minibatches))
        shapes = jax.eval_shape(update, state, jax.tree.map(lambda x: x[0], items))[1]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def body(carry, item):
            state, merged, finite = carry
            state, told, is_finite = update(state, item)
            return (state, program.merge(merged, told), finite & is_finite), None

        return jax.lax.scan(body, (state, zeros, jnp.bool_(True)), items)[0]

    def loss(self, forward, batch, key, player="model"):
        """Of a minibatch of S examples: the negative clipped objective, the critic's loss and the entropy, weighed."""
        policy, values = forward(*self.inputs(batch))
        log_ratio = policy.log_probability(batch["actions"]) - batch["log_probabilities"]
        objective = clipped_objective(log_ratio, batch["advantages"], self.clip_ratio)
        value_losses = jnp.square(values - batch["returns"]) / 2
        if self.value_clip is not None:
            near = batch["values"] + jnp.clip(values - batch["values"], -self.value_clip, self.value_clip)
            value_losses = jnp.maximum(value_losses, jnp.square(near - batch["returns"]) / 2)
        entropy = policy.entropy()
        values = -objective + self.value_coefficient * value_losses - self.entropy_coefficient * entropy
        ratio = jnp.exp(log_ratio)
        return losses.share_of_mean(values), {
            "loss": metrics.Mean.of(values),
            "policy_loss": metrics.Mean.of(-objective),
            "value_loss": metrics.Mean.of(value_losses),
            "entropy": metrics.Mean.of(entropy),
            # An estimate of KL(before, now) without bias and never negative: http://joschu.net/blog/kl-approx.html, k3.
            "kl": metrics.Mean.of(ratio - 1 - log_ratio),
            "clip_fraction": metrics.Mean.of(jnp.float32(jnp.abs(ratio - 1) > self.clip_ratio)),
        }

    def evaluate(self, forward, batch):
        """One episode for each example, whose number, `batch["inputs"]`, is all that its chance depends on."""
        returns, lengths = play(
            self.environment, forward, evaluation_keys(batch["inputs"]), greedy=self.greedy_evaluation
        )
        weight = batch.get("weight")
        return {"return": metrics.Mean.of(returns, weight), "length": metrics.Mean.of(lengths, weight)}


def _joined(x: jax.Array) -> jax.Array:
    """[B, T, ...] -> [B T, ...]."""
    return x.reshape(-1, *x.shape[2:])


def _normalized(x: jax.Array) -> jax.Array:
    """Mean 0 and deviation 1 over the global batch, [S]."""
    centred = x - batch_mean(x.mean())
    return centred / (jnp.sqrt(batch_mean(jnp.square(centred).mean())) + 1e-8)
