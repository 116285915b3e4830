"""Actor and critic: a policy and the value of what is observed. Konda and Tsitsiklis 1999, Actor-critic algorithms.

>>> import jax, jax.numpy as jnp
>>> model = ActorCritic(widths=(64, 64), num_actions=2)
>>> (policy, value), variables = model.init_with_output(jax.random.key(0), jnp.zeros((8, 4)), train=False)
>>> policy.logits.shape, value.shape, policy.sample(jax.random.split(jax.random.key(1), 8)).shape
((8, 2), (8,), (8,))
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.layers.activations import Activation
from jaxdl.layers.distributions import Categorical, DiagonalGaussian
from jaxdl.types import PositiveInt


class ActorCritic(nn.Module):
    """Two MLPs, or one with two outputs, with orthogonal kernels.

    The kernels' gains are sqrt(2) in hidden layers, 0.01 for the policy and 1 for the value, as in OpenAI's baselines
    (Engstrom et al. 2020, Implementation matters in deep policy gradients, arXiv 2005.12729, section 3, item 3). The
    deviations of a Gaussian policy are parameters of their own, whatever is observed.

    Attributes:
      num_actions: choices of a categorical policy, or numbers of a Gaussian one.
      policy: the distribution of actions.
      widths: units of each hidden layer.
      activation: activation by name: tanh, relu, ... (jaxdl.layers.activations).
      shared: one trunk serves policy and value.
      initial_log_std: log of the deviation that a Gaussian policy begins with.
    """

    num_actions: PositiveInt = 2
    policy: Literal["categorical", "gaussian"] = "categorical"
    widths: tuple[PositiveInt, ...] = (64, 64)
    activation: str = "tanh"
    shared: bool = False
    initial_log_std: float = 0.0

    @nn.compact
    def __call__(self, observations, *, train: bool) -> tuple[Categorical | DiagonalGaussian, jax.Array]:
        """Observations [B, ...], flattened, to the distribution of actions and the value, [B]."""
        x = observations.reshape(observations.shape[0], -1)
        features = self._trunk("trunk" if self.shared else "actor", x, train)
        outputs = _dense(self.num_actions, 0.01, "policy_output")(features)
        critic_features = features if self.shared else self._trunk("critic", x, train)
        value = _dense(1, 1.0, "value_output")(critic_features)[:, 0]
        if self.policy == "categorical":
            return Categorical(outputs), value
        log_std = self.param("log_std", nn.initializers.constant(self.initial_log_std), (self.num_actions,))
        log_std = jnp.broadcast_to(log_std.astype(outputs.dtype), outputs.shape)
        return DiagonalGaussian(outputs, log_std), value

    def _trunk(self, name: str, x, train: bool):
        for index, width in enumerate(self.widths):
            x = _dense(width, 2**0.5, f"{name}{index}")(x)
            x = Activation(self.activation, name=f"{name}_activation{index}")(x, train=train)
        return x


def _dense(width: int, gain: float, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.orthogonal(gain), name=name)
