"""Distributions of actions, as trees of arrays that a model gives and jit, vmap and grad take.

Both have `sample(keys)`, `log_probability(actions)`, `entropy()` and `mode()`. Shapes: ... batch axes, A actions or
choices.

>>> import jax, jax.numpy as jnp
>>> policy = Categorical(jnp.array([[0.0, 9.0], [9.0, 0.0]]))
>>> policy.mode().tolist(), policy.sample(jax.random.split(jax.random.key(0), 2)).shape, policy.entropy().shape
([1, 0], (2,), (2,))
"""

import math

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Categorical:
    """One of A choices, int32 [...], by its logits, [..., A]."""

    logits: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """One choice a row, int32 [B], of logits [B, A] and keys [B]."""
        return jax.vmap(jax.random.categorical)(keys, self.logits)

    def mode(self) -> jax.Array:
        return self.logits.argmax(axis=-1)

    def log_probability(self, actions: jax.Array) -> jax.Array:
        """[...] of actions [...]."""
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), actions[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """[...], in nats."""
        log_probabilities = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=-1)


@flax.struct.dataclass
class DiagonalGaussian:
    """A real numbers, [..., A], independent normal ones: their means and the logs of their deviations, [..., A]."""

    mean: jax.Array
    log_std: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """One vector a row, [B, A], of means [B, A] and keys [B]."""
        noise = jax.vmap(lambda key, mean: jax.random.normal(key, mean.shape, mean.dtype))(keys, self.mean)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_probability(self, actions: jax.Array) -> jax.Array:
        """The log of the density, [...], at actions [..., A]."""
        standardised = (actions - self.mean) * jnp.exp(-self.log_std)
        return (-jnp.square(standardised) / 2 - self.log_std - math.log(2 * math.pi) / 2).sum(axis=-1)

    def entropy(self) -> jax.Array:
        """[...], in nats."""
        return (self.log_std + math.log(2 * math.pi * math.e) / 2).sum(axis=-1)
