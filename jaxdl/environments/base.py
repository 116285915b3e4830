"""What an environment is: two pure functions, `reset` and `step`, and what follows from them.

An environment is a frozen dataclass whose fields are flags, and a dataset: `load` gives what a run needs. Everything
here is about one environment; `jax.vmap` makes several of it.

>>> import jax
>>> from jaxdl.environments.cartpole import CartPole
>>> episode, outcome = advance(CartPole(), begin(CartPole(), jax.random.key(0)), 1, jax.random.key(1))
>>> int(episode.length), float(outcome.reward), bool(outcome.terminated)
(1, 1.0, False)
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions 0 .. n - 1, int32 []. `names` are for pictures."""

    n: int
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.n

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((), jnp.int32)


@dataclasses.dataclass(frozen=True)
class Box:
    """Actions float32 [D], each between its bounds; what is outside counts as the bound. `names` are for pictures."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.low)

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.size,), jnp.float32)


class Transition(NamedTuple):
    """What a step leads to.

    Attributes:
      state: as before the step in structure, shapes and types.
      observation: the same.
      reward: [].
      terminated: bool []: no step follows, and no reward. Running out of time is not this.
    """

    state: Any
    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array


class Episode(NamedTuple):
    """An episode that goes on: the environment's state, what is observed of it, and steps and rewards so far."""

    state: Any
    observation: jax.Array
    length: jax.Array
    total: jax.Array


class Outcome(NamedTuple):
    """What one step brought.

    Attributes:
      observation: after the step and before a new episode begins.
      reward: float32 [].
      terminated: bool []: the episode ended in the environment.
      truncated: bool []: the time was up; what would have come has a value all the same.
      length: int32 [], steps of the episode up to here.
      total: float32 [], the sum of its rewards up to here.
    """

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    length: jax.Array
    total: jax.Array

    @property
    def over(self) -> jax.Array:
        """Whether this was the episode's last step, bool []."""
        return self.terminated | self.truncated


@dataclasses.dataclass(frozen=True)
class Environment:
    """Base of all environments: `reset`, `step`, and the fields that all of them have.

    Attributes:
      num_environments: environments that run side by side; --batch_size of them act in a step of training.
      validation_episodes: episodes that choose the checkpoint.
      test_episodes: episodes of the last evaluation, which begin otherwise than those.
      time_limit: steps after which an episode is cut off.
    """

    num_environments: PositiveInt = 8
    validation_episodes: PositiveInt = 20
    test_episodes: PositiveInt = 100
    time_limit: PositiveInt = 1000

    actions: ClassVar[Discrete | Box]
    observation_names: ClassVar[tuple[str, ...]] = ()
    """Of the numbers of an observation, for pictures."""

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """The state that an episode begins in, a tree of arrays, and what is observed of it, an array."""
        raise NotImplementedError

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> Transition:
        """What an action leads to. The key is for what chance does."""
        raise NotImplementedError

    def draw(self, axes, state: Any) -> None:
        """Draws a state on Matplotlib axes. An environment that has no picture leaves them empty."""
        axes.set_axis_off()

    def load(self, data_dir: str = "") -> Data:
        """Training examples are numbers of environments, the others numbers of episodes: `inputs`, int32 [B].

        Raises:
          InputError: `step` and `reset` do not fit together.
        """
        check(self)
        numbers = np.arange(self.validation_episodes + self.test_episodes, dtype=np.int32)
        splits = {
            "train": np.arange(self.num_environments, dtype=np.int32),
            "validation": numbers[: self.validation_episodes],
            "test": numbers[self.validation_episodes :],
        }
        return Data({name: ArraySource({"inputs": inputs}) for name, inputs in splits.items()}, environment=self)


def begin(environment: Environment, key: jax.Array) -> Episode:
    """A new episode."""
    state, observation = jax.tree.map(_typed, environment.reset(key))
    return Episode(state, observation, jnp.int32(0), jnp.float32(0))


def advance(environment: Environment, episode: Episode, action: jax.Array, key: jax.Array) -> tuple[Episode, Outcome]:
    """One step. Where it was the last of its episode, a new one begins, and the outcome tells of the old."""
    step_key, reset_key = jax.random.split(key)
    actions = environment.actions
    if isinstance(actions, Box):
        action = jnp.clip(action, jnp.asarray(actions.low, jnp.float32), jnp.asarray(actions.high, jnp.float32))
    state, observation, reward, terminated = jax.tree.map(_typed, environment.step(episode.state, action, step_key))
    reward = jnp.float32(reward)
    going = Episode(state, observation, episode.length + 1, episode.total + reward)
    truncated = going.length >= environment.time_limit
    outcome = Outcome(observation, reward, terminated, truncated, going.length, going.total)
    new = begin(environment, reset_key)
    return jax.tree.map(lambda a, b: jnp.where(outcome.over, a, b), new, going), outcome


def _typed(x) -> jax.Array:
    """An array whose type is its own: one made of Python's numbers would change its type in the next sum."""
    return jax.lax.convert_element_type(x, jnp.result_type(x))


def check(environment: Environment) -> None:
    """Traces `reset` and `step`; nothing is computed.

    Raises:
      InputError: a step changes the structure, a shape or a type of the state or the observation, or it gives no single
        reward or no bool of the end.
    """
    name, key = type(environment).__name__, jax.random.key(0)
    actions = getattr(environment, "actions", None)
    if not isinstance(actions, Discrete | Box):
        raise InputError(f"environment {name} does not say what its actions are: give `actions`, a Discrete or a Box.")
    if actions.size < 1:
        raise InputError(f"environment {name} has no actions.")
    if isinstance(actions, Box) and not (
        len(actions.low) == len(actions.high) and all(low < high for low, high in zip(actions.low, actions.high))
    ):
        raise InputError(
            f"environment {name}: actions are from {actions.low} to {actions.high}; each low needs a high above it."
        )
    before = _traced(name, "reset", environment.reset, key)
    if not isinstance(before, tuple) or len(before) != 2:
        raise InputError(f"environment {name}: reset gives {_told(before)}; expected a state and an observation.")
    after = _traced(name, "step", environment.step, before[0], environment.actions.example, key)
    if not isinstance(after, tuple) or len(after) != 4:
        raise InputError(
            f"environment {name}: step gives {_told(after)}; "
            "expected a Transition: state, observation, reward, terminated."
        )
    if not hasattr(before[1], "shape"):
        raise InputError(f"environment {name}: the observation is {_told(before[1])}; expected one array.")
    for part, old, new in (("state", before[0], after[0]), ("observation", before[1], after[1])):
        if jax.tree.structure(old) != jax.tree.structure(new):
            raise InputError(f"environment {name}: step turns a {part} of {_told(old)} into one of {_told(new)}.")
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                raise InputError(
                    f"environment {name}: {part}{jax.tree_util.keystr(path)} is {_told(a)} before a step and "
                    f"{_told(b)} after it; a step must keep shapes and types."
                )
    for what, found, kind, expected in (
        ("the reward", after[2], jnp.number, "number"),
        ("`terminated`", after[3], jnp.bool_, "bool"),
    ):
        if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, kind):
            raise InputError(f"environment {name}: {what} of a step is {_told(found)}; expected one {expected}.")


def _traced(name: str, method: str, function, *arguments):
    try:
        return jax.eval_shape(function, *arguments)
    except NotImplementedError:
        raise InputError(f"environment {name} has no {method}.") from None
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
        raise InputError(f"environment {name}: {method} cannot be traced: {reason}") from error


def _told(tree) -> str:
    """Shapes and types in a few words."""
    leaves = [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)]
    return " and ".join(leaves[:6]) + (" ..." if len(leaves) > 6 else "") if leaves else "nothing"
