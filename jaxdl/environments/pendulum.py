"""Pendulum: swing a pendulum up with a torque that is too weak to lift it, and keep it there.

The equations, bounds and rewards of Gymnasium's Pendulum-v1 (time limit 200). It never ends but by the time.

>>> import jax, jax.numpy as jnp
>>> state, observation = Pendulum().reset(jax.random.key(0))
>>> Pendulum().step(state, jnp.array([2.0]), jax.random.key(1)).observation.shape
(3,)
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxdl.environments.base import Box, Environment, Transition
from jaxdl.types import PositiveInt

GRAVITY = 10.0  # m/s^2
MASS, LENGTH = 1.0, 1.0  # kg, m
MAX_RATE, MAX_TORQUE = 8.0, 2.0  # rad/s, N m
SECONDS = 0.05  # a step


@dataclasses.dataclass(frozen=True)
class Pendulum(Environment):
    """A pendulum to be swung up by a torque: the state is angle (0 is up) and angular velocity.

    Observed are the angle's cosine and sine, and the angular velocity. The reward of a step is
    -(angle^2 + 0.1 rate^2 + 0.001 torque^2), the angle taken in -pi .. pi: at most 0.

    Attributes:
      time_limit: steps after which an episode is cut off.
    """

    time_limit: PositiveInt = 200

    actions: ClassVar[Box] = Box((-MAX_TORQUE,), (MAX_TORQUE,), ("torque (N m)",))
    observation_names: ClassVar[tuple[str, ...]] = ("cos angle", "sin angle", "rate (rad/s)")

    def reset(self, key):
        """Any angle, and a rate in -1 .. 1."""
        high = jnp.array([math.pi, 1.0])
        state = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        return state, self._observe(state)

    def step(self, state, action, key):
        """Euler's method, the angle by the rate after the step."""
        angle, rate = state
        torque = action[0]
        error = jnp.mod(angle + math.pi, 2 * math.pi) - math.pi
        cost = jnp.square(error) + 0.1 * jnp.square(rate) + 0.001 * jnp.square(torque)
        turning = 1.5 * GRAVITY / LENGTH * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
        rate = jnp.clip(rate + SECONDS * turning, -MAX_RATE, MAX_RATE)
        state = jnp.stack([angle + SECONDS * rate, rate])
        return Transition(state, self._observe(state), -cost, jnp.bool_(False))

    def _observe(self, state):
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def draw(self, axes, state):
        from jaxdl import plots

        angle = float(state[0])
        axes.plot([0, LENGTH * math.sin(angle)], [0, LENGTH * math.cos(angle)], color=plots.ORANGE, linewidth=4)
        axes.plot(0, 0, "o", color=plots.BLACK, markersize=4)
        axes.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
        axes.set_axis_off()
