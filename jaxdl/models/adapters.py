"""Models from elsewhere, given the two methods by which the trainer knows a model: `init` and `apply`.

A Flax Linen module has them already. An NNX module (`from_nnx`) and a bare pair of functions (`from_functions`)
get them here, and then train as any other: `jaxdl.experiment.run(settings, model=from_functions(init, apply))`.

>>> import jax, jax.numpy as jnp
>>> model = from_functions(lambda key, x: jnp.zeros(x.shape[1:]), lambda params, x: x @ params)
>>> model.apply(model.init({"params": jax.random.key(0)}, jnp.ones((2, 3)), train=False), jnp.ones((2, 3)), train=False)
Array([0., 0.], dtype=float32)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@dataclasses.dataclass(frozen=True)
class Functions:
    """A pair of pure functions in the shape of a Linen module."""

    init_function: Callable[..., Any]
    apply_function: Callable[..., Any]

    def init(self, rngs: Mapping[str, jax.Array], *inputs, train: bool) -> dict[str, Any]:
        return {"params": self.init_function(rngs["params"], *inputs)}

    def apply(self, variables, *inputs, train: bool, rngs=None, mutable=None):
        outputs = self.apply_function(variables["params"], *inputs)
        return outputs if mutable is None else (outputs, {})


def from_functions(init: Callable[..., Any], apply: Callable[..., Any]) -> Functions:
    """A model from `init(key, *inputs) -> params` and `apply(params, *inputs) -> outputs`."""
    return Functions(init, apply)


@dataclasses.dataclass(frozen=True)
class NNX:
    """An NNX module in the shape of a Linen one: `nnx.split` gives its arrays, `nnx.merge` takes them back.

    Its random state is no array of the model: each call seeds it anew, from the key of the training step.
    """

    make: Callable[[nnx.Rngs], nnx.Module]

    def init(self, rngs: Mapping[str, jax.Array], *inputs, train: bool) -> dict[str, Any]:
        _, params, _, state = _split(self.make(nnx.Rngs(rngs["params"])))
        return {"params": nnx.to_pure_dict(params), "state": nnx.to_pure_dict(state)}

    def apply(self, variables, *inputs, train: bool, rngs=None, mutable=None):
        graph, params, random, state = self._template
        nnx.replace_by_pure_dict(params := _copy(params), variables["params"])
        nnx.replace_by_pure_dict(state := _copy(state), variables["state"])
        key = jax.random.key(0) if rngs is None else rngs["dropout"]
        is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        random = jax.tree.map(lambda leaf: key if is_key(leaf) else jnp.zeros(leaf.shape, leaf.dtype), random)
        module = nnx.merge(graph, params, random, state)
        module.train() if train else module.eval()
        outputs = module(*inputs)
        return outputs if mutable is None else (outputs, {"state": nnx.to_pure_dict(_split(module)[3])})

    @functools.cached_property
    def _template(self):
        return _split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))))


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> NNX:
    """A model from a function that makes an NNX module, such as its class: `module(*inputs) -> outputs`."""
    return NNX(make)


def _split(module: nnx.Module):
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _copy(state):
    return jax.tree.map(lambda leaf: leaf, state)
