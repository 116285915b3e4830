"""CartPole: balance a pole on a cart that is pushed to the left or to the right.

Barto, Sutton and Anderson 1983, Neuronlike adaptive elements that can solve difficult learning control problems, with
the numbers, the bounds and the rewards of Gymnasium's CartPole-v1 (time limit 500).

>>> import jax
>>> state, observation = CartPole().reset(jax.random.key(0))
>>> CartPole().step(state, 1, jax.random.key(1)).observation.shape
(4,)
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxdl.environments.base import Discrete, Environment, Transition
from jaxdl.types import PositiveInt

GRAVITY = 9.8  # m/s^2
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, from the pivot to the pole's centre of mass
FORCE = 10.0  # N
SECONDS = 0.02  # a step
MAX_POSITION = 2.4  # m
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad


@dataclasses.dataclass(frozen=True)
class CartPole(Environment):
    """A pole on a cart, to be kept upright: state and observation are position, velocity, angle, angular velocity.

    The reward is 1 a step. An episode ends when the cart leaves 2.4 m or the pole 12 degrees on either side.

    Attributes:
      time_limit: steps after which an episode is cut off; 500 in Gymnasium's CartPole-v1, 200 in v0.
    """

    time_limit: PositiveInt = 500

    actions: ClassVar[Discrete] = Discrete(2, ("left", "right"))
    observation_names: ClassVar[tuple[str, ...]] = ("position (m)", "velocity (m/s)", "angle (rad)", "rate (rad/s)")

    def reset(self, key):
        """All four uniform in -0.05 .. 0.05."""
        state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return state, state

    def step(self, state, action, key):
        """Barto et al. 1983, appendix, without friction; positions change by the velocities before the step."""
        position, velocity, angle, rate = state
        force = jnp.where(action == 1, FORCE, -FORCE)
        mass = CART_MASS + POLE_MASS
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        push = (force + POLE_MASS * HALF_LENGTH * jnp.square(rate) * sin) / mass
        turning = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE_MASS * jnp.square(cos) / mass))
        acceleration = push - POLE_MASS * HALF_LENGTH * turning * cos / mass
        state = state + SECONDS * jnp.stack([velocity, acceleration, rate, turning])
        terminated = (jnp.abs(state[0]) > MAX_POSITION) | (jnp.abs(state[2]) > MAX_ANGLE)
        return Transition(state, state, jnp.float32(1), terminated)

    def draw(self, axes, state):
        from jaxdl import plots

        position, _, angle, _ = (float(x) for x in state)
        axes.plot([-MAX_POSITION, MAX_POSITION], [0, 0], color=plots.GRAY, linewidth=0.8)
        axes.add_patch(plots.patches.Rectangle((position - 0.25, -0.12), 0.5, 0.24, color=plots.BLACK))
        tip = position + 2 * HALF_LENGTH * math.sin(angle), 2 * HALF_LENGTH * math.cos(angle)
        axes.plot([position, tip[0]], [0, tip[1]], color=plots.ORANGE, linewidth=3, solid_capstyle="round")
        axes.set(xlim=(-MAX_POSITION - 0.3, MAX_POSITION + 0.3), ylim=(-0.4, 1.3), aspect="equal")
        axes.set_axis_off()
